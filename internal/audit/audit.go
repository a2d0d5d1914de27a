package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Options say what is audited and where the state is kept.
type Options struct {
	// Dir holds the audit's state. Required; made when absent, and refused when it holds something else.
	Dir string
	// Channel is the ledger's name. Required.
	Channel string
	// Consortium is the founding that the auditor expects. The zero value takes the ledger's first Init as it is: the caller then shows
	// Founding to somebody who knows.
	Consortium chaincode.Config
	// Progress, if set, is called after some blocks and at the end of Run.
	Progress func(Progress)
	// Now measures the rate of progress; nil means time.Now.
	Now func() time.Time
	// Log receives the store's complaints; nil means slog.Default().
	Log *slog.Logger

	fs   vfs.FS       // for tests: nil means the real one
	step func(string) // for tests: called before each step of a block, with its name
}

// Auditor is an open audit. It is for one goroutine.
type Auditor struct {
	opts     Options
	db       *pebble.DB
	contract *chaincode.Contract // nil before the founding
	position
	verified []verify.Change // of the block to be audited next, nil without a verifier
	txs      uint64          // executed by this process
}

// position is how far the audit has come, in the same batch as the state it describes.
type position struct {
	V        uint             `cbor:"0,keyasint"`
	Channel  string           `cbor:"1,keyasint"`
	Height   uint64           `cbor:"2,keyasint"` // blocks audited
	Hash     []byte           `cbor:"3,keyasint"` // of the last one; empty at height 0
	State    digest           `cbor:"4,keyasint"`
	Founding *wire.Consortium `cbor:"5,keyasint"`  // as executed
	Txs      uint64           `cbor:"6,keyasint"`  // valid transactions executed
	Time     wire.Millis      `cbor:"7,keyasint"`  // the latest that a valid transaction claims
	Ticks    [][]byte         `cbor:"8,keyasint"`  // compact range of the map log
	NTicks   uint64           `cbor:"9,keyasint"`  // its size
	Folded   uint64           `cbor:"10,keyasint"` // entries of the status log that the revocation map has
	Map      digest           `cbor:"11,keyasint"` // of what is stored about the map
}

const formatVersion = 3

// Open opens an audit, to continue where it was left. Errors name the directory.
func Open(o Options) (*Auditor, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	a := &Auditor{opts: o}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("audit state %s: %w", o.Dir, errors.Join(err, a.Close()))
	}
	return a, nil
}

func (a *Auditor) open() error {
	if a.opts.Dir == "" || a.opts.Channel == "" {
		return fmt.Errorf("dir %q, channel %q: must both be set", a.opts.Dir, a.opts.Channel)
	}
	if a.opts.fs == nil {
		a.opts.fs = vfs.Default
		if err := prepareDir(a.opts.Dir); err != nil {
			return err
		}
	}
	var err error
	if a.db, err = openStore(a.opts); err != nil {
		return err
	}
	encoded, err := a.read(positionKey)
	if err != nil {
		return err
	}
	a.position = position{V: formatVersion, Channel: a.opts.Channel}
	if encoded == nil {
		return a.expect(&a.opts.Consortium)
	}
	if err := cbor.Unmarshal(encoded, &a.position); err != nil || a.V != formatVersion {
		return fmt.Errorf("format version %d (%v), this program reads %d; delete it to start again", a.V, err, formatVersion)
	}
	if a.position.Channel != a.opts.Channel {
		return fmt.Errorf("is of channel %s, asked for %s", a.position.Channel, a.opts.Channel)
	}
	if a.Founding == nil {
		return a.expect(&a.opts.Consortium)
	}
	founding := chaincode.Config{MSPs: a.Founding.MSPs, TickInterval: time.Duration(a.Founding.TickInterval) * time.Millisecond}
	if want := a.opts.Consortium; want.MSPs != nil && (want.TickInterval != founding.TickInterval ||
		!slices.Equal(slices.Sorted(slices.Values(want.MSPs)), founding.MSPs)) {
		return fmt.Errorf("is of the consortium %v, tick interval %v; asked for %v, %v", founding.MSPs, founding.TickInterval, want.MSPs, want.TickInterval)
	}
	return a.expect(&founding)
}

// expect makes the contract of the consortium that is expected, if that is known.
func (a *Auditor) expect(c *chaincode.Config) (err error) {
	if c.MSPs != nil {
		a.contract, err = chaincode.New(*c)
	}
	return err
}

// Close makes everything durable and closes the state.
func (a *Auditor) Close() error {
	if a.db == nil {
		return nil
	}
	err := errors.Join(a.db.LogData(nil, pebble.Sync), a.db.Close())
	a.db = nil
	return err
}

// Height is the number of blocks that were audited, which is the number of the one that is wanted next.
func (a *Auditor) Height() uint64 { return a.position.Height }

// Hash is the hash of the last block that was audited, empty at height 0.
func (a *Auditor) Hash() []byte { return bytes.Clone(a.position.Hash) }

// Channel is the ledger's name.
func (a *Auditor) Channel() string { return a.opts.Channel }

// Txs is how many valid transactions there are up to Height.
func (a *Auditor) Txs() uint64 { return a.position.Txs }

// Consortium is who founded the ledger, nil before that.
func (a *Auditor) Consortium() *wire.Consortium { return a.Founding }

// VerifierStore is for a verify.Verifier whose blocks this auditor takes: its state is kept in step with the audit's, so that both
// continue at the same block.
func (a *Auditor) VerifierStore() verify.Store { return verifierStore{a} }
