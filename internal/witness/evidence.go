package witness

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// ErrSplitView tells that an organisation has signed a root that is not the own log's at that size.
var ErrSplitView = errors.New("split view: signed root is not that of the own log")

// ErrAhead tells that a checkpoint is larger than the own log, so that nothing can be said about it yet.
var ErrAhead = errors.New("checkpoint is larger than the own log")

// Evidence shows that an organisation signed another history than the own one.
type Evidence struct {
	Note    []byte            // the checkpoint, with only the signatures that verify: those convict
	Signers []string          // names of their keys
	OwnRoot [sha256.Size]byte // of the own log at that size
	Seen    time.Time
}

// Marshal returns the file: a few lines for people, an empty line, and the note.
func (e *Evidence) Marshal() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%sseen %s\nown-root %s\n", evidenceHeader, e.Seen.UTC().Format(time.RFC3339), base64.StdEncoding.EncodeToString(e.OwnRoot[:]))
	for _, s := range e.Signers {
		fmt.Fprintf(&b, "signed-by %s\n", s)
	}
	return append(append([]byte(b.String()), '\n'), e.Note...)
}

const evidenceHeader = "certanchor split view v1\n"

// ParseEvidence reads what Marshal writes, and nothing else.
func ParseEvidence(data []byte) (*Evidence, error) {
	head, signed, ok := strings.Cut(string(data), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 4 || lines[0]+"\n" != evidenceHeader {
		return nil, errors.New("evidence: must begin with " + strconv.Quote(strings.TrimSpace(evidenceHeader)) + " and hold a signed note")
	}
	e := &Evidence{Note: []byte(signed)}
	var err error
	if e.Seen, err = time.Parse(time.RFC3339, strings.TrimPrefix(lines[1], "seen ")); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	root, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[2], "own-root "))
	if err != nil || len(root) != sha256.Size {
		return nil, fmt.Errorf("evidence: %.100q: must be the own root", lines[2])
	}
	e.OwnRoot = [sha256.Size]byte(root)
	for _, l := range lines[3:] {
		e.Signers = append(e.Signers, strings.TrimPrefix(l, "signed-by "))
	}
	if string(e.Marshal()) != string(data) {
		return nil, errors.New("evidence: must be in its one form: the lines seen, in UTC, own-root and signed-by, an empty line and the note")
	}
	return e, nil
}

// Watch compares what organisations sign with the own logs, and keeps evidence when they differ. It is safe for concurrent use.
type Watch struct {
	cfg WatchConfig

	mu    sync.Mutex
	shelf *shelf
}

// WatchConfig is what a Watch needs. All but Cosigners and Alarm is required.
type WatchConfig struct {
	Dir       string                 // of the evidence
	LogKeys   func() []note.Verifier // of the policy in force
	Cosigners func() []note.Verifier // of the policy in force: a cosignature of another history convicts as well
	Alarm     func(*Evidence)        // called for each new piece of evidence, kept or not; from several goroutines
	Now       func() time.Time
}

// NewWatch opens the evidence of earlier runs: see All. No alarm is raised for it again.
func NewWatch(cfg WatchConfig) (*Watch, error) {
	if cfg.Dir == "" || cfg.LogKeys == nil || cfg.Now == nil {
		return nil, errors.New("witness: a watch needs a directory, log keys and a clock")
	}
	shelf, err := openShelf(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Watch{cfg: cfg, shelf: shelf}, nil
}

// All returns the evidence that is kept: first one piece of each set of signers, then the others, the oldest first. It must not be changed.
func (w *Watch) All() []*Evidence {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shelf.all()
}

// Compare checks a checkpoint that somebody serves against the own log of its origin. nil: it is signed, and the own log's root at
// that size. Errors: ErrUnsigned when no known key signed it, ErrAhead when the own log is shorter, ErrSplitView when the roots
// differ; the alarm is then raised and the evidence recorded, or ErrNotKept says that there is enough.
func (w *Watch) Compare(signed []byte, log merklelog.Log) error {
	keys := w.cfg.LogKeys()
	if w.cfg.Cosigners != nil {
		keys = append(slices.Clone(keys), w.cfg.Cosigners()...)
	}
	v, err := open(signed, keys)
	if err != nil {
		return err
	}
	return w.check(v, log)
}

// ErrUnsigned tells that a checkpoint carries no valid signature of a known key.
var ErrUnsigned = errors.New("checkpoint has no valid signature of a known key")

// verified is a checkpoint with the signatures of known keys that verify, and no others.
type verified struct {
	tlogproof.Checkpoint
	text string
	sigs []note.Signature
}

// open looks for signatures of known keys. One that does not verify is passed over, not believed: what an attacker adds must not hide what the
// log signed.
func open(signed []byte, keys []note.Verifier) (*verified, error) {
	cp, n, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		return nil, err
	}
	v := &verified{Checkpoint: *cp, text: n.Text}
	for _, key := range keys {
		for _, s := range n.UnverifiedSigs {
			if s.Name != key.Name() || s.Hash != key.KeyHash() {
				continue
			}
			if raw, err := base64.StdEncoding.DecodeString(s.Base64); err == nil && key.Verify([]byte(n.Text), raw[4:]) {
				v.sigs = append(v.sigs, s)
				break
			}
		}
	}
	if len(v.sigs) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnsigned, cp.Origin)
	}
	return v, nil
}

// check compares with the own log: see Compare.
func (w *Watch) check(v *verified, log merklelog.Log) error {
	if have := log.Head().Size; v.Size > have {
		return fmt.Errorf("%w: %s: size %d, the own log has %d", ErrAhead, v.Origin, v.Size, have)
	}
	own, err := ownRoot(log, v.Size)
	if err != nil {
		return err
	}
	if own == v.Root {
		return nil
	}
	err = fmt.Errorf("%w: %s at size %d: signed %x, own %x", ErrSplitView, v.Origin, v.Size, v.Root, own)
	return errors.Join(err, w.record(v, own))
}

// record keeps evidence, durably, once for each root and set of signers, and raises the alarm.
func (w *Watch) record(v *verified, own [sha256.Size]byte) error {
	signed, err := tlogproof.Assemble(v.text, v.sigs...)
	if err != nil {
		return err
	}
	e := &Evidence{Note: signed, OwnRoot: own, Seen: w.cfg.Now().UTC().Truncate(time.Second)} // what the file says
	id := sha256.New()
	id.Write([]byte(v.text))
	for _, s := range v.sigs {
		e.Signers = append(e.Signers, s.Name)
		id.Write([]byte(s.Name)) // not the signature: cosignatures of one root differ every second
	}
	isNew, err := w.keep(hex.EncodeToString(id.Sum(nil))+".evidence", e)
	if isNew && w.cfg.Alarm != nil {
		w.cfg.Alarm(e)
	}
	return err
}

func (w *Watch) keep(name string, e *Evidence) (isNew bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shelf.keep(name, e)
}
