package caimport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// State is how far an import has come, in a file. Without it an import begins again, and gets to the same end.
type State struct {
	Version int       `json:"version"`
	Channel string    `json:"channel"`
	CAID    string    `json:"ca_id"`
	Digest  string    `json:"digest"`  // Plan.Digest of the sources, all of whose signatures were verified; empty: not begun
	Clean   bool      `json:"clean"`   // nothing was wrong with them
	Done    uint64    `json:"done"`    // entries that are on the ledger, the first of Plan.Each's
	Changed uint64    `json:"changed"` // of these, those that the ledger did not have so
	Refused uint64    `json:"refused"` // of these, those that the contract refused and that were left out
	Items   uint64    `json:"items"`   // all there are
	Updated time.Time `json:"updated"`

	path string
}

const stateVersion = 1

// maxState bounds the file.
const maxState = 64 << 10

// LoadState reads the state at path; a file that is not there is a state that nothing is known of.
func LoadState(path, channel, caID string) (*State, error) {
	s := &State{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.Version, s.Channel, s.CAID = stateVersion, channel, caID
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxState {
		err = fmt.Errorf("has %d octets, must have at most %d", info.Size(), maxState)
	}
	if err == nil {
		dec := json.NewDecoder(f)
		dec.DisallowUnknownFields()
		err = dec.Decode(s)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("state file %s: %w; delete it to begin again", path, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("state file %s: version %d must be %d; delete it to begin again", path, s.Version, stateVersion)
	}
	if s.Channel != channel || s.CAID != caID {
		return nil, fmt.Errorf("state file %s: is of CA %s on ledger %s, must be of %s on %s; name another one with --state", path, s.CAID, s.Channel, caID, channel)
	}
	return s, nil
}

// Begin makes s the state of the sources with the digest. It keeps what is done if that is what s is of already.
func (s *State) Begin(digest string, c *Counts) {
	if s.Digest != digest || s.Done > c.Items() {
		s.Digest, s.Done, s.Changed, s.Refused = digest, 0, 0, 0
	}
	s.Clean, s.Items = c.Bad == 0, c.Items()
}

// Save writes s: when it returns, the file on disk is whole, and the new one.
func (s *State) Save(now time.Time) error {
	s.Updated = now.UTC()
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return ReplaceFile(s.path, append(data, '\n'))
}

// ReplaceFile writes a file whole or not at all, and returns once it is on disk.
func ReplaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return keyfile.SyncDir(dir)
}
