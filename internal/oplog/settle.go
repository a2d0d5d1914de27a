package oplog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Restored says how a directory came to be.
type Restored struct {
	V        uint      `json:"version"`
	Taken    time.Time `json:"taken,omitzero"` // when the backup was made; zero: not known
	Restored time.Time `json:"restored"`
	From     string    `json:"from"`           // name of the backup's file, or who else restored it
	Name     string    `json:"name,omitempty"` // of the operators' log; see Log.Name
}

// MarkRestored has the CA bridge ask the ledger, before anything else, what the CA in dir does not know. It is done once the file is there.
func MarkRestored(dir string, r Restored) error {
	r.V = 1
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := keyfile.WriteNew(filepath.Join(dir, RestoredFile), append(data, '\n'), 0o600); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// ReadRestored returns the mark of dir, nil if there is none.
func ReadRestored(dir string) (*Restored, error) {
	path := filepath.Join(dir, RestoredFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Restored
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &r, nil
}

// IsRestored tells whether dir is marked.
func IsRestored(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, RestoredFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// BehindError: the log does not contain the newest head that is anchored in the ledger.
type BehindError struct {
	Name     string // of the log
	Log      wire.OperatorsHead
	Anchored wire.OperatorsHead
	Why      string
}

func (e *BehindError) Error() string {
	under, name := "", "a name, such as bridge-2"
	if e.Name != "" {
		under, name = fmt.Sprintf(" under the name %q", e.Name), "a name of its own"
	}
	return fmt.Sprintf("operators' log: must be the one anchored in the ledger%s: a further bridge of the CA sets ca.operators_log.name to %s; for a copy from a backup, "+
		"stop the CA bridge and run certanchor ca restored; the log: %s; anchored: %s: %s", under, name, e.Log, e.Anchored, e.Why)
}

// Settle compares the log with the newest head that is anchored in the ledger, nil if there is none, and must come before the first record
// of a process that anchors. A log that contains it goes on. For any other the error is a *BehindError, unless the directory is marked as
// restored: then a new generation begins, which names the head that it does not continue. The mark goes away last.
func (l *Log) Settle(anchored *wire.OperatorsHead) error {
	h, err := l.Head()
	if err != nil {
		return err
	}
	why, err := l.lacks(h, anchored)
	if err != nil {
		return err
	}
	l.mu.Lock()
	restored := l.restored
	l.mu.Unlock()
	switch {
	case why == "" && !restored:
		return nil
	case why != "" && !restored:
		return &BehindError{l.name, h, *anchored, why}
	}
	e := Entry{How: "local", Action: "restored", Target: l.caID.String(), Detail: map[string]string{"kept": h.String()}, Outcome: Done}
	if why != "" {
		if err := l.beginGeneration(anchored, h); err != nil {
			return err
		}
		e.Detail["lost"] = "up to " + anchored.String() + " and what came after it"
	}
	l.mu.Lock()
	l.restored = false
	l.mu.Unlock()
	if _, err := l.Record(e); err != nil {
		return err
	}
	dir := filepath.Dir(l.dir)
	if err := os.Remove(filepath.Join(dir, RestoredFile)); err != nil {
		return err
	}
	return keyfile.SyncDir(dir)
}

// lacks says why the log with head h does not contain the anchored head; empty: it does.
func (l *Log) lacks(h wire.OperatorsHead, anchored *wire.OperatorsHead) (string, error) {
	switch {
	case anchored == nil:
		return "", nil
	case h.Generation == anchored.Generation:
		if h.Size < anchored.Size {
			return fmt.Sprintf("%d records are missing", anchored.Size-h.Size), nil
		}
		root, err := l.RootAt(anchored.Size)
		if err == nil && !bytes.Equal(root, anchored.Root) {
			return fmt.Sprintf("its first %d records are others (root %x)", anchored.Size, root), nil
		}
		return "", err
	case h.Generation == anchored.Generation+1:
		if lost := l.Lost(); lost != nil && lost.Equal(*anchored) {
			return "", nil // it was begun and not anchored yet
		}
	}
	return "it is of another generation", nil
}

// beginGeneration makes the generation after the anchored one the log's. h is the head of the present one.
func (l *Log) beginGeneration(anchored *wire.OperatorsHead, h wire.OperatorsHead) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := &Record{Generation: anchored.Generation + 1, Lost: anchored, Kept: &h}
	if h.Generation > anchored.Generation {
		return fmt.Errorf("operators' log: generation %d is here, and the ledger's newest is %d: not the log of this ledger", h.Generation, anchored.Generation)
	}
	if err := l.create(first); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.frames.Close(); err != nil {
		return err
	}
	return l.load(first.Generation)
}
