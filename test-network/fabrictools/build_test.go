package fabrictools

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pretend makes a directory that looks like a finished build.
func pretend(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range programs {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFinishedBuildIsUsedWithoutGo(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(CacheEnv, cache)
	t.Setenv("PATH", t.TempDir())
	if _, err := Ensure(t.Context(), io.Discard); !errors.Is(err, ErrNoGo) {
		t.Errorf("empty cache: %v, want ErrNoGo", err)
	}
	dir := filepath.Join(cache, cacheName("go1.99.1"))
	pretend(t, dir)
	got, err := Ensure(t.Context(), io.Discard)
	if err != nil || got != filepath.Join(dir, "bin") {
		t.Errorf("%q, %v, want %q", got, err, filepath.Join(dir, "bin"))
	}
	if err := os.Remove(filepath.Join(dir, "bin", "orderer")); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), io.Discard); !errors.Is(err, ErrNoGo) {
		t.Errorf("incomplete build: %v, want ErrNoGo", err)
	}
}

func TestAnInterruptedBuildLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(CacheEnv, cache)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	_, err := Ensure(ctx, interruptWriter(interrupt))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
}

// interruptWriter ends the build at its first word.
type interruptWriter context.CancelFunc

func (interrupt interruptWriter) Write(p []byte) (int, error) {
	interrupt()
	return len(p), nil
}

func TestTheBuildIsNamedAfterWhatDecidesIt(t *testing.T) {
	name := cacheName("go1.26.8")
	if !strings.Contains(name, Version) || !strings.HasSuffix(name, "go1.26.8") || name == cacheName("go1.26.9") {
		t.Errorf("cache name %q", name)
	}
	for _, tool := range programs {
		if !strings.Contains(string(goMod), "github.com/hyperledger/fabric/cmd/"+tool) {
			t.Errorf("fabric.mod has no tool directive for %s", tool)
		}
	}
}
