package crls

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

func (w *world) signUntil(ca *cctest.CA, c *crl.Contents, next time.Time) []byte {
	w.t.Helper()
	der, err := crl.Build(c, crl.Form{Issuer: ca.Cert, NextUpdate: next}, ca.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// Nobody but the CA makes a bridge read entries, or raises the alarm that the CA lies.
func TestOnlyWhatTheCAHasSignedIsRead(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	var log bytes.Buffer
	b.cfg.Log = logTo(&log)
	c := b.contents(ca, "", 0)
	der := w.sign(ca, c)
	at := bytes.Index(der, c.Entries[0].Serial)
	if at < 2 {
		t.Fatal("the serial is not in the CRL")
	}
	der[at-2] = 0x04 // where the INTEGER begins: an entry that cannot be read
	_, err := b.offer(ca, der)
	wantStatus(t, "a wrong entry without a signature", err, http.StatusUnprocessableEntity, "signature")
	indirect, err := crl.BuildIndirect(9, c.ThisUpdate, []crl.Group{{Name: w.cas[1].Cert.RawSubject, Entries: c.Entries}},
		crl.Form{Issuer: ca.Cert, NextUpdate: c.ThisUpdate.Add(time.Hour)}, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.offer(ca, indirect)
	wantStatus(t, "an indirect CRL", err, http.StatusUnprocessableEntity, "indirectCRL")
	if strings.Contains(log.String(), "ERROR") {
		t.Errorf("an alarm about what the CA has not signed:\n%s", log.String())
	}
	c.Entries = c.Entries[1:]
	_, err = b.offer(ca, w.sign(ca, c))
	wantStatus(t, "signed and wrong", err, http.StatusUnprocessableEntity, "missing")
	if !strings.Contains(log.String(), "ERROR") {
		t.Error("no alarm about a CRL that the CA has signed and that is wrong")
	}
}

// A CA cannot have its CRL stand still for as long as it likes.
func TestCRLThatHidesAChangeForADayIsNotServed(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.run()
	c := b.contents(ca, "", 0)
	_, err := b.offer(ca, w.signUntil(ca, c, c.ThisUpdate.Add(maxValidity+time.Second)))
	wantStatus(t, "valid for too long", err, http.StatusUnprocessableEntity, "nextUpdate")
	if out, err := b.offer(ca, w.signUntil(ca, c, c.ThisUpdate.Add(maxValidity))); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
	b.advance(maxHidden + time.Hour) // nothing has changed
	b.advance(compareEvery)
	if _, err := b.Get(ca.ID, NameFull); err != nil {
		t.Fatal("withheld without a change:", err)
	}
	w.ledger.Now = b.clock()
	w.set(&w.certs[3], wire.OpRevoke, wire.Superseded)
	w.apply(b.ix, len(w.blocks))
	b.advance(maxHidden + time.Hour)
	b.until("withheld", func() bool {
		b.advance(compareEvery)
		_, err := b.Get(ca.ID, NameFull)
		return err != nil && strings.Contains(err.Error(), "hides a change")
	})
	if len(b.Problems()) != 1 {
		t.Error(b.Problems())
	}
	next := b.contents(ca, "", 0)
	if out, err := b.offer(ca, w.signUntil(ca, next, next.ThisUpdate.Add(maxValidity))); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
	if _, err := b.Get(ca.ID, NameFull); err != nil {
		t.Error("the newer one is not served:", err)
	}
}

// A CA cannot fill a bridge with shards that it invents.
func TestACAHasSoManyCRLs(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.takes(ca, b.contents(ca, "http://crl.example/first.crl", 0))
	for i := range maxNames - 1 {
		name := fmt.Sprintf("%d.crl", i)
		b.lists[key{ca.ID, name}] = &slot{list: &List{CAID: ca.ID, Name: name, Contents: b.contents(ca, "http://crl.example/"+name, 0)}}
	}
	_, err := b.offer(ca, w.sign(ca, b.contents(ca, "http://crl.example/more.crl", 0)))
	wantStatus(t, "one too many", err, http.StatusUnprocessableEntity, "2048")
	c := b.contents(ca, "http://crl.example/first.crl", 0)
	if out, err := b.offer(ca, w.sign(ca, c)); err != nil || out.Newest != c.Number {
		t.Error("one that is there already:", out, err)
	}
	if out, err := b.offer(w.cas[1], w.sign(w.cas[1], b.contents(w.cas[1], "", 0))); err != nil || !out.Taken {
		t.Error("another CA's:", out, err)
	}
}

func TestCRLThatHasLongExpiredIsRemoved(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.takes(ca, b.contents(ca, shards[1][0], 0))
	file := filepath.Join(b.dir, ca.ID.String(), "a.crl")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.until("removed", func() bool {
		b.advance(time.Hour)
		_, err := os.Stat(file)
		return os.IsNotExist(err) && b.names(ca.ID) == 0
	})
	if age := b.clock().Sub(w.ledger.Now); age < keptExpired {
		t.Errorf("removed after %s", age)
	}
}

// Neither a CRL from far ahead nor one that waits for a block keeps others from being judged.
func TestCRLThatIsAheadHoldsUpNoOther(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	far := b.contents(ca, "", 0)
	far.Number += farAhead + 1
	_, err := b.offer(ca, w.sign(ca, far))
	wantStatus(t, "far ahead", err, http.StatusServiceUnavailable, "ahead")
	if len(b.fires) != 0 {
		t.Fatal("blocks that are far away were waited for")
	}
	near := b.contents(ca, "", 0)
	near.Number++
	done := make(chan error, 1)
	go func() {
		_, err := b.offer(ca, w.sign(ca, near))
		done <- err
	}()
	b.untilWaits()
	b.takes(ca, b.contents(ca, shards[1][0], 0)) // meanwhile
	b.advance(patience)
	wantStatus(t, "ahead", <-done, http.StatusServiceUnavailable, "ahead")
}

// untilWaits waits for a timer to be asked for.
func (b *bridge) untilWaits() {
	b.w.t.Helper()
	for end := time.Now().Add(deadline); ; {
		b.mu.Lock()
		n := len(b.fires)
		b.mu.Unlock()
		if n > 0 {
			return
		}
		if time.Now().After(end) {
			b.w.t.Fatal("does not wait")
		}
	}
}

func TestUnfinishedFilesAreRemovedAtTheStart(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	b.takes(ca, b.contents(ca, "", 0))
	left := filepath.Join(b.dir, ca.ID.String(), ".new-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error("still there:", err)
	}
	if b.names(ca.ID) != 1 {
		t.Error("the CRL is gone")
	}
}

// counting counts the changes that are read.
type counting struct {
	Ledger
	read int
}

func (c *counting) Changes(after index.Pos, limit int) ([]index.Change, error) {
	all, err := c.Ledger.Changes(after, limit)
	c.read += len(all)
	return all, err
}

// After a mass change each change is read once, not once for every entry.
func TestCheckReadsEachChangeOnce(t *testing.T) {
	w, ca := newWorld(t, 1), (*cctest.CA)(nil)
	ca = w.cas[0]
	const n = 12
	for range n {
		w.issue(ca, nil)
		w.commit()
	}
	for i := range w.certs {
		w.set(&w.certs[i], wire.OpHold, wire.CertificateHold)
	}
	b := w.open(t.TempDir(), len(w.blocks))
	old := b.contents(ca, "", 0)
	for i := range w.certs {
		w.set(&w.certs[i], wire.OpRevoke, wire.KeyCompromise)
	}
	w.apply(b.ix, len(w.blocks))
	ledger := &counting{Ledger: b.ix}
	b.cfg.Ledger = ledger
	if err := b.Agrees(old); err != nil {
		t.Fatal(err)
	}
	if ledger.read != n {
		t.Errorf("%d changes were read for %d entries and as many changes", ledger.read, n)
	}
}

// Contents against a base that anybody may have invented are computed without what others wait for, and are not remembered.
func TestInventedBaseHoldsUpNoOther(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	m := b.maker
	r := m.Newest(ca.ID, "", 3)
	r.Fresh = true
	m.mu.Lock() // somebody is about a delta
	done := make(chan error, 1)
	go func() {
		_, err := m.Contents(r)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Error("waits for another delta")
	}
	if len(m.folds) != 0 {
		t.Error("is remembered")
	}
	m.mu.Unlock()
}

func TestBasesAreThoseThatThisCAHasPublished(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	first := b.contents(ca, "", 0)
	if b.HasBase(ca.ID, "", first.Number) {
		t.Error("before it was published")
	}
	b.takes(ca, first)
	w.set(&w.certs[3], wire.OpRevoke, wire.Superseded)
	w.apply(b.ix, len(w.blocks))
	second := b.contents(ca, "", 0)
	b.takes(ca, second)
	for what, tc := range map[string]struct {
		id     wire.CAID
		scope  string
		number uint64
		want   bool
	}{
		"the newest":      {ca.ID, "", second.Number, true},
		"the one before":  {ca.ID, "", first.Number, true},
		"one in between":  {ca.ID, "", first.Number - 1, false},
		"another scope":   {ca.ID, shards[1][0], second.Number, false},
		"another CA's":    {w.cas[1].ID, "", second.Number, false},
		"no scope at all": {ca.ID, "x", second.Number, false},
	} {
		if got := b.HasBase(tc.id, tc.scope, tc.number); got != tc.want {
			t.Errorf("%s: %t", what, got)
		}
	}
	delta := b.contents(ca, "", first.Number)
	b.takes(ca, delta)
	b.reopen()
	if !b.HasBase(ca.ID, "", second.Number) {
		t.Error("forgotten at a restart")
	}
	if !b.HasBase(ca.ID, "", first.Number) {
		t.Error("the base of the delta that is served is forgotten at a restart")
	}
}

// What is remembered for deltas is bounded by certificates, not by bases alone.
func TestRememberedBasesAreBoundedByCertificates(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	m := b.maker
	for base := uint64(2); base < 2+keptFolds+4; base++ {
		if base >= b.ix.View().Height {
			break
		}
		if _, err := m.Contents(m.Newest(ca.ID, "", base)); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.folds) < 3 || len(m.folds) > keptFolds {
		t.Fatalf("%d bases", len(m.folds))
	}
	m.dropFolds(keptFolds, 3)
	total := 0
	for _, f := range m.folds {
		total += len(f.certs)
	}
	if total > 3 || len(m.folds) == 0 {
		t.Errorf("%d certificates of %d bases", total, len(m.folds))
	}
}
