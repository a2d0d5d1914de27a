package cli

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"strings"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// newRequest makes a P-256 key, writes it to a new file as PKCS #8 without a passphrase, mode 0600, and returns a request for names. A key
// without its certificate is harmless, so it is there before the request is made.
func newRequest(keyFile string, names []string) (string, error) {
	tmpl := &x509.CertificateRequest{}
	for _, n := range names {
		if n = strings.TrimSpace(n); n == "" {
			continue
		}
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
		if tmpl.Subject.CommonName == "" && len(n) <= 64 {
			tmpl.Subject = pkix.Name{CommonName: n}
		}
	}
	if len(tmpl.DNSNames)+len(tmpl.IPAddresses) == 0 {
		return "", fmt.Errorf("%w: --name: %w", errUsage, errNoNames)
	}
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		return "", fmt.Errorf("--name: %w", err)
	}
	if err := keyfile.WriteNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return "", fmt.Errorf("--key-out: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), nil
}
