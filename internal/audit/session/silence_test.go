package session_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
)

func TestAnUnreachableBridgeIsOneDifference(t *testing.T) {
	w := newWorld(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	o := w.options(t.TempDir())
	o.Bridges = append([]string{gone.URL}, o.Bridges...)
	r := w.audit(o)
	finds(t, r, served.KindUnreachable, gone.URL, "no answer to a request for /log_list.json", "was not asked any more", "connection refused")
	if len(r.Differences) != 1 || !r.Compared || r.Bridges[1].OCSP == 0 {
		t.Errorf("%v, %+v", r.Differences, r.Bridges[1])
	}
	o.Bridges = o.Bridges[:1]
	o.Dir = t.TempDir()
	if r := w.audit(o); len(r.Differences) != 1 || r.Compared {
		t.Errorf("alone: %v, compared %v", r.Differences, r.Compared)
	}
}

// TestABridgeThatGoesAwayIsOneDifference: after its heads, when all certificates and files are still to come.
func TestABridgeThatGoesAwayIsOneDifference(t *testing.T) {
	w := newWorld(t)
	inner := w.through(w.bridge.Handler())
	leaving := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/tile/") {
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(out, r)
	}))
	defer leaving.Close()
	o := w.options(t.TempDir())
	o.Bridges = []string{leaving.URL}
	r := w.audit(o)
	finds(t, r, served.KindUnreachable, leaving.URL, "requests without an answer, the first for /logs/")
	if len(r.Differences) != 1 {
		t.Errorf("%v", r.Differences)
	}
}

// TestABridgeWithoutAnyAnswerDoesNotAgree: OCSP says tryLater to everything, and there are no bundles.
func TestABridgeWithoutAnyAnswerDoesNotAgree(t *testing.T) {
	w := newWorld(t)
	tryLater := []byte{0x30, 3, 0x0a, 1, 3}
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		switch {
		case path == "/ocsp":
			return http.StatusOK, tryLater
		case strings.Contains(path, "/bundle?"):
			return http.StatusServiceUnavailable, nil
		}
		return status, body
	})
	o := w.options(t.TempDir())
	o.Patience = time.Millisecond
	r := w.audit(o)
	finds(t, r, served.KindUnanswered, w.url+"/ocsp", "tryLater")
	finds(t, r, served.KindUnanswered, w.url+"/logs/.../bundle", "503")
	if len(r.Differences) != 2 || r.Bridges[0].OCSP != 0 || r.Bridges[0].Unanswered < 10 {
		t.Errorf("%v, %+v", r.Differences, r.Bridges[0])
	}
}

// TestACAWithoutAResponderIsNoDifference: its key is elsewhere, so nobody can answer for it, until somebody could and does not.
func TestACAWithoutAResponderIsNoDifference(t *testing.T) {
	w := newWorldWith(t, func(w *world) { w.without = true })
	o := w.options(t.TempDir())
	o.Patience = time.Millisecond
	r := w.audit(o)
	agrees(t, r)
	b := r.Bridges[0]
	if b.OCSP != 0 || b.Unanswered != 0 || b.NoResponder < 10 || b.Proofs == 0 {
		t.Errorf("%+v", b)
	}
	for _, useless := range []func(*x509.Certificate){
		cctest.Responder(w.clock.Now().Add(-time.Minute), 2*time.Minute), // expires below
		cctest.Responder(w.clock.Now().Add(time.Hour), time.Hour),        // not valid yet
	} {
		der, _ := w.ca.Issue(t, useless)
		w.submit(wire.FnIssue, w.ca.IssueArg(der))
	}
	gone, cert := w.ca.Issue(t, cctest.Responder(w.clock.Now().Add(-time.Minute), time.Hour))
	w.submit(wire.FnIssue, w.ca.IssueArg(gone))
	w.change(cert, wire.OpRevoke, wire.Superseded)
	w.clock.move(2 * time.Minute)
	w.integrate()
	w.applied(w.tick())
	o.Dir = t.TempDir()
	agrees(t, w.audit(o))

	der, _ := w.ca.Issue(t, cctest.Responder(w.clock.Now().Add(-time.Minute), time.Hour))
	w.submit(wire.FnIssue, w.ca.IssueArg(der))
	w.applied(w.tick())
	o.Dir = t.TempDir()
	r = w.audit(o)
	finds(t, r, served.KindUnanswered, w.url+"/ocsp", "tryLater")
	if b := r.Bridges[0]; len(r.Differences) != 1 || b.NoResponder == 0 || b.NoResponder > 2 || b.Unanswered < 10 {
		t.Errorf("%v, %+v", r.Differences, b)
	}
}

// TestABridgeThatHasJustStartedIsAskedAgain: its first answers are tryLater.
func TestABridgeThatHasJustStartedIsAskedAgain(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	o.Sample = 1
	var asked atomic.Int64
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if path == "/ocsp" && asked.Add(1) <= 12 { // more than one round of questions
			return http.StatusOK, []byte{0x30, 3, 0x0a, 1, 3}
		}
		return status, body
	})
	r := w.audit(o)
	agrees(t, r)
	if asked.Load() <= 12 || r.Bridges[0].OCSP == 0 {
		t.Errorf("asked %d times: %+v", asked.Load(), r.Bridges[0])
	}
}

// TestTheLimitDoesNotHideAForgeryBehindNoise: a bridge without tiles, whose checkpoint has another root.
func TestTheLimitDoesNotHideAForgeryBehindNoise(t *testing.T) {
	w := newWorld(t)
	agrees(t, w.audit(w.options(t.TempDir())))
	path := w.path("/checkpoint")
	_, other := w.forged(path)
	w.tampering(func(at string, status int, body []byte) (int, []byte) {
		switch {
		case at == path:
			return status, other
		case strings.Contains(at, "/tile/"):
			return http.StatusNotFound, nil
		case strings.HasSuffix(at, "/get-sth"):
			panic(http.ErrAbortHandler)
		}
		return status, body
	})
	o := w.options(t.TempDir())
	o.Limit = 2
	r := w.audit(o)
	if len(r.Differences) != 2 || r.Differences[0].Kind != served.KindEquivocate || r.Differences[1].Kind != served.KindRoot || !r.More {
		t.Errorf("%v, more %v", r.Differences, r.More)
	}
	o.Limit, o.Dir = 100, t.TempDir()
	r = w.audit(o)
	last := r.Differences[len(r.Differences)-1]
	if last.Kind != served.KindUnreachable || r.Differences[0].Kind != served.KindEquivocate || r.More {
		t.Errorf("%v, more %v", r.Differences, r.More)
	}
}
