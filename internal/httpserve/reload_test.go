package httpserve

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
)

// A renewed certificate is shown to the connections that come after SIGHUP; one that cannot be read changes nothing.
func TestHangupReloadsTheTLSCertificate(t *testing.T) {
	ca := cctest.NewCA(t)
	first, key := leaf(t, ca, 1)
	second, nextKey := leaf(t, ca, 2)
	files := &TLS{Cert: writePEM(t, "server.pem", "CERTIFICATE", first.Certificate[0]), Key: writePEM(t, "server-key.pem", "PRIVATE KEY", key)}
	s, err := Listen("tls", "127.0.0.1:0", Options{TLS: files}, http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	shown := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := shown(); n != 1 {
		t.Fatalf("certificate %d is shown, want 1", n)
	}
	write := func(path, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(files.Cert, "CERTIFICATE", second.Certificate[0]) // and the key of the first
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), files.Cert) {
		t.Errorf("reload of a certificate with another key: %v", err)
	}
	if n := shown(); n != 1 {
		t.Errorf("after a reload that failed: certificate %d, want 1", n)
	}
	write(files.Key, "PRIVATE KEY", nextKey)
	// Connections were answered, so Run has asked for the signal, which would end the process otherwise.
	for limit := time.Now().Add(30 * time.Second); shown() != 2; {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(limit) {
			t.Fatal("the renewed certificate is not shown")
		}
	}
}
