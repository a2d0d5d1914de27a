package testnetwork

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/certanchor/certanchor/internal/proc"
)

// NodeState is what a node's process does.
type NodeState string

// States of a node.
const (
	StateRunning NodeState = "running"
	StateFrozen  NodeState = "frozen"  // suspended, by Freeze or by hand
	StateStopped NodeState = "stopped" // stopped on purpose, or never started
	StateDead    NodeState = "dead"    // ended by itself or killed
)

// probeTimeout bounds how long Status waits for a node that does not answer.
const probeTimeout = 2 * time.Second

// straggling is how many blocks a healthy node may be behind: the nodes are not asked at exactly the same moment.
const straggling = 20

// NodeStatus is one node as Status found it.
type NodeStatus struct {
	Name         string            `json:"name"`
	Organization string            `json:"organization"`
	MSPID        string            `json:"msp_id"`
	Role         Role              `json:"role"`
	State        NodeState         `json:"state"`
	PID          int               `json:"pid,omitempty"`     // of a process that exists
	Started      time.Time         `json:"started,omitzero"`  // UTC
	Endpoints    map[string]string `json:"endpoints"`         // host:port by use
	Height       uint64            `json:"height,omitempty"`  // blocks in its ledger; 0: unknown, or a chaincode server
	Leader       bool              `json:"leader,omitempty"`  // the orderer that leads, as most orderers see it
	Healthy      bool              `json:"healthy"`           // it answers, says that it is well, and is not far behind
	Problem      string            `json:"problem,omitempty"` // why it is not healthy
	RSS          int64             `json:"rss_bytes,omitempty"`
	Log          string            `json:"log"`
}

// Status is a whole network.
type Status struct {
	Dir          string        `json:"dir"`
	Channel      string        `json:"channel"`
	Consensus    string        `json:"consensus"`
	BasePort     int           `json:"base_port"`
	TickInterval time.Duration `json:"tick_interval_ns"`
	Healthy      bool          `json:"healthy"` // every node is
	Nodes        []NodeStatus  `json:"nodes"`
}

// Status looks at all nodes at once; one that does not answer within two seconds is reported as such and does not hold up the
// others. It fails only when the directory cannot be read.
func (n *Network) Status(ctx context.Context) (Status, error) {
	names := n.Nodes()
	status := Status{
		Dir: n.dir, Channel: Channel, Consensus: n.state.Consensus, BasePort: n.basePort, TickInterval: n.state.TickInterval,
		Healthy: true, Nodes: make([]NodeStatus, len(names)),
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	views := make([]orderView, len(names))
	failures := make([]error, len(names))
	var nodes sync.WaitGroup
	for i, name := range names {
		nodes.Go(func() { status.Nodes[i], views[i], failures[i] = n.nodeStatus(ctx, name) })
	}
	nodes.Wait()
	if err := errors.Join(failures...); err != nil {
		return status, err
	}
	leader := leaderOf(views)
	highest := status.highest()
	for i := range status.Nodes {
		node := &status.Nodes[i]
		if node.Healthy && node.Role != RoleChaincode && node.Height+straggling < highest {
			node.Healthy, node.Problem = false, fmt.Sprintf("%d blocks behind", highest-node.Height)
		}
		status.Healthy = status.Healthy && node.Healthy
		node.Leader = leader != 0 && node.Name == NodeName(leader, RoleOrderer)
	}
	return status, nil
}

func (s Status) highest() uint64 {
	var highest uint64
	for _, node := range s.Nodes {
		highest = max(highest, node.Height)
	}
	return highest
}

// Behind are the running nodes of a role whose ledgers miss more than one block of the longest one.
func (s Status) Behind(role Role) []string {
	var names []string
	for _, node := range s.Nodes {
		if node.Role == role && node.State == StateRunning && node.Height+1 < s.highest() {
			names = append(names, node.Name)
		}
	}
	return names
}

// AwaitLevel returns when every node is healthy and all ledgers have the same height, or with ctx's error and what is amiss.
//
// A BFT orderer that was frozen or dead learns what it missed from what the others do next, so on an idle network it may stay a
// block behind, and one whose ledger is level need not take part in consensus again yet. Until it does, the others have no
// spare. A test that is about to freeze another orderer goes on committing until the ledgers are level; nettest.Level does.
func (n *Network) AwaitLevel(ctx context.Context) error {
	var amiss error
	err := retry(ctx, func(ctx context.Context) error {
		status, err := n.Status(ctx)
		switch {
		case err != nil:
			return permanent{err}
		case ctx.Err() == nil: // else the probes failed for that
			amiss = status.level()
		}
		return amiss
	})
	if ctx.Err() != nil && amiss != nil {
		return fmt.Errorf("ledgers are not level: %w: %w", ctx.Err(), amiss)
	}
	return err
}

// level says which node is not healthy or has another height than the rest.
func (s Status) level() error {
	var first *NodeStatus
	for i := range s.Nodes {
		node := &s.Nodes[i]
		switch {
		case !node.Healthy:
			return fmt.Errorf("%s is not healthy: %s", node.Name, node.Problem)
		case node.Role == RoleChaincode:
		case first == nil:
			first = node
		case node.Height != first.Height:
			return fmt.Errorf("%s has %d blocks, %s has %d", first.Name, first.Height, node.Name, node.Height)
		}
	}
	return nil
}

// Leader is the name of the orderer that leads, as most of those that answer saw it when they last committed a block. It
// returns an error when too few agree.
func (n *Network) Leader(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	views := make([]orderView, n.state.Orgs)
	var orderers sync.WaitGroup
	for i := range views {
		orderers.Go(func() {
			if metrics, err := n.metrics(ctx, i+1, portOrdererOperations); err == nil {
				views[i] = orderViewOf(i+1, metrics)
			}
		})
	}
	orderers.Wait()
	leader := leaderOf(views)
	if leader == 0 {
		return "", fmt.Errorf("no leader: the orderers do not agree on one, or too few answer")
	}
	return NodeName(leader, RoleOrderer), nil
}

// orderView is whom one orderer sees lead, at the height it has reached; the zero value is no opinion.
type orderView struct {
	leader int // an organisation
	height uint64
}

func orderViewOf(org int, metrics map[string]uint64) orderView {
	view := orderView{height: metrics[metricHeight]}
	switch {
	case metrics[metricBFTLeader] != 0:
		view.leader = int(metrics[metricBFTLeader]) // consenters are numbered as organisations are
	case metrics[metricRaftLeading] != 0:
		view.leader = org
	}
	return view
}

// leaderOf lets only the orderers that are furthest ahead vote: one that was frozen still sees the leader of its last block.
func leaderOf(views []orderView) int {
	var furthest uint64
	for _, view := range views {
		furthest = max(furthest, view.height)
	}
	votes := make(map[int]int)
	for _, view := range views {
		if view.leader != 0 && view.height == furthest {
			votes[view.leader]++
		}
	}
	leader, tie := 0, false
	for candidate, count := range votes {
		switch {
		case leader == 0 || count > votes[leader]:
			leader, tie = candidate, false
		case count == votes[leader]:
			tie = true
		}
	}
	if tie {
		return 0
	}
	return leader
}

func (n *Network) nodeStatus(ctx context.Context, name string) (NodeStatus, orderView, error) {
	org, role, err := n.parse(name)
	if err != nil {
		return NodeStatus{}, orderView{}, err
	}
	run, err := n.loadRun(name)
	if err != nil {
		return NodeStatus{}, orderView{}, err
	}
	node := NodeStatus{
		Name: name, Organization: OrgName(org), MSPID: MSPID(org), Role: role,
		Endpoints: n.endpoints(org, role), Log: n.logFile(name),
	}
	if role == RoleOrderer {
		node.MSPID = OrdererMSPID(org)
	}
	switch state := run.State(); {
	case state == proc.Running:
		node.State = StateRunning
	case state == proc.Frozen:
		node.State = StateFrozen
	case run.Stopped:
		node.State = StateStopped
	default:
		node.State = StateDead
	}
	if node.State == StateRunning || node.State == StateFrozen {
		node.PID, node.Started, node.RSS = run.PID, run.Started, run.RSS()
	}
	if node.State != StateRunning {
		node.Problem = string(node.State)
		return node, orderView{}, nil
	}
	if err := n.probe(ctx, name); err != nil {
		node.Problem = err.Error()
		return node, orderView{}, nil
	}
	node.Healthy = true
	var view orderView
	if role != RoleChaincode {
		node.Height, view, err = n.height(ctx, org, role)
		if err != nil {
			node.Healthy, node.Problem = false, err.Error()
		}
	}
	return node, view, nil
}

// height asks a node how many blocks it has.
func (n *Network) height(ctx context.Context, org int, role Role) (uint64, orderView, error) {
	port := portPeerOperations
	if role == RoleOrderer {
		port = portOrdererOperations
	}
	metrics, err := n.metrics(ctx, org, port)
	if err != nil {
		return 0, orderView{}, err
	}
	height := metrics[metricHeight]
	if height == 0 {
		return 0, orderView{}, fmt.Errorf("has not joined channel %s", Channel)
	}
	return height, orderViewOf(org, metrics), nil
}

// endpoints are a node's addresses by what they are for.
func (n *Network) endpoints(org int, role Role) map[string]string {
	endpoints := make(map[string]string)
	for offset, port := range portNames {
		if port.role == role && offset != portPeerChaincode {
			endpoints[port.use] = n.address(org, offset)
		}
	}
	return endpoints
}

// Endpoints are a node's addresses (host:port) by what they are for: "peer", "orderer", "chaincode", "operations", "admin".
func (n *Network) Endpoints(node string) (map[string]string, error) {
	org, role, err := n.parse(node)
	if err != nil {
		return nil, err
	}
	return n.endpoints(org, role), nil
}
