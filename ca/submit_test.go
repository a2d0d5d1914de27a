package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// elsewhere is other software with the key of w's CA.
func (w *world) elsewhere() *cctest.CA {
	i := w.server.issuer
	return &cctest.CA{DER: i.cert.Raw, Cert: i.cert, Key: prepared.key, ID: i.id}
}

// shortLived keeps a certificate within the CA's own period.
func shortLived(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Second).Truncate(time.Second), time.Now().AddDate(0, 1, 0)
}

func (w *world) submit(der []byte) wire.LogEntry {
	w.t.Helper()
	place, err := w.server.SubmitCertificate(context.Background(), der)
	if err != nil {
		w.t.Fatal(err)
	}
	return place
}

func TestCertificateSignedElsewhereIsAnchoredOnce(t *testing.T) {
	w := newWorld(t, nil)
	der, cert := w.elsewhere().Issue(t, shortLived)
	place := w.submit(der)
	if again := w.submit(der); again.Index != place.Index || again.Time != place.Time || w.logSize() != 1 {
		t.Fatalf("%+v, then %+v, %d in the log", place, again, w.logSize())
	}
	serial := cctest.Serial(t, cert)
	if w.server.book.findSerial(serial) != nil {
		t.Error("the journal has a certificate that was not signed here")
	}
	got, err := w.client("auditor").Get(t.Context(), serial.String())
	if err != nil || got.Certificate != "" || got.Precertificate || got.LogIndex != place.Index || got.Status.State != "valid" {
		t.Fatalf("%+v, %v", got, err)
	}
	if c, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "superseded"}); err != nil || c.State != "revoked" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestPrecertificateThenCertificate(t *testing.T) {
	w := newWorld(t, nil)
	pre, cert, final := w.elsewhere().Precert(t, shortLived)
	first := w.submit(pre)
	serial := cctest.Serial(t, cert).String()
	got, err := w.client("auditor").Get(t.Context(), serial)
	if err != nil || !got.Precertificate || got.LogIndex != first.Index || got.Status == nil || got.Status.State != "valid" {
		t.Fatalf("%+v, %v", got, err)
	}
	der, _ := final(cctest.SCTList())
	second := w.submit(der)
	got, err = w.client("auditor").Get(t.Context(), serial)
	if err != nil || got.Precertificate || got.LogIndex != second.Index || second.Index == first.Index {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNonsenseCostsNoTransaction(t *testing.T) {
	w := newWorld(t, nil)
	ca := w.elsewhere()
	stranger, _ := cctest.NewCA(t).Issue(t)
	impostor, _ := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.Subject = ca.Cert.Subject })).Issue(t)
	good, _ := ca.Issue(t, shortLived)
	bent := append([]byte{}, good...)
	bent[len(bent)-1] ^= 1
	before := w.ledger.Sent()
	for name, tc := range map[string]struct {
		der   []byte
		field string
	}{
		"nothing":              {nil, "certificate"},
		"text":                 {[]byte("certificate"), "certificate"},
		"too large":            {make([]byte, wire.MaxCertDER+1), "certificate"},
		"more behind it":       {append(good[:len(good):len(good)], 0), "certificate"},
		"another CA's":         {stranger, "certificate.signature"},
		"of one with our name": {impostor, "certificate.signature"},
		"a bent signature":     {bent, "certificate.signature"},
	} {
		_, err := w.server.SubmitCertificate(t.Context(), tc.der)
		if we, ok := errors.AsType[*wire.Error](err); !ok || we.Code != wire.InvalidArgument || we.Field != tc.field || we.Rule == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := w.ledger.Sent(); n != before {
		t.Errorf("%d transactions", n-before)
	}
	expired, _ := ca.Issue(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(1, 0), time.Unix(1000, 0) })
	if _, err := w.server.SubmitCertificate(t.Context(), expired); !network.IsRejected(err) {
		t.Errorf("what the contract refuses: %v", err)
	}
}

// Retry-After stands on every 503: full queue, ledger down, unknown outcome, not ready.
func TestEvery503SaysWhenToComeBack(t *testing.T) {
	hold := make(chan struct{})
	var once sync.Once
	w := newWorld(t, func(c *Config) {
		c.Settings.MaxQueue, c.Settings.MaxWait, c.Settings.IssueTimeout = 1, -1, 20*time.Second
	})
	w.ledger.Plan(func(string) anchortest.Fault {
		once.Do(func() { <-hold })
		return anchortest.None
	})
	var wg sync.WaitGroup
	certs := [3][]byte{}
	for i := range certs {
		certs[i], _ = w.elsewhere().Issue(t, shortLived)
	}
	before := w.ledger.Sent()
	for i := range 2 { // one in flight, one waits
		wg.Go(func() {
			if _, err := w.server.SubmitCertificate(t.Context(), certs[i]); err != nil {
				t.Error(err)
			}
		})
		waitFor(t, "the queue", func() bool {
			return w.ledger.Sent() == before+1 && (w.server.anchor.Full(t.Context()) != nil) == (i == 1)
		})
	}
	journal := w.server.book.unresolved()
	check := func(what, method, path, body string, header map[string]string) {
		t.Helper()
		code, h, b := w.call(method, path, body, header)
		if code != http.StatusServiceUnavailable || h.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q: %s", what, code, h.Get("Retry-After"), b)
		}
	}
	check("queue full", "POST", caapi.PathCertificates, serverRequest(t), nil)
	if len(w.server.book.bySerial) != 0 || w.server.book.unresolved() != journal {
		t.Error("a certificate was signed that could not be queued")
	}
	if _, err := w.server.SubmitCertificate(t.Context(), certs[2]); !errors.Is(err, anchor.ErrQueueFull) || problem.From(err).Status != http.StatusServiceUnavailable {
		t.Errorf("queue full: %v", err)
	}
	close(hold)
	wg.Wait()
	w.ledger.Down(true)
	check("not ready", "GET", caapi.PathReady, "", nil)
	check("status", "GET", caapi.PathCertificates+"/1234", "", nil)
	w.server.reached.Store(0)
	check("ledger down", "POST", caapi.PathCertificates, serverRequest(t), nil)
	if _, err := w.server.SubmitCertificate(t.Context(), certs[2]); !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("ledger down: %v", err)
	}
}

func TestStatusCountsWhatOthersDecided(t *testing.T) {
	w := newWorld(t, nil)
	ca := w.elsewhere()
	admin, operator := w.node.Connect(wire.RoleAdministrator), w.node.Connect(wire.RoleOperator)
	must := func(l network.Ledger, function string, arg []byte) {
		t.Helper()
		if _, err := l.Submit(t.Context(), function, arg); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(cert *x509.Certificate, state, reason string) {
		t.Helper()
		got, err := w.client("auditor").Get(t.Context(), cctest.Serial(t, cert).String())
		if err != nil || got.Status.State != state || got.Status.Reason != reason {
			t.Fatalf("%+v, %v, want %s %s", got.Status, err, state, reason)
		}
	}
	var ders [3][]byte
	var certs [3]*x509.Certificate
	var places [3]wire.LogEntry
	for i := range certs {
		ders[i], certs[i] = ca.Issue(t, shortLived)
		places[i] = w.submit(ders[i])
	}
	must(operator, wire.FnRevoke, ca.RevokeArg(t, w.node.Channel(), ders[0], wire.KeyCompromise, time.Now()))
	expect(certs[0], "revoked", "keyCompromise")
	must(admin, wire.FnDecide, ca.QuorumArg(cctest.Serial(t, certs[1]), wire.PrivilegeWithdrawn))
	expect(certs[1], "revoked", "privilegeWithdrawn")
	expect(certs[2], "valid", "")

	// A rule about the last one only, which a certificate issued through the API does not fall under.
	at := places[2].Time
	waitFor(t, "the next millisecond", func() bool { return wire.MillisOf(time.Now()) > at+1 })
	values, err := readAll(operator, wire.CAKey(ca.ID))
	if err != nil {
		t.Fatal(err)
	}
	var rec wire.CARecord
	if err := wire.Decode(values[0], &rec); err != nil {
		t.Fatal(err)
	}
	must(admin, wire.FnDecide, ca.RuleArg(rec.Change, at, at+1, wire.CACompromise))
	expect(certs[2], "revoked", "cACompromise")
	issued, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	expect(parsePEM(t, issued.Certificate), "valid", "")
}

func TestMetricsAreServed(t *testing.T) {
	w := newWorld(t, nil)
	der, _ := w.elsewhere().Issue(t, shortLived)
	w.submit(der)
	if code, _, b := w.call("GET", caapi.PathCA, "", nil); code != http.StatusOK {
		t.Fatalf("%d %s", code, b)
	}
	resp, err := http.Get(w.url + caapi.PathMetrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	for _, want := range []string{
		`certanchor_anchor_transactions_total{ca="` + w.server.CAID().String() + `",lane="issue",outcome="committed"} 1`,
		`certanchor_http_requests_total{code="200",method="get",route="` + caapi.PathCA + `"} 1`,
		`certanchor_ca_unresolved_certificates 0`, `go_goroutines `,
	} {
		if !strings.Contains(string(b), "\n"+want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
}
