package ocspbridge

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/responder"
)

type identity = responder.Identity

// reply is an answer to one OCSP request.
type reply struct {
	kept   *answers.Answer // for everybody who asks the same; nil: der, for this request alone
	der    []byte
	status ocspwire.ResponseStatus
	reason string // of a refusal, for the log
	// outdated: nothing else is set. What it would have said has changed meanwhile.
	outdated bool
	// For the metrics.
	said, issuer, cache string
}

func refuse(status ocspwire.ResponseStatus, reason error) reply {
	return reply{der: ocspwire.ErrorResponse(status), status: status, reason: reason.Error(), said: status.String(), cache: metrics.CacheNone}
}

// question is a request with what the index says to it.
type question struct {
	req    *ocspwire.Request
	ca     *index.CA // the one CA it asks about; nil: none on the trust list
	view   *index.View
	limits limits
	now    time.Time

	signer *identity
	alg    x509.SignatureAlgorithm
	chosen bool // alg is by the request's wish, and not what signer signs with by itself
}

func (q *question) issuer() string {
	if q.ca == nil {
		return ""
	}
	return q.ca.ID.String()
}

// kept returns the answer that is kept for a request that consists of one CertID and nothing else, nil if none may be given now.
// This is the way of nearly every request; it allocates nothing.
func (b *Bridge) kept(key []byte, now time.Time) *answers.Answer {
	v := b.index.View()
	if _, err := b.fresh(v, now); err != nil {
		return nil
	}
	a := b.cache.Get(key)
	if a == nil || a.State(now, thisUpdate(v, now)) != answers.Ready {
		return nil
	}
	return a
}

// answer decides and signs, and does so again when what it decided from has changed meanwhile. The order matters: the view is taken first and
// records are read after it, so that what is said to hold at the view's time was read no earlier.
func (b *Bridge) answer(der []byte, now time.Time) reply {
	req, err := ocspwire.ParseRequest(der, b.cfg.Settings.MaxCertIDs)
	if err != nil {
		return refuse(ocspwire.MalformedRequest, err)
	}
	// RFC 6960 section 4.4: an extension that is critical and not understood must not be ignored.
	if oid, found := req.UnknownCritical(); found {
		return refuse(ocspwire.MalformedRequest, fmt.Errorf("critical extension %s is not known here", oid))
	}
	// RFC 6960 section 4.4.3. No status says "none of these types"; unauthorized is RFC 5019's for a responder that cannot answer.
	if !req.AcceptsBasic() {
		return refuse(ocspwire.Unauthorized, errors.New("acceptable response types: must include id-pkix-ocsp-basic, there is no other here"))
	}
	for range decisions {
		q := question{req: req, view: b.index.View(), now: now}
		r := b.decide(&q)
		if !r.outdated {
			r.issuer = q.issuer()
			return r
		}
		if !b.settle() {
			break
		}
		now = b.cfg.Now()
	}
	return refuse(ocspwire.TryLater, errMoving)
}

const (
	// decisions is how often a request is decided when what it asks about changes while the answer waits to be signed.
	decisions = 4
	// settleWait is how long a request waits for a block that is being applied.
	settleWait = 2 * time.Second
)

var errMoving = errors.New("what is asked about changes faster than answers are signed")

// settle waits until no block is being applied. It tells whether that came about.
func (b *Bridge) settle() bool {
	settled := b.versions.Settled()
	select {
	case <-settled:
		return true
	default:
	}
	select {
	case <-settled:
		return true
	case <-b.halted:
	case <-b.cfg.After(settleWait):
	}
	return false
}

// decide answers from what the index says now. The reply is outdated if that has changed before the answer was signed.
func (b *Bridge) decide(q *question) reply {
	var err error
	if q.limits, err = b.fresh(q.view, q.now); err != nil {
		return refuse(ocspwire.TryLater, err)
	}
	if q.req.Signature != nil && b.cfg.Settings.SignedRequests == SignedVerify {
		if err := b.checkRequestor(q); err != nil {
			return refuse(ocspwire.Unauthorized, err)
		}
	}
	for i := range q.req.Items {
		ca := q.view.Issuer(q.req.Items[i].ID)
		if ca == nil {
			continue
		}
		// RFC 6960 section 4.2.2.2: whoever signs must be authorised by the CA of every certificate in the response.
		if q.ca != nil && q.ca != ca {
			return refuse(ocspwire.Unauthorized, fmt.Errorf("certificates of more than one CA in a request"))
		}
		q.ca = ca
	}
	if len(q.req.Items) == 1 && q.req.Nonce == nil {
		return b.answerOne(q)
	}
	return b.answerLive(q)
}

// stamp is of a certificate of the question's CA, and of the CA and the signer.
func (b *Bridge) stamp(q *question, id ocspwire.CertID) answers.Stamp {
	ca := b.versions.CA(q.ca.ID)
	signer := ca
	if q.signer != nil {
		signer = b.versions.Cert(q.ca.ID, q.signer.Serial)
	}
	return b.versions.Read(b.versions.Cert(q.ca.ID, serialOf(id)), ca, signer)
}

// answerOne answers a request whose answer anybody may have who asks the same. The stamp is read before everything that the answer
// says: a change that comes later spoils the stamp, and the answer is neither kept nor given.
func (b *Bridge) answerOne(q *question) reply {
	signerErr := b.chooseSigner(q)
	var (
		item  = &q.req.Items[0]
		key   = q.key(item)
		stamp answers.Stamp
	)
	if q.ca != nil {
		stamp = b.stamp(q, item.ID)
		q.view = b.index.View()
		q.ca = q.view.CA(q.ca.ID)
	}
	old := b.cache.Get(key)
	if old != nil {
		switch old.State(q.now, thisUpdate(q.view, q.now)) {
		case answers.Ready:
			return reply{kept: old, cache: metrics.CacheHit}
		case answers.Gone:
			old = nil
		}
	}
	v, err := b.evaluate(q, q.ca, item.ID)
	if err != nil {
		return refuse(ocspwire.InternalError, err)
	}
	if v.refused(b.cfg.Settings.NotIssued) {
		return refuse(ocspwire.Unauthorized, errNotIssued)
	}
	if signerErr == nil && q.ca != nil {
		signerErr = b.responders.Usable(q.ca, q.signer, q.now) // again: the stamp is younger than the choice
	}
	if signerErr != nil {
		return refuse(ocspwire.TryLater, signerErr)
	}
	if q.ca != nil && !b.versions.Current(&stamp) {
		return reply{outdated: true} // and not worth a signature
	}
	a, err := b.signOne(q, key, v, stamp)
	if err != nil && old != nil {
		// Past its prime; is it still true, after what may have been a long time at a security module?
		if old, now := b.cache.Get(key), b.cfg.Now(); old != nil && old.State(now, thisUpdate(q.view, now)) != answers.Gone {
			if !errors.Is(err, answers.ErrBusy) && !errors.Is(err, errTooShort) {
				b.complain("answers are not signed anew, those that are kept are given", err.Error(), now)
			}
			return reply{kept: old, cache: metrics.CacheHit}
		}
	}
	switch {
	case errors.Is(err, answers.ErrBusy), errors.Is(err, errTooShort), keyDown(err):
		return refuse(ocspwire.TryLater, err)
	case err != nil:
		return refuse(ocspwire.InternalError, err)
	}
	// Signing takes its time, above all the wait for a signer. Whoever was shown a block must not be given an answer from before it.
	if a.Stamped && !b.versions.Current(&a.Stamp) {
		return reply{outdated: true}
	}
	return reply{kept: a, said: v.status.String(), cache: metrics.CacheMiss}
}

var (
	errNotIssued = errors.New("none of the certificates is on the ledger")
	errTooShort  = errors.New("no answer of the length that the profile asks for can be signed")
)

// keyDown reports whether the responder's key is in a token that cannot sign now.
func keyDown(err error) bool {
	down := new(hsm.Error)
	return errors.As(err, &down)
}

// key is what answers are kept under: the CertID, and the algorithm if the request has a wish that the usual signer would not fulfil.
func (q *question) key(item *ocspwire.RequestItem) []byte {
	if !q.chosen {
		return item.ID.Raw
	}
	return append(bytes.Clone(item.ID.Raw), byte(q.alg))
}

// signOne signs once for all who wait for the same, and keeps what may be kept: the answer about a certificate that was issued. Those
// about others, of which there is no end, cannot drive it out.
func (b *Bridge) signOne(q *question, key []byte, v verdict, stamp answers.Stamp) (*answers.Answer, error) {
	a, err, _ := b.flights.Do(v.flight(key, q.signer), func() (any, error) {
		// Another flight may have ended since this request looked.
		if a := b.cache.Get(key); a != nil && a.State(q.now, thisUpdate(q.view, q.now)) == answers.Ready {
			return a, nil
		}
		lane := b.signers
		if !v.issued {
			lane = b.live
		}
		a, err := b.sign(q, lane, []verdict{v})
		if err != nil {
			return nil, err
		}
		a.Stamp, a.Stamped, a.Verdict = stamp, q.ca != nil, v
		a.Hits = b.meters.ocsp.Requests(v.status.String(), q.issuer(), metrics.CacheHit)
		if v.issued {
			b.cache.Put(key, a)
		}
		return a, nil
	})
	if err != nil {
		return nil, err
	}
	return a.(*answers.Answer), nil
}

// answerLive signs for this request alone. As with answerOne, everything is read after the stamps.
func (b *Bridge) answerLive(q *question) reply {
	signerErr := b.chooseSigner(q)
	var (
		items  = q.req.Items
		issuer = make([]*index.CA, len(items))
		stamps []answers.Stamp
	)
	if q.ca != nil {
		before := q.view
		for i := range items {
			if before.Issuer(items[i].ID) != nil {
				stamps = append(stamps, b.stamp(q, items[i].ID))
			}
		}
		q.view = b.index.View()
		q.ca = q.view.CA(q.ca.ID)
		for i := range items {
			if before.Issuer(items[i].ID) != nil {
				issuer[i] = q.ca
			}
		}
	}
	vs, err := b.evaluateAll(q, issuer)
	switch {
	case errors.Is(err, errNotIssued):
		return refuse(ocspwire.Unauthorized, err)
	case err != nil:
		return refuse(ocspwire.InternalError, err)
	}
	if signerErr == nil && q.ca != nil {
		signerErr = b.responders.Usable(q.ca, q.signer, q.now)
	}
	if signerErr != nil {
		return refuse(ocspwire.TryLater, signerErr)
	}
	a, err := b.sign(q, b.live, vs)
	switch {
	case errors.Is(err, answers.ErrBusy), errors.Is(err, errTooShort), keyDown(err):
		return refuse(ocspwire.TryLater, err)
	case err != nil:
		return refuse(ocspwire.InternalError, err)
	}
	if slices.ContainsFunc(stamps, func(s answers.Stamp) bool { return !b.versions.Current(&s) }) {
		return reply{outdated: true}
	}
	said := "several"
	if len(vs) == 1 {
		said = vs[0].status.String()
	}
	if q.req.Nonce == nil {
		return reply{kept: a, said: said, cache: metrics.CacheLive}
	}
	return reply{der: a.DER, said: said, cache: metrics.CacheLive}
}

// evaluateAll returns what is said of each item. It fails with errNotIssued if there is nothing to say of any.
func (b *Bridge) evaluateAll(q *question, issuer []*index.CA) ([]verdict, error) {
	vs, some := make([]verdict, len(issuer)), false
	for i := range vs {
		var err error
		if vs[i], err = b.evaluate(q, issuer[i], q.req.Items[i].ID); err != nil {
			return nil, err
		}
		some = some || !vs[i].refused(b.cfg.Settings.NotIssued)
	}
	if !some {
		return nil, errNotIssued
	}
	return vs, nil
}

// sign makes the answer that says vs of the request's items.
func (b *Bridge) sign(q *question, lane *answers.Signers, vs []verdict) (*answers.Answer, error) {
	a := &answers.Answer{ThisUpdate: thisUpdate(q.view, q.now), Made: q.now}
	a.NextUpdate = a.ThisUpdate.Add(q.limits.validity)
	// An answer that outlived its signer's certificate would not verify.
	if end := q.signer.Cert.NotAfter.UTC(); end.Before(a.NextUpdate) {
		a.NextUpdate = end
	}
	var err error
	if a.Due, a.Dead, err = q.limits.ages(a.NextUpdate.Sub(a.ThisUpdate)); err != nil {
		return nil, fmt.Errorf("%w: %w", errTooShort, err)
	}
	a.Until = a.NextUpdate
	resp := &ocspwire.Response{Responder: b.responderID(q.signer), ProducedAt: q.now, Nonce: q.req.Nonce, Certs: [][]byte{q.signer.Cert.Raw}}
	resp.Responses = make([]ocspwire.SingleResponse, len(vs))
	for i := range vs {
		single := &resp.Responses[i]
		vs[i].write(single, q.req.Items[i].ID)
		single.ThisUpdate, single.NextUpdate = a.ThisUpdate, a.NextUpdate
		if vs[i].never && resp.Extensions == nil {
			resp.Extensions = append(resp.Extensions, ocspwire.ExtendedRevoke())
		}
		if end := vs[i].until; !end.IsZero() && end.Before(a.Until) {
			a.Until = end
		}
	}
	a.DER, err = lane.Do(func() ([]byte, error) { return resp.SignWith(q.signer.Key, q.alg) })
	if err == nil && q.req.Nonce == nil {
		a.Seal()
	}
	return a, err
}
