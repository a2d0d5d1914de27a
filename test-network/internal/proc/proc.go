// Package proc starts processes that outlive their starter, and finds them again by id without mistaking another process
// that was given the same number since.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ErrGone is returned by Signal when the process does not exist any more.
var ErrGone = errors.New("process is gone")

// pollEvery is how often WaitGone looks: a process that is not our child cannot be waited for.
const pollEvery = 10 * time.Millisecond

// ID identifies one process for ever: numbers are reused, a number and its start time together are not.
type ID struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // as the system tells it, opaque
}

// State of a process.
type State int

// States. A zombie is gone: it runs no code and holds no port.
const (
	Gone State = iota
	Running
	Frozen // stopped by SIGSTOP
)

// info is what the system tells about a process.
type info struct {
	state State
	start string
	rss   int64 // bytes
}

// Spec is a program to start.
type Spec struct {
	Command []string
	Env     []string // complete: nothing is inherited
	Dir     string
	LogFile string // standard output and error are appended to it
}

// Start starts a process in a session of its own, so that neither a terminal's interrupt nor the end of this process ends it.
func Start(spec Spec) (ID, error) {
	log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return ID{}, err
	}
	defer log.Close()
	cmd := exec.Command(spec.Command[0], spec.Command[1:]...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return ID{}, err
	}
	id := ID{PID: cmd.Process.Pid}
	// Reads before Wait can collect it, so the process is there to be looked at even if it has ended already.
	seen, err := look(id.PID)
	go cmd.Wait() // collects it when it ends while this process lives; the exit status is in nobody's interest
	if err != nil {
		return ID{}, fmt.Errorf("process %d: %w", id.PID, errors.Join(err, syscall.Kill(-id.PID, syscall.SIGKILL)))
	}
	id.Start = seen.start
	return id, nil
}

// State says what the process does now.
func (id ID) State() State {
	seen, err := id.look()
	if err != nil {
		return Gone
	}
	return seen.state
}

// RSS is the memory the process holds, in bytes, 0 when it is gone.
func (id ID) RSS() int64 {
	seen, err := id.look()
	if err != nil {
		return 0
	}
	return seen.rss
}

// Signal sends sig to the process and the children that stayed in its session's group.
func (id ID) Signal(sig syscall.Signal) error {
	if id.State() == Gone {
		return ErrGone
	}
	err := syscall.Kill(-id.PID, sig)
	if errors.Is(err, syscall.ESRCH) {
		return ErrGone
	}
	return err
}

// Terminate asks the process to end, and kills it when it has not after grace. A frozen process is woken to hear it.
func (id ID) Terminate(ctx context.Context, grace time.Duration) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := id.Signal(sig); err != nil {
			return ignoreGone(err)
		}
	}
	patient, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if id.WaitGone(patient) == nil {
		return nil
	}
	return id.Kill(ctx)
}

// Kill ends the process at once, frozen or not, and returns when it is gone.
func (id ID) Kill(ctx context.Context) error {
	if err := id.Signal(syscall.SIGKILL); err != nil {
		return ignoreGone(err)
	}
	return id.WaitGone(ctx)
}

// WaitGone returns when the process is gone, or with ctx's error.
func (id ID) WaitGone(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for id.State() != Gone {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d is still there: %w", id.PID, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func (id ID) look() (info, error) {
	if id.PID <= 0 {
		return info{}, ErrGone
	}
	seen, err := look(id.PID)
	if err != nil {
		return info{}, err
	}
	if seen.start != id.Start {
		return info{}, ErrGone
	}
	return seen, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
