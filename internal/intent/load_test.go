package intent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/problem"
)

// counted counts what reaches the peer.
type counted struct {
	*ledger
	queries atomic.Int32
}

func (c *counted) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	c.queries.Add(1)
	return c.ledger.Evaluate(ctx, function, arg)
}

// list is a trust list that has been read to its end.
func (l *ledger) list(id wire.CAID) ([]*x509.Certificate, bool) {
	if id != l.ca.ID {
		return nil, true
	}
	return []*x509.Certificate{l.ca.Cert, cctest.NewCA(l.t).Cert}, true
}

// from posts from an address.
func from(h http.Handler, remote string, body []byte) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, intent.Path, bytes.NewReader(body))
	r.RemoteAddr = remote
	h.ServeHTTP(w, r)
	return w
}

func signAll(l *ledger, ca *cctest.CA, n int) (bodies [][]byte) {
	l.t.Helper()
	for range n {
		_, cert := ca.Issue(l.t)
		arg, err := intent.Sign(cctest.LeafKey(), cert, ca.Cert, l.terms())
		if err != nil {
			l.t.Fatal(err)
		}
		bodies = append(bodies, intent.Marshal(arg))
	}
	return bodies
}

// TestWhatNoKnownCAIssuedNeverReachesThePeer: anybody can make a certificate and sign an intent for it.
func TestWhatNoKnownCAIssuedNeverReachesThePeer(t *testing.T) {
	l := &counted{ledger: newLedger(t)}
	l.gate, l.evaluated = make(chan struct{}), make(chan struct{}) // the peer never answers
	h := intent.Handler(l, intent.Options{Known: l.list})
	twin := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.Subject, c.SubjectKeyId = l.ca.Cert.Subject, l.ca.Cert.SubjectKeyId }))
	twin.ID = l.ca.ID
	body := func(ca *cctest.CA, key *cctest.CA) []byte { // an intent that names one CA about a certificate of another
		der, cert := ca.Issue(t)
		i := key.Intent(t, cctest.Channel, cert, wire.KeyCompromise, l.l.Now)
		return cctest.SignIntent(t, cctest.LeafKey(), der, i)
	}
	stranger := cctest.NewCA(t)
	for name, c := range map[string]struct {
		body   []byte
		status int
		field  string
	}{
		"CA not on the list":        {body(stranger, stranger), http.StatusNotFound, "intent.ca_id"},
		"another issuer":            {body(stranger, l.ca), http.StatusBadRequest, "cert.issuer"},
		"the name with another key": {body(twin, l.ca), http.StatusBadRequest, "cert.signature"},
	} {
		w := post(h, c.body)
		if p := read[problem.Problem](t, w); w.Code != c.status || p.Field != c.field {
			t.Errorf("%s: %d %+v", name, w.Code, p)
		}
		// What the contract says is no different.
		if _, refusal := l.l.Endorse(t, cctest.Auditor("Org4MSP"), wire.FnRevoke, c.body); refusal == nil || refusal.Field != c.field {
			t.Errorf("%s: the contract says %v", name, refusal)
		}
		behind := intent.Handler(l, intent.Options{Known: func(id wire.CAID) ([]*x509.Certificate, bool) { certs, _ := l.list(id); return certs, false }})
		if w := post(behind, c.body); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s, before the list is read: %d %s", name, w.Code, w.Body)
		}
	}
	if n := l.queries.Load(); n != 0 {
		t.Errorf("%d queries", n)
	}
}

// TestOneAddressCannotUseUpTheOthers: junk from one leaves everybody else their turn.
func TestOneAddressCannotUseUpTheOthers(t *testing.T) {
	l := &counted{ledger: newLedger(t)}
	now := time.Unix(1000, 0)
	h := intent.Handler(l, intent.Options{Now: func() time.Time { return now }, Known: func(id wire.CAID) ([]*x509.Certificate, bool) {
		certs, current := l.list(id)
		slices.Reverse(certs) // any of them may be the issuer
		return certs, current
	}})
	junk := signAll(l.ledger, cctest.NewCA(t), 1)[0]
	codes := map[int]int{}
	for range 100 {
		w := from(h, "192.0.2.1:99", junk)
		if codes[w.Code]++; w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Fatalf("no Retry-After: %s", w.Body)
		}
	}
	if codes[http.StatusNotFound] != 20 || codes[http.StatusTooManyRequests] != 80 {
		t.Errorf("status codes: %v", codes)
	}
	if w := from(h, "192.0.2.2:99", intent.Marshal(l.sign())); w.Code != http.StatusOK {
		t.Errorf("another address: %d %s", w.Code, w.Body)
	}
	now = now.Add(time.Second)
	if w := from(h, "192.0.2.1:99", intent.Marshal(l.sign())); w.Code != http.StatusOK {
		t.Errorf("the same, later: %d %s", w.Code, w.Body)
	}
}

// TestTheSameAtOnceIsOneTransaction, and its answer is everybody's.
func TestTheSameAtOnceIsOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &counted{ledger: newLedger(t)}
		l.gate, l.evaluated = make(chan struct{}), make(chan struct{}, 10)
		h := intent.Handler(l, intent.Options{MaxInFlight: 1, Known: l.list})
		body := intent.Marshal(l.sign())
		const n = 10
		answers := make(chan *httptest.ResponseRecorder, n)
		for range n {
			go func() { answers <- post(h, body) }()
		}
		synctest.Wait()
		close(l.gate)
		for range n {
			w := <-answers
			if got := read[intent.Result](t, w); w.Code != http.StatusOK || got.TxID != "tx1" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		if q := l.queries.Load(); q != 1 || l.submitted != 1 {
			t.Errorf("%d queries, %d transactions", q, l.submitted)
		}
	})
}

// TestIntentsForOneCertificateTakeTurns: one key holds one slot, and a compromise that comes while another reason is on its way is not lost.
func TestIntentsForOneCertificateTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &counted{ledger: newLedger(t)}
		l.gate, l.evaluated = make(chan struct{}), make(chan struct{}, 10)
		h := intent.Handler(l, intent.Options{MaxInFlight: 2, Known: l.list})
		_, cert := l.ca.Issue(t)
		sign := func(reason wire.Reason) []byte {
			terms := l.terms()
			terms.Reason = reason
			arg, err := intent.Sign(cctest.LeafKey(), cert, l.ca.Cert, terms)
			if err != nil {
				t.Fatal(err)
			}
			return intent.Marshal(arg)
		}
		reasons := []wire.Reason{wire.Superseded, wire.KeyCompromise}
		answers := []chan *httptest.ResponseRecorder{make(chan *httptest.ResponseRecorder, 1), make(chan *httptest.ResponseRecorder, 1)}
		for i, reason := range reasons {
			body := sign(reason)
			go func() { answers[i] <- post(h, body) }()
			synctest.Wait()
		}
		late := sign(wire.Superseded)
		other := make(chan int, 1)
		go func() { other <- post(h, intent.Marshal(l.sign())).Code }()
		synctest.Wait()
		if q := l.queries.Load(); q != 2 { // one for each certificate
			t.Errorf("%d queries at once", q)
		}
		close(l.gate)
		for i, reason := range reasons {
			w := <-answers[i]
			if got := read[intent.Result](t, w); w.Code != http.StatusOK || got.Reason != reason.String() || !got.Changed {
				t.Errorf("%v: %d %s", reason, w.Code, w.Body)
			}
		}
		if code := <-other; code != http.StatusOK {
			t.Errorf("another certificate: %d", code)
		}
		if got := read[intent.Result](t, post(h, late)); got.Reason != "keyCompromise" || got.Changed {
			t.Errorf("afterwards: %+v", got)
		}
	})
}

// TestWaitingForOnesTurnEnds: the ledger does not answer the one before.
func TestWaitingForOnesTurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t)
		l.gate, l.evaluated = make(chan struct{}), make(chan struct{}, 10)
		h := intent.Handler(l, intent.Options{Timeout: time.Second})
		body := intent.Marshal(l.sign())
		first := make(chan int, 1)
		go func() { first <- post(h, body).Code }()
		synctest.Wait()
		if w := post(h, body); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "send the same again") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		close(l.gate)
		if code := <-first; code != http.StatusOK {
			t.Errorf("the one before: %d", code)
		}
	})
}

// TestWaitingForRespondersHoldsNoSlot: a responder that lags does not keep others from revoking.
func TestWaitingForRespondersHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t)
		var waiting atomic.Int32
		apply := make(chan struct{})
		h := intent.Handler(l, intent.Options{MaxInFlight: 1, Applied: func(context.Context, uint64) error {
			waiting.Add(1)
			<-apply
			return nil
		}})
		const n = 5
		answers := make(chan int, n)
		for _, body := range signAll(l, l.ca, n) {
			go func() { answers <- post(h, body).Code }()
			synctest.Wait()
		}
		if got := waiting.Load(); got != n {
			t.Errorf("%d of %d wait for the responders", got, n)
		}
		close(apply)
		for range n {
			if code := <-answers; code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		}
	})
}
