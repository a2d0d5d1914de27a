// Package ctapitest is a CA, its log and a ledger that takes its certificates, in memory, for tests of what serves the log.
package ctapitest

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"sync"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
)

// Start is when the CA was registered.
const Start = wire.Millis(1767225600000)

// Ledger stands for the ledger and for the index that follows it: what is submitted is in the log at once, in one place for ever.
type Ledger struct {
	*merklelogtest.Memory
	Root, CA *cctest.CA // CA is an intermediate one
	Record   *wire.CARecord

	// Before, if it is set, is called with each submission; its error is the answer. Set it before submitting.
	Before func(context.Context) error

	mu    sync.Mutex // guards what follows
	known map[string]wire.LogEntry
	now   wire.Millis
	calls int
}

// New makes a CA and its log.
func New(t cctest.TB) *Ledger {
	t.Helper()
	root := cctest.NewCA(t)
	ca := cctest.NewCA(t, cctest.WithParent(root))
	l := &Ledger{
		Memory: merklelogtest.New(), Root: root, CA: ca, known: map[string]wire.LogEntry{}, now: Start,
		Record: &wire.CARecord{V: wire.Version, Certs: [][]byte{ca.DER}, Chain: ca.Chain, State: wire.CAActive, Registered: Start},
	}
	l.Append(Start)
	return l
}

// Submit implements ctapi.Submitter. Each new certificate is a millisecond later than the one before.
func (l *Ledger) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	if l.Before != nil {
		if err := l.Before(ctx); err != nil {
			return wire.LogEntry{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.known[string(der)]; ok {
		return e, nil
	}
	l.now++
	entry, err := l.entry(l.Head().Size, der)
	if err != nil {
		return wire.LogEntry{}, err
	}
	hash := ctleaf.HashLeaf(entry.Leaf)
	e := wire.LogEntry{Index: l.Head().Size, Time: l.now, LeafHash: hash[:]}
	l.Append(l.now, entry)
	l.known[string(der)] = e
	return e, nil
}

func (l *Ledger) entry(index uint64, der []byte) (merklelog.Entry, error) {
	e := merklelog.Entry{Kind: merklelog.X509, Time: l.now, DER: der}
	pre, err := ctleaf.IsPrecert(der)
	if err != nil {
		return e, err
	}
	if !pre {
		e.Leaf, err = ctleaf.X509(index, l.now, der)
		return e, err
	}
	e.Kind = merklelog.Precert
	tbs, err := ctleaf.PrecertTBS(der)
	if err != nil {
		return e, err
	}
	e.Leaf, err = ctleaf.Precert(index, l.now, l.CA.ID, tbs)
	return e, err
}

// Calls returns how many submissions arrived.
func (l *Ledger) Calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// Trusted returns the trust list entry, as ctapi.Config wants it.
func (l *Ledger) Trusted() (*wire.CARecord, error) { return l.Record, nil }

// Chain is a new certificate of the CA with the chain to the root.
func (l *Ledger) Chain(t cctest.TB, tweaks ...func(*x509.Certificate)) [][]byte {
	t.Helper()
	der, _ := l.CA.Issue(t, tweaks...)
	return [][]byte{der, l.CA.DER, l.Root.DER}
}

// Fill adds n entries, every third of them a precertificate.
func (l *Ledger) Fill(t cctest.TB, n int) {
	t.Helper()
	for i := range n {
		der, _ := l.CA.Issue(t)
		if i%3 == 2 {
			der, _ = l.CA.Issue(t, Poison)
		}
		if _, err := l.Submit(context.Background(), der); err != nil {
			t.Fatal(err)
		}
	}
}

// Poison is a tweak for Chain: it makes a precertificate.
func Poison(c *x509.Certificate) { PoisonAs(true, []byte{5, 0})(c) }

// PoisonAs is a Poison with a flag and a value of the caller's choice.
func PoisonAs(critical bool, value []byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: ctleaf.OIDPoison, Critical: critical, Value: value})
	}
}

// Body is the body of add-chain and add-pre-chain.
func Body(chain ...[]byte) []byte {
	b, err := json.Marshal(map[string][][]byte{"chain": chain})
	if err != nil { // octets always marshal
		panic(err)
	}
	return b
}
