package ocspbridge_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

const (
	mspID    = "Org1MSP"
	channel  = "testchannel"
	deadline = 30 * time.Second // of a condition that must come true; none is expected to take a second
)

// world is a founded ledger with one registered CA.
type world struct {
	t     testing.TB
	clock *clock
	node  *embedded.Node
	dir   string
	ca    *cctest.CA
	conn  network.Ledger // operator
}

const tick = 15 * time.Second

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, cctest.NewCA(t))
}

func newWorldOf(t testing.TB, ca *cctest.CA) *world {
	t.Helper()
	w := &world{t: t, clock: newClock(), dir: t.TempDir(), ca: ca}
	w.open()
	t.Cleanup(func() { w.close() })
	admin := w.node.Connect(wire.RoleAdministrator)
	if _, err := admin.Submit(t.Context(), wire.FnRegisterCA, w.ca.RegisterArg(mspID)); err != nil {
		t.Fatal(err)
	}
	return w
}

// open opens the ledger, as a process that (re)starts does.
func (w *world) open() {
	w.t.Helper()
	node, err := embedded.Open(embedded.Options{
		Dir: filepath.Join(w.dir, "ledger"), MSPID: mspID, Channel: channel, TickInterval: tick, Now: w.clock.Now, Log: quiet(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.node, w.conn = node, node.Connect(wire.RoleOperator)
}

func (w *world) close() {
	if err := w.node.Close(); err != nil {
		w.t.Error(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// issue records n new certificates and returns them.
func (w *world) issue(n int) []*x509.Certificate {
	w.t.Helper()
	certs, _ := w.issueIn(n)
	return certs
}

func (w *world) issueIn(n int) ([]*x509.Certificate, network.Receipt) {
	w.t.Helper()
	var (
		certs []*x509.Certificate
		ders  [][]byte
	)
	for range n {
		der, cert := w.ca.Issue(w.t)
		ders, certs = append(ders, der), append(certs, cert)
	}
	return certs, w.submit(wire.FnIssue, w.ca.IssueArg(ders...))
}

func (w *world) revoke(cert *x509.Certificate, reason wire.Reason) network.Receipt {
	w.t.Helper()
	return w.change(wire.StatusChange{Serial: cctest.Serial(w.t, cert), Op: wire.OpRevoke, Reason: reason})
}

func (w *world) change(c wire.StatusChange) network.Receipt {
	w.t.Helper()
	return w.submit(wire.FnSetStatus, w.ca.StatusArg(c))
}

func (w *world) submit(function string, arg []byte) network.Receipt {
	w.t.Helper()
	r, err := w.conn.Submit(w.t.Context(), function, arg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// tick moves the ledger's clock, which must be in an epoch without a tick.
func (w *world) tick() network.Receipt { return w.submit(wire.FnTick, cctest.TickArg()) }

// tickIfDue ticks unless the epoch has its tick.
func (w *world) tickIfDue() {
	w.t.Helper()
	if _, err := w.conn.Submit(w.t.Context(), wire.FnTick, cctest.TickArg()); err != nil && !network.IsRejected(err) {
		w.t.Fatal(err)
	}
}

// enrollFunc answers requests for responder certificates without recording anything.
type enrollFunc func(*x509.CertificateRequest) ([]byte, error)

func (f enrollFunc) EnrollResponder(_ context.Context, _ wire.CAID, der []byte) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	return f(csr)
}

// enroller is the CA's side of enrolment: it signs and records.
type enroller struct {
	w     *world
	life  time.Duration
	tweak func(*x509.Certificate)

	mu    sync.Mutex
	fail  error
	calls int
	certs []*x509.Certificate
}

func (e *enroller) EnrollResponder(ctx context.Context, _ wire.CAID, csrDER []byte) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls++
	if e.fail != nil {
		return nil, e.fail
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	der, cert, err := e.w.responderCert(csr.PublicKey, e.life, e.tweak)
	if err != nil {
		return nil, err
	}
	if _, err := e.w.conn.Submit(ctx, wire.FnIssue, e.w.ca.IssueArg(der)); err != nil {
		return nil, err
	}
	e.certs = append(e.certs, cert)
	return der, nil
}

func (e *enroller) set(fail error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = fail
}

func (w *world) responderCert(pub crypto.PublicKey, life time.Duration, tweak func(*x509.Certificate)) ([]byte, *x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, KeyUsage: x509.KeyUsageDigitalSignature}
	template.Subject.CommonName = "OCSP responder"
	cctest.Responder(w.clock.Now().Add(-time.Minute), life)(template)
	if tweak != nil {
		tweak(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca.Cert, pub, w.ca.Key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return der, cert, err
}

// bridge is a running Bridge with its HTTP server.
type bridge struct {
	*ocspbridge.Bridge
	w    *world
	url  string
	enr  *enroller
	line *faulty
	stop func() error // ends Run, the server and the bridge; returns Run's error
}

// start starts a bridge in its own directory under the world's.
func (w *world) start(name string, tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	return w.startOn(name, &faulty{Ledger: w.conn}, tweak)
}

func (w *world) startOn(name string, line *faulty, tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	b := &bridge{w: w, enr: &enroller{w: w, life: 24 * time.Hour}, line: line}
	cfg := ocspbridge.Config{
		Dir: filepath.Join(w.dir, name), NoTicker: true, NoIntegrator: true, Log: quiet(), Now: w.clock.Now, After: w.clock.After,
		Enrollers: func(id wire.CAID) ocspbridge.Enroller {
			if id != w.ca.ID {
				return nil
			}
			return b.enr
		},
	}
	if tweak != nil {
		tweak(&cfg)
	}
	var err error
	if b.Bridge, err = ocspbridge.New(w.t.Context(), cfg, b.line); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	server := httptest.NewServer(b.Handler())
	b.url = server.URL
	b.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ran
		server.Close()
		return errors.Join(err, b.Close())
	})
	w.t.Cleanup(func() { _ = b.stop() })
	return b
}

// ready waits until the bridge is.
func (b *bridge) ready() *bridge {
	b.w.t.Helper()
	b.until("ready", func() (bool, string) { r := b.Ready(); return r.Ready, r.Reason })
	return b
}

// until polls a condition until it holds.
func (b *bridge) until(what string, cond func() (bool, string)) {
	b.w.t.Helper()
	look, limit := time.NewTicker(time.Millisecond), time.After(deadline)
	defer look.Stop()
	for {
		ok, state := cond()
		if ok {
			return
		}
		select {
		case <-look.C:
		case <-limit:
			b.w.t.Fatalf("%s: not within %s; last: %s", what, deadline, state)
		}
	}
}

func (b *bridge) applied(r network.Receipt) {
	b.w.t.Helper()
	ctx, cancel := context.WithTimeout(b.w.t.Context(), deadline)
	defer cancel()
	if err := b.WaitApplied(ctx, r.Block); err != nil {
		b.w.t.Fatal(err)
	}
}

// request builds an OCSP request.
func request(t testing.TB, issuer *x509.Certificate, nonce []byte, certs ...*x509.Certificate) []byte {
	t.Helper()
	req := &ocspwire.Request{Nonce: nonce}
	for _, c := range certs {
		id, err := ocspwire.NewCertID(crypto.SHA1, issuer, c.SerialNumber)
		if err != nil {
			t.Fatal(err)
		}
		req.Items = append(req.Items, ocspwire.RequestItem{ID: id})
	}
	der, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// post sends an OCSP request and returns the raw answer.
func (b *bridge) post(der []byte) (*http.Response, []byte) {
	b.w.t.Helper()
	resp, err := http.Post(b.url+"/ocsp", "application/ocsp-request", bytes.NewReader(der))
	if err != nil {
		b.w.t.Fatal(err)
	}
	return resp, readAll(b.w.t, resp)
}

func readAll(t testing.TB, resp *http.Response) []byte {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return body
}

// ask returns what the bridge says about cert: a verified status, or the response status.
func (b *bridge) ask(cert *x509.Certificate) string {
	b.w.t.Helper()
	single, status := b.askAll(cert)
	if single == nil {
		return status.String()
	}
	return single.Status.String()
}

// askAll returns the verified status of cert, nil if the response is an error.
func (b *bridge) askAll(cert *x509.Certificate) (*ocspwire.SingleResponse, ocspwire.ResponseStatus) {
	b.w.t.Helper()
	_, der := b.post(request(b.w.t, b.w.ca.Cert, nil, cert))
	status, resp, err := ocspwire.ParseResponse(der)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if status != ocspwire.Successful {
		return nil, status
	}
	id, err := ocspwire.NewCertID(crypto.SHA1, b.w.ca.Cert, cert.SerialNumber)
	if err != nil {
		b.w.t.Fatal(err)
	}
	single, _, err := resp.Verify(ocspwire.VerifyOptions{Issuer: b.w.ca.Cert, ID: id, Now: b.w.clock.Now(), Skew: time.Second})
	if err != nil {
		b.w.t.Fatal(err)
	}
	return single, status
}

// single returns the first status in the answer to a request, unverified, or the response status.
func (b *bridge) single(req []byte) string {
	b.w.t.Helper()
	_, der := b.post(req)
	status, resp, err := ocspwire.ParseResponse(der)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if status != ocspwire.Successful {
		return status.String()
	}
	return resp.Responses[0].Status.String()
}

func (b *bridge) want(cert *x509.Certificate, want string) {
	b.w.t.Helper()
	if got := b.ask(cert); got != want {
		b.w.t.Errorf("the bridge says %q, want %q", got, want)
	}
}

// get fetches a path; JSON is decoded into v unless it is nil.
func (b *bridge) get(path string, v any) (int, []byte) {
	b.w.t.Helper()
	resp, err := http.Get(b.url + path)
	if err != nil {
		b.w.t.Fatal(err)
	}
	body := readAll(b.w.t, resp)
	if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			b.w.t.Fatalf("%s: %v: %s", path, err, body)
		}
	}
	return resp.StatusCode, body
}
