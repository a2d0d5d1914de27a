package index

import (
	"errors"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A process that was killed may hold its locks for some moments after it has become invisible: its other threads still end.
const (
	lockPatience = 5 * time.Second
	lockPause    = 50 * time.Millisecond
)

// openStore opens the store, and waits a little for the lock of a process that is just ending.
func openStore(dir string, o func() *pebble.Options) (*pebble.DB, error) {
	deadline := time.Now().Add(lockPatience)
	for {
		db, err := pebble.Open(dir, o())
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return db, err
		}
		<-time.After(lockPause)
	}
}
