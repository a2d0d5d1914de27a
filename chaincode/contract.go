package chaincode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// State is the ledger's key-value state as one transaction sees it. The contract never reads a key that it wrote in the same
// transaction, never writes one twice, and writes only after its last read.
type State interface {
	// Get returns a key's value, nil when the key is absent.
	Get(key string) ([]byte, error)
	// GetMany returns the values of keys, in their order, nil for each key that is absent.
	GetMany(keys []string) ([][]byte, error)
	// Put sets a key; the value is not empty.
	Put(key string, value []byte) error
	// Delete removes a key, which need not be there.
	Delete(key string) error
}

// Caller is who submitted a transaction, as the ledger's membership service authenticated it.
type Caller struct {
	MSPID string
	Role  string // value of the identity attribute wire.RoleAttribute, empty if it has none
}

// Tx is what a transaction's envelope says about it.
type Tx struct {
	ID      string
	Channel string    // the ledger's name
	Time    time.Time // claimed by the client
	Caller  Caller
}

// Limits of a Config.
const (
	MaxMSPs         = 64
	MaxMSPIDBytes   = 64
	MinTickInterval = 100 * time.Millisecond
	MaxTickInterval = time.Hour
)

// Config is this endorser's own view of the consortium. Init compares its argument with it.
//
// Between organisations that do not trust one another, TickInterval must not be less than the error that peers tolerate in
// claimed times (Fabric's peer.authentication.timewindow): with a shorter one, an organisation could tick so far ahead that it
// closes the epoch in which the others are.
type Config struct {
	MSPs         []string      // 1 to MaxMSPs MSP IDs, in any order
	TickInterval time.Duration // whole milliseconds, MinTickInterval to MaxTickInterval
}

// Contract executes transactions. It holds no state of its own and is safe for concurrent use.
type Contract struct {
	founding wire.Consortium // the consortium as this endorser is configured
}

// New checks cfg. Errors are *wire.Error and name the setting, its value and the rule.
func New(cfg Config) (*Contract, error) {
	if cfg.TickInterval%time.Millisecond != 0 {
		return nil, wire.Errorf(wire.InvalidArgument, "tick_interval", cfg.TickInterval.String(), "must be whole milliseconds")
	}
	founding := wire.Consortium{
		V:            wire.Version,
		MSPs:         slices.Sorted(slices.Values(cfg.MSPs)),
		TickInterval: cfg.TickInterval.Milliseconds(),
	}
	if err := checkConsortium(&founding); err != nil {
		return nil, err
	}
	return &Contract{founding: founding}, nil
}

// checkConsortium says whether c can be founded.
func checkConsortium(c *wire.Consortium) error {
	if len(c.MSPs) == 0 || len(c.MSPs) > MaxMSPs {
		return wire.Errorf(wire.InvalidArgument, "consortium", strings.Join(c.MSPs, ","), "must list 1 to %d organisations", MaxMSPs)
	}
	for i, id := range c.MSPs {
		// A slash would make vote/<proposal>/<MSP> ambiguous.
		if id == "" || len(id) > MaxMSPIDBytes || !utf8.ValidString(id) || strings.ContainsAny(id, "/\x00") {
			return wire.Errorf(wire.InvalidArgument, "consortium", id, "an MSP ID must be 1 to %d bytes of UTF-8 without '/' and NUL", MaxMSPIDBytes)
		}
		if i > 0 && c.MSPs[i-1] >= id {
			return wire.Errorf(wire.InvalidArgument, "consortium", id, "MSP IDs must be sorted and must not repeat")
		}
	}
	if t := time.Duration(c.TickInterval) * time.Millisecond; c.TickInterval > MaxTickInterval.Milliseconds() || t < MinTickInterval {
		return wire.Errorf(wire.InvalidArgument, "tick_interval", fmt.Sprintf("%d ms", c.TickInterval), "must be %v to %v", MinTickInterval, MaxTickInterval)
	}
	return nil
}

// ReadOnly reports whether function only reads, so that it can be evaluated without a transaction.
func ReadOnly(function string) bool { return function == wire.FnRead }

// Invoke executes one function with an encoded argument (package wire says which) and returns its encoded answer. The error
// is a *wire.Error; with an error nothing was written to st, unless st itself failed in the middle of the writes
// (wire.Internal): then the caller must drop the transaction.
func (c *Contract) Invoke(st State, tx Tx, function string, arg []byte) (result []byte, err error) {
	defer func() {
		// A bug in a parser must not let one transaction kill every organisation's endorser.
		if r := recover(); r != nil {
			result, err = nil, wire.Errorf(wire.Internal, "function", function, "the contract panicked, which is a bug: %v", r)
		}
	}()
	t, err := newTransaction(st, tx)
	if err != nil {
		return nil, wireError(err)
	}
	result, err = c.execute(t, function, arg)
	if err == nil {
		err = t.flush()
	}
	if err != nil {
		return nil, wireError(err)
	}
	return result, nil
}

func (c *Contract) execute(t *transaction, function string, arg []byte) ([]byte, error) {
	switch function {
	case wire.FnInit:
		return c.found(t, arg)
	case wire.FnRegisterCA:
		return registerCA(t, arg)
	case wire.FnIssue:
		return issue(t, arg)
	case wire.FnImport:
		return importCerts(t, arg)
	case wire.FnSetStatus:
		return setStatus(t, arg)
	case wire.FnRevoke:
		return revokeByHolder(t, arg)
	case wire.FnDecide:
		return decide(t, arg)
	case wire.FnIntegrate:
		return integrate(t, arg)
	case wire.FnTick:
		return tick(t, arg)
	case wire.FnAnchorOperators:
		return anchorOperators(t, arg)
	case wire.FnRead:
		return c.read(t, arg)
	}
	return nil, wire.Errorf(wire.InvalidArgument, "function", function, "must be Init, RegisterCA, Issue, Import, SetStatus, Revoke, Decide, Integrate, Tick, AnchorOperators or Read")
}

// wireError keeps the promise that every error of Invoke is a *wire.Error.
func wireError(err error) *wire.Error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	return wire.Errorf(wire.Internal, "state", err.Error(), "the state could not be read or written")
}
