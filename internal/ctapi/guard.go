package ctapi

import (
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/network"
)

// HeadGuard keeps the newest head that a key has signed, so that a process that starts with an older copy of the log, or with another one,
// signs nothing that contradicts it.
type HeadGuard interface {
	// Load returns the head that Store was last given, nil if there never was one. It is called once, by New.
	Load() (*sct.STH, error)

	// Store returns when the head would survive a crash: its signature leaves only then. Calls do not overlap, and each head is larger or later
	// than the one before. After an error the head may be kept or not.
	Store(sct.STH) error
}

// remember takes up the head that was signed before this process began. Until the log has reached it nothing is signed.
func (l *Log) remember() error {
	if l.guard == nil {
		l.reached.Store(true)
		return nil
	}
	last, err := l.guard.Load()
	if err != nil {
		return fmt.Errorf("log %s: head that was signed last: %w", l.caID, err)
	}
	if last == nil {
		l.reached.Store(true)
		return nil
	}
	l.head, err = l.signHead(*last) // New is not done: nobody else sees it. Signatures are deterministic, so this is the one made then
	return err
}

// checkReached refuses what a log that lacks some of what was signed could do wrong: an SCT might put another entry in its place, and a tile that
// caches keep for a year might be a forked log's.
func (l *Log) checkReached() error {
	if l.log == nil || l.reached.Load() {
		return nil
	}
	_, err := l.newestHead()
	return err
}

// checkHead refuses to sign what contradicts what was signed, or what the log's own hashes do not lead to. last may be nil.
func (l *Log) checkHead(now merklelog.Head, last *head) error {
	if last != nil && now.Size < last.Size && !l.reached.Load() {
		// A rebuilt index gets there; an old backup of a whole network does not, and this is what its operator reads.
		return &network.UnavailableError{Stage: "reading the ledger", Err: fmt.Errorf(
			"log %s: has %d entries so far, a head of %d is signed: nothing is signed before all are there", l.caID, now.Size, last.Size)}
	}
	if last != nil && (now.Size < last.Size || now.Size == last.Size && now.Root != last.Root) {
		return fmt.Errorf("log %s: head has size %d and root %x, but one with size %d and root %x is signed: the log went back or forked, nothing more is signed",
			l.caID, now.Size, now.Root, last.Size, last.Root)
	}
	root, err := merklelog.RootAt(l.log, now.Size)
	if err != nil {
		return err
	}
	if root != now.Root {
		return fmt.Errorf("log %s: head of size %d has root %x, its hashes lead to %x: one of them is damaged, nothing is signed", l.caID, now.Size, now.Root, root)
	}
	if last == nil || last.Size == 0 || last.Size == now.Size {
		return nil
	}
	path, err := merklelog.Consistency(l.log, last.Size, now.Size)
	if err != nil {
		return err
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, last.Size, now.Size, hashList(path), last.Root[:], now.Root[:]); err != nil {
		return fmt.Errorf("log %s: head of size %d does not extend the signed one of size %d and root %x: the log forked or a hash is damaged, nothing more is signed: %w",
			l.caID, now.Size, last.Size, last.Root, err)
	}
	return nil
}
