package intent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

func post(h http.Handler, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, intent.Path, bytes.NewReader(body)))
	return w
}

func read[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	return v
}

func TestHandlerRevokesOnce(t *testing.T) {
	l := newLedger(t)
	h := intent.Handler(l, intent.Options{})
	arg := l.sign()
	i, _, err := intent.Check(arg)
	if err != nil {
		t.Fatal(err)
	}
	w := post(h, intent.Marshal(arg))
	first := read[intent.Result](t, w)
	want := intent.Result{CAID: l.ca.ID.String(), Serial: i.Serial.String(), Reason: "keyCompromise", Time: l.l.Now.Format(intent.TimeFormat), Changed: true, Block: 10, TxID: "tx1"}
	if w.Code != http.StatusOK || first != want || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %+v, want %+v", w.Code, w.Header(), first, want)
	}
	// A repetition costs no transaction, later neither, and keeps the date.
	l.l.Now = l.l.Now.Add(time.Second)
	again := read[intent.Result](t, post(h, wire.Encode(arg)))
	want.Changed, want.Block, want.TxID = false, 0, ""
	if again != want || l.submitted != 1 {
		t.Errorf("%+v, want %+v; %d transactions", again, want, l.submitted)
	}
}

// TestHandlerAnswersOnceTheRespondersHaveAppliedIt: the repetition too, for whoever did not see the first answer.
func TestHandlerAnswersOnceTheRespondersHaveAppliedIt(t *testing.T) {
	l := newLedger(t)
	var waited []uint64
	var late error
	h := intent.Handler(l, intent.Options{Applied: func(ctx context.Context, block uint64) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		waited = append(waited, block)
		return late
	}})
	arg := intent.Marshal(l.sign())
	if w := post(h, arg); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	late = context.DeadlineExceeded
	w := post(h, arg)
	if got := read[intent.Result](t, w); w.Code != http.StatusAccepted || got.Detail == "" {
		t.Errorf("%d %+v", w.Code, got)
	}
	if len(waited) != 2 || waited[0] != 10 || waited[1] != 10 {
		t.Errorf("waited for %v", waited)
	}
}

func TestHandlerMapsWhatTheLedgerSays(t *testing.T) {
	for name, c := range map[string]struct {
		fault error
		code  string
	}{
		"away":     {&network.UnavailableError{Stage: "endorse", Err: errors.New("peer is down")}, problem.CodeUnavailable},
		"unknown":  {&network.UnknownOutcomeError{TxID: "tx9", Stage: "commit", Err: io.EOF}, problem.CodeUnknownOutcome},
		"conflict": {&network.ConflictError{TxID: "tx9", Code: "MVCC_READ_CONFLICT"}, problem.CodeConflict},
	} {
		l := newLedger(t)
		l.faults = []error{c.fault}
		h, arg := intent.Handler(l, intent.Options{}), intent.Marshal(l.sign())
		w := post(h, arg)
		if p := read[problem.Problem](t, w); w.Code != http.StatusServiceUnavailable || p.Code != c.code || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %v %+v", name, w.Code, w.Header(), p)
		}
		if w := post(h, arg); w.Code != http.StatusOK {
			t.Errorf("%s: the same again: %d %s", name, w.Code, w.Body)
		}
	}
}

// TestHandlerRefusalsCostNoTransaction: what the contract alone can know, it is asked as a query.
func TestHandlerRefusalsCostNoTransaction(t *testing.T) {
	l := newLedger(t)
	stranger := cctest.NewCA(t)
	_, unregistered := stranger.Issue(t)
	_, cert := l.ca.Issue(t)
	signed := func(ca *cctest.CA, o intent.Terms) []byte {
		c := cert
		if ca == stranger {
			c = unregistered
		}
		arg, err := intent.Sign(cctest.LeafKey(), c, ca.Cert, o)
		if err != nil {
			t.Fatal(err)
		}
		return intent.Marshal(arg)
	}
	forged := l.sign()
	forged.Signature = l.sign().Signature
	elsewhere, expired := l.terms(), l.terms()
	elsewhere.Channel = "other"
	expired.Now = expired.Now.Add(-intent.MaxLifetime)
	for name, c := range map[string]struct {
		body   []byte
		status int
		field  string
	}{
		"empty":           {nil, http.StatusBadRequest, "body"},
		"JSON":            {[]byte(`{"serial":"01"}`), http.StatusBadRequest, "body"},
		"too long":        {make([]byte, intent.MaxFile+1), http.StatusRequestEntityTooLarge, "body"},
		"another ledger":  {signed(l.ca, elsewhere), http.StatusBadRequest, "intent.channel"},
		"expired":         {signed(l.ca, expired), http.StatusBadRequest, "intent.expires"},
		"forged":          {intent.Marshal(forged), http.StatusForbidden, "signature"},
		"unregistered CA": {signed(stranger, l.terms()), http.StatusNotFound, "intent.ca_id"},
	} {
		w := post(intent.Handler(l, intent.Options{}), c.body)
		if p := read[problem.Problem](t, w); w.Code != c.status || p.Field != c.field || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %+v", name, w.Code, p)
		}
	}
	w := httptest.NewRecorder()
	intent.Handler(l, intent.Options{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, intent.Path, nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", w.Code, w.Header())
	}
	if l.submitted != 0 {
		t.Errorf("%d transactions", l.submitted)
	}
}

// TestHandlerBoundsWhatIsInFlight: it is open to anybody.
func TestHandlerBoundsWhatIsInFlight(t *testing.T) {
	l := newLedger(t)
	l.gate, l.evaluated = make(chan struct{}), make(chan struct{}, 1)
	h := intent.Handler(l, intent.Options{MaxInFlight: 1})
	first, arg := intent.Marshal(l.sign()), intent.Marshal(l.sign())
	done := make(chan int)
	go func() { done <- post(h, first).Code }()
	<-l.evaluated
	if w := post(h, arg); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("second at once: %d %s", w.Code, w.Body)
	}
	close(l.gate)
	if code := <-done; code != http.StatusOK {
		t.Errorf("first: %d", code)
	}
	if w := post(h, arg); w.Code != http.StatusOK {
		t.Errorf("second, later: %d %s", w.Code, w.Body)
	}
}

// TestSendRepeatsTheSameBytes until the ledger is back, at whichever bridge answers.
func TestSendRepeatsTheSameBytes(t *testing.T) {
	l := newLedger(t)
	l.faults = []error{&network.UnknownOutcomeError{TxID: "tx9", Err: io.EOF}, &network.UnavailableError{Err: io.EOF}}
	var bodies []string
	h := intent.Handler(l, intent.Options{})
	bridge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, string(body))
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	}))
	defer bridge.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	hostile := httptest.NewServer(http.NotFoundHandler())
	defer hostile.Close()
	s := intent.Sender{Bridges: []string{gone.URL, hostile.URL, bridge.URL + "/"}, Pause: time.Millisecond}
	res, err := s.Send(t.Context(), l.sign())
	if err != nil || !res.Changed || len(bodies) != 3 || bodies[0] != bodies[1] || bodies[1] != bodies[2] {
		t.Errorf("%+v, %v, %d requests", res, err, len(bodies))
	}
}

func TestSendGivesUp(t *testing.T) {
	l := newLedger(t)
	h := intent.Handler(l, intent.Options{})
	bridge := httptest.NewServer(h)
	defer bridge.Close()
	terms := l.terms()
	terms.Channel = "other"
	_, cert := l.ca.Issue(t)
	elsewhere, err := intent.Sign(cctest.LeafKey(), cert, l.ca.Cert, terms)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		arg     *wire.RevokeArg
		bridges []string
		want    string
	}{
		"refused":     {t.Context(), elsewhere, []string{bridge.URL}, "must be this ledger's"},
		"no bridge":   {t.Context(), l.sign(), nil, "no bridge"},
		"not a URL":   {t.Context(), l.sign(), []string{"bridge:1"}, "must be an absolute http or https URL"},
		"not signed":  {t.Context(), &wire.RevokeArg{V: 1}, []string{bridge.URL}, "cert"},
		"out of time": {ctx, l.sign(), []string{bridge.URL}, "may be sent again"},
	} {
		if _, err := (&intent.Sender{Bridges: c.bridges, Pause: time.Millisecond}).Send(c.ctx, c.arg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Neither too many requests nor an answer about another certificate ends it: the deadline does, here at the third request.
	for want, answer := range map[string]func(w http.ResponseWriter){
		"429": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"answered about": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"ca_id":"00","serial":"01","changed":true}`)
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) == 3 {
				cancel()
			}
			answer(w)
		}))
		defer server.Close()
		_, err := (&intent.Sender{Bridges: []string{server.URL}, Pause: time.Millisecond}).Send(ctx, l.sign())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
