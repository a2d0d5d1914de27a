package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

const (
	mspID    = "Org1MSP"
	channel  = "testchannel"
	tick     = 15 * time.Second
	deadline = 10 * time.Second // of a condition that must come true; none is expected to take a second
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a ledger with two CAs, and a bridge that serves it.
type world struct {
	t      testing.TB
	dir    string
	clock  *clock
	node   *embedded.Node
	conn   network.Ledger
	ca     *cctest.CA // issues, and certifies the bridge's responder
	other  *cctest.CA
	bridge *ocspbridge.Bridge
	url    string
	stop   func()

	mu     sync.Mutex
	tamper func(path string, status int, body []byte) (int, []byte) // guarded by mu
	served map[string][]byte                                        // by path: the last answer, before tampering; guarded by mu

	without bool // any enroller: nobody has a responder certificate

	revoked, held *x509.Certificate
	rule          *x509.Certificate // revoked by a rule
	good          *x509.Certificate
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, func(*world) {})
}

func newWorldWith(t testing.TB, change func(*world)) *world {
	t.Helper()
	root := cctest.NewCA(t)
	w := &world{t: t, dir: t.TempDir(), clock: &clock{now: cctest.T0}, ca: cctest.NewCA(t, cctest.WithParent(root)), other: cctest.NewCA(t), served: map[string][]byte{}}
	change(w)
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(w.dir, "ledger"), MSPID: mspID, Channel: channel, TickInterval: tick, Now: w.clock.Now, Log: quiet()})
	must(t, err)
	w.node, w.conn = node, node.Connect(wire.RoleOperator)
	t.Cleanup(func() { must(t, node.Close()) })
	for _, ca := range []*cctest.CA{w.ca, w.other} {
		w.as(wire.RoleAdministrator, wire.FnRegisterCA, ca.RegisterArg(mspID))
	}
	w.history()
	must(t, w.start())
	return w
}

// history fills a tile and begins another, and has every kind of change of status, some before a Tick and some after it.
func (w *world) history() {
	var ders [][]byte
	for i := range 259 {
		der, cert := w.ca.Issue(w.t)
		if ders = append(ders, der); i == 5 {
			w.good = cert
		}
	}
	w.submit(wire.FnIssue, w.ca.IssueArg(ders[:100]...))
	w.submit(wire.FnIssue, w.ca.IssueArg(ders[100:]...))
	pre, _, final := w.ca.Precert(w.t)
	w.submit(wire.FnIssue, w.ca.IssueArg(pre))
	finalDER, _ := final(cctest.SCTList())
	alone, _, _ := w.ca.Precert(w.t)
	w.submit(wire.FnIssue, w.ca.IssueArg(finalDER, alone))

	covered, cert := w.other.Issue(w.t)
	w.rule = cert
	w.submit(wire.FnIssue, w.other.IssueArg(covered))
	w.as(wire.RoleAdministrator, wire.FnDecide, w.other.RuleArg(1, wire.MillisOf(cctest.T0), wire.MillisOf(w.clock.Now())+50, wire.CACompromise))
	later, _ := w.other.Issue(w.t)
	w.submit(wire.FnIssue, w.other.IssueArg(later))

	certs := make([]*x509.Certificate, 4)
	for i := range certs {
		var err error
		certs[i], err = x509.ParseCertificate(ders[20+i])
		must(w.t, err)
	}
	w.revoked, w.held = certs[0], certs[1]
	w.change(certs[0], wire.OpRevoke, wire.KeyCompromise)
	w.change(certs[1], wire.OpHold, wire.CertificateHold)
	w.change(certs[2], wire.OpHold, wire.CertificateHold)
	w.integrate()
	w.tick()
	w.change(certs[2], wire.OpRelease, wire.Unspecified)
	w.as(wire.RoleAuditor, wire.FnRevoke, w.ca.RevokeArg(w.t, channel, ders[23], wire.Superseded, w.clock.Now()))
	w.integrate()
	w.tick()
}

func (w *world) as(role, function string, arg []byte) network.Receipt {
	w.t.Helper()
	w.clock.move(100 * time.Millisecond)
	r, err := w.node.Connect(role).Submit(w.t.Context(), function, arg)
	if err != nil {
		w.t.Fatalf("%s: %v", function, err)
	}
	return r
}

func (w *world) submit(function string, arg []byte) network.Receipt {
	w.t.Helper()
	return w.as(wire.RoleOperator, function, arg)
}

func (w *world) change(c *x509.Certificate, op wire.StatusOp, reason wire.Reason) network.Receipt {
	w.t.Helper()
	return w.submit(wire.FnSetStatus, w.ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(w.t, c), Op: op, Reason: reason}))
}

func (w *world) tick() network.Receipt {
	w.t.Helper()
	w.clock.move(tick)
	return w.submit(wire.FnTick, cctest.TickArg())
}

// integrate moves all pending changes into the status log.
func (w *world) integrate() {
	w.t.Helper()
	pending := map[string]bool{}
	size := uint64(0)
	for _, b := range w.blocks() {
		for _, tx := range b.Txs {
			for _, write := range tx.Writes {
				if hash, ok := strings.CutPrefix(write.Key, wire.PendingPrefix); ok {
					if pending[hash] = write.Value != nil; !pending[hash] {
						delete(pending, hash)
						size++
					}
				}
			}
		}
	}
	var leaves [][]byte
	for hash := range pending {
		leaf, err := hex.DecodeString(hash)
		must(w.t, err)
		leaves = append(leaves, leaf)
	}
	slices.SortFunc(leaves, bytes.Compare)
	w.submit(wire.FnIntegrate, cctest.IntegrateArg(size, leaves...))
}

func (w *world) blocks() []*network.Block {
	w.t.Helper()
	height, err := w.conn.Height(w.t.Context())
	must(w.t, err)
	var all []*network.Block
	enough := errors.New("enough")
	if err := w.conn.Blocks(w.t.Context(), 0, func(b *network.Block) error {
		if all = append(all, b); uint64(len(all)) == height {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		w.t.Fatal(err)
	}
	return all
}

// EnrollResponder implements ocspbridge.Enroller.
func (w *world) EnrollResponder(ctx context.Context, _ wire.CAID, der []byte) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, KeyUsage: x509.KeyUsageDigitalSignature}
	template.Subject.CommonName = "OCSP responder"
	cctest.Responder(w.clock.Now().Add(-time.Minute), 24*time.Hour)(template)
	if der, err = x509.CreateCertificate(rand.Reader, template, w.ca.Cert, csr.PublicKey, w.ca.Key); err != nil {
		return nil, err
	}
	_, err = w.conn.Submit(ctx, wire.FnIssue, w.ca.IssueArg(der))
	return der, err
}

// start starts the bridge and waits until it answers. Its error is that the bridge refuses to start.
func (w *world) start() error {
	w.t.Helper()
	server := httptest.NewUnstartedServer(nil)
	base := "http://" + server.Listener.Addr().String()
	b, err := ocspbridge.New(w.t.Context(), ocspbridge.Config{
		Dir: filepath.Join(w.dir, "bridge"), NoTicker: true, NoIntegrator: true, Log: quiet(), Now: w.clock.Now, PublicURL: base,
		Enrollers: func(id wire.CAID) ocspbridge.Enroller {
			if id != w.ca.ID || w.without {
				return nil
			}
			return w
		},
	}, w.conn)
	if err != nil {
		server.Listener.Close()
		return err
	}
	server.Config.Handler = w.through(b.Handler())
	server.Start()
	w.bridge, w.url = b, base
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-ran
		server.Close()
		must(w.t, b.Close())
	})
	w.t.Cleanup(w.stop)
	w.ready()
	return nil
}

func (w *world) ready() {
	w.t.Helper()
	look, limit := time.NewTicker(time.Millisecond), time.After(deadline)
	defer look.Stop()
	for r := w.bridge.Ready(); !r.Ready; r = w.bridge.Ready() {
		select {
		case <-look.C:
		case <-limit:
			w.t.Fatalf("bridge is not ready within %s: %s", deadline, r.Reason)
		}
	}
}

// applied waits until the bridge has what is in the ledger now.
func (w *world) applied(r network.Receipt) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	must(w.t, w.bridge.WaitApplied(ctx, r.Block))
}

// through keeps what is served, and changes it as tamper says.
func (w *world) through(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept-Encoding")
		record := httptest.NewRecorder()
		inner.ServeHTTP(record, r)
		path, body := r.URL.RequestURI(), record.Body.Bytes()
		w.mu.Lock()
		w.served[path] = bytes.Clone(body)
		status, tamper := record.Code, w.tamper
		w.mu.Unlock()
		if tamper != nil {
			status, body = tamper(path, status, bytes.Clone(body))
		}
		if ct := record.Header().Get("Content-Type"); ct != "" {
			out.Header().Set("Content-Type", ct)
		}
		out.WriteHeader(status)
		_, _ = out.Write(body)
	})
}

// tampering serves something else from now on; nil ends it.
func (w *world) tampering(tamper func(path string, status int, body []byte) (int, []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tamper = tamper
}

// replace has one path answered with body.
func (w *world) replace(at string, with []byte) {
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if path == at {
			return http.StatusOK, with
		}
		return status, body
	})
}

func (w *world) last(path string) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.served[path])
}

func (w *world) options(dir string) session.Options {
	return session.Options{Ledger: w.conn, Dir: dir, Bridges: []string{w.url}, Sample: 10, Now: w.clock.Now, Log: quiet()}
}

func (w *world) audit(o session.Options) *session.Result {
	w.t.Helper()
	r, err := session.Run(w.t.Context(), o)
	must(w.t, err)
	return r
}

// finds audits, and checks that the differences have one of a kind that says all of this.
func (w *world) finds(o session.Options, kind string, says ...string) *served.Difference {
	w.t.Helper()
	return finds(w.t, w.audit(o), kind, says...)
}

func finds(t testing.TB, r *session.Result, kind string, says ...string) *served.Difference {
	t.Helper()
	for _, d := range r.Differences {
		missing := slices.ContainsFunc(says, func(s string) bool { return !strings.Contains(d.String(), s) })
		if d.Kind == kind && !missing {
			return d
		}
	}
	t.Errorf("no difference of the kind %q that says %q among:", kind, says)
	for _, d := range r.Differences {
		t.Errorf("  %s", d)
	}
	return &served.Difference{}
}

func agrees(t testing.TB, r *session.Result) {
	t.Helper()
	for _, d := range r.Differences {
		t.Errorf("difference: %s", d)
	}
}
