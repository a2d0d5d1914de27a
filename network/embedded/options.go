package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// Values that a new ledger gets when Options leave them out.
const (
	DefaultChannel      = "certanchor"
	DefaultMSPID        = "LocalMSP"
	DefaultTickInterval = wire.DefaultTickInterval
)

// Options say which ledger Open opens. Channel, MSPID and TickInterval are fixed when a ledger is created; for one that exists,
// leaving them out accepts what it has, and anything else must agree with it.
type Options struct {
	// Dir holds the ledger. Required; made when absent, and refused when it holds something else.
	Dir string
	// MustExist refuses to create a ledger.
	MustExist bool
	// Channel is the ledger's name.
	Channel string
	// MSPID is the one organisation of the ledger.
	MSPID string
	// TickInterval is the length of a clock epoch, in whole milliseconds.
	TickInterval time.Duration
	// Now is the clock that transactions get their time from; nil means time.Now.
	Now func() time.Time
	// Log receives the store's complaints; nil means slog.Default().
	Log *slog.Logger

	fs   vfs.FS       // for tests: nil means the real one
	step func(string) // for tests: called before each step of a commit, with its name
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("dir: empty, it must name the directory of the ledger")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	return o, nil
}

// founding is what a ledger is created with, at foundingKey.
type founding struct {
	V            uint   `cbor:"0,keyasint"`
	Channel      string `cbor:"1,keyasint"`
	MSPID        string `cbor:"2,keyasint"`
	TickInterval int64  `cbor:"3,keyasint"` // milliseconds
}

// formatVersion is the version of everything this package stores.
const formatVersion = 1

func (f *founding) tick() time.Duration { return time.Duration(f.TickInterval) * time.Millisecond }

func (f *founding) contract() (*chaincode.Contract, error) {
	return chaincode.New(chaincode.Config{MSPs: []string{f.MSPID}, TickInterval: f.tick()})
}

// found returns the parameters of a ledger that o creates.
func (o Options) found() (*founding, error) {
	f := &founding{V: formatVersion, Channel: DefaultChannel, MSPID: DefaultMSPID, TickInterval: DefaultTickInterval.Milliseconds()}
	if o.Channel != "" {
		f.Channel = o.Channel
	}
	if o.MSPID != "" {
		f.MSPID = o.MSPID
	}
	if o.TickInterval != 0 {
		if o.TickInterval%time.Millisecond != 0 {
			return nil, fmt.Errorf("tick interval: %v, must be whole milliseconds", o.TickInterval)
		}
		f.TickInterval = o.TickInterval.Milliseconds()
	}
	return f, nil
}

// check refuses a ledger that was created with other parameters than o asks for, and names the differences.
func (o Options) check(f *founding) error {
	var differences []error
	differ := func(name string, has, asked any) {
		differences = append(differences, fmt.Errorf("%s: the ledger was created with %v, asked for %v", name, has, asked))
	}
	if o.Channel != "" && o.Channel != f.Channel {
		differ("channel", f.Channel, o.Channel)
	}
	if o.MSPID != "" && o.MSPID != f.MSPID {
		differ("MSP ID", f.MSPID, o.MSPID)
	}
	if o.TickInterval != 0 && o.TickInterval != f.tick() {
		differ("tick interval", f.tick(), o.TickInterval)
	}
	return errors.Join(differences...)
}
