package ctfront

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/sct"
)

// headFile is a ctapi.HeadGuard: a small JSON file beside the key.
type headFile struct {
	path string
	ca   wire.CAID
	key  sct.LogID
}

var _ ctapi.HeadGuard = (*headFile)(nil)

// keptHead is the file's content. It names the log, so that a file put into another's place is noticed.
type keptHead struct {
	CAID  string      `json:"ca_id"`
	LogID []byte      `json:"log_id"`
	Size  uint64      `json:"tree_size"`
	Time  wire.Millis `json:"timestamp"`
	Root  []byte      `json:"sha256_root_hash"`
}

const maxHeadFile = 4 << 10

// Load implements ctapi.HeadGuard. A file that cannot be read is an error: without it nobody knows what was signed.
func (h *headFile) Load() (*sct.STH, error) {
	text, err := os.ReadFile(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // as HeadGuard has it: nothing was signed
	}
	if err != nil {
		return nil, err
	}
	var kept keptHead
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&kept); err != nil || len(text) > maxHeadFile || d.More() || len(kept.Root) != len(sct.STH{}.Root) || kept.Time < 0 {
		return nil, fmt.Errorf("%s: must be one JSON object with the head that was signed last: bring it back from the newest backup (%v)", h.path, err)
	}
	if kept.CAID != h.ca.String() || !bytes.Equal(kept.LogID, h.key[:]) {
		return nil, fmt.Errorf("%s: is of CA %s and log ID %x: must be of CA %s and log ID %x, which the key beside it has", h.path, kept.CAID, kept.LogID, h.ca, h.key)
	}
	return &sct.STH{Size: kept.Size, Time: kept.Time, Root: [32]byte(kept.Root)}, nil
}

// Store implements ctapi.HeadGuard. The file has the head before or this one, whenever the process or the machine stops.
func (h *headFile) Store(head sct.STH) (err error) {
	text, err := json.Marshal(keptHead{CAID: h.ca.String(), LogID: h.key[:], Size: head.Size, Time: head.Time, Root: head.Root[:]})
	if err != nil {
		return err
	}
	next := h.path + ".next" // one writer: ctapi's calls do not overlap
	if err := writeSynced(next, append(text, '\n')); err != nil {
		return err
	}
	if err := os.Rename(next, h.path); err != nil {
		return err
	}
	return keyfile.SyncDir(filepath.Dir(h.path))
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
