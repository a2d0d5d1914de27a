package ocspbridge_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// sink is a ResponseWriter that is used again and again.
type sink struct {
	header http.Header
	code   int
	n      int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(code int)        { s.code = code }
func (s *sink) Write(p []byte) (int, error) { s.n += len(p); return len(p), nil }

// body is a request body that can be read again.
type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

func TestAKeptAnswerIsGivenWithoutAllocating(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	handler := b.Handler()
	der := request(t, w.ca.Cert, nil, cert)
	b.want(cert, "good")
	post := httptest.NewRequest(http.MethodPost, "/ocsp", nil)
	post.Header.Set("Content-Type", "application/ocsp-request")
	post.ContentLength = int64(len(der))
	content := &body{}
	post.Body = content
	std := base64.StdEncoding.EncodeToString(der)
	tagged := httptest.NewRequest(http.MethodGet, "/ocsp/"+std, nil)
	resp, _ := b.post(der)
	tagged.Header.Set("If-None-Match", `"x", W/`+resp.Header.Get("ETag"))
	out := &sink{header: http.Header{}}
	for what, req := range map[string]*http.Request{
		"POST":         post,
		"GET":          httptest.NewRequest(http.MethodGet, "/ocsp/"+std, nil),
		"GET escaped":  httptest.NewRequest(http.MethodGet, "/ocsp/"+url.QueryEscape(std), nil),
		"GET base64ur": httptest.NewRequest(http.MethodGet, "/ocsp/"+base64.RawURLEncoding.EncodeToString(der), nil),
		"GET 304":      tagged,
		"HEAD":         httptest.NewRequest(http.MethodHead, "/ocsp/"+std, nil),
	} {
		allocs := testing.AllocsPerRun(200, func() {
			clear(out.header)
			out.n = 0
			content.Reset(der)
			handler.ServeHTTP(out, req)
		})
		if allocs > dropped {
			t.Errorf("%s: %v allocations, want %d", what, allocs, dropped)
		}
		if ok := out.code == 200 && out.n > 100 || what == "GET 304" && out.code == 304 || what == "HEAD" && out.code == 200; !ok {
			t.Errorf("%s: status %d, %d octets", what, out.code, out.n)
		}
	}
}

// ask asks the handler itself: no network slows it down.
func ask(t *testing.T, handler http.Handler, der []byte) string {
	req := httptest.NewRequest(http.MethodPost, "/ocsp", bytes.NewReader(der))
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, req)
	status, resp, err := ocspwire.ParseResponse(rec.Body.Bytes())
	if err != nil {
		t.Error(err)
		return err.Error()
	}
	if status != ocspwire.Successful {
		return status.String()
	}
	return resp.Responses[0].Status.String()
}

// Certificates go on hold, are released and are revoked while many ask about them. Once a block is applied, nobody who asks is given an
// answer from before it, whatever was being decided, signed and kept at that moment.
func TestNoAnswerFromBeforeAnAppliedBlockIsGiven(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(4)
	b := w.start("bridge", nil).ready()
	handler := b.Handler()
	ctx, cancel := context.WithCancel(t.Context())
	var (
		wg    sync.WaitGroup
		mu    [4]sync.RWMutex // held for writing from a change's submission until it is applied
		want  [4]string
		asked atomic.Int64
	)
	for i := range want {
		want[i] = "good"
	}
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := rand.IntN(len(certs))
				der := request(t, w.ca.Cert, nil, certs[i])
				if mu[i].TryRLock() {
					got := ask(t, handler, der)
					for deadline := time.Now().Add(20 * time.Second); got == "tryLater" && time.Now().Before(deadline); { // no answer is no old answer
						got = ask(t, handler, der)
					}
					if got != want[i] {
						t.Errorf("certificate %d: %s, want %s", i, got, want[i])
					}
					mu[i].RUnlock()
					asked.Add(1)
					continue
				}
				ask(t, handler, der) // during the change either is right
			}
		})
	}
	for round := range 12 {
		for i, cert := range certs {
			op, status, reason := wire.OpHold, "revoked", wire.CertificateHold
			if round%2 == 1 {
				op, status, reason = wire.OpRelease, "good", wire.Unspecified
			}
			if round == 11 && i > 0 {
				op, status, reason = wire.OpRevoke, "revoked", wire.KeyCompromise
			}
			if round > 9 && i == 0 {
				continue
			}
			w.clock.Advance(20 * time.Second) // holds and releases are counted by the minute
			w.tickIfDue()
			mu[i].Lock()
			b.applied(w.change(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: op, Reason: reason}))
			want[i] = status
			mu[i].Unlock()
		}
	}
	cancel()
	wg.Wait()
	if asked.Load() < 100 {
		t.Errorf("only %d requests were answered between changes", asked.Load())
	}
}

func TestAnAnswerIsKeptOverTicksAndMadeAnewWellBeforeItIsStale(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready() // staleness is 45 s: an answer is made anew when it is older than 22.5 s
	der := request(t, w.ca.Cert, nil, cert)
	_, first := b.post(der)
	w.clock.Advance(15 * time.Second)
	b.applied(w.tick())
	if _, second := b.post(der); !bytes.Equal(first, second) {
		t.Error("made anew after one tick")
	}
	w.clock.Advance(15 * time.Second)
	if _, third := b.post(der); bytes.Equal(first, third) {
		t.Error("30 s old, and not made anew though the ledger has ticked since")
	}
	w.clock.Advance(31 * time.Second)
	if got := b.ask(cert); got != "tryLater" {
		t.Errorf("on a stale view: %s, want tryLater", got)
	}
}

func TestTheClockMayGoBack(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	b := w.start("bridge", nil).ready()
	b.want(certs[0], "good")
	b.want(certs[1], "good")
	w.clock.Advance(-10 * time.Second)
	b.want(certs[0], "good") // verified: not from the future
	w.clock.Advance(10 * time.Second)
	b.applied(w.revoke(certs[0], wire.KeyCompromise))
	b.want(certs[0], "revoked")
	w.clock.Advance(-10 * time.Second)
	b.want(certs[0], "revoked")
	b.want(certs[1], "good")
}

func TestARuleDropsAllAnswersOfItsCA(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	logged := wire.MillisOf(w.clock.Now())
	w.clock.Advance(time.Second) // the responder's own certificate is not under the rule
	b := w.start("bridge", nil).ready()
	for _, c := range certs {
		b.want(c, "good")
	}
	r, err := w.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnDecide, w.ca.RuleArg(1, logged, logged+1, wire.CACompromise))
	if err != nil {
		t.Fatal(err)
	}
	b.applied(r)
	for _, c := range certs {
		b.want(c, "revoked")
	}
}

func TestNobodyIsGivenAnAnswerToAnothersNonce(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	ask := func(nonce []byte) (*http.Response, *ocspwire.Response) {
		resp, der := b.post(request(t, w.ca.Cert, nonce, cert))
		_, answer, err := ocspwire.ParseResponse(der)
		if err != nil {
			t.Fatal(err)
		}
		return resp, answer
	}
	for _, nonce := range []string{"first", "second", "first", "", "second"} {
		resp, answer := ask([]byte(nonce)[:len(nonce):len(nonce)])
		if nonce == "" {
			continue // refused: RFC 9654 has no empty nonce
		}
		if string(answer.Nonce) != nonce || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("ETag") != "" {
			t.Errorf("nonce %q: answer has %q, headers %v", nonce, answer.Nonce, resp.Header)
		}
	}
	_, none := ask(nil)
	if none.Nonce != nil {
		t.Errorf("without a nonce: the answer has %q", none.Nonce)
	}
	if n := b.KeptAnswers(); n != 1 {
		t.Errorf("%d answers are kept, want the one without a nonce", n)
	}
}

func TestAFloodOfNoncesMeetsABoundedQueueAndLeavesKeptAnswersAlone(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	_, never := w.ca.Issue(t)
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.Signers, c.Settings.SignerQueue, c.Settings.NotIssued = 1, 2, ocspbridge.NotIssuedUnknown
	}).ready()
	b.want(certs[0], "good")
	release := b.HoldSigners(true)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if got := b.single(request(t, w.ca.Cert, []byte{1, byte(i)}, certs[0])); got != "good" {
				t.Errorf("request in the queue: %s", got)
			}
		})
	}
	b.until("the queue is full", func() (bool, string) { return b.Waiting() == 2, "not yet" })
	for i := range 50 {
		resp, der := b.post(request(t, w.ca.Cert, []byte{2, byte(i)}, certs[0]))
		if status, _, err := ocspwire.ParseResponse(der); err != nil || status != ocspwire.TryLater || resp.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("nonce %d: %s, %v, headers %v; want tryLater", i, status, err, resp.Header)
		}
		if got := b.single(request(t, w.ca.Cert, nil, never)); got != "tryLater" {
			t.Fatalf("a signed unknown: %s, want tryLater", got)
		}
		b.want(certs[0], "good") // kept
	}
	b.want(certs[1], "good") // not asked about before: what can be kept has signers of its own
	release()
	wg.Wait()
	if got := b.single(request(t, w.ca.Cert, []byte{3}, certs[0])); got != "good" {
		t.Errorf("after the flood: %s", got)
	}
}

func TestAnAnswerPastItsPrimeIsGivenWhileAllSignersAreBusy(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.Signers, c.Settings.SignerQueue = 1, 1
	}).ready()
	der := request(t, w.ca.Cert, nil, certs[0])
	_, first := b.post(der)
	w.clock.Advance(30 * time.Second)
	b.applied(w.tick())
	release := b.HoldSigners(false)
	var wg sync.WaitGroup
	wg.Go(func() { b.single(request(t, w.ca.Cert, nil, certs[1])) })
	b.until("the queue is full", func() (bool, string) { return b.Waiting() == 1, "not yet" })
	if _, second := b.post(der); !bytes.Equal(first, second) {
		t.Error("30 s old, no signer free: not the answer of before")
	}
	release()
	wg.Wait()
	if _, third := b.post(der); bytes.Equal(first, third) {
		t.Error("30 s old, a signer free: not made anew")
	}
}

func TestIdenticalMissesAreSignedOnce(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.Signers, c.Settings.SignerQueue = 1, 1
	}).ready()
	release := b.HoldSigners(false)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		got = map[string]int{}
	)
	der := request(t, w.ca.Cert, nil, cert)
	for range 20 {
		wg.Go(func() {
			_, answer := b.post(der)
			mu.Lock()
			defer mu.Unlock()
			got[string(answer)]++
		})
	}
	b.until("one waits", func() (bool, string) { return b.Waiting() == 1, "not yet" })
	release()
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d different answers to 20 requests at once, want 1", len(got))
	}
	for answer := range got {
		if status, _, err := ocspwire.ParseResponse([]byte(answer)); err != nil || status != ocspwire.Successful {
			t.Errorf("the answer is %s, %v", status, err)
		}
	}
}

func TestNeverIssuedSerialsDoNotDriveOutKeptAnswers(t *testing.T) {
	for _, notIssued := range []string{ocspbridge.NotIssuedUnauthorized, ocspbridge.NotIssuedUnknown, ocspbridge.NotIssuedRevoked} {
		w := newWorld(t)
		cert := w.issue(1)[0]
		b := w.start("bridge", func(c *ocspbridge.Config) {
			c.Settings = ocspbridge.DefaultSettings()
			c.Settings.NotIssued = notIssued
		}).ready()
		der := request(t, w.ca.Cert, nil, cert)
		_, first := b.post(der)
		handler := b.Handler()
		_, never := w.ca.Issue(t)
		for i := range 300 {
			other := *never
			other.SerialNumber = cctest.Serial(t, never).Int()
			other.SerialNumber.Add(other.SerialNumber, cctest.Serial(t, cert).Int()).Rsh(other.SerialNumber, uint(i%8)+1)
			ask(t, handler, request(t, w.ca.Cert, nil, &other))
		}
		if n := b.KeptAnswers(); n != 1 {
			t.Errorf("%s: %d answers are kept, want 1", notIssued, n)
		}
		if _, again := b.post(der); !bytes.Equal(first, again) {
			t.Errorf("%s: the kept answer was driven out", notIssued)
		}
	}
}
