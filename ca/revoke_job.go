package ca

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// The directory bulkDir has two files for each Bulk: ID.plan, its list, which is written whole before anything is done and never changes;
// and ID.log, to which a line is appended when it starts, after each transaction, and when it ends. What has a start and no end goes
// on when the CA starts. A change that was made and not written down is found on the ledger then.
const (
	bulkDir    = "revocations"
	planSuffix = ".plan"
	logSuffix  = ".log"

	keepPlanned = 7 * 24 * time.Hour   // a list that nobody has confirmed
	keepDone    = 180 * 24 * time.Hour // what became of one that was
)

// bulkHead is the first line of a plan.
type bulkHead struct {
	caapi.Bulk
	Request string      `json:"request,omitempty"` // digest of the request, of one with an idempotency key
	Made    wire.Millis `json:"made"`
}

// bulkItem is each further line.
type bulkItem struct {
	Serial     string      `json:"s"`
	Op         uint        `json:"o"`
	Reason     uint        `json:"r,omitempty"`
	Invalidity wire.Millis `json:"i,omitempty"`
	Base       uint64      `json:"b,omitempty"` // number of the certificate's changes when the list was made
	CA         string      `json:"c,omitempty"` // the generation of the CA's key that it is of, unless the first
}

func (i *bulkItem) change() wire.StatusChange {
	serial, _ := hex.DecodeString(i.Serial) // checked when the plan was made and when it was read
	return wire.StatusChange{Serial: serial, Op: wire.StatusOp(i.Op), Reason: wire.Reason(i.Reason), Invalidity: i.Invalidity}
}

func itemOf(c wire.StatusChange, base uint64) bulkItem {
	return bulkItem{Serial: c.Serial.String(), Op: uint(c.Op), Reason: uint(c.Reason), Invalidity: c.Invalidity, Base: base}
}

var opNames = map[wire.StatusOp]string{wire.OpRevoke: caapi.OperationRevoke, wire.OpHold: caapi.OperationHold, wire.OpRelease: caapi.OperationRelease}

// listDigest is caapi.Bulk.Digest.
func listDigest(items []bulkItem) string {
	h := sha256.New()
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, i := range items {
		reason, since := "", ""
		if wire.StatusOp(i.Op) != wire.OpRelease {
			reason = wire.Reason(i.Reason).String()
		}
		if i.Invalidity != 0 {
			since = i.Invalidity.Time().Format(caapi.TimeFormat)
		}
		fmt.Fprintf(h, "%s %s %s %s\n", i.Serial, opNames[wire.StatusOp(i.Op)], dash(reason), dash(since))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Kinds of bulkLine.
const (
	lineStart  = "start"
	lineResult = "result"
	lineEnd    = "end"
)

// bulkLine is a line of a log.
type bulkLine struct {
	Kind string `json:"k"`
	Time string `json:"t,omitempty"`
	By   string `json:"by,omitempty"` // start

	Item   int               `json:"n,omitempty"` // result: of the list, from 0
	Result *caapi.BulkResult `json:"result,omitempty"`

	Acknowledged bool              `json:"ack,omitempty"` // end
	Responders   []caapi.Responder `json:"responders,omitempty"`
	Detail       string            `json:"detail,omitempty"`
}

// bulk is one in this process.
type bulk struct {
	id  string
	dir string
	log *lines // of one that was started, until it has ended

	mu      sync.Mutex
	head    bulkHead      // with the counts and the state as they are now
	items   []bulkItem    // nil unless it is running
	done    []bool        // of items
	changed chan struct{} // closed, and replaced, when head changes
}

// bulks is all of them.
type bulks struct {
	dir string
	now func() time.Time

	mu   sync.Mutex
	byID map[string]*bulk
	busy map[string]int // serial numbers that those that run are still to change
}

// openBulks reads what there is, and drops what is old.
func openBulks(dir string, now func() time.Time) (*bulks, error) {
	b := &bulks{dir: filepath.Join(dir, bulkDir), now: now, byID: map[string]*bulk{}, busy: map[string]int{}}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	plans, err := filepath.Glob(filepath.Join(b.dir, "*"+planSuffix))
	if err != nil {
		return nil, err
	}
	for _, path := range plans {
		if strings.HasPrefix(filepath.Base(path), ".") {
			continue // a write that was interrupted
		}
		j, err := b.open(strings.TrimSuffix(filepath.Base(path), planSuffix))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if b.old(j) {
			if err := errors.Join(os.Remove(path), ignoreMissing(os.Remove(b.path(j.id, logSuffix)))); err != nil {
				return nil, err
			}
			continue
		}
		b.byID[j.id] = j
		if j.head.State == caapi.BulkRunning {
			b.mark(j, 1)
		}
	}
	return b, keyfile.SyncDir(dir)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (b *bulks) path(id, suffix string) string { return filepath.Join(b.dir, id+suffix) }

func (b *bulks) old(j *bulk) bool {
	age := b.now().Sub(j.head.Made.Time())
	return j.head.State == caapi.BulkPlanned && age > keepPlanned || j.head.State == caapi.BulkDone && age > keepDone
}

// open reads a bulk: of one that is running everything, of others the head and the counts.
func (b *bulks) open(id string) (*bulk, error) {
	j := &bulk{id: id, dir: b.dir, changed: make(chan struct{})}
	head, items, err := readPlan(b.path(id, planSuffix))
	if err != nil {
		return nil, err
	}
	j.head, j.items, j.done = *head, items, make([]bool, len(items))
	j.head.State = caapi.BulkPlanned
	logPath := b.path(id, logSuffix)
	if _, err := os.Stat(logPath); errors.Is(err, fs.ErrNotExist) {
		j.items, j.done = nil, nil
		return j, nil
	}
	if j.log, err = openLines(logPath, j.replay); err != nil {
		return nil, err
	}
	if j.head.State == caapi.BulkRunning {
		return j, nil
	}
	err = j.log.close()
	j.items, j.done, j.log = nil, nil, nil
	return j, err
}

// replay takes a line of the log.
func (j *bulk) replay(line []byte) error {
	var l bulkLine
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	switch l.Kind {
	case lineStart:
		j.head.State, j.head.Started, j.head.StartedBy = caapi.BulkRunning, l.Time, l.By
	case lineResult:
		if l.Result == nil || l.Item < 0 || l.Item >= len(j.done) {
			return fmt.Errorf("result of certificate %d, of %d", l.Item, len(j.done))
		}
		j.count(l.Item, l.Result)
	case lineEnd:
		j.head.State, j.head.Finished, j.head.Acknowledged, j.head.Responders, j.head.Detail = caapi.BulkDone, l.Time, l.Acknowledged, l.Responders, l.Detail
	default:
		return fmt.Errorf("unknown kind of line %q", l.Kind)
	}
	return nil
}

// count takes a result into head. It requires mu, or that nobody else has j yet.
func (j *bulk) count(item int, r *caapi.BulkResult) {
	if j.done[item] {
		return
	}
	j.done[item] = true
	switch r.Outcome {
	case outcomeChanged:
		j.head.Changed++
	case outcomeAlready:
		j.head.Already++
	default:
		j.head.Failed++
	}
	if r.Outcome != outcomeFailed {
		j.head.Block = max(j.head.Block, r.Block)
	}
}

// Outcomes of a BulkResult.
const (
	outcomeOpen    = "open"
	outcomeChanged = "changed"
	outcomeAlready = "already"
	outcomeFailed  = "failed"
)

func readPlan(path string) (*bulkHead, []bulkItem, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var head bulkHead
	first, rest, ok := bytes.Cut(data, []byte("\n"))
	if err := json.Unmarshal(first, &head); err != nil || !ok {
		return nil, nil, errors.Join(errors.New("it has no first line"), err)
	}
	items := make([]bulkItem, 0, head.Total)
	for line := range bytes.Lines(rest) {
		var i bulkItem
		if err := json.Unmarshal(line, &i); err != nil {
			return nil, nil, err
		}
		items = append(items, i)
	}
	if len(items) != head.Total || listDigest(items) != head.Digest {
		return nil, nil, fmt.Errorf("its list of %d certificates is not the one of %d with the digest %s", len(items), head.Total, head.Digest)
	}
	return &head, items, nil
}

// add makes a plan durable. An id that is taken is an error of fs.ErrExist.
func (b *bulks) add(id string, head bulkHead, items []bulkItem) (*bulk, error) {
	if id == "" {
		var raw [16]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return nil, err
		}
		id = hex.EncodeToString(raw[:])
	}
	head.ID, head.State, head.Total, head.Digest = id, caapi.BulkPlanned, len(items), listDigest(items)
	head.Made, head.Created = wire.MillisOf(b.now()), b.now().UTC().Format(caapi.TimeFormat)
	var buf bytes.Buffer
	w := bufio.NewWriter(&buf)
	enc := json.NewEncoder(w)
	if err := enc.Encode(head); err != nil {
		return nil, err
	}
	for i := range items {
		if err := enc.Encode(&items[i]); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	if err := keyfile.WriteNew(b.path(id, planSuffix), buf.Bytes(), 0o600); err != nil {
		return nil, err
	}
	j := &bulk{id: id, dir: b.dir, head: head, changed: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byID[id] = j
	return j, nil
}

func (b *bulks) find(id string) (*bulk, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.byID[id]; j != nil {
		return j, nil
	}
	return nil, wire.Errorf(wire.NotFound, "id", id, "must be the id of a bulk revocation; GET %s lists them", caapi.PathBulk)
}

func (b *bulks) all() []*bulk {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.byID))
}

// mark notes which certificates j is still to change, or, with -1, is no longer.
func (b *bulks) mark(j *bulk, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range j.items {
		if b.busy[i.Serial] += n; b.busy[i.Serial] == 0 {
			delete(b.busy, i.Serial)
		}
	}
}

// listed reports whether one that runs has the certificate in its list.
func (b *bulks) listed(s wire.Serial) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy[s.String()] > 0
}

// start makes the decision to go on durable. started is false when it was made before.
func (b *bulks) start(j *bulk, by string) (started bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.head.State != caapi.BulkPlanned {
		return false, nil
	}
	_, items, err := readPlan(b.path(j.id, planSuffix))
	if err != nil {
		return false, err
	}
	if j.log == nil {
		if j.log, err = openLines(b.path(j.id, logSuffix), func([]byte) error { return errors.New("it was started before") }); err != nil {
			return false, err
		}
	}
	l := bulkLine{Kind: lineStart, Time: b.now().UTC().Format(caapi.TimeFormat), By: by}
	if err := j.log.add(l); err != nil {
		return false, err
	}
	j.items, j.done = items, make([]bool, len(items))
	j.head.State, j.head.Started, j.head.StartedBy = caapi.BulkRunning, l.Time, by
	j.tell()
	b.mark(j, 1)
	return true, nil
}

// tell wakes those that wait for a change. It requires mu.
func (j *bulk) tell() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// view is how it stands, and a channel that is closed when that changes.
func (j *bulk) view() (caapi.Bulk, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head.Bulk, j.changed
}

// says sets Detail while it runs.
func (j *bulk) says(detail string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head.Detail = detail
}

// wait returns how it stands once it is done, or when ctx ends.
func (j *bulk) wait(ctx context.Context) caapi.Bulk {
	for {
		v, changed := j.view()
		if v.State != caapi.BulkRunning {
			return v
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v
		}
	}
}
