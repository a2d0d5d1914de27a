package testnetwork

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/certanchor/certanchor/internal/proc"
	"github.com/certanchor/certanchor/test-network/fabrictools"
	"github.com/certanchor/certanchor/test-network/internal/filelock"
)

const (
	// readyTimeout bounds everything after the Fabric programs are there.
	readyTimeout = 3 * time.Minute
	// cleanupTimeout bounds how long a failed Up works on leaving nothing behind.
	cleanupTimeout = 30 * time.Second
)

// Up makes the network of options.Dir and returns once a transaction has committed on all its peers. On a directory that
// holds a stopped network it starts that one, with its data. On first use it builds Hyperledger Fabric, which takes a minute or
// more and needs the go command.
//
// It returns ErrRunning, ErrBusy or ErrPortTaken, wrapped, for those cases. When it fails, or ctx ends, it leaves no process
// behind; logs stay in the directory.
func Up(ctx context.Context, options Options) (*Network, error) {
	dir, err := absoluteDir(options.Dir)
	if err != nil {
		return nil, err
	}
	options.Dir = dir
	l := layout{dir: dir}
	if err := l.ours(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	lock, err := filelock.TryLock(l.lockFile())
	if errors.Is(err, filelock.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", l.dir, ErrBusy)
	}
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()

	options, found, err := resolve(options)
	if err != nil {
		return nil, err
	}
	progress := newProgress(options.Progress)
	bin, err := fabrictools.Ensure(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	n := newNetwork(options.Dir, state{
		Orgs: options.Orgs, Consensus: options.Consensus, BasePort: options.BasePort, TickInterval: options.TickInterval,
		Executable: options.Executable, FabricBin: bin, Founded: found,
	})
	if n.basePort == AnyPort {
		if n.basePort, err = freeBasePort(n.state.Orgs); err != nil {
			return nil, err
		}
		n.state.BasePort = n.basePort
	}
	if err := n.checkPorts(n.state.Orgs); err != nil {
		return nil, err
	}
	if err := n.bringUp(ctx, options, progress); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("interrupted: %w", err)
		}
		return nil, errors.Join(err, n.cleanUp(progress))
	}
	progress.step("ready: %d organisations, %s, channel %s", n.state.Orgs, n.state.Consensus, Channel)
	return n, nil
}

// resolve completes options from the network that is already in the directory, if one was founded there, and says so. It
// refuses to change such a network, and returns ErrRunning when any node of the directory runs.
func resolve(options Options) (_ Options, founded bool, _ error) {
	existing, err := Open(options.Dir)
	if errors.Is(err, ErrNoNetwork) {
		options, err = options.complete()
		return options, false, err
	}
	if err != nil {
		return options, false, err
	}
	if err := existing.nothingRuns(); err != nil {
		return options, false, err
	}
	if !existing.state.Founded {
		options, err = options.complete()
		return options, false, err
	}
	s := existing.state
	if options.BasePort == AnyPort {
		options.BasePort = s.BasePort
	}
	for _, field := range []struct {
		name              string
		asked, unset, has any
	}{
		{"organisations", options.Orgs, 0, s.Orgs},
		{"consensus", options.Consensus, "", s.Consensus},
		{"base port", options.BasePort, 0, s.BasePort},
		{"tick interval", options.TickInterval, time.Duration(0), s.TickInterval},
	} {
		if field.asked != field.unset && field.asked != field.has {
			return options, false, fmt.Errorf("%s: %v, the network in %s was made with %v: purge it first or use another directory",
				field.name, field.asked, options.Dir, field.has)
		}
	}
	options.Orgs, options.Consensus, options.BasePort, options.TickInterval = s.Orgs, s.Consensus, s.BasePort, s.TickInterval
	options, err = options.complete()
	return options, true, err
}

// nothingRuns returns ErrRunning with the names of nodes that run.
func (n *Network) nothingRuns() error {
	var running []string
	for _, node := range n.Nodes() {
		run, err := n.loadRun(node)
		if err != nil {
			return err
		}
		if run.State() != proc.Gone {
			running = append(running, node)
		}
	}
	switch len(running) {
	case 0:
		return nil
	case len(n.Nodes()):
		return fmt.Errorf("%s: %w (see certanchor network status)", n.dir, ErrRunning)
	default:
		return fmt.Errorf("%s: %w in part (%d of %d nodes): start the others by name, or take it down first", n.dir, ErrRunning, len(running), len(n.Nodes()))
	}
}

// bringUp does everything that leaves files or processes.
func (n *Network) bringUp(ctx context.Context, options Options, progress *progress) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := n.prepare(ctx, options, progress); err != nil {
		return err
	}
	progress.step("starting %d nodes", len(n.Nodes()))
	if err := n.each(ctx, n.start); err != nil {
		return err
	}
	if !n.state.Founded {
		progress.step("creating channel %s and deploying the chaincode", Channel)
		if err := n.deploy(ctx); err != nil {
			return err
		}
	}
	progress.step("waiting for a transaction to commit on every peer")
	if err := n.found(ctx); err != nil {
		return err
	}
	n.state.Founded = true
	return n.saveState(n.state)
}

// prepare writes keys, configuration and the first block of a new network; of an old one, only the configuration.
func (n *Network) prepare(ctx context.Context, options Options, progress *progress) error {
	if !n.state.Founded {
		for _, part := range []string{"data", "run", "config", "orgs"} {
			if err := os.RemoveAll(n.path(part)); err != nil {
				return err
			}
		}
	}
	for _, part := range []string{"data", "run", "config", "logs"} {
		if err := os.MkdirAll(n.path(part), 0o755); err != nil {
			return err
		}
	}
	// From here on the directory is known to be a network's, whatever happens.
	if err := n.saveState(n.state); err != nil {
		return err
	}
	if !n.state.Founded {
		progress.step("issuing the identities of %d organisations", n.state.Orgs)
		if err := n.issueIdentities(n.state.Orgs, time.Now); err != nil {
			return err
		}
	}
	if err := n.writeConfig(n.state.Orgs, n.state.Consensus); err != nil {
		return err
	}
	for org := 1; org <= n.state.Orgs; org++ {
		if err := errors.Join(n.writePackage(org), n.writeBuilder(org, n.state.Executable)); err != nil {
			return err
		}
		if command, ok := options.ChaincodeCommand[org]; ok {
			if err := n.saveRun(NodeName(org, RoleChaincode), runState{Stopped: true, Command: command}); err != nil {
				return err
			}
		}
	}
	if n.state.Founded {
		return nil
	}
	return n.makeGenesisBlock(ctx)
}

// deploy creates the channel and brings the chaincode to it.
func (n *Network) deploy(ctx context.Context) error {
	admins := make([]*administration, n.state.Orgs+1)
	defer func() {
		for _, admin := range admins {
			if admin != nil {
				admin.conn.Close()
			}
		}
	}()
	if err := n.eachOrg(ctx, n.joinOrderer); err != nil {
		return err
	}
	err := n.eachOrg(ctx, func(ctx context.Context, org int) (err error) {
		if admins[org], err = n.administer(org); err != nil {
			return err
		}
		if err := n.joinPeer(ctx, org, admins[org]); err != nil {
			return err
		}
		if err := n.install(ctx, org, admins[org]); err != nil {
			return err
		}
		return n.approve(ctx, org, admins[org])
	})
	if err != nil {
		return err
	}
	return n.commitDefinition(ctx, admins[1])
}

// cleanUp ends every process of a network that did not come up. The caller's context may have ended, so it has its own.
func (n *Network) cleanUp(progress *progress) error {
	progress.step("stopping what was started")
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	return n.all(func(node string) error {
		run, err := n.loadRun(node)
		if err != nil {
			return err
		}
		return errors.Join(run.Kill(ctx), n.saveRun(node, runState{Stopped: true, Command: run.Command}))
	})
}

// progress prints steps with the time since the first.
type progress struct {
	out     io.Writer
	started time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, started: time.Now()} }

func (p *progress) step(format string, args ...any) {
	fmt.Fprintf(p.out, "[%5.1fs] %s\n", time.Since(p.started).Seconds(), fmt.Sprintf(format, args...))
}
