package filelock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second TryLock: %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := RLock(ctx, path); !errors.Is(err, ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("RLock: %v, want ErrLocked and the context's end", err)
	}
	got := make(chan error, 1)
	go func() {
		waited, err := Lock(t.Context(), path)
		if err == nil {
			waited.Unlock()
		}
		got <- err
	}()
	held.Unlock()
	if err := <-got; err != nil {
		t.Errorf("waiting Lock: %v", err)
	}
}

func TestReadersShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := RLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Unlock()
	second, err := RLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Unlock()
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("writer among readers: %v, want ErrLocked", err)
	}
}
