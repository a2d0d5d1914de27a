package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// Log is one log as the audited blocks have it.
type Log struct {
	Name   string         // as in paths: a CA ID, StatusLog or MapLog
	CA     *wire.CARecord // of an issuance log; nil otherwise
	CAID   wire.CAID      // of an issuance log
	Origin string
	Size   uint64
	Root   [sha256.Size]byte
}

// Logs returns every log as of Height: those of the CAs by name, then the status log and the map log.
func (a *Auditor) Logs() ([]Log, error) {
	heads, err := a.LogHeads()
	if err != nil {
		return nil, err
	}
	var logs []Log
	for id, head := range heads {
		l := Log{Name: id.String(), CAID: id, CA: &wire.CARecord{}, Origin: lognames.Issuance(a.opts.Channel, id), Size: head.Size, Root: [sha256.Size]byte(head.Root)}
		value, err := a.Get(wire.CAKey(id))
		if err == nil {
			err = wire.Decode(value, l.CA)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", wire.CAKey(id), err)
		}
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b Log) int { return strings.Compare(a.Name, b.Name) })
	status := Log{Name: StatusLog, Origin: lognames.Status(a.opts.Channel), Root: [sha256.Size]byte(hasher.EmptyRoot())}
	head, err := a.StatusHead()
	if err != nil {
		return nil, err
	}
	if head != nil {
		status.Size, status.Root = head.Size, [sha256.Size]byte(head.Root)
	}
	ticks := Log{Name: MapLog, Origin: lognames.Map(a.opts.Channel), Size: a.NTicks, Root: [sha256.Size]byte(hasher.EmptyRoot())}
	if a.NTicks > 0 {
		tree, err := ranges.NewRange(0, a.NTicks, a.Ticks)
		if err != nil {
			return nil, err
		}
		root, err := tree.GetRootHash(nil)
		if err != nil {
			return nil, err
		}
		ticks.Root = [sha256.Size]byte(root)
	}
	return append(logs, status, ticks), nil
}

// Entries calls fn with the entries of a log, from the first on, until there are no more or fn fails.
func (a *Auditor) Entries(l *Log, fn func(index uint64, e *merklelog.Entry) error) error {
	var (
		next  uint64
		fnErr error
	)
	err := a.scan(entryKey(l.Name, 0), entryKey(l.Name, l.Size), func(key, stored []byte) bool {
		var e *merklelog.Entry
		if e, fnErr = l.entry(next, key, stored); fnErr == nil {
			fnErr = fn(next, e)
		}
		next++
		return fnErr == nil
	})
	if fnErr != nil {
		return fnErr
	}
	if err == nil && next != l.Size {
		err = a.damaged(l, fmt.Errorf("it has %d entries of %d", next, l.Size))
	}
	return err
}

// Damaged is the error about an audit's own copy of a log.
func (a *Auditor) damaged(l *Log, err error) error {
	return fmt.Errorf("audit state %s: damaged, delete it to start again: log %s: %w", a.opts.Dir, l.Name, err)
}

// CheckLog compares the audit's own copy of a log, whose leaves have this root, with the ledger's head.
func (a *Auditor) CheckLog(l *Log, root [sha256.Size]byte) error {
	if root != l.Root {
		return a.damaged(l, fmt.Errorf("its leaves have the root %x, the head's is %x", root, l.Root))
	}
	return nil
}

// Entry returns one entry.
func (a *Auditor) Entry(l *Log, index uint64) (*merklelog.Entry, error) {
	key := entryKey(l.Name, index)
	stored, err := a.read(key)
	if err != nil {
		return nil, err
	}
	e, err := l.entry(index, key, stored)
	if err != nil {
		return nil, a.damaged(l, err)
	}
	return e, nil
}

// entry builds an entry from what is stored: its kind, of a certificate the time, and the rest.
func (l *Log) entry(index uint64, key, stored []byte) (e *merklelog.Entry, err error) {
	const head = 1 + 8
	if len(stored) <= head || binary.BigEndian.Uint64(key[len(key)-8:]) != index {
		return nil, fmt.Errorf("entry %d is missing", index)
	}
	stored = slices.Clone(stored) // the entry outlives the call
	e = &merklelog.Entry{Kind: merklelog.Kind(stored[0])}
	switch e.Kind {
	case merklelog.X509, merklelog.Precert:
		e.Time, e.DER = wire.Millis(binary.BigEndian.Uint64(stored[1:])), stored[head:]
		if e.Kind == merklelog.X509 {
			e.Leaf, err = ctleaf.X509(index, e.Time, e.DER)
			break
		}
		var tbs []byte
		if tbs, err = ctleaf.PrecertTBS(e.DER); err == nil {
			e.Leaf, err = ctleaf.Precert(index, e.Time, l.CAID, tbs)
		}
	case merklelog.Status:
		var leaf wire.StatusLeaf
		e.Leaf = stored[1:]
		err = wire.Decode(e.Leaf, &leaf)
		e.Time = leaf.Time
	case merklelog.Map:
		var leaf wire.MapLeaf
		e.Leaf = stored[1:]
		err = wire.Decode(e.Leaf, &leaf)
		e.Time = leaf.Time
	default:
		err = fmt.Errorf("kind %d is unknown", e.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	return e, nil
}
