//go:build unix

package ocspbridge

import (
	"os"
	"syscall"
)

// mapFile makes a file's octets readable without taking memory for them that the system couldn't take back.
func mapFile(f *os.File, size int64) (octets []byte, unmap func() error, err error) {
	octets, err = syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	return octets, func() error { return syscall.Munmap(octets) }, err
}
