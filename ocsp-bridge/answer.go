package ocspbridge

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// reply is an answer to one OCSP request.
type reply struct {
	der        []byte
	status     ocspwire.ResponseStatus
	reason     string    // of a refusal, for the log
	thisUpdate time.Time // of an answer
	nextUpdate time.Time
	nonce      bool // must not be kept for others
}

func refuse(status ocspwire.ResponseStatus, reason error) reply {
	return reply{der: ocspwire.ErrorResponse(status), status: status, reason: reason.Error()}
}

// question is a request with what the index says to it.
type question struct {
	req    *ocspwire.Request
	ca     *index.CA // the one CA it asks about; nil: none on the trust list
	view   *index.View
	limits limits
	now    time.Time
}

// answer decides and signs. The order matters: the view is taken first and records are read through it, so that what is said
// to hold at the view's time was read no earlier.
func (b *Bridge) answer(der []byte) reply {
	req, err := ocspwire.ParseRequest(der, b.cfg.Settings.MaxCertIDs)
	if err != nil {
		return refuse(ocspwire.MalformedRequest, err)
	}
	// RFC 6960 section 4.4: an extension that is critical and not understood must not be ignored.
	if oid, found := req.UnknownCritical(); found {
		return refuse(ocspwire.MalformedRequest, fmt.Errorf("critical extension %s is not known here", oid))
	}
	q := question{req: req, view: b.index.View(), now: b.cfg.Now()}
	if q.limits, err = b.fresh(q.view, q.now); err != nil {
		return refuse(ocspwire.TryLater, err)
	}
	for _, item := range req.Items {
		ca := q.view.Issuer(item.ID)
		if ca == nil {
			continue
		}
		// RFC 6960 section 4.2.2.2: whoever signs must be authorised by the CA of every certificate in the response.
		if q.ca != nil && q.ca != ca {
			return refuse(ocspwire.Unauthorized, fmt.Errorf("certificates of more than one CA in a request"))
		}
		q.ca = ca
	}
	return b.answerKnown(&q)
}

// answerKnown answers a well-formed request from a fresh view.
func (b *Bridge) answerKnown(q *question) reply {
	singles, issued, err := b.singles(q)
	if err != nil {
		return refuse(ocspwire.InternalError, err)
	}
	if issued == 0 && b.cfg.Settings.NotIssued == NotIssuedUnauthorized {
		return refuse(ocspwire.Unauthorized, fmt.Errorf("none of the certificates is on the ledger"))
	}
	id, err := b.signer(q)
	if err != nil {
		return refuse(ocspwire.TryLater, err)
	}
	r := reply{thisUpdate: thisUpdate(q.view, q.now), nonce: q.req.Nonce != nil}
	r.nextUpdate = r.thisUpdate.Add(q.limits.validity)
	// An answer that outlived its signer's certificate would not verify.
	if end := id.Cert.NotAfter.UTC(); end.Before(r.nextUpdate) {
		r.nextUpdate = end
	}
	for i := range singles {
		singles[i].ThisUpdate, singles[i].NextUpdate = r.thisUpdate, r.nextUpdate
	}
	resp := &ocspwire.Response{
		Responder: id.ID, ProducedAt: q.now, Responses: singles, Nonce: q.req.Nonce, Certs: [][]byte{id.Cert.Raw},
	}
	if r.der, err = b.answers.sign(resp, id); err != nil {
		return refuse(ocspwire.InternalError, err)
	}
	return r
}

// signer chooses who signs. A request about no CA on the trust list gets its "unknown" from the first identity there is: only
// a client that trusts this responder by configuration can believe it, and no other answer could be better founded.
func (b *Bridge) signer(q *question) (*identity, error) {
	if q.ca != nil {
		return b.responders.Signer(q.ca, q.now)
	}
	err := fmt.Errorf("no CA is on the trust list")
	for _, ca := range q.view.CAs() {
		var id *identity
		if id, err = b.responders.Signer(ca, q.now); err == nil {
			return id, nil
		}
	}
	return nil, err
}

// singles evaluates each certificate asked about, and counts those that the ledger has.
func (b *Bridge) singles(q *question) (out []ocspwire.SingleResponse, issued int, err error) {
	for _, item := range q.req.Items {
		single := ocspwire.SingleResponse{ID: item.ID, Status: ocspwire.Unknown}
		if ca := q.view.Issuer(item.ID); ca != nil {
			known, err := b.evaluate(ca, &single)
			if err != nil {
				return nil, 0, err
			}
			if known {
				issued++
			}
		}
		out = append(out, single)
	}
	return out, issued, nil
}

// evaluate fills in the status of one certificate; it stays unknown unless the ledger has a record of it. A precertificate is enough:
// it is the CA's promise of the certificate (RFC 6962 section 3.1), and may be all that the ledger ever has of it.
func (b *Bridge) evaluate(ca *index.CA, single *ocspwire.SingleResponse) (known bool, err error) {
	serial, err := wire.SerialOf(single.ID.Serial)
	if err != nil {
		return false, nil // not a serial number that the contract accepts, so never issued
	}
	st, rec, err := b.index.Status(ca.ID, serial)
	if err != nil || rec == nil {
		return false, err
	}
	switch st.State {
	case wire.CertValid:
		single.Status = ocspwire.Good
	case wire.CertHeld, wire.CertRevoked:
		single.Status = ocspwire.Revoked
		single.RevokedAt = st.Time.Time()
		single.Reason = int(st.Reason)
		// RFC 5280 section 5.3.1: unspecified should be left out.
		if st.Reason == wire.Unspecified {
			single.Reason = ocspwire.NoReason
		}
		if st.Invalidity != 0 {
			single.Extensions = []pkix.Extension{invalidityDate(st.Invalidity)}
		}
	default:
		return false, fmt.Errorf("certificate %s of CA %s has the state %d, which this program does not know", serial, ca.ID, st.State)
	}
	return true, nil
}

// invalidityDate is the CRL entry extension of RFC 5280 section 5.3.2, which RFC 6960 section 4.4.5 allows here.
func invalidityDate(t wire.Millis) pkix.Extension {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1GeneralizedTime(t.Time().Truncate(time.Second))
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: b.BytesOrPanic()}
}
