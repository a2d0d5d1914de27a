package cabackup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that decompressing takes.
const maxWindow = 64 << 20

// Read reads a backup, calls fn for each file in its order, and returns the manifest once all of it is as that says. Until then nothing that fn
// has got may be relied on. fn must read all of from. keys is the file with the wrapped keys; nil if there is none. Errors: ErrFormat; fn's.
func Read(r io.Reader, fn func(name string, mode fs.FileMode, size int64, from io.Reader) error) (m *Manifest, keys []byte, err error) {
	zip, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, nil, err
	}
	defer zip.Close()
	t := tar.NewReader(zip)
	seen := []File{}
	for {
		h, err := t.Next()
		if err != nil {
			return nil, nil, fmt.Errorf("%w: it ends without a manifest: %w", ErrFormat, err)
		}
		if h.Typeflag != tar.TypeReg || len(seen) > maxFiles {
			return nil, nil, fmt.Errorf("%w: %q: must be a regular file, one of at most %d", ErrFormat, h.Name, maxFiles)
		}
		if h.Name == manifestName {
			m, err := readManifest(t, h, seen)
			if err != nil {
				return nil, nil, err
			}
			if _, err := t.Next(); !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("%w: something follows the manifest", ErrFormat)
			}
			return m, keys, nil
		}
		if err := checkName(h.Name); err != nil {
			return nil, nil, err
		}
		f := File{Name: h.Name, Size: h.Size, Mode: fs.FileMode(h.Mode).Perm()} //nolint:gosec // compared with the manifest's
		sum := sha256.New()
		src := &source{r: t}
		from := io.TeeReader(src, sum)
		if h.Name == keysName {
			if h.Size > maxKeys {
				return nil, nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrFormat, keysName, h.Size, maxKeys)
			}
			keys, err = io.ReadAll(from)
		} else {
			err = fn(f.Name, f.Mode, f.Size, from)
		}
		if src.err != nil {
			return nil, nil, fmt.Errorf("%w: %s: %w", ErrFormat, h.Name, src.err)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		f.SHA256 = hex.EncodeToString(sum.Sum(nil))
		seen = append(seen, f)
	}
}

// source tells the archive's faults from those of who reads it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.err = err
	}
	return n, err
}

// readManifest compares the manifest with what came before it.
func readManifest(t io.Reader, h *tar.Header, seen []File) (*Manifest, error) {
	if h.Size > maxManifest {
		return nil, fmt.Errorf("%w: the manifest has %d bytes, the limit is %d", ErrFormat, h.Size, maxManifest)
	}
	var data bytes.Buffer
	if _, err := io.Copy(&data, t); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	m, err := parseManifest(data.Bytes())
	if err != nil {
		return nil, err
	}
	for i, f := range seen {
		if i >= len(m.Files) || m.Files[i] != f {
			return nil, fmt.Errorf("%w: %s: is not what the manifest says", ErrFormat, f.Name)
		}
	}
	if len(m.Files) != len(seen) {
		return nil, fmt.Errorf("%w: %s: is missing", ErrFormat, m.Files[len(seen)].Name)
	}
	wrapped := slices.ContainsFunc(seen, func(f File) bool { return f.Name == keysName })
	if wrapped != (m.Keys == KeysWrapped) || !wrapped && m.Keys != KeysNone {
		return nil, fmt.Errorf("%w: manifest: keys %q: must be what is in it", ErrFormat, m.Keys)
	}
	return m, nil
}

// Copy reads a backup from r and writes it to w, once more. With a passphrase the keys of the CA in dir are added. It is how a backup that a
// running CA has sent becomes a file: what was cut off on its way is none.
func Copy(w io.Writer, r io.Reader, dir string, o Options) (*Manifest, error) {
	a, err := newArchive(w)
	if err != nil {
		return nil, err
	}
	m, keys, err := Read(r, a.add)
	if err != nil {
		return nil, errors.Join(err, a.zip.Close())
	}
	files := a.m.Files
	a.m = *m
	a.m.Files = files
	switch {
	case keys != nil:
		err = a.add(keysName, 0o600, int64(len(keys)), bytes.NewReader(keys))
	case o.Passphrase != nil:
		err = addKeys(a, dir, o)
	}
	if err != nil {
		return nil, errors.Join(err, a.zip.Close())
	}
	return &a.m, a.end()
}

// addKeys adds the keys in dir, of which the CA that sent the backup has said that it left them out.
func addKeys(a *archive, dir string, o Options) error {
	id, err := caIDOf(dir)
	if err != nil {
		return err
	}
	if id != a.m.CAID {
		return fmt.Errorf("%s: holds the CA %s, the backup is of %s", dir, id, a.m.CAID)
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	s := &snapshot{archive: a, dir: dir}
	for _, name := range names {
		if appendOnly(name) {
			continue
		}
		data, mode, err := s.small(name)
		if err != nil {
			return err
		}
		s.split(name, mode, data)
	}
	a.m.LeftOut = nil
	return s.keys(o.withDefaults())
}
