package httpserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
)

// leaf is a certificate of ca with its key, for both sides of a connection.
func leaf(t *testing.T, ca *cctest.CA, serial int64) (tls.Certificate, []byte) {
	t.Helper()
	key := cctest.NewKey(t)
	der, err := x509.CreateCertificate(nil, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, secret
}

func writePEM(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClientCertificateIsAskedForAndVerified(t *testing.T) {
	members, strangers := cctest.NewCA(t), cctest.NewCA(t)
	server, key := leaf(t, members, 1)
	files := &TLS{
		Cert: writePEM(t, "server.pem", "CERTIFICATE", server.Certificate[0]), Key: writePEM(t, "server-key.pem", "PRIVATE KEY", key),
		ClientCA: writePEM(t, "members.pem", "CERTIFICATE", members.Cert.Raw),
	}
	s, err := Listen("tls", "127.0.0.1:0", Options{TLS: files}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.VerifiedChains))
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(members.Cert)
	member, _ := leaf(t, members, 2)
	stranger, _ := leaf(t, strangers, 3)
	for name, c := range map[string]struct {
		certs []tls.Certificate
		want  string // empty: no connection
	}{
		"none": {nil, "0"}, "a member's": {[]tls.Certificate{member}, "1"}, "a stranger's": {[]tls.Certificate{stranger}, ""},
	} {
		conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		if c.certs != nil { // shown whatever the server says it wants
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.certs[0], nil }
		}
		transport := &http.Transport{TLSClientConfig: conf}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + s.Addr())
		if (err != nil) != (c.want == "") {
			t.Fatalf("%s: %v", name, err)
		}
		if err == nil {
			buf := make([]byte, 1)
			if n, _ := resp.Body.Read(buf); string(buf[:n]) != c.want {
				t.Errorf("%s: %q verified chains, want %s", name, buf[:n], c.want)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		transport.CloseIdleConnections()
	}
	files.ClientCA = "/absent.pem"
	if _, err := Listen("tls", "127.0.0.1:0", Options{TLS: files}, nothing); err == nil || !strings.Contains(err.Error(), `tls.client_ca "/absent.pem"`) {
		t.Errorf("absent client CA: %v", err)
	}
}
