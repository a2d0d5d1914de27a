package ctapi

import (
	"bytes"
	"net/http"
	"sync"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/sct"
)

func sth(t testing.TB, l *Log) sthAnswer {
	t.Helper()
	var got sthAnswer
	decode(t, ask(l, "get-sth", nil), &got)
	return got
}

// skewed is a log whose head is what the test says.
type skewed struct {
	merklelog.Log
	mu   sync.Mutex
	head merklelog.Head
}

func (s *skewed) Head() merklelog.Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

func (s *skewed) set(h merklelog.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head = h
}

func skew(t testing.TB, entries int) (*Log, *skewed, *ctapitest.Ledger) {
	t.Helper()
	ledger := ctapitest.New(t)
	ledger.Fill(t, entries)
	s := &skewed{Log: ledger, head: ledger.Head()}
	c := config(t, ledger)
	c.Log = s
	return newLog(t, c), s, ledger
}

// The head's clock is behind that of the newest entry: an SCT would be newer than the tree that holds it.
func TestMammoth2025HeadIsNeverOlderThanItsEntries(t *testing.T) {
	l, log, ledger := skew(t, 5)
	newest := ctapitest.Start + 5
	h := ledger.Head()
	h.Time = newest - 3
	log.set(h)
	if got := sth(t, l); got.Time != int64(newest) {
		t.Errorf("time is %d, want that of the newest entry, %d", got.Time, newest)
	}
}

func TestHeadNeverGoesBack(t *testing.T) {
	l, log, ledger := skew(t, 5)
	h := ledger.Head()
	h.Time += 60_000 // a tick
	log.set(h)
	first := sth(t, l)
	h.Time -= 30_000
	log.set(h)
	if again := sth(t, l); again.Time != first.Time || !bytes.Equal(again.Signature, first.Signature) {
		t.Errorf("time went from %d to %d", first.Time, again.Time)
	}
	ledger.Fill(t, 1)
	log.set(ledger.Head()) // with a time before the first answer's
	if next := sth(t, l); next.Size != 6 || next.Time < first.Time {
		t.Errorf("time went from %d to %d", first.Time, next.Time)
	}
}

func TestOneSizeAndTimeHaveOneSignature(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	one, other := newLog(t, c), newLog(t, c)
	for range 3 {
		ledger.Fill(t, 2)
		a, b, again := sth(t, one), sth(t, other), sth(t, one)
		if !bytes.Equal(a.Signature, b.Signature) || !bytes.Equal(a.Signature, again.Signature) || a.Size != b.Size || a.Time != b.Time {
			t.Errorf("size %d, time %d has several signatures", a.Size, a.Time)
		}
	}
}

// Nothing is signed that contradicts what this process has signed.
func TestVenafi2017TwoHeadsOfOneSizeAreNotSigned(t *testing.T) {
	for name, damage := range map[string]func(*merklelog.Head){
		"a fork":         func(h *merklelog.Head) { h.Root[0] ^= 1 },
		"a log cut back": func(h *merklelog.Head) { h.Size-- },
	} {
		l, log, ledger := skew(t, 5)
		sth(t, l)
		h := ledger.Head()
		damage(&h)
		log.set(h)
		refusal(t, l, "get-sth", nil, http.StatusInternalServerError)
		w := ask(l, "get-sth", nil)
		if bytes.Contains(w.Body.Bytes(), []byte("tree_head_signature")) {
			t.Errorf("%s: signed: %s", name, w.Body)
		}
		log.set(ledger.Head())
		sth(t, l) // the true one still is
	}
}

// flipped is a log with one bit changed in a stored hash.
type flipped struct {
	merklelog.Log
	node compact.NodeID
}

func (f *flipped) Nodes(ids []compact.NodeID) ([][]byte, error) {
	hashes, err := f.Log.Nodes(ids)
	for i, id := range ids {
		if id == f.node {
			hashes[i] = bytes.Clone(hashes[i])
			hashes[i][5] ^= 1
		}
	}
	return hashes, err
}

func TestYeti2022BitFlipIsNotSignedAndNotServed(t *testing.T) {
	ledger := ctapitest.New(t)
	ledger.Fill(t, 21)
	for name, c := range map[string]struct {
		node   compact.NodeID
		target []string
	}{
		"in the root's path": {compact.NewNodeID(4, 0), []string{"get-sth", "get-sth-consistency?first=16&second=21", "get-entry-and-proof?leaf_index=20&tree_size=21"}},
		"in a leaf's hash":   {compact.NewNodeID(0, 3), []string{"get-entries?start=0&end=5", "get-entry-and-proof?leaf_index=3&tree_size=21", "get-entry-and-proof?leaf_index=2&tree_size=21"}},
		"of the newest leaf": {compact.NewNodeID(0, 20), []string{"get-sth"}},
	} {
		cfg := config(t, ledger)
		cfg.Log = &flipped{ledger, c.node}
		l := newLog(t, cfg)
		for _, target := range c.target {
			if w := ask(l, target, nil); w.Code != http.StatusInternalServerError {
				t.Errorf("%s: %s: status %d", name, target, w.Code)
			}
		}
	}
}

func TestHeadsUnderConcurrentGrowthOnlyAdvance(t *testing.T) {
	l, ledger := fixture(t)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var last sthAnswer
			for {
				got := sth(t, l)
				if got.Size < last.Size || got.Time < last.Time {
					t.Errorf("from size %d, time %d to %d, %d", last.Size, last.Time, got.Size, got.Time)
				}
				last = got
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	ledger.Fill(t, 100)
	close(done)
	readers.Wait()
	if got := sth(t, l); got.Size != 100 {
		t.Errorf("size %d", got.Size)
	}
}

// The checkpoint is the same tree head in another form: its signature line has the time and the signature.
func TestCheckpointIsTheTreeHead(t *testing.T) {
	l, ledger := fixture(t)
	ledger.Fill(t, 5)
	head := sth(t, l)
	text, err := l.checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := sct.NewVerifier(l.Origin(), l.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if at, err := sct.SignatureTime(n.Sigs[0]); err != nil || at != wire.Millis(head.Time) {
		t.Errorf("checkpoint's time is %d, the tree head's %d, %v", at, head.Time, err)
	}
}
