package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/network"
)

// known is the certificates of the CA that the ledger has, from its blocks: no other interface lists them, and a responder need not be
// asked for more than their serial numbers. It takes some 100 octets for each, and is read anew after each start.
type known struct {
	id wire.CAID

	mu   sync.Mutex
	from uint64         // the next block
	all  map[string]int // place in list, by serial number
	list []knownCert    // in the order of the ledger
	next int            // whose turn it is
}

type knownCert struct {
	serial   string
	notAfter wire.Millis
	valid    bool
}

func newKnown(id wire.CAID) *known { return &known{id: id, all: map[string]int{}} }

func (k *known) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.list)
}

// follow reads blocks until ctx ends.
func (k *known) follow(ctx context.Context, ledger network.Ledger) error {
	return ledger.Blocks(ctx, k.from, k.block)
}

var errLevel = errors.New("level")

// catchUp reads the blocks that there are.
func (k *known) catchUp(ctx context.Context, ledger network.Ledger) error {
	height, err := ledger.Height(ctx)
	if err != nil || k.from >= height {
		return err
	}
	err = ledger.Blocks(ctx, k.from, func(b *network.Block) error {
		if err := k.block(b); err != nil {
			return err
		}
		if b.Number+1 >= height {
			return errLevel
		}
		return nil
	})
	if errors.Is(err, errLevel) {
		return nil
	}
	return err
}

func (k *known) block(b *network.Block) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, tx := range b.Txs {
		if !tx.Valid {
			continue
		}
		for _, w := range tx.Writes {
			if err := k.write(w); err != nil {
				return err
			}
		}
	}
	k.from = b.Number + 1
	return nil
}

func (k *known) write(w network.Write) error {
	id, serial, err := wire.ParseCertKey(w.Key)
	if err != nil || id != k.id || w.Value == nil {
		return nil // another key
	}
	var rec wire.CertRecord
	if err := wire.Decode(w.Value, &rec); err != nil {
		return err
	}
	if rec.SerialOnly() { // never good, whatever the responder says
		return nil
	}
	s := string(serial)
	i, ok := k.all[s]
	if !ok {
		i, k.list = len(k.list), append(k.list, knownCert{serial: s})
		k.all[s] = i
	}
	k.list[i].notAfter, k.list[i].valid = rec.NotAfter, rec.State == wire.CertValid
	return nil
}

// round returns the certificates that are valid at now, beginning anywhere.
func (k *known) round(now time.Time) []wire.Serial {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.list) == 0 {
		return nil
	}
	var serials []wire.Serial
	start := rand.IntN(len(k.list)) //nolint:gosec // so that a mirror that is often started does not always ask about the same
	for i := range k.list {
		c := &k.list[(start+i)%len(k.list)]
		if c.valid && c.notAfter >= wire.MillisOf(now) {
			serials = append(serials, wire.Serial(c.serial))
		}
	}
	return serials
}

// mostSkipped bounds a search for the next one.
const mostSkipped = 100_000

// turn returns the next certificate that is valid at now and that skip does not want; nil: there is none.
func (k *known) turn(now time.Time, skip func(wire.Serial) bool) wire.Serial {
	k.mu.Lock()
	defer k.mu.Unlock()
	for range min(len(k.list), mostSkipped) {
		k.next %= len(k.list)
		c := &k.list[k.next]
		k.next++
		if c.valid && c.notAfter >= wire.MillisOf(now) && !skip(wire.Serial(c.serial)) {
			return wire.Serial(c.serial)
		}
	}
	return nil
}

// listed is what the CRL has: the responder need not be asked about it.
type listed struct{ serials map[string]caimport.Status }

func (l *listed) replace(now map[string]caimport.Status) { l.serials = now }

func (l *listed) has(s wire.Serial) bool {
	st, ok := l.serials[string(s)]
	return ok && st.State != 0
}
