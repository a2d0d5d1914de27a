package testnetwork

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/test-network/internal/filelock"
)

// Errors for errors.Is.
var (
	// ErrRunning is returned by Up on a network whose nodes run.
	ErrRunning = errors.New("network is already running")
	// ErrBusy is returned by Up when another command starts or stops the same network.
	ErrBusy = errors.New("another command is starting or stopping this network")
	// ErrPortTaken is returned by Up when another program listens on a port the network needs.
	ErrPortTaken = errors.New("port is already in use")
	// ErrUnknownNode is returned for a name that is no node of this network.
	ErrUnknownNode = errors.New("no such node")
)

// Network is a test network in a directory. Any number of Networks, in any number of processes, may be open on one directory;
// its methods are safe for concurrent use.
type Network struct {
	layout
	state state
}

// Open finds the network in dir, running or not. It returns ErrNoNetwork when there is none.
func Open(dir string) (*Network, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	l := layout{dir: dir}
	s, err := l.loadState()
	if err != nil {
		return nil, err
	}
	return newNetwork(dir, s), nil
}

func newNetwork(dir string, s state) *Network {
	return &Network{layout: layout{dir: dir, basePort: s.BasePort}, state: s}
}

// Dir is the network's directory.
func (n *Network) Dir() string { return n.dir }

// Orgs is the number of organisations; they are numbered from 1.
func (n *Network) Orgs() int { return n.state.Orgs }

// Consensus is BFT or Raft.
func (n *Network) Consensus() string { return n.state.Consensus }

// TickInterval is how far apart the ledger's clock ticks are meant to be.
func (n *Network) TickInterval() time.Duration { return n.state.TickInterval }

// MSPIDs are the organisations' membership service providers, sorted.
func (n *Network) MSPIDs() []string {
	ids := make([]string, n.state.Orgs) // up to MaxOrgs, a single digit, the numbers' order is the strings' order
	for i := range ids {
		ids[i] = MSPID(i + 1)
	}
	return ids
}

// Nodes are the names of all nodes, by organisation.
func (n *Network) Nodes() []string {
	var names []string
	for org := 1; org <= n.state.Orgs; org++ {
		for _, role := range roles {
			names = append(names, NodeName(org, role))
		}
	}
	return names
}

// Connection is what a client needs to act as identity (Admin, Operator, Auditor or Nobody) of an organisation, through that
// organisation's own peer. org is from 1 to Orgs.
func (n *Network) Connection(org int, identity string) fabric.Config {
	return fabric.Config{
		Endpoint: n.address(org, portPeer),
		TLSCA:    n.tlsCA(org),
		MSPID:    MSPID(org),
		Cert:     n.user(org, identity, "cert.pem"),
		Key:      n.user(org, identity, "key.pem"),
		Channel:  Channel, Chaincode: Chaincode,
	}
}

// LogFile is where the node's output goes; it is appended to at each start.
func (n *Network) LogFile(node string) (string, error) {
	if _, _, err := n.parse(node); err != nil {
		return "", err
	}
	return n.logFile(node), nil
}

// parse splits the name of one of this network's nodes or returns ErrUnknownNode.
func (n *Network) parse(node string) (int, Role, error) {
	org, role, ok := parseNode(node, n.state.Orgs)
	if !ok {
		return 0, "", fmt.Errorf("node %q: %w, the nodes are org1 to %s, each with .peer, .orderer and .chaincode", node, ErrUnknownNode, OrgName(n.state.Orgs))
	}
	return org, role, nil
}

// Down stops every node and returns when all are gone; data, keys and logs stay. A network that is down already is no error.
func (n *Network) Down(ctx context.Context) error {
	return n.alone(ctx, func() error {
		return n.all(func(node string) error { return n.stop(ctx, node) })
	})
}

// Purge kills every node and removes the directory. A directory that is gone already is no error.
func (n *Network) Purge(ctx context.Context) error {
	if _, err := os.Stat(n.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return n.alone(ctx, func() error {
		if err := n.ours(); err != nil {
			return err
		}
		// What they would still write is removed anyway.
		if err := n.all(func(node string) error { return n.kill(ctx, node) }); err != nil {
			return err
		}
		// network.json goes last: what a purge that fails half-way leaves is still known to be a network's.
		for _, part := range []string{"data", "run", "config", "orgs", "logs"} {
			if err := os.RemoveAll(n.path(part)); err != nil {
				return err
			}
		}
		return os.RemoveAll(n.dir)
	})
}

// alone runs fn while no other command works on the network or any of its nodes.
func (n *Network) alone(ctx context.Context, fn func() error) error {
	lock, err := filelock.Lock(ctx, n.lockFile())
	if errors.Is(err, filelock.ErrLocked) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return fn()
}

// each calls fn for all nodes at once and returns the first error.
func (n *Network) each(ctx context.Context, fn func(ctx context.Context, node string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range n.Nodes() {
		group.Go(func() error { return fn(ctx, node) })
	}
	return group.Wait()
}

// eachOrg calls fn for all organisations at once and returns the first error.
func (n *Network) eachOrg(ctx context.Context, fn func(ctx context.Context, org int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for org := 1; org <= n.state.Orgs; org++ {
		group.Go(func() error { return fn(ctx, org) })
	}
	return group.Wait()
}

// all is each for work that must be tried on every node even when it fails on one.
func (n *Network) all(fn func(node string) error) error {
	var group errgroup.Group
	for _, node := range n.Nodes() {
		group.Go(func() error { return fn(node) })
	}
	return group.Wait()
}

// tail is the end of a node's log, for error messages.
func (n *Network) tail(node string) string {
	const most = 2000
	file, err := os.Open(n.logFile(node))
	if err != nil {
		return ""
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err != nil || size > most {
		file.Seek(-most, io.SeekEnd)
	} else {
		file.Seek(0, io.SeekStart)
	}
	content, _ := io.ReadAll(file)
	return strings.TrimSpace(string(content))
}

// DataDir is where a node keeps its ledger.
func (n *Network) DataDir(node string) string { return n.layout.dataDir(node) }

// GenesisBlock is the file of the channel's first block.
func (n *Network) GenesisBlock() string { return n.genesisBlock() }
