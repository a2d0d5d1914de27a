//go:build unix

package cli

import (
	"runtime"
	"syscall"
)

// maxResident is the most memory that this process has had in use, in octets; 0: not known.
func maxResident() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" { // which counts octets
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) * 1024
}
