//go:build !unix

package ocspbridge

import (
	"io"
	"os"
)

// mapFile reads a file's octets.
func mapFile(f *os.File, size int64) (octets []byte, unmap func() error, err error) {
	octets, err = io.ReadAll(io.NewSectionReader(f, 0, size))
	return octets, func() error { return nil }, err
}
