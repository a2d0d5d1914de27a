package index

import (
	"errors"
	"os"
	"syscall"
)

const fadvDontneed = 4 // POSIX_FADV_DONTNEED on Linux

// dropCache has the system drop what it keeps of a file.
func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if _, _, e := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, fadvDontneed, 0, 0); e != 0 {
		err = errors.Join(err, e)
	}
	return errors.Join(err, f.Close())
}
