package testnetwork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/proc"
	"github.com/certanchor/certanchor/test-network/internal/filelock"
)

const (
	// stopGrace is how long a node may take to end by itself.
	stopGrace = 5 * time.Second
	// startTimeout is how long a node may take until it answers.
	startTimeout = 30 * time.Second
	// pollEvery is how often a condition is looked at that nothing announces.
	pollEvery = 50 * time.Millisecond
)

// Start starts a node that does not run and returns when it answers. It returns an error when the node runs already, frozen or
// not, or ends while it starts; the error then holds the end of its log.
func (n *Network) Start(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error { return n.start(ctx, node) })
}

// Stop ends a node in good order: it is asked to, and killed after five seconds. A node that does not run is no error.
func (n *Network) Stop(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error { return n.stop(ctx, node) })
}

// Kill ends a node at once (SIGKILL) and returns when it is gone. A node that does not run is no error.
func (n *Network) Kill(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error { return n.kill(ctx, node) })
}

// Freeze suspends a node (SIGSTOP): it keeps its ports and connections and answers nothing. Freezing a frozen node is no error.
func (n *Network) Freeze(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error { return n.signal(ctx, node, syscall.SIGSTOP, proc.Frozen) })
}

// Thaw lets a frozen node go on. Thawing a node that is not frozen is no error.
func (n *Network) Thaw(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error { return n.signal(ctx, node, syscall.SIGCONT, proc.Running) })
}

// Restart is Stop and Start.
func (n *Network) Restart(ctx context.Context, node string) error {
	return n.locked(ctx, node, func() error {
		if err := n.stop(ctx, node); err != nil {
			return err
		}
		return n.start(ctx, node)
	})
}

// RestartChaincode restarts an organisation's chaincode server with another program, which also later starts use; no command
// means the certanchor program again. The standard arguments are appended to the command.
func (n *Network) RestartChaincode(ctx context.Context, org int, command ...string) error {
	node := NodeName(org, RoleChaincode)
	return n.locked(ctx, node, func() error {
		if err := n.stop(ctx, node); err != nil {
			return err
		}
		if err := n.saveRun(node, runState{Stopped: true, Command: command}); err != nil {
			return err
		}
		return n.start(ctx, node)
	})
}

// locked runs fn while no other command works on the node, nor on the whole network.
func (n *Network) locked(ctx context.Context, node string, fn func() error) error {
	if _, _, err := n.parse(node); err != nil {
		return err
	}
	whole, err := filelock.RLock(ctx, n.lockFile())
	if errors.Is(err, filelock.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	defer whole.Unlock()
	own, err := filelock.Lock(ctx, n.runLock(node))
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	defer own.Unlock()
	return fn()
}

// start runs the node's program and waits until it answers. The caller holds a lock.
func (n *Network) start(ctx context.Context, node string) error {
	run, err := n.launch(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return n.awaitAnswer(ctx, node, run.ID)
}

// launch starts the node's process and records it.
func (n *Network) launch(node string) (runState, error) {
	run, err := n.loadRun(node)
	if err != nil {
		return run, err
	}
	if run.State() != proc.Gone {
		return run, fmt.Errorf("%s: is running already (process %d)", node, run.PID)
	}
	spec, err := n.spec(node, run.Command)
	if err != nil {
		return run, err
	}
	run.ID, err = proc.Start(spec)
	if err != nil {
		return run, fmt.Errorf("%s: %w", node, err)
	}
	run.Started, run.Stopped = time.Now().UTC(), false
	if err := n.saveRun(node, run); err != nil {
		// Nobody would find the process again.
		run.Signal(syscall.SIGKILL)
		return run, fmt.Errorf("%s: recording its process: %w", node, err)
	}
	return run, nil
}

// awaitAnswer returns when the node's ports answer, or when the process has ended or ctx has.
func (n *Network) awaitAnswer(ctx context.Context, node string, id proc.ID) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := n.probe(ctx, node)
		if err == nil {
			return nil
		}
		if id.State() == proc.Gone {
			return fmt.Errorf("%s: ended while starting; %s ends with:\n%s", node, n.logFile(node), n.tail(node))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: does not answer: %w (%w); see %s", node, ctx.Err(), err, n.logFile(node))
		case <-tick.C:
		}
	}
}

// stop ends the node's process and records that this was meant. The caller holds a lock.
func (n *Network) stop(ctx context.Context, node string) error {
	run, err := n.loadRun(node)
	if err != nil {
		return err
	}
	if err := run.Terminate(ctx, stopGrace); err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	if run.Stopped {
		return nil
	}
	return n.saveRun(node, runState{Stopped: true, Command: run.Command})
}

// kill ends the node's process; that it is not recorded as stopped is what makes it dead. The caller holds a lock.
func (n *Network) kill(ctx context.Context, node string) error {
	run, err := n.loadRun(node)
	if err != nil {
		return err
	}
	if err := run.Kill(ctx); err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	return nil
}

// signal sends sig to a running node and waits until the system shows its effect.
func (n *Network) signal(ctx context.Context, node string, sig syscall.Signal, want proc.State) error {
	run, err := n.loadRun(node)
	if err != nil {
		return err
	}
	if err := run.Signal(sig); err != nil {
		return fmt.Errorf("%s: is not running: %w", node, err)
	}
	tick := time.NewTicker(pollEvery / 10)
	defer tick.Stop()
	for run.State() != want {
		if run.State() == proc.Gone {
			return fmt.Errorf("%s: has ended", node)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %v has had no effect yet: %w", node, sig, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// spec is how a node is started.
func (n *Network) spec(node string, chaincodeCommand []string) (proc.Spec, error) {
	org, role, err := n.parse(node)
	if err != nil {
		return proc.Spec{}, err
	}
	spec := proc.Spec{Dir: n.configDir(node), LogFile: n.logFile(node), Env: environment()}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return spec, err
	}
	switch role {
	case RolePeer:
		spec.Command = []string{n.program("peer"), "node", "start"}
	case RoleOrderer:
		spec.Command = []string{n.program("orderer")}
	case RoleChaincode:
		id, err := n.packageID(org)
		if err != nil {
			return spec, fmt.Errorf("%s: %w", node, err)
		}
		command := chaincodeCommand
		if len(command) == 0 {
			command = []string{n.state.Executable}
		}
		spec.Command = append(slices.Clone(command), n.chaincodeArguments(org, id)...)
	}
	if role != RoleChaincode {
		spec.Env = append(spec.Env, "FABRIC_CFG_PATH="+spec.Dir, "FABRIC_LOGGING_SPEC="+loggingSpec, "FABRIC_LOGGING_FORMAT="+loggingFormat)
	}
	return spec, nil
}

// What Fabric logs: without what it says about every transaction and connection, and without colours.
const (
	loggingSpec = "info:grpc=error:gossip=warning:comm.grpc.server=warning:gateway=warning:endorser=warning" +
		":lockbasedtxmgr=warning:kvledger=warning:committer.txvalidator=warning"
	loggingFormat = "%{time:2006-01-02T15:04:05.000Z07:00} %{level:.4s} [%{module}] %{shortfunc} -> %{message}"
)

// chaincodeArguments follow the program: see certanchor chaincode serve.
func (n *Network) chaincodeArguments(org int, packageID string) []string {
	return []string{
		"chaincode", "serve",
		"--address", n.address(org, portChaincode),
		"--package-id", packageID,
		"--tls-cert", n.tls(org, RoleChaincode, "cert.pem"),
		"--tls-key", n.tls(org, RoleChaincode, "key.pem"),
		"--client-ca", n.tlsCA(org),
		"--consortium", strings.Join(n.MSPIDs(), ","),
		"--tick-interval", n.state.TickInterval.String(),
	}
}

// environment is what a node inherits: little, because Fabric lets any CORE_ or ORDERER_ variable override its configuration.
func environment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZ", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
