package testnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/proc"
)

// stateVersion is raised when an older directory cannot be understood any more.
const stateVersion = 1

// state is network.json: what was decided when the network was made. Only Up writes it.
type state struct {
	Version      int           `json:"version"`
	Orgs         int           `json:"organisations"`
	Consensus    string        `json:"consensus"`
	BasePort     int           `json:"base_port"`
	TickInterval time.Duration `json:"tick_interval_ns"`
	Executable   string        `json:"executable"`
	FabricBin    string        `json:"fabric_programs"`
	// Founded is set once the first transaction has committed on every peer. A directory without it is what an Up that
	// failed left behind; the next one starts afresh.
	Founded bool `json:"founded"`
}

// runState is run/NODE.json: the node's process, and how it is started. Writers hold the node's lock.
type runState struct {
	proc.ID
	Started time.Time `json:"started,omitzero"`
	// Stopped tells a node that was stopped on purpose from one that died.
	Stopped bool `json:"stopped,omitempty"`
	// Command replaces the program of a chaincode server.
	Command []string `json:"command,omitempty"`
}

// ErrNoNetwork is returned by Open when the directory holds no network.
var ErrNoNetwork = errors.New("no network here")

func (l layout) loadState() (state, error) {
	var s state
	content, err := os.ReadFile(l.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%s: %w (certanchor network up makes one)", l.dir, ErrNoNetwork)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("%s: %w", l.stateFile(), err)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("%s: version %d, this program knows %d: purge the network with the program that made it", l.stateFile(), s.Version, stateVersion)
	}
	if s.Orgs < 1 || s.Orgs > MaxOrgs {
		return s, fmt.Errorf("%s: organisations: %d, must be from 1 to %d", l.stateFile(), s.Orgs, MaxOrgs)
	}
	return s, nil
}

func (l layout) saveState(s state) error {
	s.Version = stateVersion
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomic(l.stateFile(), append(content, '\n'), 0o600)
}

// loadRun returns the zero value for a node that was never started.
func (l layout) loadRun(node string) (runState, error) {
	var run runState
	content, err := os.ReadFile(l.runFile(node))
	if errors.Is(err, fs.ErrNotExist) {
		return runState{Stopped: true}, nil
	}
	if err != nil {
		return run, err
	}
	if err := json.Unmarshal(content, &run); err != nil {
		return run, fmt.Errorf("%s: %w", l.runFile(node), err)
	}
	return run, nil
}

func (l layout) saveRun(node string, run runState) error {
	content, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomic(l.runFile(node), append(content, '\n'), 0o600)
}

// ours reports whether dir is absent, empty, or a network's: Up and Purge touch nothing else.
func (l layout) ours() error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var others []string
	for _, entry := range entries {
		switch entry.Name() {
		case "network.json":
			return nil
		case "network.lock":
		default:
			others = append(others, entry.Name())
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("directory %s: holds other files (%s) and no network: choose an empty one", l.dir, strings.Join(others[:min(3, len(others))], ", "))
	}
	return nil
}
