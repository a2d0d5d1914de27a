package conformance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/httpserve"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

const (
	mspID      = "Org1MSP"
	passphrase = "conformance of a responder"
	deadline   = 30 * time.Second // of a condition that must come true; none is expected to take a second, but for what names its own time
	briefLife  = 5 * time.Second  // of the certificates that are to expire during the test
)

// world is a CA bridge and OCSP bridges over one embedded ledger, each served on the loopback interface as in production.
type world struct {
	t      *testing.T
	dir    string
	node   *embedded.Node
	api    *caapi.Client // as the CA's operator
	enrol  *caapi.Client // as a responder
	caFile string
	ca     *x509.Certificate
	caKey  crypto.Signer
	caID   wire.CAID

	main    *bridge            // default settings, P-256
	bridges map[string]*bridge // others
}

type bridge struct {
	*ocspbridge.Bridge
	url string // of its OCSP
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.node, err = embedded.Open(embedded.Options{Dir: w.path("ledger"), MSPID: mspID, TickInterval: time.Second, Log: log})
	w.must(err)
	t.Cleanup(func() { w.check(w.node.Close()) })

	// The bridge's address goes into the certificates, and into the CA's configuration, before either runs.
	front := w.listen("ocsp bridge", nil)
	made, err := ca.Init(ca.InitOptions{
		Dir: w.path("ca"), Subject: pkix.Name{CommonName: "Conformance CA"}, OCSPURL: front.url + "/ocsp", Passphrase: []byte(passphrase),
	})
	w.must(err)
	w.ca, w.caID, w.caFile = made.Certificate, wire.CAIDOf(made.Certificate.RawSubjectPublicKeyInfo), w.path("ca", "ca.pem")
	w.briefProfile()
	token, err := ca.AddClient(w.path("ca"), "bridges", ca.RoleResponder)
	w.must(err)
	w.caKey, err = ca.LoadKey(w.path("ca"), []byte(passphrase))
	w.must(err)
	server, err := ca.New(ca.Config{Dir: w.path("ca"), Key: w.caKey, Settings: ca.Settings{Responders: []string{front.url}}, Log: log}, w.node.Connect(wire.RoleOperator))
	w.must(err)
	t.Cleanup(func() { w.check(server.Close()) })
	_, err = ca.Register(t.Context(), w.node.Connect(wire.RoleAdministrator), w.ca.Raw, nil, mspID)
	w.must(err)
	issuing := w.listen("ca bridge", server.Handler())
	w.api, err = caapi.New(caapi.Config{URL: issuing.url, TokenFile: made.OperatorToken})
	w.must(err)
	w.enrol, err = caapi.New(caapi.Config{URL: issuing.url, TokenFile: token})
	w.must(err)
	w.main = w.bridgeAt(front, "p256", func(c *ocspbridge.Config) {
		c.NoTicker, c.NoIntegrator = false, false
		c.Enrollers = func(id wire.CAID) ocspbridge.Enroller {
			if id == w.caID {
				return w.enrol
			}
			return nil
		}
	})
	return w
}

// briefProfile adds a profile whose certificates expire while the test waits.
func (w *world) briefProfile() {
	w.t.Helper()
	file := w.path("ca", "profiles.json")
	text, err := os.ReadFile(file)
	w.must(err)
	const at = `"profiles": {`
	brief := fmt.Sprintf(`%s "brief": { "usages": ["digital signature", "server auth"], "expiry": %q, "backdate": "1s",
        "CSRWhitelist": { "Subject": true, "PublicKeyAlgorithm": true, "PublicKey": true, "DNSNames": true } },`, at, briefLife+time.Second)
	changed := strings.Replace(string(text), at, brief, 1)
	if changed == string(text) {
		w.t.Fatalf("%s has no %s", file, at)
	}
	w.must(os.WriteFile(file, []byte(changed), 0o644))
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

// listener is a production HTTP server whose handler may come later.
type listener struct {
	url     string
	mu      sync.RWMutex
	handler http.Handler
}

func (l *listener) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	l.mu.RLock()
	h := l.handler
	l.mu.RUnlock()
	if h == nil {
		http.Error(rw, "not yet", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(rw, r)
}

func (l *listener) set(h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handler = h
}

func (w *world) listen(name string, h http.Handler) *listener {
	w.t.Helper()
	l := &listener{handler: h}
	s, err := httpserve.Listen(name, "127.0.0.1:0", httpserve.Options{}, l)
	w.must(err)
	l.url = "http://" + s.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		w.check(<-ran)
	})
	return l
}

// bridge starts another bridge, which leaves the ledger's clock to the first.
func (w *world) bridge(name string, tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	return w.bridgeAt(w.listen("ocsp bridge "+name, nil), name, tweak)
}

func (w *world) bridgeAt(l *listener, name string, tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	cfg := ocspbridge.Config{Dir: w.path("bridge-" + name), NoTicker: true, NoIntegrator: true, Settings: ocspbridge.DefaultSettings(), Log: slog.New(slog.DiscardHandler)}
	tweak(&cfg)
	b := &bridge{url: l.url + "/ocsp"}
	var err error
	b.Bridge, err = ocspbridge.New(w.t.Context(), cfg, w.node.Connect(wire.RoleOperator))
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		w.check(errors.Join(<-ran, b.Close()))
	})
	l.set(b.Handler())
	w.until("bridge "+name+" is ready", func() error {
		if r := b.Ready(); !r.Ready {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	return b
}

// bridgeOf starts a bridge with a responder key of its own, certified by the CA.
func (w *world) bridgeOf(name string, key crypto.Signer, tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	var der []byte
	if _, ed := key.(ed25519.PrivateKey); ed { // the CA bridge certifies none, and its CA may
		der = w.certify(name, key.Public())
	} else {
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "responder " + name}}, key)
		w.must(err)
		der, err = w.enrol.EnrollResponder(w.t.Context(), w.caID, csr)
		w.must(err)
	}
	pair := ocspbridge.KeyPair{CertFile: w.write(name+"-responder.pem", toPEM("CERTIFICATE", der)), KeyFile: w.write(name+"-responder.key", keyPEM(w, key))}
	return w.bridge(name, func(c *ocspbridge.Config) {
		c.Responders = []ocspbridge.KeyPair{pair}
		if tweak != nil {
			tweak(c)
		}
	})
}

// until polls a condition that must come to hold.
func (w *world) until(what string, cond func() error) {
	w.t.Helper()
	if err := w.eventually(cond); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// eventually polls a condition until it holds; the error is the last one, after the deadline.
func (w *world) eventually(cond func() error) error {
	look, limit := time.NewTicker(20*time.Millisecond), time.After(deadline)
	defer look.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-look.C:
		case <-limit:
			return fmt.Errorf("not within %s; last: %w", deadline, err)
		}
	}
}

// cert is a certificate of the CA with what a client knows about it.
type cert struct {
	*x509.Certificate
	key  crypto.Signer
	file string // PEM
	hex  string // serial, as the CA writes it
}

// issue has the CA issue a certificate for a new P-256 key.
func (w *world) issue(name, profile string) *cert {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	w.must(err)
	got, err := w.api.Issue(w.t.Context(), caapi.IssueRequest{CSR: string(toPEM("CERTIFICATE REQUEST", csr)), Profile: profile}, "")
	w.must(err)
	w.applied(got.Block)
	block, _ := pem.Decode([]byte(got.Certificate))
	if block == nil {
		w.t.Fatalf("%s: no PEM: %s", name, got.Certificate)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	w.must(err)
	return &cert{Certificate: parsed, key: key, file: w.write(name+".pem", []byte(got.Certificate)), hex: got.Serial}
}

// applied returns when every bridge answers from a state that includes the block. The CA bridge waits for the first bridge only, and
// only with revocations.
func (w *world) applied(block uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	for b := range w.all() {
		w.must(b.WaitApplied(ctx, block))
	}
}

func (w *world) all() iter.Seq[*bridge] {
	return func(yield func(*bridge) bool) {
		if w.main == nil || !yield(w.main) {
			return
		}
		for _, b := range w.bridges {
			if !yield(b) {
				return
			}
		}
	}
}

func (w *world) revoke(c *cert, reason string, invalidity time.Time) {
	w.t.Helper()
	r := caapi.RevokeRequest{Serial: c.hex, Reason: reason}
	if !invalidity.IsZero() {
		r.InvalidityDate = invalidity.UTC().Format(time.RFC3339)
	}
	change, acknowledged, err := w.api.Revoke(w.t.Context(), r)
	w.must(err)
	if !acknowledged {
		w.t.Fatalf("%s for %s: not acknowledged", c.Subject, reason)
	}
	w.applied(change.Block)
}

func (w *world) release(c *cert) {
	w.t.Helper()
	change, acknowledged, err := w.api.Release(w.t.Context(), c.hex)
	w.must(err)
	if !acknowledged {
		w.t.Fatalf("%s: release not acknowledged", c.Subject)
	}
	w.applied(change.Block)
}

func (w *world) write(name string, data []byte) string {
	w.t.Helper()
	file := w.path(name)
	w.must(os.WriteFile(file, data, 0o600))
	return file
}

func (w *world) read(name string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(w.path(name))
	w.must(err)
	return data
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyPEM(w *world, key crypto.Signer) []byte {
	w.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	return toPEM("PRIVATE KEY", der)
}

func newKey(w *world, kind string) crypto.Signer {
	w.t.Helper()
	var (
		key crypto.Signer
		err error
	)
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	w.must(err)
	return key
}
