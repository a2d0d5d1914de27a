package ca

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// crlDir holds, below the CA's directory, what must be known of CRLs after a restart:
//
//	scopes             each shard's URL that a certificate may have, one in a line
//	NAME.json          the numbers used for one scope; NAME is full or the beginning of the URL's SHA-256
//	NAME.complete.crl  the newest CRLs, DER
//	NAME.delta.crl
const crlDir = "crl"

// crlStore keeps that directory. Every write is durable when it returns. Not safe for concurrent use.
type crlStore struct {
	dir string
}

// crlNumbers is what is remembered of one scope.
type crlNumbers struct {
	V     int    `json:"v"`
	Scope string `json:"scope"`
	// Number is the greatest that a CRL was signed with, or was about to be when the process ended.
	Number uint64 `json:"number"`
	// Bases are complete CRLs about all certificates that have not run out and that deltas may be against, oldest first.
	Bases []crlBase `json:"bases,omitempty"`
}

// crlBase is a complete CRL, and stands for those that were made soon after it.
type crlBase struct {
	Number     uint64    `json:"number"`
	NextUpdate time.Time `json:"next_update"` // of it, or of later ones that it stands for
	ThisUpdate time.Time `json:"this_update,omitzero"`
}

const crlStateVersion = 1

func openCRLStore(dir string) (*crlStore, error) {
	s := &crlStore{dir: filepath.Join(dir, crlDir)}
	err := os.Mkdir(s.dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(s.dir, ".*.tmp-*")) // of a write that a kill interrupted
	for _, file := range left {
		err = errors.Join(err, os.Remove(file))
	}
	return s, errors.Join(err, keyfile.SyncDir(dir))
}

// addScopes makes scopes part of the list of those that certificates may have, and returns the list. It happens before any
// certificate is signed that names one: such a certificate's CRL must never be forgotten.
func (s *crlStore) addScopes(scopes []string) ([]string, error) {
	path := filepath.Join(s.dir, "scopes")
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		scope := strings.TrimSuffix(line, "\n")
		if err := crl.CheckScope(scope); err != nil || scope == "" {
			return nil, fmt.Errorf("%s: line %d: must be a CRL's URL: %w", path, len(all)+1, err)
		}
		all = append(all, scope)
	}
	known := len(all)
	for _, scope := range scopes {
		if slices.Contains(all[:known], scope) {
			continue
		}
		// OCSP bridges serve it under the last part of its path.
		if i := slices.IndexFunc(all, func(old string) bool { return shardFile(old) == shardFile(scope) }); i >= 0 {
			return nil, invalid("crl_url", scope, "must not end like the URL of another shard, %s, which certificates may have: each needs a name of its own", all[i])
		}
		all = append(all, scope)
	}
	if len(all) == known {
		return all, nil
	}
	return all, s.write("scopes", []byte(strings.Join(all, "\n")+"\n"))
}

// scopeName is the file name of a scope.
func scopeName(scope string) string {
	if scope == "" {
		return "full"
	}
	sum := sha256.Sum256([]byte(scope))
	return hex.EncodeToString(sum[:16])
}

// numbers reads what is remembered of a scope; nothing is a zero Number.
func (s *crlStore) numbers(scope string) (*crlNumbers, error) {
	n := &crlNumbers{V: crlStateVersion, Scope: scope}
	path := filepath.Join(s.dir, scopeName(scope)+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(n); err != nil {
		return nil, fmt.Errorf("%s: damaged; restore it, or remove the directory to begin anew: %w", path, err)
	}
	if n.V != crlStateVersion || n.Scope != scope {
		return nil, fmt.Errorf("%s: version %d of scope %q: must be version %d of scope %q", path, n.V, n.Scope, crlStateVersion, scope)
	}
	return n, nil
}

func (s *crlStore) saveNumbers(n *crlNumbers) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return s.write(scopeName(n.Scope)+".json", data)
}

// crlKind is which of a scope's two newest CRLs.
type crlKind string

const (
	kindComplete crlKind = "complete"
	kindDelta    crlKind = "delta"
)

func (s *crlStore) save(scope string, kind crlKind, der []byte) error {
	return s.write(scopeName(scope)+"."+string(kind)+".crl", der)
}

// load returns a scope's newest CRL of a kind; nil for none.
func (s *crlStore) load(scope string, kind crlKind) ([]byte, error) {
	der, err := os.ReadFile(filepath.Join(s.dir, scopeName(scope)+"."+string(kind)+".crl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return der, err
}

// write replaces a file as a whole.
func (s *crlStore) write(name string, data []byte) (err error) {
	tmp, err := os.CreateTemp(s.dir, "."+name+".tmp-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't write %s: %w", filepath.Join(s.dir, name), err), os.Remove(tmp.Name()))
	}
	return keyfile.SyncDir(s.dir)
}
