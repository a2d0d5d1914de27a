package catalogue

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// history is a ledger with two CAs, and what a plain reading of it says about the first one's certificates.
type history struct {
	t      *testing.T
	node   *embedded.Node
	ledger network.Ledger
	ca     *cctest.CA
	other  *cctest.CA

	serials []wire.Serial
	ders    map[string][]byte
	size    uint64            // of the status log
	place   map[string]uint64 // by serial and change
}

func newHistory(t *testing.T, dir string) *history {
	t.Helper()
	h := &history{t: t, ca: cctest.NewCA(t), other: cctest.NewCA(t), ders: map[string][]byte{}, place: map[string]uint64{}}
	var err error
	if h.node, err = embedded.Open(embedded.Options{Dir: dir, MSPID: "Org1MSP", Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.node.Close(); err != nil {
			t.Error(err)
		}
	})
	h.ledger = h.node.Connect(wire.RoleOperator)
	for _, ca := range []*cctest.CA{h.ca, h.other} {
		if _, err := h.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, ca.RegisterArg("Org1MSP")); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *history) submit(function string, arg []byte) network.Receipt {
	h.t.Helper()
	r, err := h.ledger.Submit(h.t.Context(), function, arg)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// write makes some random transactions.
func (h *history) write(r *rand.Rand, steps int) {
	h.t.Helper()
	for range steps {
		switch n := r.IntN(10); {
		case n < 3 || len(h.serials) == 0:
			h.submit(wire.FnIssue, h.ca.IssueArg(h.certs(1+r.IntN(4))...))
			h.submit(wire.FnIssue, h.other.IssueArg(h.other.IssueMany(h.t, 1)...))
		case n < 4:
			der := h.certs(1)
			items := []wire.ImportItem{
				{HasCert: true, State: wire.CertRevoked, Reason: wire.Superseded, Revoked: wire.MillisOf(time.Now().Add(-time.Hour))},
				{Serial: wire.Serial{9, byte(len(h.serials)), byte(r.IntN(250) + 1)}, State: wire.CertRevoked, Reason: wire.Unspecified, Revoked: wire.MillisOf(time.Now().Add(-time.Hour))},
			}
			h.serials = append(h.serials, items[1].Serial)
			h.submit(wire.FnImport, h.ca.ImportArg(items, der...))
		case n < 6:
			h.submitIfTaken(wire.FnSetStatus, h.ca.StatusArg(wire.StatusChange{Serial: h.any(r), Op: wire.OpRevoke, Reason: []wire.Reason{wire.Superseded, wire.KeyCompromise}[r.IntN(2)]}))
		case n < 8:
			change := wire.StatusChange{Serial: h.any(r), Op: wire.OpHold, Reason: wire.CertificateHold}
			if r.IntN(2) == 0 {
				change = wire.StatusChange{Serial: h.any(r), Op: wire.OpRelease}
			}
			h.submitIfTaken(wire.FnSetStatus, h.ca.StatusArg(change))
		default:
			h.integrate()
		}
	}
}

// submitIfTaken is submit for what the contract may refuse.
func (h *history) submitIfTaken(function string, arg []byte) {
	h.t.Helper()
	if _, err := h.ledger.Submit(h.t.Context(), function, arg); err != nil && !network.IsRejected(err) {
		h.t.Fatal(err)
	}
}

func (h *history) certs(n int) (ders [][]byte) {
	h.t.Helper()
	for range n {
		der, cert := h.ca.Issue(h.t)
		s := cctest.Serial(h.t, cert)
		h.serials, h.ders[string(s)] = append(h.serials, s), der
		ders = append(ders, der)
	}
	return ders
}

func (h *history) any(r *rand.Rand) wire.Serial { return h.serials[r.IntN(len(h.serials))] }

// integrate moves what is pending into the status log, and notes the places.
func (h *history) integrate() {
	h.t.Helper()
	open := map[string]wire.StatusLeaf{}
	var order []string
	height, err := h.ledger.Height(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	enough := fmt.Errorf("enough")
	err = h.ledger.Blocks(h.t.Context(), 0, func(b *network.Block) error {
		for _, tx := range b.Txs {
			for _, w := range tx.Writes {
				hash, ok := strings.CutPrefix(w.Key, wire.PendingPrefix)
				if !ok || !tx.Valid {
					continue
				}
				if w.Value == nil {
					delete(open, hash)
					continue
				}
				var leaf wire.StatusLeaf
				cctest.Decode(h.t, w.Value, &leaf)
				open[hash] = leaf
				order = append(order, hash)
			}
		}
		if b.Number+1 == height {
			return enough
		}
		return nil
	})
	if err != enough {
		h.t.Fatal(err)
	}
	var hashes [][]byte
	for _, hash := range order {
		leaf, ok := open[hash]
		if !ok {
			continue
		}
		delete(open, hash)
		raw, err := hex.DecodeString(hash)
		if err != nil {
			h.t.Fatal(err)
		}
		if leaf.CAID == h.ca.ID && leaf.Kind == wire.LeafCert {
			h.place[fmt.Sprint(leaf.Serial, leaf.Change)] = h.size + uint64(len(hashes))
		}
		hashes = append(hashes, raw)
	}
	if len(hashes) > 0 {
		h.submit(wire.FnIntegrate, cctest.IntegrateArg(h.size, hashes...))
		h.size += uint64(len(hashes))
	}
}

// check compares a store with the ledger's state.
func (h *history) check(s *Store) {
	h.t.Helper()
	height, err := h.ledger.Height(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	if err := s.WaitHeight(ctx, height); err != nil {
		h.t.Fatal(err)
	}
	all := map[string]*Cert{}
	if _, err := s.All(func(c *Cert) error { all[string(c.Serial)] = c; return nil }); err != nil {
		h.t.Fatal(err)
	}
	keyed, lost := 0, false
	for _, serial := range h.serials {
		rec := h.record(serial)
		c := all[string(serial)]
		if rec == nil || c == nil {
			h.t.Fatalf("certificate %s: on the ledger %t, in the catalogue %t", serial, rec != nil, c != nil)
		}
		if c.State != rec.State || c.Reason != rec.Reason || c.Change != rec.Change || c.NotAfter != rec.NotAfter || string(c.Key) != string(rec.SPKIHash) {
			h.t.Fatalf("certificate %s: %+v, the ledger has %+v", serial, c, rec)
		}
		at, integrated := h.place[fmt.Sprint(serial, rec.Change)]
		if integrated != (c.Position != nil) || integrated && *c.Position != at {
			h.t.Fatalf("certificate %s, change %d: position %v, not %d (%t)", serial, rec.Change, c.Position, at, integrated)
		}
		der := h.ders[string(serial)]
		if c.Named != (der != nil) {
			h.t.Fatalf("certificate %s: named %t", serial, c.Named)
		}
		if der != nil {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				h.t.Fatal(err)
			}
			keyed++
			lost = lost || rec.Reason == wire.KeyCompromise
			if c.Subject != cert.Subject.String() || !slices.Contains(c.Names, cert.DNSNames[0]) || c.Block == 0 || c.TxID == "" {
				h.t.Fatalf("certificate %s: %+v", serial, c)
			}
		}
		delete(all, string(serial))
	}
	if len(all) > 0 {
		h.t.Fatalf("%d certificates that this CA does not have", len(all))
	}
	k := leafKey(h.t)
	certs, at, err := s.WithKey(k)
	if err != nil || len(certs) != keyed || at != height {
		h.t.Fatalf("%d certificates with the key at height %d, not %d at %d: %v", len(certs), at, keyed, height, err)
	}
	if s.Compromised(k) != lost {
		h.t.Fatalf("the key is compromised: %t", !lost)
	}
}

func leafKey(t *testing.T) Key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(cctest.LeafKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(der)
}

func (h *history) record(serial wire.Serial) *wire.CertRecord {
	h.t.Helper()
	answer, err := h.ledger.Evaluate(h.t.Context(), wire.FnRead, cctest.ReadArg(wire.CertKey(h.ca.ID, serial)))
	if err != nil {
		h.t.Fatal(err)
	}
	var r wire.ReadResult
	cctest.Decode(h.t, answer, &r)
	if r.Values[0] == nil {
		return nil
	}
	rec := new(wire.CertRecord)
	cctest.Decode(h.t, r.Values[0], rec)
	return rec
}

// follow opens a store and lets it follow; stop closes it.
func (h *history) follow(dir string) (s *Store, stop func()) {
	h.t.Helper()
	s, err := Open(Options{Dir: dir, CAID: h.ca.ID, Channel: h.ledger.Channel(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error)
	go func() { done <- s.Follow(ctx, h.ledger) }()
	return s, func() {
		h.t.Helper()
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

// TestStoreSaysWhatTheLedgerSays: after random histories, closed and opened again in between, and built anew.
func TestStoreSaysWhatTheLedgerSays(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			h := newHistory(t, t.TempDir())
			dir := t.TempDir()
			for range 3 {
				s, stop := h.follow(dir)
				h.write(r, 15)
				h.check(s)
				stop()
				h.write(r, 3) // while nobody follows
			}
			s, stop := h.follow(dir)
			h.check(s)
			stop()
			s, stop = h.follow(t.TempDir())
			h.check(s)
			stop()
		})
	}
}

// TestHoldersRevocationMakesAKeyCompromised: nothing of the CA says so.
func TestHoldersRevocationMakesAKeyCompromised(t *testing.T) {
	h := newHistory(t, t.TempDir())
	dir := t.TempDir()
	s, stop := h.follow(dir)
	der := h.certs(1)[0]
	h.submit(wire.FnIssue, h.ca.IssueArg(der))
	h.check(s)
	r := h.submit(wire.FnRevoke, h.ca.RevokeArg(t, h.ledger.Channel(), der, wire.KeyCompromise, time.Now()))
	if err := s.WaitHeight(t.Context(), r.Block+1); err != nil || !s.Compromised(leafKey(t)) {
		t.Fatal(err)
	}
	stop()
	s, stop = h.follow(dir)
	defer stop()
	if !s.Compromised(leafKey(t)) {
		t.Fatal("forgotten")
	}
}

// TestAnotherLedgerOrDamageBeginsAgain: a store is derived, and never mixes two histories.
func TestAnotherLedgerOrDamageBeginsAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	first, second := newHistory(t, t.TempDir()), newHistory(t, t.TempDir())
	second.ca = first.ca
	if _, err := second.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, second.ca.RegisterArg("Org1MSP")); err != nil {
		t.Fatal(err)
	}
	first.write(r, 8)
	second.write(r, 12)
	dir := t.TempDir()
	s, stop := first.follow(dir)
	first.check(s)
	stop()
	for _, h := range []*history{second, first} { // a longer ledger, then a shorter one
		s, stop = h.follow(dir)
		waitUntil(t, "the store knows the other ledger", func() bool { return h.knows(s) })
		h.check(s)
		stop()
	}
	files, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, stop = first.follow(dir)
	defer stop()
	first.check(s)
}

// knows reports whether the store follows this ledger and no other.
func (h *history) knows(s *Store) bool {
	for _, serial := range h.serials {
		if c, err := s.Get(serial); err != nil || c == nil {
			return false
		}
	}
	height, err := h.ledger.Height(h.t.Context())
	return err == nil && s.Height() == height
}

func waitUntil(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// TestRecordedTellsOfEachCertificateOnce.
func TestRecordedTellsOfEachCertificateOnce(t *testing.T) {
	h := newHistory(t, t.TempDir())
	var told atomic.Int32
	s, err := Open(Options{Dir: t.TempDir(), CAID: h.ca.ID, Channel: h.ledger.Channel(), Log: slog.New(slog.DiscardHandler), Recorded: func(*Cert) { told.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Follow(ctx, h.ledger) }()
	h.submit(wire.FnIssue, h.ca.IssueArg(h.certs(3)...))
	h.submit(wire.FnSetStatus, h.ca.StatusArg(wire.StatusChange{Serial: h.serials[0], Op: wire.OpRevoke, Reason: wire.Superseded}))
	h.check(s)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if told.Load() != 3 {
		t.Fatalf("told of %d certificates, not 3", told.Load())
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.example", "a.example", true}, {"A.Example", "a.eXample", true}, {"a.example", "b.a.example", false}, {"*.example", "a.example", true},
		{"*.example", "b.a.example", true}, {"*.example", "*.example", true}, {"*.example", ".example", false}, {"*.example", "example", false},
		{"*,O=Example", "CN=x,O=Example", true}, {"*@example.org", "x@example.org", true}, {"", "x", false},
	} {
		if got := Pattern(c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.name, got)
		}
	}
}
