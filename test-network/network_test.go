package testnetwork_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// eventually waits until condition holds.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v: %v", what, within, err)
		case <-tick.C:
		}
	}
}

func status(t *testing.T, n *testnetwork.Network) testnetwork.Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func node(t *testing.T, n *testnetwork.Network, name string) testnetwork.NodeStatus {
	t.Helper()
	s := status(t, n)
	i := slices.IndexFunc(s.Nodes, func(node testnetwork.NodeStatus) bool { return node.Name == name })
	if i < 0 {
		t.Fatalf("no node %s in %+v", name, s)
	}
	return s.Nodes[i]
}

// level waits until every node is healthy and all ledgers have the same height.
func level(t *testing.T, n *testnetwork.Network) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	started := time.Now()
	defer func() { t.Logf("level after %v", time.Since(started).Round(time.Millisecond)) }()
	if err := n.AwaitLevel(ctx); err != nil {
		t.Fatal(err)
	}
}

// processesOf returns the ids of all processes whose command line or environment names dir, whoever started them.
func processesOf(t *testing.T, dir string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline")) // it may have ended meanwhile
		if strings.HasPrefix(string(cmdline), "/bin/sh\x00-c\x00read -r _;") {
			continue // nettest's guard names the directory too
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if strings.Contains(string(cmdline)+string(environ), dir) {
			found = append(found, pid)
		}
	}
	return found
}

func TestNetworkLife(t *testing.T) {
	n := nettest.Start(t, testnetwork.Options{})
	ctx := t.Context()
	reopened, err := testnetwork.Open(n.Dir())
	if err != nil {
		t.Fatal(err)
	}

	t.Run("every node is healthy and level", func(t *testing.T) {
		level(t, reopened)
		if nodes := status(t, n).Nodes; len(nodes) != 12 {
			t.Errorf("%d nodes, want 12", len(nodes))
		}
		if len(processesOf(t, n.Dir())) < 12 {
			t.Error("fewer than 12 processes")
		}
	})
	t.Run("a second up says that it runs", func(t *testing.T) {
		_, err := testnetwork.Up(ctx, testnetwork.Options{Dir: n.Dir(), Executable: nettest.Program(t)})
		if !errors.Is(err, testnetwork.ErrRunning) {
			t.Errorf("%v, want ErrRunning", err)
		}
	})
	t.Run("one orderer leads", func(t *testing.T) {
		leader, err := n.Leader(ctx)
		if err != nil || !node(t, n, leader).Leader {
			t.Errorf("leader %q, %v", leader, err)
		}
	})
	t.Run("a killed node is dead until it is started", func(t *testing.T) {
		for _, name := range []string{"org2.peer", "org3.orderer", "org4.chaincode"} {
			if err := reopened.Kill(ctx, name); err != nil {
				t.Fatal(err)
			}
			if state := node(t, n, name).State; state != testnetwork.StateDead {
				t.Errorf("%s is %s, want dead", name, state)
			}
			if err := reopened.Start(ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := n.Start(ctx, name); err == nil || !strings.Contains(err.Error(), "running already") {
				t.Errorf("starting %s again: %v", name, err)
			}
		}
		level(t, n)
	})
	t.Run("a stopped node is stopped, a restarted one runs", func(t *testing.T) {
		if err := n.Stop(ctx, "org1.peer"); err != nil {
			t.Fatal(err)
		}
		if state := node(t, reopened, "org1.peer").State; state != testnetwork.StateStopped {
			t.Errorf("%s, want stopped", state)
		}
		if err := errors.Join(n.Stop(ctx, "org1.peer"), n.Restart(ctx, "org1.peer"), n.Restart(ctx, "org1.orderer")); err != nil {
			t.Fatal(err)
		}
		level(t, n)
	})
	t.Run("a frozen node answers nothing and holds nobody up", func(t *testing.T) {
		before := node(t, n, "org4.peer").PID
		for range 2 { // freezing and thawing twice is as good as once
			if err := n.Freeze(ctx, "org4.peer"); err != nil {
				t.Fatal(err)
			}
		}
		started := time.Now()
		frozen := node(t, reopened, "org4.peer")
		if frozen.State != testnetwork.StateFrozen || frozen.Healthy || frozen.PID != before {
			t.Errorf("%+v", frozen)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("status took %v", took)
		}
		if err := errors.Join(n.Thaw(ctx, "org4.peer"), n.Thaw(ctx, "org4.peer")); err != nil {
			t.Fatal(err)
		}
		level(t, n)
		if after := node(t, n, "org4.peer").PID; after != before {
			t.Errorf("process %d became %d", before, after)
		}
	})
	t.Run("a chaincode server may be another program", func(t *testing.T) {
		if err := n.RestartChaincode(ctx, 2, "/bin/sh", "-c", `echo tampered; exec "$0" "$@"`, nettest.Program(t)); err != nil {
			t.Fatal(err)
		}
		name, err := n.LogFile("org2.chaincode")
		if err != nil {
			t.Fatal(err)
		}
		if log, err := os.ReadFile(name); err != nil || !strings.Contains(string(log), "tampered\n") {
			t.Errorf("log: %q, %v", log, err)
		}
		if err := n.RestartChaincode(ctx, 2); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("down stops frozen nodes too, up brings the data back", func(t *testing.T) {
		height := node(t, n, "org1.peer").Height
		if err := n.Freeze(ctx, "org3.peer"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(reopened.Down(ctx), reopened.Down(ctx)); err != nil {
			t.Fatal(err)
		}
		if left := processesOf(t, n.Dir()); len(left) > 0 {
			t.Fatalf("processes left: %v", left)
		}
		again, err := testnetwork.Up(ctx, testnetwork.Options{Dir: n.Dir(), Executable: nettest.Program(t)})
		if err != nil {
			t.Fatal(err)
		}
		if got := node(t, again, "org1.peer").Height; got < height {
			t.Errorf("height %d, was %d", got, height)
		}
		if err := again.Purge(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(n.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("directory after purge: %v", err)
		}
	})
}

func TestOtherShapes(t *testing.T) {
	for _, options := range []testnetwork.Options{
		{Orgs: 1, Consensus: testnetwork.BFT},
		{Orgs: 2, Consensus: testnetwork.BFT},
		{Orgs: 1, Consensus: testnetwork.Raft},
		{Orgs: 3, Consensus: testnetwork.Raft},
	} {
		t.Run(options.Consensus+strconv.Itoa(options.Orgs), func(t *testing.T) {
			n := nettest.Start(t, options)
			level(t, n)
			if _, err := n.Leader(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// lineFunc is called with each line of progress.
type lineFunc func(line string)

func (f lineFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

func TestInterruptedUpLeavesNoProcess(t *testing.T) {
	for _, step := range []string{"issuing", "starting", "creating channel", "waiting for a transaction"} {
		t.Run(step, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "network")
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			_, err := testnetwork.Up(ctx, testnetwork.Options{
				Dir: dir, BasePort: testnetwork.AnyPort, Orgs: 2, Executable: nettest.Program(t),
				Progress: lineFunc(func(line string) {
					if strings.Contains(line, step) {
						interrupt()
					}
				}),
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
			if left := processesOf(t, dir); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

func TestFailedUpLeavesNoProcessAndCanBeRepeated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "network")
	options := testnetwork.Options{
		Dir: dir, BasePort: testnetwork.AnyPort, Orgs: 1, Executable: nettest.Program(t),
		ChaincodeCommand: map[int][]string{1: {"/bin/sh", "-c", "echo no chaincode today; exit 3"}},
	}
	_, err := testnetwork.Up(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "org1.chaincode") || !strings.Contains(err.Error(), "no chaincode today") {
		t.Errorf("%v, want an error with the node's name and the end of its log", err)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	nettest.Start(t, testnetwork.Options{Dir: dir, Orgs: 1})
}

func TestUpNamesATakenPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	_, err = testnetwork.Up(t.Context(), testnetwork.Options{
		Dir: filepath.Join(t.TempDir(), "network"), BasePort: port, Orgs: 1, Executable: nettest.Program(t),
	})
	if !errors.Is(err, testnetwork.ErrPortTaken) || !strings.Contains(err.Error(), "org1.peer") || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("%v, want ErrPortTaken that names the node and the address", err)
	}
}

func TestANetworkGoesDownWhenItsTestProcessDies(t *testing.T) {
	if dir := os.Getenv("NETTEST_DIE_IN"); dir != "" {
		nettest.Start(t, testnetwork.Options{Dir: dir, Orgs: 1})
		os.Exit(1) // no Cleanup runs
	}
	dir := filepath.Join(t.TempDir(), "network")
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), "NETTEST_DIE_IN="+dir)
	if err := child.Run(); child.ProcessState == nil || child.ProcessState.ExitCode() != 1 {
		t.Fatalf("child: %v", err)
	}
	eventually(t, 20*time.Second, "no process left", func() error {
		if left := processesOf(t, dir); len(left) > 0 {
			return errors.New("some are left")
		}
		return nil
	})
	n, err := testnetwork.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
}
