package networktest

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// acknowledged is what the ledger has promised to keep, by state key of the certificate.
type acknowledged struct {
	mu      sync.Mutex
	entries map[string]wire.LogEntry // guarded by mu
}

func newAcknowledged() *acknowledged {
	return &acknowledged{entries: make(map[string]wire.LogEntry)}
}

// add notes that key stands at entry. Two answers about one certificate must agree.
func (a *acknowledged) add(key string, entry wire.LogEntry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if had, ok := a.entries[key]; ok && (had.Index != entry.Index || !bytes.Equal(had.LeafHash, entry.LeafHash)) {
		return errors.New("two answers about " + key)
	}
	a.entries[key] = entry
	return nil
}

func (a *acknowledged) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.entries)
}

// keyOf is the state key of a CA's certificate.
func keyOf(ca wire.CAID, der []byte) (string, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return "", err
	}
	return wire.CertKey(ca, serial), nil
}

// auditLog compares the ledger with what it acknowledged: each certificate is there, at its index, and the log has exactly
// those leaves.
func (b *bench) auditLog(a *acknowledged) {
	b.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var head wire.LogHead
	if raw := b.read(wire.LogHeadKey(b.ca.ID))[0]; raw != nil {
		check(b, wire.Decode(raw, &head))
	}
	if head.Size != uint64(len(a.entries)) {
		b.Errorf("the log has %d leaves, %d certificates were acknowledged", head.Size, len(a.entries))
	}
	taken := make(map[uint64]string)
	for key, entry := range a.entries {
		if other, ok := taken[entry.Index]; ok {
			b.Errorf("%s and %s have both index %d", key, other, entry.Index)
		}
		taken[entry.Index] = key
	}
	keys := make([]string, 0, len(a.entries))
	for key := range a.entries {
		keys = append(keys, key)
	}
	for len(keys) > 0 {
		some := keys[:min(len(keys), wire.MaxBatch)]
		keys = keys[len(some):]
		for i, raw := range b.read(some...) {
			b.auditRecord(some[i], raw, a.entries[some[i]])
		}
	}
}

func (b *bench) auditRecord(key string, raw []byte, want wire.LogEntry) {
	b.Helper()
	if raw == nil {
		b.Errorf("acknowledged certificate %s is lost", key)
		return
	}
	var rec wire.CertRecord
	check(b, wire.Decode(raw, &rec))
	if rec.Final == nil || rec.Final.Index != want.Index || !bytes.Equal(rec.Final.LeafHash, want.LeafHash) {
		b.Errorf("%s is recorded as %+v, acknowledged as %+v", key, rec.Final, want)
	}
}

// chain reads all blocks there are and checks that they are a chain.
func (b *bench) chain(l network.Ledger) []*network.Block {
	b.Helper()
	return b.blocks(l, 0, b.height())
}

var errEnough = errors.New("enough")

// blocks reads the blocks from number from up to, but not including, to.
func (b *bench) blocks(l network.Ledger, from, to uint64) []*network.Block {
	b.Helper()
	if from == to {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.ctx, 2*b.Patience)
	defer cancel()
	var all []*network.Block
	err := l.Blocks(ctx, from, func(block *network.Block) error {
		if want := from + uint64(len(all)); block.Number != want {
			b.Errorf("the stream gave block %d, want %d", block.Number, want)
		}
		if n := len(all); n > 0 && !bytes.Equal(block.PrevHash, all[n-1].Hash) {
			b.Errorf("block %d does not follow block %d", block.Number, all[n-1].Number)
		}
		if all = append(all, block); block.Number+1 == to {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		b.Fatalf("blocks %d to %d: %v", from, to, err)
	}
	return all
}

// replay applies the writes of valid transactions.
func replay(t testing.TB, blocks []*network.Block) map[string][]byte {
	t.Helper()
	state := make(map[string][]byte)
	for _, block := range blocks {
		for _, tx := range block.Txs {
			if !tx.Valid {
				continue
			}
			for i, w := range tx.Writes {
				if i > 0 && tx.Writes[i-1].Key >= w.Key {
					t.Errorf("block %d: writes of %s are not in key order", block.Number, tx.ID)
				}
				if w.Value == nil {
					delete(state, w.Key)
				} else {
					state[w.Key] = w.Value
				}
			}
		}
	}
	return state
}
