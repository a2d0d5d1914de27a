// Package anchortest puts faults between a program under test and a real ledger.
package anchortest

import (
	"context"
	"errors"
	"sync"

	"github.com/certanchor/certanchor/network"
)

// Fault is what goes wrong with one Submit.
type Fault int

// Faults.
const (
	None           Fault = iota
	Conflict             // invalid in the block: nothing was written
	Unavailable          // never sent
	UnknownLost          // sent, answer lost, and never commits
	UnknownCommits       // sent, committed, answer lost
	UnknownLater         // sent, answer lost, commits just before the next transaction
	Hang                 // never sent, and nothing is heard until the context ends
	Mismatch             // endorsers disagreed, because one is a block behind: nothing was sent
	Processed            // sent, committed, and the orderers say that they know it already
	HangCommits          // sent, committed, and nothing is heard until the context ends
	NumFaults
)

// Ledger is a real ledger with faults.
type Ledger struct {
	network.Ledger

	mu   sync.Mutex
	plan func(function string) Fault
	late []func() // transactions of UnknownLater
	down bool
	sent int
	read int
}

// New wraps ledger; plan decides about each transaction, nil lets all pass. It may be called from several goroutines.
func New(ledger network.Ledger, plan func(function string) Fault) *Ledger {
	return &Ledger{Ledger: ledger, plan: plan}
}

// Plan changes the plan.
func (l *Ledger) Plan(plan func(function string) Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plan = plan
}

// Down cuts the ledger off, reads included, or brings it back.
func (l *Ledger) Down(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// Sent counts the transactions that were tried.
func (l *Ledger) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// Reads counts the calls of Evaluate.
func (l *Ledger) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read
}

var errInjected = errors.New("injected fault")

func (l *Ledger) next(function string) (Fault, []func()) {
	l.mu.Lock()
	l.sent++
	if l.down {
		l.mu.Unlock()
		return Unavailable, nil
	}
	late, plan := l.late, l.plan
	l.late = nil
	l.mu.Unlock()
	if plan == nil {
		return None, late
	}
	return plan(function), late // without the lock: a plan may take its time
}

// Submit implements network.Ledger.
func (l *Ledger) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	fault, late := l.next(function)
	for _, f := range late {
		f()
	}
	unknown := &network.UnknownOutcomeError{TxID: "lost", Stage: function, Err: errInjected}
	switch fault {
	case Conflict:
		return network.Receipt{}, &network.ConflictError{TxID: "conflict", Code: "MVCC_READ_CONFLICT"}
	case Unavailable:
		return network.Receipt{}, &network.UnavailableError{Stage: function, Err: errInjected}
	case UnknownLost:
		return network.Receipt{}, unknown
	case UnknownCommits:
		if _, err := l.Ledger.Submit(ctx, function, arg); network.IsRejected(err) {
			return network.Receipt{}, err // the contract says so before anything is sent
		}
		return network.Receipt{}, unknown
	case UnknownLater:
		l.mu.Lock()
		l.late = append(l.late, func() {
			_, _ = l.Ledger.Submit(context.WithoutCancel(ctx), function, arg) // refused or not: nobody hears of it
		})
		l.mu.Unlock()
		return network.Receipt{}, unknown
	case Mismatch:
		return network.Receipt{}, &network.ConflictError{TxID: "mismatch", Code: "ENDORSEMENT_MISMATCH", Detail: "ProposalResponsePayloads do not match"}
	case Processed:
		if _, err := l.Ledger.Submit(ctx, function, arg); err != nil {
			return network.Receipt{}, err
		}
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: "processed", Stage: "submit", Err: errors.New("request already processed")}
	case HangCommits:
		if _, err := l.Ledger.Submit(ctx, function, arg); err != nil {
			return network.Receipt{}, err
		}
		<-ctx.Done()
		return network.Receipt{}, &network.UnknownOutcomeError{TxID: "hung", Stage: function, Err: ctx.Err()}
	case Hang:
		<-ctx.Done()
		return network.Receipt{}, &network.UnknownOutcomeError{Stage: function, Err: ctx.Err()}
	}
	return l.Ledger.Submit(ctx, function, arg)
}

// Evaluate implements network.Ledger.
func (l *Ledger) Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error) {
	l.mu.Lock()
	l.read++
	l.mu.Unlock()
	if err := l.reach("evaluate"); err != nil {
		return nil, err
	}
	return l.Ledger.Evaluate(ctx, function, arg)
}

// Height implements network.Ledger.
func (l *Ledger) Height(ctx context.Context) (uint64, error) {
	if err := l.reach("height"); err != nil {
		return 0, err
	}
	return l.Ledger.Height(ctx)
}

func (l *Ledger) reach(stage string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return &network.UnavailableError{Stage: stage, Err: errInjected}
	}
	return nil
}
