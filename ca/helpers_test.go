package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

const (
	testPassphrase = "correct horse battery"
	testIterations = 1000 // of PBKDF2: the key protects nothing
	testMSP        = "Org1MSP"
	testOCSP       = "http://ocsp.example.org/ocsp"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(crashEnv); step != "" {
		crashChild(step) // does not return
	}
	code := m.Run()
	if prepared.dir != "" {
		if err := os.RemoveAll(prepared.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// prepared is a CA directory that tests copy: deriving a key from a passphrase takes a while on purpose.
var prepared struct {
	once sync.Once
	dir  string
	key  crypto.Signer
	err  error
}

// newDir returns the directory of a CA of its own, with the clients operator, requester, responder and auditor, and the CA's key.
func newDir(t testing.TB) (string, crypto.Signer) {
	t.Helper()
	prepared.once.Do(func() {
		if prepared.dir, prepared.err = os.MkdirTemp("", "certanchor-ca-test-"); prepared.err != nil {
			return
		}
		prepared.err = makeTemplate(filepath.Join(prepared.dir, "ca"))
	})
	if prepared.err != nil {
		t.Fatal(prepared.err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	copyDir(t, dir, filepath.Join(prepared.dir, "ca"))
	return dir, prepared.key
}

// copyDir keeps the modes of the files, which os.CopyFS does not.
func copyDir(t testing.TB, dst, src string) {
	t.Helper()
	entries, err := os.ReadDir(src)
	if err == nil {
		err = os.Mkdir(dst, 0o700)
	}
	for _, e := range entries {
		var data []byte
		var info os.FileInfo
		if err == nil {
			data, err = os.ReadFile(filepath.Join(src, e.Name()))
		}
		if err == nil {
			info, err = e.Info()
		}
		if err == nil {
			err = keyfile.WriteNew(filepath.Join(dst, e.Name()), data, info.Mode().Perm())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func makeTemplate(dir string) error {
	if _, err := Init(InitOptions{Dir: dir, Subject: testSubject, OCSPURL: testOCSP, Passphrase: []byte(testPassphrase), iterations: testIterations}); err != nil {
		return err
	}
	for _, role := range []Role{RoleRequester, RoleResponder, RoleAuditor} {
		if _, err := AddClient(dir, string(role), role); err != nil {
			return err
		}
	}
	var err error
	prepared.key, err = LoadKey(dir, []byte(testPassphrase))
	return err
}

var testSubject = pkix.Name{CommonName: "Test CA", Organization: []string{"certanchor"}, Country: []string{"DE"}}

// world is a CA with its ledger and an HTTP server.
type world struct {
	t      testing.TB
	dir    string
	node   *embedded.Node
	ledger *anchortest.Ledger
	server *Server
	url    string
}

// openNode opens the embedded ledger beside the CA directory.
func openNode(dir string) (*embedded.Node, error) {
	return embedded.Open(embedded.Options{Dir: dir + "-ledger", MSPID: testMSP, TickInterval: 200 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
}

// newWorld starts a registered CA.
func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	dir, _ := newDir(t)
	w := startWorld(t, dir, change)
	register(t, w.node, dir)
	waitFor(t, "comparison with the ledger", w.server.operators.settled.Load) // so that faults that a test plans are about what it does
	return w
}

func register(t testing.TB, node *embedded.Node, dir string) {
	t.Helper()
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Register(context.Background(), node.Connect(wire.RoleAdministrator), cert.Raw, nil, testMSP)
	if err != nil || !res.Registered {
		t.Fatalf("register: %+v, %v", res, err)
	}
}

// startWorld opens the ledger and the CA in dir; both end with the test.
func startWorld(t testing.TB, dir string, change func(*Config)) *world {
	t.Helper()
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	w := &world{t: t, dir: dir, node: node, ledger: anchortest.New(node.Connect(wire.RoleOperator), nil)}
	if w.server, err = New(cfg, w.ledger); err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(w.server.Handler())
	w.url = hs.URL
	t.Cleanup(func() {
		hs.Close()
		if err := w.server.Close(); err != nil {
			t.Error(err)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) token(client string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, client+".token"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (w *world) client(name string) *caapi.Client {
	w.t.Helper()
	c, err := caapi.New(caapi.Config{URL: w.url, TokenFile: filepath.Join(w.dir, name+".token")})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// call makes a raw request as the operator, unless header says otherwise.
func (w *world) call(method, path, body string, header map[string]string) (int, http.Header, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token("operator"))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if v == "" {
			req.Header.Del(k)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

func asProblem(t testing.TB, body []byte) *problem.Problem {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("not a problem: %s", body)
	}
	return &p
}

// logSize is the size of the CA's log on the ledger.
func (w *world) logSize() uint64 {
	w.t.Helper()
	values, err := readAll(w.node.Connect(wire.RoleOperator), wire.LogHeadKey(w.server.CAID()))
	if err != nil || values[0] == nil {
		w.t.Fatal(err, values)
	}
	var head wire.LogHead
	if err := wire.Decode(values[0], &head); err != nil {
		w.t.Fatal(err)
	}
	return head.Size
}

func readAll(l network.Ledger, keys ...string) ([][]byte, error) {
	answer, err := l.Evaluate(context.Background(), wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys}))
	if err != nil {
		return nil, err
	}
	var r wire.ReadResult
	return r.Values, wire.Decode(answer, &r)
}

// fingerprint is the ledger's height and the journal's size: what a refused request must not change.
func (w *world) fingerprint() string {
	w.t.Helper()
	h, err := w.node.Connect(wire.RoleOperator).Height(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(w.dir, journalFile))
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("height %d, journal %d", h, st.Size())
}

// csrOption changes a request's prepared.
type csrOption func(*x509.CertificateRequest)

// newCSR makes a PEM request for key, a new P-256 one if it is nil.
func newCSR(t testing.TB, key crypto.Signer, opts ...csrOption) string {
	t.Helper()
	if key == nil {
		var err error
		if key, err = keyfile.Generate(keyfile.P256); err != nil {
			t.Fatal(err)
		}
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "host.example.org"}, DNSNames: []string{"host.example.org"}}
	for _, o := range opts {
		o(tmpl)
	}
	der, err := x509.CreateCertificateRequest(nil, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE REQUEST", der)
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func parsePEM(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func openssl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

func body(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
