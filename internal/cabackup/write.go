package cabackup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// Options of Write.
type Options struct {
	Passphrase []byte           // wraps the keys; nil: they stay out
	Now        func() time.Time // default time.Now

	iterations int          // of PBKDF2; default keyfile.Iterations
	step       func(string) // is called between steps. Tests die there.
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.iterations == 0 {
		o.iterations = keyfile.DefaultIterations()
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	return o
}

func caIDOf(dir string) (string, error) {
	certs, err := pemcert.Read(filepath.Join(dir, caName))
	if err != nil {
		return "", err
	}
	return wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo).String(), nil
}

const (
	journalName  = "journal"
	caName       = "ca.pem"
	catalogueDir = "catalogue/"

	maxSmall = 4 << 20 // a file up to this size is looked into for a key
)

// archive is what is being written.
type archive struct {
	zip *zstd.Encoder
	tar *tar.Writer
	m   Manifest
}

func newArchive(w io.Writer) (*archive, error) {
	zip, err := zstd.NewWriter(w)
	if err != nil {
		return nil, err
	}
	return &archive{zip: zip, tar: tar.NewWriter(zip)}, nil
}

// add appends a file of a size that is known.
func (a *archive) add(name string, mode fs.FileMode, size int64, from io.Reader) error {
	if len(a.m.Files) == maxFiles {
		return fmt.Errorf("the directory has more than %d files", maxFiles)
	}
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(mode.Perm()), Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(a.tar, sum), from, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	a.m.Files = append(a.m.Files, File{name, size, mode.Perm(), hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// end writes the manifest: from then on it is a backup.
func (a *archive) end() error {
	data, err := json.MarshalIndent(&a.m, "", "  ")
	if err != nil {
		return err
	}
	err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Size: int64(len(data)), Mode: 0o600, Format: tar.FormatPAX})
	if err == nil {
		_, err = a.tar.Write(data)
	}
	if err == nil {
		err = a.tar.Close()
	}
	return errors.Join(err, a.zip.Close())
}

// Write writes a backup of the CA in dir to w, and returns what is in it. The CA may be running.
func Write(w io.Writer, dir string, o Options) (*Manifest, error) {
	o = o.withDefaults()
	id, err := caIDOf(dir)
	if err != nil {
		return nil, err
	}
	if restored, err := oplog.IsRestored(dir); err != nil || restored {
		return nil, errors.Join(err, fmt.Errorf("%s: %w", dir, oplog.ErrRestored))
	}
	opLog, err := oplog.NameOf(dir)
	if err != nil {
		return nil, err
	}
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	a, err := newArchive(w)
	if err != nil {
		return nil, err
	}
	a.m = Manifest{Format: format, Version: version, CAID: id, Taken: o.Now().UTC().Truncate(time.Millisecond), Keys: KeysNone, OpLog: opLog, Files: []File{}}
	s := &snapshot{archive: a, dir: dir}
	for _, name := range names {
		if err := s.file(name); err != nil {
			return nil, errors.Join(err, a.zip.Close())
		}
		o.step(stepFile)
	}
	if o.Passphrase != nil {
		if err := s.keys(o); err != nil {
			return nil, errors.Join(err, a.zip.Close())
		}
	} else {
		for _, k := range s.secrets {
			a.m.LeftOut = append(a.m.LeftOut, k.Name)
		}
	}
	slices.Sort(a.m.LeftOut)
	o.step(stepKeys)
	return &a.m, a.end()
}

// snapshot is a directory while it is read.
type snapshot struct {
	*archive
	dir     string
	secrets []secret
}

// list returns the names of the files that belong into a backup: the journal first, the operators' log last.
func list(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p != dir { // a temporary file
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case hidden(name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		case leftOut(name):
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s: must be a regular file", p)
		}
		names = append(names, name)
		return checkName(name)
	})
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names, err
}

// leftOut: tokens and keys of clients are their own, locks and sockets are a process's, and the catalogue is made of the ledger.
func leftOut(name string) bool {
	switch ext := path.Ext(name); {
	case ext == ".token", ext == ".hmac", ext == ".lock", ext == ".sock":
		return true
	}
	return path.Base(name) == "lock" || name == oplog.RestoredFile || strings.HasPrefix(name, catalogueDir) || strings.Contains(name, "/"+catalogueDir)
}

func rank(name string) int {
	switch {
	case path.Base(name) == journalName: // of each generation of the key
		return 0
	case path.Base(path.Dir(name)) == oplog.DirName:
		return 2
	}
	return 1
}

func appendOnly(name string) bool {
	return path.Base(name) == journalName || path.Base(path.Dir(name)) == oplog.DirName && path.Ext(name) == ".log"
}

// file adds one file, or keeps it for the keys.
func (s *snapshot) file(name string) (err error) {
	f, err := s.open(name)
	if f == nil || err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if appendOnly(name) {
		size, err := complete(f, st.Size())
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		return s.add(name, st.Mode(), size, io.NewSectionReader(f, 0, size))
	}
	if st.Size() > maxSmall {
		return s.add(name, st.Mode(), st.Size(), f)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return err
	}
	if public := s.split(name, st.Mode(), data); public != nil {
		return s.add(name, st.Mode(), int64(len(public)), bytes.NewReader(public))
	}
	return nil
}

// open returns nil for a file that is not there any more: the running CA has replaced it or taken it away.
func (s *snapshot) open(name string) (*os.File, error) {
	f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) && !appendOnly(name) {
		return nil, nil
	}
	return f, err
}

// small reads a file that may hold a key; nothing of one that is too large for that.
func (s *snapshot) small(name string) (data []byte, mode fs.FileMode, err error) {
	f, err := s.open(name)
	if f == nil || err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil || st.Size() > maxSmall {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxSmall+1))
	return data, st.Mode(), err
}

// split keeps what is a key, or has one, and returns what is none; nil: nothing.
func (s *snapshot) split(name string, mode fs.FileMode, data []byte) (public []byte) {
	switch {
	case name == clientsName:
		left := false
		if public, left = publicClients(data); !left {
			return public
		}
	case isKeyFile(name, data):
	default:
		var keys []string
		public, keys = publicProfiles(name, data)
		if public != nil && len(keys) == 0 {
			return append([]byte{}, public...) // not nil
		}
		if name == profilesName {
			s.m.AuthKeys = keys
		}
	}
	s.secrets = append(s.secrets, secret{name, mode.Perm(), data})
	return public
}

// complete is how much of an append-only file is whole. Damage is an error: a backup of it would be of no use.
func complete(f *os.File, size int64) (int64, error) {
	if size < framelog.HeaderBytes {
		return 0, nil
	}
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil {
		return 0, err
	}
	return framelog.Magic(binary.BigEndian.Uint32(magic)).Scan(f, size, func([]byte, framelog.Position) error { return nil })
}

// keys adds the keys, wrapped.
func (s *snapshot) keys(o Options) error {
	data, err := wrap(s.secrets, s.m.CAID, o.Passphrase, o.iterations)
	if err != nil {
		return err
	}
	if len(data) > maxKeys {
		return fmt.Errorf("the keys have %d bytes, the limit is %d", len(data), maxKeys)
	}
	s.m.Keys = KeysWrapped
	return s.add(keysName, 0o600, int64(len(data)), bytes.NewReader(data))
}

// Create writes a backup of the CA in dir into a new file, mode 0600, which appears whole or not at all. Errors: fs.ErrExist if it is there.
func Create(file, dir string, o Options) (m *Manifest, err error) {
	o = o.withDefaults()
	err = CreateFile(file, func(w io.Writer) error {
		o.step(stepBegun)
		m, err = Write(w, dir, o)
		o.step(stepFiles)
		return err
	})
	o.step(stepDone)
	return m, err
}

// CreateFile has fn write a new file, mode 0600, which appears whole or not at all.
func CreateFile(file string, fn func(io.Writer) error) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s: %w", file, fs.ErrExist)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	err = fn(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil {
		return err
	}
	return keyfile.SyncDir(filepath.Dir(file))
}
