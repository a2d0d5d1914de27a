// Package nettest starts real test networks for tests: each in a temporary directory on free ports, gone when the test ends,
// however it ends.
package nettest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/fabrictools"
	"github.com/certanchor/certanchor/test-network/internal/filelock"
)

// TickInterval is what Start tells the contract unless the options say otherwise: short, so that tests see many ticks.
const TickInterval = time.Second

// cleanupTimeout bounds taking a network down.
const cleanupTimeout = 30 * time.Second

// Start brings up a network and takes it down when the test ends. Of options it fills in what is empty: a temporary directory,
// free ports, TickInterval, the certanchor program of this module (see Program), progress to the test's log. The test fails
// at once when the network does not come up. When the test has failed, the end of every node's log is in its output.
//
// The network also goes down when the test process dies without cleaning up, for example on go test's own timeout.
func Start(t testing.TB, options testnetwork.Options) *testnetwork.Network {
	t.Helper()
	if options.Dir == "" {
		options.Dir = filepath.Join(t.TempDir(), "network")
	}
	if options.BasePort == 0 {
		options.BasePort = testnetwork.AnyPort
	}
	if options.TickInterval == 0 {
		options.TickInterval = TickInterval
	}
	if options.Executable == "" {
		options.Executable = Program(t)
	}
	if options.Progress == nil {
		options.Progress = &logWriter{t: t}
	}
	guard(t, options.Executable, options.Dir)
	n, err := testnetwork.Up(t.Context(), options)
	if errors.Is(err, testnetwork.ErrPortTaken) && options.BasePort == testnetwork.AnyPort {
		n, err = testnetwork.Up(t.Context(), options) // another test was quicker to take the ports just found free
	}
	if err != nil {
		t.Fatalf("network up: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := n.Purge(ctx); err != nil {
			t.Errorf("network down: %v", err)
		}
	})
	return n
}

// Level waits until every node is healthy and all ledgers have the same height, and calls commit, which is to commit a
// transaction, again and again meanwhile: see Network.AwaitLevel. The test fails when that takes longer than a minute.
//
// An orderer that is left behind for fifteen seconds is restarted. In Fabric 3.1.1 one that synchronises while it decides on a
// block can wait for itself for ever (hyperledger-labs/SmartBFT pull request 681); an operator would restart it, too.
func Level(t testing.TB, n *testnetwork.Network, commit func()) {
	t.Helper()
	started, helped := time.Now(), false
	for {
		commit()
		err := levelWithin(t, n, 2*time.Second)
		waited := time.Since(started)
		switch {
		case err == nil:
			return
		case waited > time.Minute:
			t.Fatalf("not level after %v: %v", waited.Round(time.Second), err)
		case waited > 15*time.Second && !helped:
			helped = true
			restartStragglers(t, n)
		}
	}
}

func levelWithin(t testing.TB, n *testnetwork.Network, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return n.AwaitLevel(ctx)
}

func restartStragglers(t testing.TB, n *testnetwork.Network) {
	t.Helper()
	status, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, orderer := range status.Behind(testnetwork.RoleOrderer) {
		t.Logf("restarting %s, which has been left behind", orderer)
		if err := n.Restart(t.Context(), orderer); err != nil {
			t.Fatal(err)
		}
	}
}

// Program builds the certanchor program of the module the test belongs to and returns its path. Test processes share the file
// and so the build; a change of the source is a new build.
func Program(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("building certanchor: %v", err)
	}
	return path
}

var program = sync.OnceValues(func() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	cache, err := fabrictools.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("nettest-%.6x", sha256.Sum256([]byte(root))))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := filelock.Lock(context.Background(), filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	// Built beside and renamed, because networks of other test processes may be running the file.
	path := filepath.Join(dir, "certanchor")
	build := exec.Command("go", "build", "-o", path+".new", "./cmd/certanchor")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/certanchor: %w\n%s", err, out)
	}
	return path, os.Rename(path+".new", path)
})

// guard takes the network in dir down when this process dies before the test has cleaned up. The guarding process notices by
// the end of its standard input, which the system closes whatever the reason of death.
func guard(t testing.TB, executable, dir string) {
	t.Helper()
	lifeline, end, err := os.Pipe()
	if err != nil {
		t.Fatalf("guard: %v", err)
	}
	cmd := exec.Command("/bin/sh", "-c", `read -r _; exec "$1" network down --dir "$2"`, "guard", executable, dir)
	cmd.Stdin = lifeline
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	lifeline.Close()
	if err != nil {
		end.Close()
		t.Fatalf("guard: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		end.Close()
	})
}

// dump writes what a reader of a failed test wants to see first.
func dump(t testing.TB, n *testnetwork.Network) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	if status, err := n.Status(ctx); err == nil {
		for _, node := range status.Nodes {
			t.Logf("%-16s %-8s height %d, healthy %v %s", node.Name, node.State, node.Height, node.Healthy, node.Problem)
		}
	}
	for _, node := range n.Nodes() {
		name, err := n.LogFile(node)
		if err != nil {
			continue
		}
		t.Logf("end of the log of %s:\n%s", node, tail(name, 4000))
	}
}

func tail(name string, most int64) string {
	file, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		file.Seek(max(0, size-most), io.SeekStart)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// logWriter gives lines to the test's log until the test is over, after which that would panic.
type logWriter struct{ t testing.TB }

func (w *logWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}
