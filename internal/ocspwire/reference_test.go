package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// referenceTBS is tbsResponseData as RFC 6960 section 4.2.1 reads, with cryptobyte. It is slow, and what writer is held to.
func referenceTBS(r *Response) ([]byte, error) {
	exts := withNonce(r.Extensions, r.Nonce)
	b := cryptobyte.NewBuilder(make([]byte, 0, 256))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if r.Responder.Name != nil {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(r.Responder.Name) })
		} else {
			b.AddASN1(explicit2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.Responder.KeyHash) })
		}
		addTime(b, r.ProducedAt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range r.Responses {
				referenceSingle(b, &s)
			}
		})
		if len(exts) > 0 {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { addExtensions(b, exts) })
		}
	})
	return b.Bytes()
}

func referenceSingle(b *cryptobyte.Builder, s *SingleResponse) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.ID.Raw)
		switch s.Status {
		case Good:
			b.AddASN1(implicit0, func(*cryptobyte.Builder) {})
		case Revoked:
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { // [1] IMPLICIT SEQUENCE is constructed too
				addTime(b, s.RevokedAt)
				if s.Reason != NoReason {
					b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		case Unknown:
			b.AddASN1(implicit2, func(*cryptobyte.Builder) {})
		}
		addTime(b, s.ThisUpdate)
		if !s.NextUpdate.IsZero() {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { addTime(b, s.NextUpdate) })
		}
		if len(s.Extensions) > 0 {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { addExtensions(b, s.Extensions) })
		}
	})
}

func TestResponsesAreWrittenAsTheReferenceDoes(t *testing.T) {
	p, rnd := newPKI(t, nil, nil), fixed()
	for range 2000 {
		r := p.response(t)
		r.Responses, r.Extensions = nil, someExtensions(rnd, 4)
		for range 1 + rnd.IntN(20) {
			r.Responses = append(r.Responses, someSingle(t, p, rnd))
		}
		if rnd.IntN(2) == 0 {
			r.Responder = ResponderID{Name: p.delegate.RawSubject}
		}
		if rnd.IntN(2) == 0 {
			r.Nonce = someBytes(rnd, 1+rnd.IntN(MaxNonce))
			r.Extensions = append(r.Extensions, nonceExtension(someBytes(rnd, 5))) // replaced
		}
		if rnd.IntN(10) == 0 {
			r.Extensions = append(r.Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, rnd.IntN(1<<17))})
		}
		want, err := referenceTBS(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.marshalTBS(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("written %x, %v; the reference writes %x", got, err, want)
		}
	}
}

// A buffer that is used again must not show in another response.
func TestSignedResponsesShareNothing(t *testing.T) {
	p := newPKI(t, nil, nil)
	long, short := p.response(t), p.response(t)
	for range 50 {
		long.Responses = append(long.Responses, SingleResponse{ID: p.id(t, crypto.SHA512), Status: Revoked, RevokedAt: time.Now(), ThisUpdate: p.now})
	}
	first := p.signed(t, long)
	kept := bytes.Clone(first)
	p.signed(t, short)
	if !bytes.Equal(first, kept) {
		t.Error("a response changes when the next one is signed")
	}
	if _, _, err := parse(t, first).Verify(p.options(t)); err != nil {
		t.Error(err)
	}
	if r := parse(t, p.signed(t, short)); len(r.Responses) != 1 {
		t.Errorf("%d statuses", len(r.Responses))
	}
}
