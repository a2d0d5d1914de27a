package mirror_test

import (
	"context"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport/mirror"
)

// responder answers with x/crypto's encoder, signed by the CA, unless it is told to do something wrong.
type responder struct {
	*httptest.Server
	ca *cctest.CA

	mu    sync.Mutex
	make  func(asked *big.Int) ocsp.Response // nil: an answer that is none
	by    *cctest.CA                         // who signs
	asked map[string]int
}

func newResponder(t *testing.T, ca *cctest.CA) *responder {
	r := &responder{ca: ca, by: ca, asked: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
			return
		}
		req, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Errorf("the request: %v", err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked[req.SerialNumber.Text(16)]++
		if r.make == nil {
			_, _ = w.Write([]byte("sorry"))
			return
		}
		der, err := ocsp.CreateResponse(ca.Cert, r.by.Cert, r.make(req.SerialNumber), r.by.Key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(der)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *responder) says(f func(asked *big.Int) ocsp.Response) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.make = f
}

func (r *responder) signs(ca *cctest.CA) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by = ca
}

func (r *responder) total() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.asked {
		n += c
	}
	return n
}

// issued is a world with certificates on the ledger, an empty CRL and a responder.
func issued(t *testing.T, n int) (*world, *responder, []*x509.Certificate) {
	w := newWorld(t)
	ders := w.ca.IssueMany(t, n)
	_, err := w.l.Conn.Submit(t.Context(), wire.FnIssue, w.ca.IssueArg(ders...))
	check(t, err)
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		check(t, err)
		certs = append(certs, cert)
	}
	r := newResponder(t, w.ca)
	check(t, w.m.Close())
	w.cfg = func(c *mirror.Config) { c.OCSP, c.OCSPRate = r.URL, mirror.MaxOCSPRate }
	w.open()
	w.web.set(w.crl(1, nil))
	return w, r, certs
}

func (w *world) answer(serial *big.Int, status int) ocsp.Response {
	return ocsp.Response{
		Status: status, SerialNumber: serial, ThisUpdate: w.now.Add(-time.Second), NextUpdate: w.now.Add(time.Hour), RevokedAt: w.now.Add(-time.Hour), RevocationReason: ocsp.Superseded,
	}
}

func TestAnswersThatMustNotBeBelievedChangeNothing(t *testing.T) {
	w, r, certs := issued(t, 1)
	other := cctest.NewCA(t)
	for name, f := range map[string]func(asked *big.Int) ocsp.Response{
		"no answer":  nil,
		"of another": func(*big.Int) ocsp.Response { return w.answer(big.NewInt(7), ocsp.Revoked) },
		"old": func(n *big.Int) ocsp.Response {
			a := w.answer(n, ocsp.Revoked)
			a.ThisUpdate, a.NextUpdate = w.now.Add(-2*time.Hour), w.now.Add(-time.Hour)
			return a
		},
		"of the future": func(n *big.Int) ocsp.Response {
			a := w.answer(n, ocsp.Revoked)
			a.ThisUpdate = w.now.Add(time.Hour)
			a.NextUpdate = w.now.Add(2 * time.Hour)
			return a
		},
	} {
		r.says(f)
		failed := w.m.Report().OCSPFailed
		if err := w.once(); err == nil || w.m.Report().OCSPFailed != failed+1 {
			t.Errorf("%s: %v, %+v", name, err, w.m.Report())
		}
	}
	r.says(func(n *big.Int) ocsp.Response {
		a := w.answer(n, ocsp.Revoked)
		a.Certificate = other.Cert
		return a
	})
	r.signs(other)
	if err := w.once(); err == nil {
		t.Error("a responder of another CA is believed")
	}
	r.signs(w.ca)
	// What is not issued, as RFC 6960 section 2.2 has it, is no revocation by the CA.
	r.says(func(n *big.Int) ocsp.Response {
		a := w.answer(n, ocsp.Revoked)
		a.RevokedAt, a.RevocationReason = time.Unix(0, 0), ocsp.CertificateHold
		return a
	})
	w.mustOnce()
	for _, status := range []int{ocsp.Good, ocsp.Unknown} {
		r.says(func(n *big.Int) ocsp.Response { return w.answer(n, status) })
		w.mustOnce()
	}
	w.expect(map[string]wire.CertState{certs[0].SerialNumber.Text(16): wire.CertValid})
}

// TestARunningMirrorAsksInTurn: everybody is asked about, failures do not end it, and news are on the ledger before the next CRL.
func TestARunningMirrorAsksInTurn(t *testing.T) {
	w, r, certs := issued(t, 5)
	check(t, w.m.Close())
	asks := w.cfg
	w.cfg = func(c *mirror.Config) { asks(c); c.Now = time.Now } // it rests after failures
	w.open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.m.Run(ctx) }()
	eventually(t, "a request has failed", func() bool { return r.total() > 0 })
	r.says(func(n *big.Int) ocsp.Response {
		if n.Cmp(certs[3].SerialNumber) == 0 {
			return w.answer(n, ocsp.Revoked)
		}
		return w.answer(n, ocsp.Good)
	})
	serial := certs[3].SerialNumber.Text(16)
	eventually(t, "the revocation is on the ledger", func() bool { return w.l.Record(serial).State == wire.CertRevoked })
	eventually(t, "the others were asked about twice", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, c := range certs {
			if i != 3 && r.asked[c.SerialNumber.Text(16)] < 2 {
				return false
			}
		}
		return true
	})
	cancel()
	check(t, <-done)
	if rec := w.l.Record(serial); rec.Reason != wire.Superseded || rec.Asserted != wire.MillisOf(w.now.Add(-time.Hour)) || rec.Antedated || rec.SerialOnly() {
		t.Errorf("%+v", rec)
	}
}
