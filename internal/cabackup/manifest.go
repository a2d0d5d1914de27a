package cabackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Names in an archive.
const (
	manifestName = "manifest.json"
	keysName     = "keys.enc"
	format       = "certanchor-ca-backup"
	version      = 1

	maxManifest = 16 << 20
	maxKeys     = 32 << 20
	maxFiles    = 100_000
)

// ErrFormat: a file that is not a whole backup.
var ErrFormat = errors.New("not a backup, or not all of one")

// Manifest says what a backup has.
type Manifest struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	CAID    string    `json:"ca_id"`
	Taken   time.Time `json:"taken"`
	Keys    string    `json:"keys"` // "none", or "wrapped"; keys in a PKCS #11 token are never in a backup, their URIs are
	LeftOut []string  `json:"left_out,omitempty"`
	OpLog   string    `json:"operators_log,omitempty"` // name of the operators' log; empty: that of the CA's first bridge

	// AuthKeys are the keys of clients in profiles.json that stand there as LeftOutKey, as "auth_keys.NAME", unless they are restored with the keys.
	AuthKeys []string `json:"auth_keys,omitempty"`

	Files []File `json:"files"`
}

// What Manifest.Keys says.
const (
	KeysNone    = "none"
	KeysWrapped = "wrapped"
)

// File is one file of a backup.
type File struct {
	Name   string      `json:"name"` // relative, with slashes
	Size   int64       `json:"size"`
	Mode   fs.FileMode `json:"mode"`
	SHA256 string      `json:"sha256"`
}

// checkName refuses names that could lead out of a directory, or are not a CA's.
func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") || strings.Count(name, "/") > 4 || len(name) > 512 || hidden(name) {
		return fmt.Errorf("%w: file name %q: must be a path below the CA's directory", ErrFormat, name)
	}
	return nil
}

// hidden tells whether a part of a path begins with a dot, as temporary files do.
func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") {
			return true
		}
	}
	return false
}

func (f *File) check() error {
	if err := checkName(f.Name); err != nil {
		return err
	}
	if path.Base(f.Name) == manifestName && f.Name == manifestName {
		return fmt.Errorf("%w: the manifest lists itself", ErrFormat)
	}
	if digest, err := hex.DecodeString(f.SHA256); err != nil || len(digest) != sha256.Size || f.Size < 0 || f.Mode&^0o777 != 0 {
		return fmt.Errorf("%w: file %q: must have a SHA-256, a size and permissions", ErrFormat, f.Name)
	}
	return nil
}

func parseManifest(data []byte) (*Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: manifest: something follows it", ErrFormat)
	}
	if m.Format != format || m.Version != version {
		return nil, fmt.Errorf("%w: manifest: format %q, version %d; this program reads %q, version %d", ErrFormat, m.Format, m.Version, format, version)
	}
	if _, err := wire.ParseCAID(m.CAID); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	if err := wire.CheckOperatorsName(m.OpLog); err != nil {
		return nil, fmt.Errorf("%w: manifest: operators_log %q: %w", ErrFormat, m.OpLog, err)
	}
	if len(m.Files) > maxFiles {
		return nil, fmt.Errorf("%w: manifest: %d files, the limit is %d", ErrFormat, len(m.Files), maxFiles)
	}
	for i := range m.Files {
		if err := m.Files[i].check(); err != nil {
			return nil, err
		}
	}
	return &m, nil
}
