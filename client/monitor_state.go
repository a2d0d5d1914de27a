package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const (
	stateVersion = 1

	// maxEarly bounds the changes that are kept for certificates which may still turn up. A change and its certificate are in two logs, whose
	// checkpoints are some seconds apart at most.
	maxEarly = 4096
)

// monitorState is what a Monitor knows. Logs are named as in paths: a CAID, or status.
type monitorState struct {
	Version  int                  `json:"version"`
	Channel  string               `json:"channel"`
	Patterns []string             `json:"patterns"`
	Listed   bool                 `json:"listed"` // the logs that were there from the beginning are in Logs
	Logs     map[string]*logState `json:"logs"`
	Certs    map[string]*tracked  `json:"certs"` // by trackKey
	Early    []earlyLeaf          `json:"early"` // by index
}

// logState is how far one log is.
type logState struct {
	Checkpoint []byte `json:"checkpoint,omitempty"` // the newest that was verified, a signed note; empty: none yet
	Next       uint64 `json:"next"`                 // entries below it were delivered
	FromHead   bool   `json:"from_head,omitempty"`  // what the first checkpoint covers is not to be reported
	Announced  bool   `json:"announced,omitempty"`  // a verified leaf of the status log says that it exists
	Alarm      string `json:"alarm,omitempty"`      // what was raised and has not ended
	Alarms     uint64 `json:"alarms,omitempty"`     // how many were raised

	last *tlogproof.Checkpoint // Checkpoint, read
}

// tracked is a certificate that matched.
type tracked struct {
	Names []string      `json:"names"` // those that match
	SPKI  string        `json:"spki"`  // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	Times []wire.Millis `json:"times"` // timestamps of its entries, which rules go by
}

// earlyLeaf is a change of a certificate that has not matched, or a rule.
type earlyLeaf struct {
	Index uint64 `json:"index"`
	Leaf  []byte `json:"leaf"`

	leaf wire.StatusLeaf // Leaf, read
}

func trackKey(id wire.CAID, s wire.Serial) string { return id.String() + "/" + s.String() }

func newState(channel string, texts []string) *monitorState {
	return &monitorState{Version: stateVersion, Channel: channel, Patterns: texts, Logs: map[string]*logState{}, Certs: map[string]*tracked{}}
}

// loadState reads the state file, or begins a new one if there is none.
func loadState(path, channel string, texts []string) (*monitorState, error) {
	s := newState(channel, texts)
	if path == "" {
		return s, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// What cannot be written later is better known now.
		return s, s.save(path)
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	bad := func(field, value, rule string) error {
		return fmt.Errorf("state %s: %s %s: %s", path, field, value, rule)
	}
	s = &monitorState{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("state %s: must be what a monitor wrote: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("end", "", "must be the end of one JSON object")
	}
	if s.Version != stateVersion {
		return nil, bad("version", fmt.Sprint(s.Version), fmt.Sprintf("this program reads %d", stateVersion))
	}
	if s.Channel != channel {
		return nil, bad("channel", fmt.Sprintf("%q", s.Channel), fmt.Sprintf("must be that of the policy or the log keys, %q: each ledger needs a state of its own", channel))
	}
	if !slices.Equal(s.Patterns, texts) {
		return nil, bad("patterns", fmt.Sprintf("%q", s.Patterns), fmt.Sprintf("must be those that are asked for, %q: what was read before was not compared with others; "+
			"begin another state file, from the start of the logs", texts))
	}
	return s, s.index(bad)
}

// index fills what is not in the file.
func (s *monitorState) index(bad func(field, value, rule string) error) error {
	if s.Logs == nil || s.Certs == nil {
		return bad("logs, certs", "null", "must be objects")
	}
	for name, l := range s.Logs {
		if l == nil {
			return bad("logs."+name, "null", "must be an object")
		}
		if len(l.Checkpoint) == 0 {
			continue
		}
		var err error
		if l.last, _, err = tlogproof.ReadUnverified(l.Checkpoint); err != nil {
			return bad("logs."+name+".checkpoint", "", err.Error())
		}
		if l.Next > l.last.Size {
			return bad("logs."+name+".next", fmt.Sprint(l.Next), fmt.Sprintf("must be at most the checkpoint's size, %d", l.last.Size))
		}
	}
	for key, c := range s.Certs {
		if c == nil {
			return bad("certs."+key, "null", "must be an object")
		}
	}
	for i := range s.Early {
		if err := wire.Decode(s.Early[i].Leaf, &s.Early[i].leaf); err != nil {
			return bad(fmt.Sprintf("early[%d].leaf", i), "", err.Error())
		}
	}
	return nil
}

// save writes the state so that, whenever the machine stops, the file is the one before or this one.
func (s *monitorState) save(path string) (err error) {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("state %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	return nil
}

// log returns the state of a log, and makes one that begins with its first entry.
func (s *monitorState) log(name string) *logState {
	l := s.Logs[name]
	if l == nil {
		l = &logState{}
		s.Logs[name] = l
	}
	return l
}

// complete reports whether every log that is known has been read once.
func (s *monitorState) complete() bool {
	for name, l := range s.Logs {
		if name != listName && l.last == nil {
			return false
		}
	}
	return true
}

// batch is what the entries of some tiles give, in their order.
type batch struct {
	events    []Event
	certs     []finding       // that match
	early     []earlyLeaf     // to be kept
	reported  map[uint64]bool // early leaves that found their certificate
	announced []string        // CAs that came onto the trust list
}

// apply takes over a batch that was delivered.
func (s *monitorState) apply(b *batch) {
	for _, f := range b.certs {
		key := trackKey(f.caID, f.serial)
		if old := s.Certs[key]; old != nil {
			f.cert.Times = mergeTimes(old.Times, f.cert.Times)
		}
		s.Certs[key] = f.cert
	}
	s.Early = slices.DeleteFunc(s.Early, func(e earlyLeaf) bool { return b.reported[e.Index] })
	s.Early = append(s.Early, b.early...)
	if n := len(s.Early) - maxEarly; n > 0 {
		s.Early = slices.Delete(s.Early, 0, n)
	}
	for _, id := range b.announced {
		s.log(id).Announced = true
	}
}

func mergeTimes(a, b []wire.Millis) []wire.Millis {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// ofCA returns the certificates of a CA that matched.
func (s *monitorState) ofCA(id wire.CAID) []*tracked {
	var found []*tracked
	for key, c := range s.Certs {
		if strings.HasPrefix(key, id.String()+"/") {
			found = append(found, c)
		}
	}
	return found
}
