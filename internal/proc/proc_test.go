package proc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, script string) (ID, string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	id, err := Start(Spec{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH"), "GREETING=hello"}, LogFile: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { id.Signal(syscall.SIGKILL) })
	return id, log
}

// await waits until the process is in the state.
func await(t *testing.T, id ID, want State) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for id.State() != want {
		select {
		case <-deadline:
			t.Fatalf("state %v, want %v", id.State(), want)
		case <-tick.C:
		}
	}
}

const forever = "while :; do read -r _ < /dev/tty || sleep 1; done"

func TestAProcessIsFrozenThawedAndEnded(t *testing.T) {
	id, _ := start(t, "exec sleep 1000")
	await(t, id, Running)
	if id.RSS() <= 0 {
		t.Error("a running process holds no memory")
	}
	if err := id.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, id, Frozen)
	if err := id.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, id, Running)
	if err := id.Terminate(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if id.State() != Gone || id.RSS() != 0 {
		t.Error("still there")
	}
	if err := id.Signal(syscall.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal to a process that ended: %v, want ErrGone", err)
	}
	if err := errors.Join(id.Kill(t.Context()), id.Terminate(t.Context(), time.Second)); err != nil {
		t.Errorf("ending it twice: %v", err)
	}
}

func TestAFrozenProcessCanBeEnded(t *testing.T) {
	for name, end := range map[string]func(ID) error{
		"terminate": func(id ID) error { return id.Terminate(t.Context(), 5*time.Second) },
		"kill":      func(id ID) error { return id.Kill(t.Context()) },
	} {
		id, _ := start(t, "exec sleep 1000")
		if err := id.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		await(t, id, Frozen)
		if err := end(id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id.State() != Gone {
			t.Errorf("%s: still there", name)
		}
	}
}

func TestAProcessThatWillNotEndIsKilled(t *testing.T) {
	id, log := start(t, "trap '' TERM; echo ready; "+forever)
	awaitLog(t, log, "ready")
	if err := id.Terminate(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if id.State() != Gone {
		t.Error("still there")
	}
}

func TestANumberThatWasReusedIsAnotherProcess(t *testing.T) {
	id, _ := start(t, "exec sleep 1000")
	other := ID{PID: id.PID, Start: id.Start + "0"}
	if other.State() != Gone {
		t.Error("a process with another start time is taken for ours")
	}
	if err := other.Signal(syscall.SIGKILL); !errors.Is(err, ErrGone) {
		t.Errorf("signal: %v, want ErrGone", err)
	}
	await(t, id, Running)
	if (ID{}).State() != Gone || !errors.Is((ID{}).Signal(syscall.SIGTERM), ErrGone) {
		t.Error("the zero ID is taken for a process")
	}
}

func TestOnlyTheGivenEnvironmentIsInherited(t *testing.T) {
	t.Setenv("CORE_PEER_ID", "impostor")
	id, log := start(t, "env; echo done")
	awaitLog(t, log, "done")
	if err := id.WaitGone(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), "impostor") || !strings.Contains(string(content), "GREETING=hello") {
		t.Errorf("environment:\n%s", content)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	id, _ := start(t, "exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := id.WaitGone(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestAProgramThatIsNotThereIsAnError(t *testing.T) {
	if _, err := Start(Spec{Command: []string{"/nonexistent"}, LogFile: filepath.Join(t.TempDir(), "log")}); err == nil {
		t.Error("started")
	}
}

func awaitLog(t *testing.T, log, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(log)
		if err == nil && strings.Contains(string(content), want) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("log does not say %q: %q", want, content)
		case <-tick.C:
		}
	}
}
