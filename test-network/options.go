package testnetwork

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Channel and Chaincode are the names every test network uses.
const (
	Channel   = "certanchor"
	Chaincode = "certanchor"
)

// Consensus protocols.
const (
	BFT  = "bft"  // SmartBFT: survives one hostile orderer in four
	Raft = "raft" // etcdraft: survives a crashed minority, trusts every orderer
)

// Defaults and limits of Options.
const (
	DefaultOrgs         = 4
	MaxOrgs             = 7
	DefaultBasePort     = 17050
	AnyPort             = -1 // as BasePort: pick a free block
	DefaultTickInterval = wire.DefaultTickInterval
)

// Options say what network Up makes. Those of an existing network are kept in its directory: Up refuses to change them.
type Options struct {
	// Dir holds everything. Required; made when absent, and refused when it holds something that is not a network.
	Dir string
	// Orgs is the number of organisations, 1 to MaxOrgs; 0 means DefaultOrgs. With fewer than four, BFT bears no orderer
	// that is hostile or away; raft bears one that is away from three on.
	Orgs int
	// Consensus is BFT or Raft; empty means BFT.
	Consensus string
	// BasePort is the first of the consecutive ports the network uses, ten for each organisation, 1024 to 65535; 0 means
	// DefaultBasePort, AnyPort picks a free block.
	BasePort int
	// TickInterval is how far apart the ledger's clock ticks are meant to be, at least 100 ms; 0 means DefaultTickInterval.
	// The network only tells the contract: ticking is the bridges' work.
	TickInterval time.Duration
	// Executable is the certanchor program that serves the chaincode and is the peers' external builder; empty means the
	// running one.
	Executable string
	// ChaincodeCommand replaces the program of an organisation's chaincode server (key: 1 for org1), for tests that tamper.
	// The standard arguments are appended to it.
	ChaincodeCommand map[int][]string
	// Progress receives one line for each step; nil discards them.
	Progress io.Writer
}

// complete fills in the defaults and checks what is left. Its errors name the field, the value and the rule.
func (o Options) complete() (Options, error) {
	var err error
	if o.Dir, err = absoluteDir(o.Dir); err != nil {
		return o, err
	}
	if o.Orgs == 0 {
		o.Orgs = DefaultOrgs
	}
	if o.Consensus == "" {
		o.Consensus = BFT
	}
	if o.BasePort == 0 {
		o.BasePort = DefaultBasePort
	}
	if o.TickInterval == 0 {
		o.TickInterval = DefaultTickInterval
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return o, fmt.Errorf("certanchor program: %w", err)
		}
	}
	if o.Executable, err = filepath.Abs(o.Executable); err != nil {
		return o, fmt.Errorf("certanchor program %q: %w", o.Executable, err)
	}
	return o, o.check()
}

func absoluteDir(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("directory: empty, it must name where the network is kept")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("directory %q: %w", dir, err)
	}
	return abs, nil
}

func (o Options) check() error {
	switch {
	case o.Orgs < 1 || o.Orgs > MaxOrgs:
		return fmt.Errorf("organisations: %d, must be from 1 to %d", o.Orgs, MaxOrgs)
	case o.Consensus != BFT && o.Consensus != Raft:
		return fmt.Errorf("consensus: %q, must be %q or %q", o.Consensus, BFT, Raft)
	case o.TickInterval < 100*time.Millisecond:
		return fmt.Errorf("tick interval: %v, must be at least 100ms", o.TickInterval)
	}
	if last := o.BasePort + o.Orgs*portsPerOrg - 1; o.BasePort != AnyPort && (o.BasePort < 1024 || last > 65535) {
		return fmt.Errorf("base port: %d, must be from 1024 to %d for %d organisations",
			o.BasePort, 65535-o.Orgs*portsPerOrg+1, o.Orgs)
	}
	for org, command := range o.ChaincodeCommand {
		if org < 1 || org > o.Orgs || len(command) == 0 {
			return fmt.Errorf("chaincode command of organisation %d: %q, must be a program for an organisation from 1 to %d", org, command, o.Orgs)
		}
	}
	info, err := os.Stat(o.Executable)
	if err != nil {
		return fmt.Errorf("certanchor program: %w", err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("certanchor program: %s is not executable", o.Executable)
	}
	return nil
}
