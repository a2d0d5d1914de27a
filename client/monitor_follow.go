package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const (
	statusLog = "status" // name in paths
	listName  = "logs"   // what the list of logs is called where logs have names

	maxList    = 4 << 20 // octets
	maxLogs    = 4096
	batchTiles = 32 // entries of so many tiles are delivered and saved together
	saveEvery  = 5 * time.Second
)

// head is a checkpoint that was opened under the policy or with a log key.
type head struct {
	*tlogproof.Checkpoint
	note   []byte
	newest time.Time // cosignature; zero: log keys alone are trusted
}

// round reads all logs up to their newest checkpoints. A log that cannot be followed does not keep the others from being.
func (m *Monitor) round(ctx context.Context) error {
	m.pause.Store(0)
	err := m.settle(ctx, listName, m.list(ctx))
	if !m.state.Listed {
		return err // which logs begin at their ends is not known
	}
	// The status log's head is older than those of the issuance logs, so every certificate that it is about is in them. It is
	// so as long as one server's checkpoints are of one age; maxEarly is for when they are not.
	status, statusErr := m.head(ctx, statusLog, false)
	for _, name := range slices.Sorted(maps.Keys(m.state.Logs)) {
		if name != statusLog && name != listName {
			err = errors.Join(err, m.settle(ctx, name, m.follow(ctx, name, nil)))
		}
		if f := (*fatalError)(nil); errors.As(err, &f) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	if statusErr == nil {
		statusErr = m.follow(ctx, statusLog, status)
	}
	err = errors.Join(err, m.settle(ctx, statusLog, statusErr))
	return errors.Join(err, ctx.Err(), m.flush())
}

// list learns which logs there are. Whether they are what they must be shows when they are read.
func (m *Monitor) list(ctx context.Context) error {
	body, err := m.get(ctx, "/logs", maxList, false)
	if err != nil {
		return err
	}
	var logs []struct {
		CAID string `json:"ca_id"`
	}
	if len(body) > maxList {
		return fmt.Errorf("%w: %s/logs: longer than %d octets", ErrTransport, m.base, maxList)
	}
	if err := json.Unmarshal(body, &logs); err != nil {
		return fmt.Errorf("%w: %s/logs: must be a list of logs: %w", ErrTransport, m.base, err)
	}
	if len(logs) > maxLogs {
		return fmt.Errorf("%w: %s/logs: %d logs: must be at most %d", ErrTransport, m.base, len(logs), maxLogs)
	}
	names := []string{statusLog}
	for _, l := range logs {
		if l.CAID == "" { // the status log and the map log, which have no CA
			continue
		}
		if _, err := wire.ParseCAID(l.CAID); err != nil {
			return fmt.Errorf("%w: %s/logs: %w", ErrTransport, m.base, err)
		}
		names = append(names, l.CAID)
	}
	for _, name := range names {
		if m.state.Logs[name] == nil {
			// A log that appears later is new, all of it.
			m.state.log(name).FromHead = !m.state.Listed && !m.cfg.FromStart
			m.dirty = true
		}
	}
	for name, l := range m.state.Logs {
		// What the server made up and took back; what the ledger or a checkpoint told of stays.
		if l.last == nil && !l.Announced && name != listName && !slices.Contains(names, name) {
			delete(m.state.Logs, name)
			delete(m.failing, name)
			m.dirty = true
		}
	}
	m.dirty = m.dirty || !m.state.Listed
	m.state.Listed = true
	return nil
}

func (m *Monitor) origin(name string) string {
	switch name {
	case statusLog:
		return lognames.Status(m.channel)
	case listName:
		return m.channel + "/" + listName
	}
	id, err := wire.ParseCAID(name)
	if err != nil { // names come from list and from status leaves
		return m.channel + "/issuance/" + name
	}
	return lognames.Issuance(m.channel, id)
}

// head fetches a log's newest checkpoint. Errors: ErrTransport, ErrCheckpoint.
func (m *Monitor) head(ctx context.Context, name string, anew bool) (*head, error) {
	path := "/logs/" + name + "/checkpoint"
	signed, err := m.get(ctx, path, maxAnswer, anew)
	if err != nil {
		return nil, err
	}
	h := &head{note: signed}
	if m.cfg.Policy != nil {
		opened, err := m.cfg.Policy.p.OpenCheckpoint(signed, m.origin(name), false)
		if err != nil {
			return nil, fmt.Errorf("%w: %s%s: %w", ErrCheckpoint, m.base, path, err)
		}
		h.Checkpoint, h.newest = &opened.Checkpoint, opened.Newest
	} else if h.Checkpoint, _, err = tlogproof.OpenCheckpoint(signed, m.origin(name), m.cfg.LogKeys...); err != nil {
		return nil, fmt.Errorf("%w: %s%s: %w", ErrCheckpoint, m.base, path, err)
	}
	if h.Size > maxSize {
		return nil, fmt.Errorf("%w: %s: size %d: must be at most %d, leaf indexes end there", ErrCheckpoint, m.origin(name), h.Size, uint64(maxSize))
	}
	return h, nil
}

// follow reads a log up to h, or if that is nil to its newest checkpoint. What a cache can cause, by being older than the log or broken,
// is looked at again past caches; two signed checkpoints that contradict each other no cache can make.
func (m *Monitor) follow(ctx context.Context, name string, h *head) error {
	err := m.followOnce(ctx, name, h, false)
	if alarm := (*alarmError)(nil); errors.As(err, &alarm) && alarm.class != AlarmFork {
		err = m.followOnce(ctx, name, nil, true)
	}
	return err
}

func (m *Monitor) followOnce(ctx context.Context, name string, h *head, anew bool) (err error) {
	if h == nil {
		if h, err = m.head(ctx, name, anew); err != nil {
			return err
		}
	}
	defer func() {
		if alarm := (*alarmError)(nil); errors.As(err, &alarm) {
			alarm.served = h.note
		}
	}()
	t := &tree{m: m, ctx: ctx, dir: "/logs/" + name + "/", cp: h.Checkpoint, anew: anew, cache: map[tlog.Tile][]byte{}}
	l := m.state.log(name)
	if err := m.advance(t, l); err != nil {
		return err
	}
	if l.last == nil || l.last.Size < h.Size {
		if l.last == nil && l.FromHead {
			l.Next = h.Size
		}
		l.Checkpoint, l.last, l.FromHead, m.dirty = h.note, h.Checkpoint, false, true
	}
	if err := m.step("checkpoint"); err != nil {
		return err
	}
	if err := m.read(t, name, l); err != nil {
		return err
	}
	if age := m.cfg.Now().Sub(h.newest); m.cfg.Policy != nil && age > m.cfg.Policy.MaxAge()+DefaultSkew {
		return fmt.Errorf("%w: %s: newest cosignature is of %s: the policy allows %v", ErrCheckpoint, m.origin(name), h.newest.UTC().Format(time.RFC3339), m.cfg.Policy.MaxAge())
	}
	return nil
}

// advance checks that the tree is the saved one, grown.
func (m *Monitor) advance(t *tree, l *logState) error {
	old := l.last
	switch {
	case t.cp.Size == 0 && t.cp.Root != emptyRoot:
		return fork("the log of size 0 has root %x: must be that of an empty tree (RFC 6962 section 2.1)", t.cp.Root)
	case old == nil:
		return nil
	case t.cp.Size < old.Size:
		return &alarmError{class: AlarmRollback, detail: fmt.Errorf("the log has size %d: it had %d before", t.cp.Size, old.Size)}
	case t.cp.Size == old.Size && t.cp.Root != old.Root:
		return fork("the log of size %d has root %x: it had %x before", t.cp.Size, t.cp.Root, old.Root)
	case t.cp.Size == old.Size || old.Size == 0:
		return nil
	}
	return t.extends(old)
}

// read delivers what is new, some tiles at a time.
func (m *Monitor) read(t *tree, name string, l *logState) error {
	began, from := m.cfg.Now(), l.Next
	for l.Next < t.cp.Size {
		first, to := l.Next, min((l.Next/tileWidth+batchTiles)*tileWidth, t.cp.Size)
		b, err := m.batch(t, name, l.Next, to)
		if err != nil {
			return err
		}
		if err := m.commit(t.ctx, l, to, b); err != nil {
			return err
		}
		m.verified.Add(l.Next - first)
		m.report(name, began, from, l.Next, t.cp.Size)
	}
	return nil
}

func (m *Monitor) batch(t *tree, name string, from, to uint64) (*batch, error) {
	if name == statusLog {
		leaves, err := t.leaves(from, to)
		if err != nil {
			return nil, err
		}
		return m.statusBatch(m.origin(name), from, leaves), nil
	}
	findings, err := m.find(t, name, from, to)
	if err != nil {
		return nil, err
	}
	return m.issuanceBatch(findings), nil
}

// leaves reads entries as what is hashed.
func (t *tree) leaves(from, to uint64) ([][]byte, error) {
	leaves := make([][]byte, to-from)
	return leaves, t.entries(from, to, entryBundles, func(a tileArea, octets []byte) error {
		all, err := readBundle(octets, a.width)
		for i := a.first; i < a.last && err == nil; i++ {
			leaves[i-from] = all[i-a.start]
			err = a.verify(i, leaves[i-from])
		}
		return err
	})
}

// find reads entries of an issuance log and returns what is to be reported of them.
func (m *Monitor) find(t *tree, name string, from, to uint64) ([]finding, error) {
	caID, err := wire.ParseCAID(name)
	if err != nil {
		return nil, err
	}
	found := make([]*finding, to-from)
	see := func(i uint64, e *logEntry) error {
		if err := e.check(i, caID); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		found[i-from] = m.patterns.find(e, caID, m.origin(name), i)
		return nil
	}
	if !m.noStatic[name] {
		err = t.entries(from, to, dataTiles, func(a tileArea, octets []byte) error {
			all, err := readEntries(octets, a.width)
			for i := a.first; i < a.last && err == nil; i++ {
				if err = a.verify(i, all[i-a.start].leaf); err == nil {
					err = see(i, all[i-a.start])
				}
			}
			return err
		})
		// A bridge that has no URL of its own is no certificate transparency log, and serves leaves only.
		answer := (*httpError)(nil)
		m.noStatic[name] = errors.As(err, &answer) && answer.status == http.StatusNotFound
	}
	if m.noStatic[name] {
		err = t.findInLeaves(from, to, see)
	}
	if err != nil {
		return nil, err
	}
	var list []finding
	for _, f := range found {
		if f != nil {
			list = append(list, *f)
		}
	}
	return list, nil
}

func (t *tree) findInLeaves(from, to uint64, see func(uint64, *logEntry) error) error {
	leaves, err := t.leaves(from, to)
	if err != nil {
		return err
	}
	return each(len(leaves), t.m.cfg.Parallel, func(i int) error {
		e, err := readLeaf(leaves[i])
		if err == nil {
			err = see(from+uint64(i), e)
		}
		if err != nil {
			return damage("%s: %w", t.dir, err)
		}
		return nil
	})
}
