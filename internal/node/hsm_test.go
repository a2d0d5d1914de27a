package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// hsmService is `certanchor serve` with the keys of the CA, the responder and the CT log in one token.
type hsmService struct {
	t      *testing.T
	dir    string
	caURL  string
	bridge string
	caID   string
	api    *caapi.Client
	stop   func()
	caCert string
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newHSMService(t *testing.T, token *hsmtest.Token) *hsmService {
	t.Helper()
	s := &hsmService{t: t, dir: t.TempDir()}
	s.caCert = filepath.Join(s.dir, "ca", "ca.pem")
	made, err := ca.Init(ca.InitOptions{Dir: filepath.Join(s.dir, "ca"), Subject: pkix.Name{CommonName: "CA in a token"}, KeyURI: token.URI("ca")})
	if err != nil {
		t.Fatal(err)
	}
	if !made.KeyMade {
		t.Fatal("the key was there already")
	}
	for _, object := range []string{"responder", "log"} {
		if _, _, err := hsm.OpenOrCreate("key", token.URI(object), keyfile.P256); err != nil {
			t.Fatal(err)
		}
	}
	caListen, bridgeListen := free(t), free(t)
	s.caURL, s.bridge = "http://"+caListen, "http://"+bridgeListen
	text := fmt.Sprintf(`ledger:
  engine: embedded
  embedded: {dir: ledger, tick_interval: 1s}
ca:
  dir: ca
  listen: %s
  responders: []
  ct: {key_file: %q, sct_file: "bridge/ct/CAID.scts"}
ocsp_bridge:
  dir: bridge
  listen: %s
  public_url: %s
  responder_key: %q
  log_keys:
    - {issuer: ca/ca.pem, key: %q}
`, caListen, token.URI("log"), bridgeListen, s.bridge, token.URI("responder"), token.URI("log"))
	cert, _, err := ca.LoadCertificate(filepath.Join(s.dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	s.caID = wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String()
	text = strings.ReplaceAll(text, "CAID", s.caID)
	if err := os.WriteFile(filepath.Join(s.dir, "certanchor.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.api, err = caapi.New(caapi.Config{URL: s.caURL, TokenFile: made.OperatorToken}); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *hsmService) start() {
	s.t.Helper()
	conf, err := config.Load(filepath.Join(s.dir, "certanchor.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ServeAll(ctx, conf) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
		ended <- nil // for a second call
	}
	for _, url := range []string{s.caURL, s.bridge} {
		s.await(url+"/readyz", func() error { _, err := s.get(url + "/readyz"); return err })
	}
}

func (s *hsmService) await(what string, try func() error) {
	s.t.Helper()
	deadline, tick := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for err := try(); err != nil; err = try() {
		select {
		case <-deadline:
			s.t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func (s *hsmService) get(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

func (s *hsmService) csr(name string) string {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func (s *hsmService) issue(name string) (cert *caapi.Certificate, file string) {
	s.t.Helper()
	cert, err := s.api.Issue(s.t.Context(), caapi.IssueRequest{CSR: s.csr(name), Profile: "server"}, "")
	if err != nil {
		s.t.Fatal(err)
	}
	file = filepath.Join(s.t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, []byte(cert.Certificate), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return cert, file
}

// ocsp is what openssl says about a certificate, after it has verified the answer.
func (s *hsmService) ocsp(file string) (string, error) {
	out, err := exec.CommandContext(s.t.Context(), "openssl", "ocsp", "-issuer", s.caCert, "-CAfile", s.caCert, "-cert", file, "-url", s.bridge+"/ocsp").CombinedOutput()
	if text := string(out); err == nil && !strings.Contains(text, "Response verify OK") {
		err = fmt.Errorf("openssl ocsp: %s", text)
	}
	return string(out), err
}

func (s *hsmService) awaitOCSP(file, want string) {
	s.t.Helper()
	s.await("OCSP "+want, func() error {
		out, err := s.ocsp(file)
		if err == nil && !strings.Contains(out, ": "+want) {
			err = fmt.Errorf("says %s", out)
		}
		return err
	})
}

// submit submits a certificate to the log at base, /ct/v1/ below it, and returns the SCT.
func (s *hsmService) submit(base, file string) string {
	s.t.Helper()
	var chain [][]byte
	for _, f := range []string{file, s.caCert} {
		text, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		chain = append(chain, block.Bytes)
	}
	body, err := json.Marshal(map[string][][]byte{"chain": chain})
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(base+"/ct/v1/add-chain", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	sct, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %s %v", base, resp.Status, sct, err)
	}
	return string(sct)
}

// checkCRL has openssl verify the CRL that is served, and waits until it has serial.
func (s *hsmService) checkCRL(serial string) {
	s.t.Helper()
	s.await("CRL", func() error {
		der, err := s.get(s.bridge + "/crl/" + s.caID + "/full.crl")
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(s.t.Context(), "openssl", "crl", "-inform", "DER", "-CAfile", s.caCert, "-noout", "-text")
		cmd.Stdin = bytes.NewReader(der)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "verify OK") {
			s.t.Fatalf("openssl crl: %v\n%s", err, out)
		}
		if !strings.Contains(strings.ToLower(string(out)), "serial number: "+serial) {
			return fmt.Errorf("%s is not in it", serial)
		}
		return nil
	})
}

// traces are the size of the CA's journal and that of its log.
func (s *hsmService) traces() string {
	s.t.Helper()
	st, err := os.Stat(filepath.Join(s.dir, "ca", "journal"))
	if err != nil {
		s.t.Fatal(err)
	}
	head, err := s.get(s.bridge + "/logs/" + s.caID + "/checkpoint")
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.SplitN(string(head), "\n", 3)
	return fmt.Sprintf("journal %d, log %s", st.Size(), lines[1])
}

// mustRetry asks for a certificate, and must be told to come back.
func (s *hsmService) mustRetry(csr string) {
	s.t.Helper()
	token, err := os.ReadFile(filepath.Join(s.dir, "ca", "operator.token"))
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := json.Marshal(caapi.IssueRequest{CSR: csr, Profile: "server"})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.caURL+caapi.PathCertificates, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(text), "ca.key") {
		s.t.Errorf("%s, Retry-After %q: %s, %v", resp.Status, resp.Header.Get("Retry-After"), text, err)
	}
}

func TestEverythingIsSignedInATokenAndSurvivesItsLoss(t *testing.T) {
	token := hsmtest.New(t)
	s := newHSMService(t, token)
	cert, file := s.issue("www.example.org")
	s.awaitOCSP(file, "good")

	// The same SCT byte for byte: at the OCSP bridge, again, and at the CA bridge with the same key.
	log := s.bridge + "/logs/" + s.caID
	first := s.submit(log, file)
	for _, base := range []string{log, s.caURL} {
		if again := s.submit(base, file); again != first {
			t.Errorf("%s: another SCT\n%s\n%s", base, first, again)
		}
	}

	if _, _, err := s.api.Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	s.awaitOCSP(file, "revoked")
	s.checkCRL(cert.Serial)

	// Without the token nothing is signed, journalled or anchored; who asks is told to come back, and both bridges say that they are not ready.
	before := s.traces()
	token.Unplug()
	_, err := s.api.Issue(t.Context(), caapi.IssueRequest{CSR: s.csr("x.example.org"), Profile: "server"}, "")
	if err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("issued without the token: %v", err)
	}
	s.mustRetry(s.csr("x.example.org"))
	if now := s.traces(); now != before {
		t.Errorf("traces of what was not signed: %s, before %s", now, before)
	}
	for _, url := range []string{s.caURL, s.bridge} {
		s.await(url+"/readyz tells of the token", func() error {
			if _, err := s.get(url + "/readyz"); err == nil || !strings.HasPrefix(err.Error(), "503") || !strings.Contains(err.Error(), "token") {
				return fmt.Errorf("it says %w", err)
			}
			return nil
		})
	}
	if out, _ := s.ocsp(file); !strings.Contains(out, "trylater") { // openssl asks with a nonce: no kept answer will do
		t.Errorf("OCSP without the token: %s", out)
	}
	token.Plug()
	var second string
	s.await("issuing after the token is back", func() error {
		c, err := s.api.Issue(t.Context(), caapi.IssueRequest{CSR: s.csr("y.example.org"), Profile: "server"}, "")
		if err == nil {
			second = filepath.Join(t.TempDir(), "second.pem")
			err = os.WriteFile(second, []byte(c.Certificate), 0o600)
		}
		return err
	})
	s.awaitOCSP(second, "good")
	for _, url := range []string{s.caURL, s.bridge} {
		s.await(url+"/readyz", func() error { _, err := s.get(url + "/readyz"); return err })
	}

	// After a restart the certificate of the responder and the SCT are what they were.
	s.stop()
	hsm.CloseAll()
	s.start()
	s.awaitOCSP(second, "good")
	for _, base := range []string{s.bridge + "/logs/" + s.caID, s.caURL} {
		if again := s.submit(base, file); again != first {
			t.Errorf("%s: another SCT after the restart\n%s\n%s", base, first, again)
		}
	}
	// No key is in a file.
	err = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte("PRIVATE KEY-----")) {
			t.Errorf("%s has a private key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
