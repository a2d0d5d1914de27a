package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/config"
)

// shared is a log that several goroutines write.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// clientAddress is nobody else's.
const clientAddress = "127.0.13.37"

// Who asks about which certificate is nobody's business, the operator's neither (ISO/TR 24374): at the default level no log has a client's
// address, whatever clients do.
func TestNoClientAddressIsLogged(t *testing.T) {
	text := &shared{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelInfo})))
	t.Cleanup(func() { slog.SetDefault(before) })

	c := stranger{t, x509.NewCertPool()}
	caURL, bridge, plain := c.serve()
	for _, q := range []struct{ method, url, body, header string }{
		{"POST", plain + "/ocsp", "garbage", "application/ocsp-request"},
		{"POST", bridge + "/ocsp", "garbage", "application/ocsp-request"},
		{"GET", plain + "/ocsp/MEYwRDBCMEAwPjAJBgUrDgMCGgUABBQ", "", ""},
		{"GET", plain + "/nothing", "", ""},
		{"DELETE", bridge + "/ocsp", "", ""},
		{"POST", bridge + "/v1/revocations", "-----BEGIN", "application/x-pem-file"},
		{"POST", bridge + "/witness/add-checkpoint", "old 1\n\nforged\n", ""},
		{"POST", bridge + "/crl/" + strings.Repeat("0", 64), "garbage", ""},
		{"GET", bridge + "/v1/bundle/zz/zz", "", ""},
		{"POST", bridge + "/logs/" + strings.Repeat("0", 64) + "/ct/v1/add-chain", "{", "application/json"},
		{"POST", caURL + "/v1/certificates", "{}", "application/json"},
		{"POST", caURL + "/v1/revocations", `{"serial":"zz"}`, "application/json"},
		{"POST", caURL + "/ct/v1/add-chain", "{", "application/json"},
	} {
		if _, err := c.ask(q.method, q.url, q.body, q.header); err != nil {
			t.Fatalf("%s %s: %v", q.method, q.url, err)
		}
	}
	// What is no HTTP at all, and no TLS.
	for _, url := range []string{caURL, bridge, plain} {
		c.raw(strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://"))
	}
	if got := text.String(); strings.Contains(got, clientAddress) {
		for line := range strings.Lines(got) {
			if strings.Contains(line, clientAddress) {
				t.Error(line)
			}
		}
	} else if !strings.Contains(got, "listening") {
		t.Fatalf("this is not the log: %q", got)
	}
}

// stranger is a client at clientAddress.
type stranger struct {
	*testing.T
	roots *x509.CertPool // of the bridge's TLS certificate
}

// serve serves a CA and an OCSP bridge, with TLS and on an address for plain HTTP.
func (t stranger) serve() (caURL, bridge, plain string) {
	t.Helper()
	dir := t.TempDir()
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Init(ca.InitOptions{Dir: filepath.Join(dir, "ca"), Subject: pkix.Name{CommonName: "Example CA"}, Passphrase: []byte("correct horse")}); err != nil {
		t.Fatal(err)
	}
	web := cctest.NewCA(t.T)
	t.roots.AddCert(web.Cert)
	key := cctest.NewKey(t.T)
	der, err := x509.CreateCertificate(nil, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, web.Cert, key.Public(), web.Key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.pem": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	caListen, tlsListen, plainListen := free(t.T), free(t.T), free(t.T)
	file := filepath.Join(dir, "certanchor.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `ledger:
  engine: embedded
  embedded: {dir: ledger, tick_interval: 1s}
ca: {dir: ca, listen: %s, passphrase: {file: pass}, responders: [], ct: {key_file: ct.pem}}
ocsp_bridge: {dir: bridge, listen: %s, http_address: %s, tls: {cert: server.pem, key: server.key}}
`, caListen, tlsListen, plainListen), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ServeAll(ctx, conf) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	caURL, bridge, plain = "http://"+caListen, "https://"+tlsListen, "http://"+plainListen
	for _, url := range []string{caURL + "/readyz", bridge + "/readyz", plain + "/nothing"} {
		deadline, tick := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
		for code, err := t.ask("GET", url, "", ""); err != nil || code == http.StatusServiceUnavailable; code, err = t.ask("GET", url, "", "") {
			select {
			case <-deadline:
				t.Fatalf("%s: %d %v", url, code, err)
			case <-tick.C:
			}
		}
		tick.Stop()
	}
	return caURL, bridge, plain
}

var privateDialer = &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress)}, Timeout: 10 * time.Second}

func (t stranger) ask(method, url, body, contentType string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer wrong")
	tr := &http.Transport{DialContext: privateDialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// raw sends what no server here understands, and waits until the server has closed the connection.
func (t stranger) raw(address string) {
	t.Helper()
	conn, err := privateDialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("neither HTTP nor TLS\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}
