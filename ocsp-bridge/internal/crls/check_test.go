package crls

import (
	"net/http"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// When OCSP says something else than a CRL about any certificate in it, the CRL is served no longer, whichever way they differ, and a contents
// that OCSP contradicts is not given to be signed.
func TestDisagreementWithOCSPStopsTheCRL(t *testing.T) {
	for name, lie := range map[string]func(*Decision){
		"good":           func(d *Decision) { *d = Decision{} },
		"another date":   func(d *Decision) { d.Time += 1000 },
		"another reason": func(d *Decision) { d.Reason = wire.AACompromise },
	} {
		w, ca := someRevoked(t)
		b := w.open(t.TempDir(), len(w.blocks))
		b.run()
		c := b.contents(ca, "", 0)
		b.takes(ca, c)
		b.until("checked", func() bool { return b.checked() >= len(c.Entries) })
		if len(b.Problems()) != 0 {
			t.Fatal(b.Problems())
		}
		b.mu.Lock()
		b.lie = lie
		b.mu.Unlock()
		b.until(name+": found out by samples", func() bool { return len(b.Problems()) == 1 })
		_, err := b.Get(ca.ID, NameFull)
		wantStatus(t, name, err, http.StatusServiceUnavailable, "disagrees")
		wantStatus(t, name, b.Agrees(c), http.StatusServiceUnavailable, "contradicts")
		b.mu.Lock()
		b.lie = nil
		b.mu.Unlock()
		b.takes(ca, c) // the same once more, when it is right again
		if _, err := b.Get(ca.ID, NameFull); err != nil || len(b.Problems()) != 0 {
			t.Error(err, b.Problems())
		}
	}
}

// checked is how many entries of CRLs were compared with OCSP.
func (b *bridge) checked() int { return int(b.checkedEntries.Load()) }

// A change after the CRL's number is no disagreement: CRLs are late by design.
func TestLaterChangeIsNoDisagreement(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.run()
	c := b.contents(ca, "", 0)
	b.takes(ca, c)
	w.set(&w.certs[1], wire.OpRelease, 0)
	w.submit(cctest.Admin(org), wire.FnDecide, ca.QuorumArg(w.certs[0].serial, wire.KeyCompromise))
	w.commit()
	w.apply(b.ix, len(w.blocks))
	before := b.checked()
	b.until("sampled", func() bool { return b.checked() >= before+5*len(c.Entries) })
	if _, err := b.Get(ca.ID, NameFull); err != nil {
		t.Error(err)
	}
}

// contradicted is an index that has forgotten a certificate.
type contradicted struct {
	Ledger
	mu   sync.Mutex
	drop bool
}

func (c *contradicted) EachChangedAt(id wire.CAID, height uint64, fn func(wire.Serial, status.Status, *wire.CertRecord) error) error {
	c.mu.Lock()
	drop := c.drop
	c.mu.Unlock()
	return c.Ledger.EachChangedAt(id, height, func(s wire.Serial, st status.Status, rec *wire.CertRecord) error {
		if drop {
			drop = false
			return nil
		}
		return fn(s, st, rec)
	})
}

// A CRL that was right when it was taken is compared with the index again as time goes by.
func TestDisagreementWithTheIndexStopsTheCRL(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	broken := &contradicted{Ledger: b.ix}
	b.maker.ledger = broken
	b.run()
	b.takes(ca, b.contents(ca, "", 0))
	broken.mu.Lock()
	broken.drop = true
	broken.mu.Unlock()
	b.advance(compareEvery)
	b.until("found out", func() bool { return len(b.Problems()) == 1 })
	_, err := b.Get(ca.ID, NameFull)
	wantStatus(t, "after it was found out", err, http.StatusServiceUnavailable, "disagrees")
}
