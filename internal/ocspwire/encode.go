package ocspwire

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"sync"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// writer builds DER from its end to its beginning: a header is written when the length of what it is about is known, so nothing
// is moved and nothing is measured beforehand. Responses are written so because one is, for every nonce.
type writer struct {
	buf []byte
	at  int // buf[at:] is written
}

// writers keep the buffers of what is written and then copied.
var writers = sync.Pool{New: func() any { return new(writer) }}

func (w *writer) reset(size int) {
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	w.buf = w.buf[:cap(w.buf)]
	w.at = len(w.buf)
}

// room makes n octets of place in front of what is written, and returns them.
func (w *writer) room(n int) []byte {
	if w.at < n {
		more := len(w.buf) + n
		w.buf = slices.Concat(make([]byte, more), w.buf)
		w.at += more
	}
	w.at -= n
	return w.buf[w.at : w.at+n]
}

func (w *writer) raw(der []byte) { copy(w.room(len(der)), der) }

func (w *writer) octet(b byte) { w.room(1)[0] = b }

// mark is where something ends that is about to be written, for header.
func (w *writer) mark() int { return len(w.buf) - w.at }

// header writes tag and length of everything since end. X.690 section 10.1: the shortest form of the length.
func (w *writer) header(tag cbasn1.Tag, end int) {
	n := w.mark() - end
	if n < 0x80 {
		h := w.room(2)
		h[0], h[1] = byte(tag), byte(n)
		return
	}
	octets := byte(0)
	for ; n > 0; n >>= 8 {
		w.octet(byte(n))
		octets++
	}
	h := w.room(2)
	h[0], h[1] = byte(tag), 0x80|octets
}

func (w *writer) element(tag cbasn1.Tag, content []byte) {
	end := w.mark()
	w.raw(content)
	w.header(tag, end)
}

// bitString writes one of whole octets.
func (w *writer) bitString(b []byte) {
	end := w.mark()
	w.raw(b)
	w.octet(0)
	w.header(cbasn1.BIT_STRING, end)
}

func (w *writer) oid(id asn1.ObjectIdentifier) {
	for i := range knownOIDs {
		if knownOIDs[i].oid.Equal(id) {
			w.element(cbasn1.OBJECT_IDENTIFIER, knownOIDs[i].content)
			return
		}
	}
	w.element(cbasn1.OBJECT_IDENTIFIER, contentOf(id))
}

// time writes a GeneralizedTime. RFC 5280 section 4.1.2.5.2: UTC, with seconds, without fractions.
func (w *writer) time(t time.Time) {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b := w.room(17)
	b[0], b[1], b[16] = byte(cbasn1.GeneralizedTime), 15, 'Z'
	for i, n := range [...]int{year / 100, year % 100, int(month), day, hour, minute, second} {
		b[2+2*i], b[3+2*i] = '0'+byte(n/10), '0'+byte(n%10)
	}
}

// extensions writes exts, and after them the nonce, which takes the place of one among them.
func (w *writer) extensions(exts []pkix.Extension, nonce []byte) {
	list := w.mark()
	if nonce != nil {
		end := w.mark()
		w.element(cbasn1.OCTET_STRING, nonce)
		w.header(cbasn1.OCTET_STRING, end)
		w.oid(OIDNonce)
		w.header(cbasn1.SEQUENCE, end)
	}
	for _, e := range slices.Backward(exts) {
		if nonce != nil && e.Id.Equal(OIDNonce) {
			continue
		}
		end := w.mark()
		w.element(cbasn1.OCTET_STRING, e.Value)
		if e.Critical {
			w.raw([]byte{byte(cbasn1.BOOLEAN), 1, 0xff})
		}
		w.oid(e.Id)
		w.header(cbasn1.SEQUENCE, end)
	}
	w.header(cbasn1.SEQUENCE, list)
}

// responseData writes tbsResponseData of a response that check accepts.
func (w *writer) responseData(r *Response) {
	end := w.mark()
	if len(r.Extensions) > 0 || r.Nonce != nil {
		w.extensions(r.Extensions, r.Nonce)
		w.header(explicit1, end)
	}
	list := w.mark()
	for i := len(r.Responses) - 1; i >= 0; i-- {
		w.single(&r.Responses[i])
	}
	w.header(cbasn1.SEQUENCE, list)
	w.time(r.ProducedAt)
	id := w.mark()
	if r.Responder.Name != nil {
		w.raw(r.Responder.Name)
		w.header(explicit1, id)
	} else {
		w.element(cbasn1.OCTET_STRING, r.Responder.KeyHash)
		w.header(explicit2, id)
	}
	w.header(cbasn1.SEQUENCE, end)
}

func (w *writer) single(s *SingleResponse) {
	end := w.mark()
	if len(s.Extensions) > 0 {
		w.extensions(s.Extensions, nil)
		w.header(explicit1, end)
	}
	if !s.NextUpdate.IsZero() {
		next := w.mark()
		w.time(s.NextUpdate)
		w.header(explicit0, next)
	}
	w.time(s.ThisUpdate)
	status := w.mark()
	switch s.Status {
	case Good:
		w.header(implicit0, status)
	case Revoked:
		if s.Reason != NoReason {
			w.raw([]byte{byte(explicit0), 3, byte(cbasn1.ENUM), 1, byte(s.Reason)})
		}
		w.time(s.RevokedAt)
		w.header(explicit1, status) // [1] IMPLICIT SEQUENCE is constructed, too
	case Unknown:
		w.header(implicit2, status)
	}
	w.raw(s.ID.Raw)
	w.header(cbasn1.SEQUENCE, end)
}

// signed writes the whole OCSPResponse around tbs.
func (w *writer) signed(tbs []byte, alg *signatureAlg, sig []byte, certs [][]byte) {
	end := w.mark()
	if len(certs) > 0 {
		for _, c := range slices.Backward(certs) {
			w.raw(c)
		}
		w.header(cbasn1.SEQUENCE, end)
		w.header(explicit0, end)
	}
	w.bitString(sig)
	w.raw(alg.der)
	w.raw(tbs)
	w.header(cbasn1.SEQUENCE, end)
	w.header(cbasn1.OCTET_STRING, end)
	w.oid(OIDBasic)
	w.header(cbasn1.SEQUENCE, end)
	w.header(explicit0, end)
	w.raw([]byte{byte(cbasn1.ENUM), 1, byte(Successful)})
	w.header(cbasn1.SEQUENCE, end)
}
