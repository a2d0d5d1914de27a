package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
)

const (
	stateFile = "mirror.json"
	crlFile   = "crl.der"
	lockFile  = "lock"
)

// state is what survives a restart.
type state struct {
	Version      int             `json:"version"`
	Channel      string          `json:"channel"`
	CAID         string          `json:"ca_id"`
	URL          string          `json:"url"`              // of the CRL
	Number       *big.Int        `json:"number,omitempty"` // of the CRL that was applied last
	ThisUpdate   time.Time       `json:"this_update"`
	NextUpdate   time.Time       `json:"next_update"`
	ETag         string          `json:"etag,omitempty"` // with which the server sent it
	LastModified string          `json:"last_modified,omitempty"`
	Holds        map[string]hold `json:"holds"` // by serial number: on hold because the CA has published it
	Retry        map[string]bool `json:"retry"` // serial numbers on the CRL that the ledger has refused: tried again with every poll

	dir string
}

// hold is why a certificate is on hold.
type hold struct {
	Asserted wire.Millis `json:"asserted"` // its date, as the CA says: the ledger's record has it while the hold is the CA's
	Learned  time.Time   `json:"learned"`  // thisUpdate of the OCSP answer that said so: a CRL that is not newer says nothing against it; zero: a CRL did
}

const stateVersion = 1

func loadState(dir, channel string, id wire.CAID, url string) (*state, error) {
	s := &state{dir: dir}
	path := filepath.Join(dir, stateFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Version, s.Channel, s.CAID, s.URL = stateVersion, channel, id.String(), url
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	switch {
	case s.Version != stateVersion:
		return nil, fmt.Errorf("%s: version %d must be %d", path, s.Version, stateVersion)
	case s.Channel != channel || s.CAID != id.String():
		return nil, fmt.Errorf("%s: is of CA %s on ledger %s, must be of %s on %s", path, s.CAID, s.Channel, id, channel)
	case s.URL != url: // another server may have another CRL, and has other tags
		s.URL, s.ETag, s.LastModified = url, "", ""
	}
	if s.Holds == nil {
		s.Holds = map[string]hold{}
	}
	if s.Retry == nil {
		s.Retry = map[string]bool{}
	}
	return s, nil
}

func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return caimport.ReplaceFile(filepath.Join(s.dir, stateFile), append(data, '\n'))
}

// applied reads the CRL that was applied last; nil: none was.
func (s *state) applied() (*caimport.List, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, crlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return caimport.ParseCRL(data)
}

// lock keeps a second process out of the directory.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another process is running this mirror: %w", dir, err), f.Close())
	}
	return f, nil
}
