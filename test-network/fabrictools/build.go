// Package fabrictools builds the Hyperledger Fabric programs of the test network from one pinned version of Fabric's source.
//
// The pin is a Go module of its own, with Fabric's commands as tool directives: fabric.mod and fabric.sum here. They cannot be
// called go.mod and go.sum, because go:embed does not look into a nested module, and an installed certanchor binary must carry
// the pin with it.
package fabrictools

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/test-network/internal/filelock"
)

// Version is the Fabric release that the pinned commit is.
const Version = "3.1.1"

// CacheEnv names the environment variable that overrides the directory under which built programs are kept.
const CacheEnv = "CERTANCHOR_CACHE"

var (
	//go:embed fabric.mod
	goMod []byte
	//go:embed fabric.sum
	goSum []byte
)

// programs are the tools the network needs; fabric.mod has one tool directive for each.
var programs = []string{"configtxgen", "orderer", "osnadmin", "peer"}

// ErrNoGo is returned when the programs are not built yet and no Go toolchain is on the PATH.
var ErrNoGo = errors.New("the go command is needed to build Hyperledger Fabric and is not on the PATH: install Go from https://go.dev/dl")

// Ensure returns the directory that holds peer, orderer, configtxgen and osnadmin, building them on first use. Progress goes to
// progress, one line per step. Concurrent calls, also in other processes, share one build; an interrupted one leaves nothing
// that a later one would take for complete.
func Ensure(ctx context.Context, progress io.Writer) (string, error) {
	root, err := CacheDir()
	if err != nil {
		return "", err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return builtEarlier(root)
	}
	goVersion, err := toolchain(ctx, goTool)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, cacheName(goVersion))
	if complete(dir) {
		return filepath.Join(dir, "bin"), nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	lock, err := filelock.TryLock(dir + ".lock")
	if errors.Is(err, filelock.ErrLocked) {
		fmt.Fprintf(progress, "another process is building Fabric %s, waiting for it\n", Version)
		lock, err = filelock.Lock(ctx, dir+".lock")
	}
	if err != nil {
		return "", fmt.Errorf("lock on the Fabric build: %w", err)
	}
	defer lock.Unlock()
	if complete(dir) {
		return filepath.Join(dir, "bin"), nil
	}
	if err := build(ctx, goTool, dir, progress); err != nil {
		return "", fmt.Errorf("building Fabric %s: %w", Version, err)
	}
	return filepath.Join(dir, "bin"), nil
}

// CacheDir is where built programs are kept: outside the repository, so that they survive a fresh clone. It need not exist.
func CacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("%s=%q: %w", CacheEnv, dir, err)
		}
		return abs, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory (set %s): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "certanchor"), nil
}

// cacheName names a build by everything that decides its bytes.
func cacheName(goVersion string) string {
	h := sha256.New()
	for _, part := range [][]byte{goMod, goSum} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return fmt.Sprintf("fabric-%s-%s-%s", Version, hex.EncodeToString(h.Sum(nil))[:12], goVersion)
}

// builtEarlier finds a build of this pin by any Go version, for machines whose toolchain is gone.
func builtEarlier(root string) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(root, cacheName("*")))
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		if complete(dir) {
			return filepath.Join(dir, "bin"), nil
		}
	}
	return "", ErrNoGo
}

// toolchain returns the version of Go that does the build.
func toolchain(ctx context.Context, goTool string) (string, error) {
	cmd := exec.CommandContext(ctx, goTool, "env", "GOVERSION")
	cmd.Dir = os.TempDir()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s env GOVERSION: %w", goTool, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// complete reports whether dir holds a finished build; dir appears by rename, so any program in it is whole.
func complete(dir string) bool {
	for _, name := range programs {
		if info, err := os.Stat(filepath.Join(dir, "bin", name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// build compiles into a temporary sibling of dir and renames it into place.
func build(ctx context.Context, goTool, dir string, progress io.Writer) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := errors.Join(
		os.WriteFile(filepath.Join(tmp, "go.mod"), goMod, 0o644),
		os.WriteFile(filepath.Join(tmp, "go.sum"), goSum, 0o644),
		os.Chmod(tmp, 0o755),
	); err != nil {
		return err
	}
	started := time.Now()
	step := func(format string, args ...any) {
		fmt.Fprintf(progress, "[%4.0fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	step("building Hyperledger Fabric %s (%s) from source, once; about a minute after download; kept in %s", Version, strings.Join(programs, ", "), dir)
	// No cgo: what needs it is PKCS#11, which this network does not use, and not every machine has a C compiler.
	if err := run(ctx, tmp, step, goTool, "build", "-trimpath", "-mod=readonly",
		"-ldflags", "-s -w -X github.com/hyperledger/fabric/common/metadata.Version=v"+Version,
		"-o", "bin"+string(filepath.Separator), "tool"); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	step("built")
	return nil
}

// run executes one go command in dir and says every ten seconds that it is still at it.
func run(ctx context.Context, dir string, step func(string, ...any), name string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// A workspace or vendoring of the caller's would change what is built.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	cmd.Stdout, cmd.Stderr = &output, &output
	// On an interrupt the go command ends its compilers before itself; killed, it would leave them behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("go %s: %w\n%s", args[0], errors.Join(ctx.Err(), err), bytes.TrimSpace(output.Bytes()))
			}
			return nil
		case <-tick.C:
			step("still compiling")
		}
	}
}
