package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/networktest"
)

// Environment of a test binary that is to host a ledger instead of testing.
const (
	envDir   = "CERTANCHOR_TEST_LEDGER"     // its directory; the socket is beside it
	envDieAt = "CERTANCHOR_TEST_LEDGER_DIE" // step:n, where it kills itself
)

const testTick = time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDir); dir != "" {
		if err := host(dir, os.Getenv(envDieAt)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host serves the ledger in dir until it is killed, or its parent is gone.
func host(dir, dieAt string) error {
	o := Options{Dir: dir, TickInterval: testTick, Log: slog.New(slog.DiscardHandler)}
	if step, n, ok := strings.Cut(dieAt, ":"); ok {
		left, err := strconv.Atoi(n)
		if err != nil {
			return err
		}
		o.step = func(at string) {
			if at == step {
				if left--; left == 0 {
					if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
						panic(err)
					}
				}
			}
		}
	}
	node, err := Open(o)
	if err != nil {
		return err
	}
	l, err := Listen(socketOf(dir))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent does
		cancel()
	}()
	return errors.Join(node.Serve(ctx, l), node.Close())
}

func socketOf(dir string) string { return filepath.Join(filepath.Dir(dir), "s") }

// child is a process that hosts a ledger.
type child struct {
	dir   string
	dieAt string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func newChild(t testing.TB) *child {
	t.Helper()
	// A directory with a short path: sockets' paths are limited to about a hundred octets.
	top, err := os.MkdirTemp("", "ca")
	if err != nil {
		t.Fatal(err)
	}
	c := &child{dir: filepath.Join(top, "ledger")}
	t.Cleanup(func() {
		c.kill(t)
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	return c
}

// start returns when the child serves, or, when it is to die before that, when it is dead.
func (c *child) start(t testing.TB) (serves bool) {
	t.Helper()
	c.cmd = exec.Command(os.Args[0])
	c.cmd.Env = append(os.Environ(), envDir+"="+c.dir, envDieAt+"="+c.dieAt)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	line, err := c.out.ReadString('\n')
	if err != nil && c.dieAt == "" {
		t.Fatalf("the ledger's process did not start: %v", err)
	}
	return line == "ready\n"
}

func (c *child) kill(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	c.wait(t)
}

// wait returns when the child is dead, as it must be by a signal.
func (c *child) wait(t testing.TB) {
	t.Helper()
	var dead *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &dead) {
		t.Errorf("the ledger's process ended by itself: %v", err)
	}
	c.cmd = nil
}

func (c *child) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// freeze returns when the child stands still: the signal alone returns when its threads still run.
func (c *child) freeze(t testing.TB) {
	t.Helper()
	c.signal(t, syscall.SIGSTOP)
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !status.Stopped() {
			t.Fatalf("the ledger's process is not frozen: status %x, %v", status, err)
		}
		return
	}
}

func dial(t testing.TB, socket, role string) network.Ledger {
	t.Helper()
	l, err := Dial(t.Context(), DialOptions{Socket: socket, Role: role, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestConformanceInProcess(t *testing.T) {
	node := open(t, Options{Dir: t.TempDir(), TickInterval: testTick})
	networktest.RunContract(t, networktest.Engine{
		Connect:        func(_ testing.TB, role string) network.Ledger { return node.Connect(role) },
		Administrators: func(testing.TB) []network.Ledger { return []network.Ledger{node.Connect(wire.RoleAdministrator)} },
		Patience:       30 * time.Second,
	})
}

func TestConformanceOverSocket(t *testing.T) {
	c := newChild(t)
	c.start(t)
	proxy := networktest.NewProxy(t, "unix", filepath.Join(filepath.Dir(c.dir), "p"), socketOf(c.dir))
	connect := func(t testing.TB, role string) network.Ledger { return dial(t, proxy.Addr(), role) }
	networktest.Run(t, networktest.Engine{
		Connect:        connect,
		Administrators: func(t testing.TB) []network.Ledger { return []network.Ledger{connect(t, wire.RoleAdministrator)} },
		Patience:       30 * time.Second,
		Proxy:          proxy,
		Direct:         func(t testing.TB, role string) network.Ledger { return dial(t, socketOf(c.dir), role) },
		Kill:           func(t testing.TB) { c.kill(t) },
		Start:          func(t testing.TB) { c.start(t) },
		Freeze:         func(t testing.TB) { c.freeze(t) },
		Thaw:           func(t testing.TB) { c.signal(t, syscall.SIGCONT) },
	})
}

// open opens a ledger that is closed when the test ends.
func open(t testing.TB, o Options) *Node {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	node, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}
