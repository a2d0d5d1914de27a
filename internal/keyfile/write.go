package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteNew creates path with data and returns when file and directory entry are on disk. It appears whole or not at all,
// and never replaces anything: if path exists the error is fs.ErrExist.
func WriteNew(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	// The temporary file is mode 0600 from its first moment, whatever mode it gets in the end.
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(tmp.Name()); rerr != nil && err == nil {
			err = rerr
		}
		if err == nil {
			err = SyncDir(dir)
		}
	}()
	if err := writeAndSync(tmp, data, mode); err != nil {
		return fmt.Errorf("couldn't write %s: %w", path, err)
	}
	// link(2), unlike rename(2), fails when the name is taken.
	return os.Link(tmp.Name(), path)
}

func writeAndSync(f *os.File, data []byte, mode fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
