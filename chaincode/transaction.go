package chaincode

import (
	"fmt"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// transaction is one execution: what it may read, and what it will write if all checks pass.
type transaction struct {
	state      State
	channel    string
	caller     Caller
	now        wire.Millis // claimed by the client; see clock.go for what keeps it honest
	consortium wire.Consortium
	writes     []write
}

// write is a pending change; a nil value deletes.
type write struct {
	key   string
	value []byte
}

// maxTime is the last moment that every time format used here can carry (RFC 5280 4.1.2.5).
var maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func newTransaction(st State, tx Tx) (*transaction, error) {
	if tx.Time.Before(time.UnixMilli(0)) || tx.Time.After(maxTime) {
		return nil, wire.Errorf(wire.InvalidArgument, "time", tx.Time.UTC().String(), "must be from 1970 to 9999")
	}
	return &transaction{state: st, channel: tx.Channel, caller: tx.Caller, now: wire.MillisOf(tx.Time)}, nil
}

// put and delete take effect in flush.
func (t *transaction) put(key string, value []byte) { t.writes = append(t.writes, write{key, value}) }
func (t *transaction) delete(key string)            { t.writes = append(t.writes, write{key, nil}) }

func (t *transaction) flush() error {
	for _, w := range t.writes {
		var err error
		if w.value == nil {
			err = t.state.Delete(w.key)
		} else {
			err = t.state.Put(w.key, w.value)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", w.key, err)
		}
	}
	return nil
}

func (t *transaction) get(key string) ([]byte, error) {
	value, err := t.state.Get(key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return value, nil
}

// getMany requires at least one key.
func (t *transaction) getMany(keys []string) ([][]byte, error) {
	values, err := t.state.GetMany(keys)
	if err != nil {
		return nil, fmt.Errorf("read %d keys from %s on: %w", len(keys), keys[0], err)
	}
	if len(values) != len(keys) {
		return nil, fmt.Errorf("read %d keys from %s on: state gave %d values", len(keys), keys[0], len(values))
	}
	return values, nil
}

// admit begins every transaction that writes, Init and Tick apart: the consortium is founded, the caller is one of its members
// in one of roles, and the epoch of the transaction's time is still open. It reads keys in the same round trip as the clock
// and returns their values.
func (t *transaction) admit(roles []string, keys ...string) ([][]byte, error) {
	if err := t.admitMember(roles); err != nil {
		return nil, err
	}
	epoch := t.epoch()
	values, err := t.getMany(append([]string{wire.ClockKey(epoch)}, keys...))
	if err != nil {
		return nil, err
	}
	return values[1:], t.checkOpen(epoch, values[0])
}

// admitMember is admit without the clock.
func (t *transaction) admitMember(roles []string) error {
	raw, err := t.get(wire.ConsortiumKey)
	if err != nil {
		return err
	}
	if raw == nil {
		return wire.Errorf(wire.FailedPrecondition, "consortium", "", "the ledger is not founded yet: Init comes first")
	}
	if err := wire.Decode(raw, &t.consortium); err != nil {
		return corrupt(wire.ConsortiumKey, err)
	}
	if err := t.caller.in(t.consortium.MSPs); err != nil {
		return err
	}
	return t.caller.has(roles)
}

// in refuses a caller of any other organisation.
func (c Caller) in(msps []string) error {
	if !slices.Contains(msps, c.MSPID) {
		return wire.Errorf(wire.PermissionDenied, "caller.msp", c.MSPID, "must be an organisation of the consortium")
	}
	return nil
}

// has refuses a caller without any of roles.
func (c Caller) has(roles []string) error {
	if !slices.Contains(roles, c.Role) {
		return wire.Errorf(wire.PermissionDenied, "caller.role", c.Role, "the identity's attribute %s must be one of %q", wire.RoleAttribute, roles)
	}
	return nil
}

// Who may do what.
var (
	operators      = []string{wire.RoleOperator}
	administrators = []string{wire.RoleAdministrator}
	anyRole        = []string{wire.RoleOperator, wire.RoleAuditor, wire.RoleAdministrator}
)

// badArgument is what a function answers to bytes that are not its argument.
func badArgument(arg []byte, err error) error {
	return wire.Errorf(wire.InvalidArgument, "argument", fmt.Sprintf("%d bytes", len(arg)), "%v", err)
}

// corrupt is about state that this contract would not have written.
func corrupt(key string, err error) error {
	return wire.Errorf(wire.Internal, "state", key, "cannot be decoded: %v", err)
}

// checkBatch bounds the work of one transaction.
func checkBatch(field string, n int) error {
	if n == 0 || n > wire.MaxBatch {
		return wire.Errorf(wire.InvalidArgument, field, fmt.Sprint(n), "must be 1 to %d entries", wire.MaxBatch)
	}
	return nil
}
