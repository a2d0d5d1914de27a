package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace writes path, which may exist, and returns when file and directory entry are on disk. A reader, and whoever comes after a crash,
// finds the old contents or the new ones.
func Replace(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	if err = writeAndSync(tmp, data, mode); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return SyncDir(dir)
}
