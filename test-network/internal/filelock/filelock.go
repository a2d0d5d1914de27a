// Package filelock is an advisory lock on a file, shared by goroutines and processes alike. The kernel releases it when its
// holder dies.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrLocked is returned by the Try functions when another holder is in the way.
var ErrLocked = errors.New("locked by another process")

// retryEvery is how often a waiting call looks again: flock itself cannot be interrupted by a context.
const retryEvery = 20 * time.Millisecond

// Held is a lock that is held until Unlock.
type Held struct{ file *os.File }

// Unlock releases the lock. The file stays: removing it would let two holders lock two files of one name.
func (h *Held) Unlock() { h.file.Close() }

// Lock waits for the exclusive lock on path, creating the file, until ctx ends.
func Lock(ctx context.Context, path string) (*Held, error) { return wait(ctx, path, syscall.LOCK_EX) }

// RLock waits for a shared lock on path.
func RLock(ctx context.Context, path string) (*Held, error) { return wait(ctx, path, syscall.LOCK_SH) }

// TryLock takes the exclusive lock on path now or returns ErrLocked.
func TryLock(path string) (*Held, error) { return try(path, syscall.LOCK_EX) }

func wait(ctx context.Context, path string, how int) (*Held, error) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		held, err := try(path, how)
		if !errors.Is(err, ErrLocked) {
			return held, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w: %w", path, ErrLocked, ctx.Err())
		case <-tick.C:
		}
	}
}

func try(path string, how int) (*Held, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	switch {
	case err == nil:
		return &Held{file: file}, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		file.Close()
		return nil, ErrLocked
	default:
		file.Close()
		return nil, fmt.Errorf("flock %s: %w", path, err)
	}
}
