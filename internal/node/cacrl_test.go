package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/httpserve"
)

// Where a bridge gives contents of CRLs to members alone, the CA shows that it is one.
func TestCAShowsItsCertificateToTheBridge(t *testing.T) {
	shown := make(chan int, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- len(r.TLS.PeerCertificates) }))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := write("cert.pem", "CERTIFICATE", server.Certificate().Raw), write("key.pem", "PRIVATE KEY", der)
	for name, tc := range map[string]struct {
		section config.CA
		want    int
	}{
		"its server's":   {config.CA{TLS: &httpserve.TLS{Cert: cert, Key: key}, Settings: ca.Settings{CRL: &ca.CRLSettings{TLSCA: cert}}}, 1},
		"one of its own": {config.CA{Settings: ca.Settings{CRL: &ca.CRLSettings{TLSCA: cert, TLSCert: cert, TLSKey: key}}}, 1},
		"none":           {config.CA{Settings: ca.Settings{CRL: &ca.CRLSettings{TLSCA: cert}}}, 0},
	} {
		client, err := crlHTTP("conf.yaml", &tc.section)
		if err != nil {
			t.Fatal(name, err)
		}
		resp, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if got := <-shown; got != tc.want {
			t.Errorf("%s: %d certificates are shown, want %d", name, got, tc.want)
		}
	}
	for name, set := range map[string]ca.CRLSettings{"no key": {TLSCert: cert}, "no such file": {TLSCert: "absent", TLSKey: key}} {
		var wrong *config.Error
		if _, err := crlHTTP("conf.yaml", &config.CA{Settings: ca.Settings{CRL: &set}}); !errors.As(err, &wrong) || wrong.Key != "ca.crl.tls_cert" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
