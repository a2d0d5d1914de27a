// Package network is how a process reaches a ledger: one interface, two engines.
//
// network/fabric speaks to a Hyperledger Fabric peer through its gateway, network/embedded runs the same contract over a
// key-value store in this process. Nothing above this package knows which one it holds; the suite in network/networktest
// holds both to the contract written here.
package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Ledger is one organisation's connection to one ledger. All methods are safe for concurrent use.
//
// Durability: when Submit returns a Receipt, the transaction is in a committed block that survives the death of any process
// at any later moment, and every later Evaluate on this Ledger sees its effects.
//
// Retries: Submit never retries a transaction that was handed to ordering. The caller does, after looking at the error
// (IsRejected, ErrConflict, ErrUnavailable, ErrUnknownOutcome). Every write of the contract may be submitted again with the
// same bytes: if the first attempt committed, the second succeeds with the same result.
type Ledger interface {
	// Submit executes function with arg as one transaction and returns once its block is committed on this
	// organisation's peer. Its error is one of:
	//   - *RejectedError: the contract refused; nothing was written. Retrying the same bytes is pointless until state changes.
	//   - *ConflictError (errors.Is ErrConflict): the block holds it as invalid because another transaction changed what
	//     it had read, or endorsers disagreed; nothing was written. Retry at once or after a short wait.
	//   - *UnavailableError (errors.Is ErrUnavailable): it was never sent to ordering; nothing was written.
	//   - *UnknownOutcomeError (errors.Is ErrUnknownOutcome): it may or may not commit, now or until two ticks have passed.
	// A cancelled or expired ctx gives ErrUnavailable or ErrUnknownOutcome, wrapping ctx.Err().
	Submit(ctx context.Context, function string, arg []byte) (Receipt, error)

	// Evaluate runs a read-only function on this organisation's own peer and returns its answer. What another function would
	// write is dropped. Errors: *RejectedError or *UnavailableError.
	Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error)

	// Blocks calls fn for every block from number from on (0 is the first; it may be one that is still to come), in order,
	// without gap or repeat, waiting for new ones, until ctx ends or fn fails; it returns ctx.Err() or fn's error. Blocks
	// form a chain by PrevHash. A lost connection is not an error: the stream resumes at the next block by itself.
	// *UnavailableError is returned when that cannot help: the ledger does not have the block (a peer that joined by
	// snapshot), refuses to serve it, has another chain or a damaged one, or this connection was closed.
	Blocks(ctx context.Context, from uint64, fn func(*Block) error) error

	// Height returns the number of blocks on this organisation's own peer (the next block's number), asked now, not
	// cached. Error: *UnavailableError.
	Height(ctx context.Context) (uint64, error)

	// MSPID is the organisation this connection acts for.
	MSPID() string

	// Channel is the ledger's name: the Fabric channel, or the name the embedded ledger was created with.
	Channel() string

	// Close releases the connection. Running calls end with ErrUnavailable or ErrUnknownOutcome.
	Close() error
}

// Receipt says where a transaction committed.
type Receipt struct {
	TxID   string
	Block  uint64 // block number
	Result []byte // the contract's answer
}

// Block is a committed block with the transactions' validity as this organisation's peer decided it.
type Block struct {
	Number   uint64
	Hash     []byte // SHA-256 over the block header, as the engine defines it
	PrevHash []byte // Hash of the block before; empty for block 0
	Txs      []Tx   // contract transactions only, in order, invalid ones included; empty for configuration blocks
}

// Tx is one contract transaction in a block.
type Tx struct {
	ID       string
	Index    int       // position in the block
	Time     time.Time // claimed by the client, UTC
	MSPID    string    // organisation of the submitting identity
	Role     string    // its attribute wire.RoleAttribute; empty if it has none
	Valid    bool      // false: no effect; Writes must be ignored
	Code     string    // validation code, "VALID" or the reason
	Function string    // empty when another chaincode called the contract (Fabric only); Arg and Result are then unknown
	Arg      []byte
	Result   []byte  // the contract's answer, as endorsed
	Writes   []Write // in key order
}

// Write is one key's new value. A nil Value is a deletion.
type Write struct {
	Key   string
	Value []byte
}

// Sentinels for errors.Is; the types below carry the details.
var (
	ErrConflict       = errors.New("transaction conflicted with another and was not applied")
	ErrUnavailable    = errors.New("ledger unavailable, nothing was submitted")
	ErrUnknownOutcome = errors.New("outcome of the transaction is unknown")
	ErrClosed         = errors.New("ledger connection is closed")
)

// RejectedError: the contract refused the transaction. Reason is a *wire.Error when the contract said why in its own form.
type RejectedError struct {
	Function string
	Reason   error
}

func (e *RejectedError) Error() string { return fmt.Sprintf("%s rejected: %v", e.Function, e.Reason) }
func (e *RejectedError) Unwrap() error { return e.Reason }

// ConflictError: committed as invalid (Code says how) or refused because endorsers disagreed (Block is then 0).
type ConflictError struct {
	TxID   string
	Block  uint64
	Code   string
	Detail string // what the endorsers said, when they disagreed
}

func (e *ConflictError) Error() string {
	msg := fmt.Sprintf("transaction %s: %s: %v", e.TxID, e.Code, ErrConflict)
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// UnavailableError: the ledger could not be reached before anything was submitted.
type UnavailableError struct {
	Stage string // what was being done, for example "endorse"
	Err   error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.Stage, ErrUnavailable, e.Err)
}
func (e *UnavailableError) Unwrap() error        { return e.Err }
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// UnknownOutcomeError: the transaction was handed over and its fate was not learnt.
type UnknownOutcomeError struct {
	TxID  string
	Stage string
	Err   error
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("transaction %s: %s: %v: %v", e.TxID, e.Stage, ErrUnknownOutcome, e.Err)
}
func (e *UnknownOutcomeError) Unwrap() error        { return e.Err }
func (e *UnknownOutcomeError) Is(target error) bool { return target == ErrUnknownOutcome }

// CheckArg refuses, with a *RejectedError, an argument that no contract accepts, so that it is not sent anywhere.
func CheckArg(function string, arg []byte) error {
	if len(arg) <= wire.MaxArgBytes {
		return nil
	}
	return &RejectedError{Function: function, Reason: wire.Errorf(wire.InvalidArgument, "arg", fmt.Sprintf("%d bytes", len(arg)), "must be at most %d bytes; split the batch", wire.MaxArgBytes)}
}

// IsRejected reports whether the contract refused the transaction.
func IsRejected(err error) bool {
	var r *RejectedError
	return errors.As(err, &r)
}
