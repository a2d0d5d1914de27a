package node

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestHangupReloads(t *testing.T) {
	reloaded := make(chan struct{}, 1)
	stop := reloadOnHangup(func() { reloaded <- struct{}{} })
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reloaded:
	case <-time.After(30 * time.Second):
		t.Fatal("not in time")
	}
}
