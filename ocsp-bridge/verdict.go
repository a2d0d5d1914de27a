package ocspbridge

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// verdict is what is said of one certificate.
type verdict struct {
	status     ocspwire.CertStatus
	issued     bool // the ledger has it, and it has not expired too long ago
	never      bool // "revoked", for it was never issued
	reason     int
	revokedAt  wire.Millis
	invalidity wire.Millis // 0: none
	cutoff     time.Time   // archive cutoff; zero: it has not expired
	until      time.Time   // when time alone makes it another verdict; zero: never
}

// refused tells whether this is answered with unauthorized and not with a signed status.
func (v *verdict) refused(notIssued string) bool {
	return !v.issued && !v.never && notIssued != NotIssuedUnknown
}

// flight names everything that is signed but the times: who waits for the same at the same moment may have one answer.
func (v *verdict) flight(key []byte, signer *identity) string {
	b := make([]byte, 0, 256)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(key))), key...)
	never := int64(0)
	if v.never {
		never = 1
	}
	for _, n := range []int64{int64(v.status), int64(v.reason), int64(v.revokedAt), int64(v.invalidity), never, v.cutoff.Unix()} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return string(append(b, signer.Serial...))
}

// write puts the verdict into a response.
func (v *verdict) write(s *ocspwire.SingleResponse, id ocspwire.CertID) {
	if v.never {
		*s = ocspwire.NeverIssued(id)
		return
	}
	*s = ocspwire.SingleResponse{ID: id, Status: v.status, Reason: v.reason}
	if v.status == ocspwire.Revoked {
		s.RevokedAt = v.revokedAt.Time()
	}
	if v.invalidity != 0 {
		s.Extensions = append(s.Extensions, ocspwire.InvalidityDate(v.invalidity.Time().Truncate(time.Second)))
	}
	if !v.cutoff.IsZero() {
		s.Extensions = append(s.Extensions, ocspwire.ArchiveCutoff(v.cutoff))
	}
}

// serialOf is nil for what is not a serial number that the contract accepts, so never issued.
func serialOf(id ocspwire.CertID) wire.Serial {
	serial, err := wire.SerialOf(id.Serial)
	if err != nil {
		return nil
	}
	return serial
}

// evaluate says what the status of a certificate is; ca is nil for one of a CA that is not on the trust list. It is unknown unless the ledger has a
// record of it. A precertificate is enough: it is the CA's promise of the certificate (RFC 6962 section 3.1), and may be all that the
// ledger ever has of it.
func (b *Bridge) evaluate(q *question, ca *index.CA, id ocspwire.CertID) (verdict, error) {
	if ca == nil {
		return verdict{status: ocspwire.Unknown}, nil
	}
	// RFC 6960 section 2.2: "revoked" may be said of a certificate of which the CA has no record. Of another CA's nothing is known.
	none := verdict{status: ocspwire.Unknown}
	if b.cfg.Settings.NotIssued == NotIssuedRevoked {
		none = verdict{status: ocspwire.Revoked, never: true}
	}
	serial := serialOf(id)
	if serial == nil {
		return none, nil
	}
	// What is kept is current as of now, later than the question's view.
	if a := b.cache.Get(id.Raw); a != nil {
		if v, ok := a.Verdict.(verdict); ok && q.now.Before(a.Until) && v.cutoff.IsZero() {
			return v, nil
		}
	}
	st, rec, err := b.index.Status(ca.ID, serial)
	if err != nil {
		return verdict{}, err
	}
	// Of a serial number that was imported alone nobody knows which certificate it is of, nor that there is one.
	if rec == nil || st.State == status.Unknown {
		return none, nil
	}
	v := verdict{issued: true}
	if err := v.read(st); err != nil {
		return verdict{}, fmt.Errorf("certificate %s of CA %s: %w", serial, ca.ID, err)
	}
	if rec.SerialOnly() && rec.NotAfter == 0 {
		return v, nil // nobody knows when it expires
	}
	if kept := v.expire(rec.NotAfter.Time(), b.cfg.Settings.ArchiveCutoff, ca, q.now); !kept {
		return verdict{status: ocspwire.Unknown}, nil // not "never issued", which would not be true
	}
	return v, nil
}

func (v *verdict) read(st status.Status) error {
	switch st.State {
	case wire.CertValid:
		v.status = ocspwire.Good
	case wire.CertHeld, wire.CertRevoked:
		v.status, v.revokedAt, v.invalidity = ocspwire.Revoked, st.Since(), st.Invalidity
		v.reason = int(st.Reason)
		// RFC 5280 section 5.3.1: unspecified should be left out.
		if st.Reason == wire.Unspecified {
			v.reason = ocspwire.NoReason
		}
	default:
		return fmt.Errorf("has the state %d, which this program does not know", st.State)
	}
	return nil
}

// expire works out what the end of the certificate's validity changes: nothing before it; an archive cutoff after it (RFC 6960 section
// 4.4.4), and false once the retention is over.
func (v *verdict) expire(end time.Time, retention time.Duration, ca *index.CA, now time.Time) (kept bool) {
	if now.Before(end) {
		v.until = end
		return true
	}
	if retention == 0 {
		for _, c := range ca.Certs { // as long as there has been the CA
			if v.cutoff.IsZero() || c.NotBefore.Before(v.cutoff) {
				v.cutoff = c.NotBefore.UTC()
			}
		}
		return true
	}
	v.until = end.Add(retention)
	v.cutoff = now.Add(-retention).UTC().Truncate(time.Second)
	return now.Before(v.until)
}
