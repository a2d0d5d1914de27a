package testnetwork

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNodeNamesAreReadBack(t *testing.T) {
	n := newNetwork("/tmp/x", state{Orgs: 4, BasePort: 20000})
	nodes := n.Nodes()
	if len(nodes) != 12 {
		t.Fatalf("%d nodes, want 12: %v", len(nodes), nodes)
	}
	for _, node := range nodes {
		org, role, err := n.parse(node)
		if err != nil || NodeName(org, role) != node {
			t.Errorf("parse(%q) = %d, %q, %v", node, org, role, err)
		}
	}
	for _, bad := range []string{"", "peer", "org1", "org1.", "org0.peer", "org5.peer", "org01.peer", "org1.peer.", "org1.peers", "Org1.peer", "../org1.peer", "org1.peer/../../x"} {
		if _, _, err := n.parse(bad); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("parse(%q): %v, want ErrUnknownNode", bad, err)
		}
		if _, err := n.LogFile(bad); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("LogFile(%q): %v, want ErrUnknownNode", bad, err)
		}
	}
}

func TestNoTwoNodesShareAPort(t *testing.T) {
	l := layout{basePort: 20000}
	seen := make(map[int]bool)
	for org := 1; org <= MaxOrgs; org++ {
		for offset := range portNames {
			port := l.port(org, offset)
			if seen[port] || port < 20000 || port >= 20000+MaxOrgs*portsPerOrg {
				t.Errorf("port %d of organisation %d: taken twice or outside the block", port, org)
			}
			seen[port] = true
		}
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	base, err := freeBasePort(2)
	if err != nil {
		t.Fatal(err)
	}
	l := layout{basePort: base}
	if err := l.checkPorts(2); err != nil {
		t.Fatalf("free ports: %v", err)
	}
	listener, err := net.Listen("tcp", l.address(2, portOrdererAdmin))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = l.checkPorts(2)
	if !errors.Is(err, ErrPortTaken) {
		t.Fatalf("checkPorts: %v, want ErrPortTaken", err)
	}
	for _, part := range []string{"org2.orderer", "admin", listener.Addr().String(), "base port"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestOpenRefusesWhatIsNoNetwork(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("empty directory: %v, want ErrNoNetwork", err)
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("absent directory: %v, want ErrNoNetwork", err)
	}
	for name, content := range map[string]string{
		"not JSON": "{", "later version": `{"version": 99, "organisations": 4}`, "absurd": `{"version": 1, "organisations": 400}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "network.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || errors.Is(err, ErrNoNetwork) || !strings.Contains(err.Error(), "network.json") {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
	}
}

func TestStateSurvivesSaving(t *testing.T) {
	l := layout{dir: t.TempDir()}
	want := state{Version: stateVersion, Orgs: 3, Consensus: Raft, BasePort: 20000, TickInterval: DefaultTickInterval, Executable: "/x", FabricBin: "/y", Founded: true}
	if err := l.saveState(want); err != nil {
		t.Fatal(err)
	}
	n, err := Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n.state != want {
		t.Errorf("read %+v, want %+v", n.state, want)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(precious, []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Up(t.Context(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("Up: %v, want a refusal that names the file", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestAnExistingNetworkIsNotChanged(t *testing.T) {
	l := layout{dir: t.TempDir()}
	if err := l.saveState(state{Orgs: 3, Consensus: BFT, BasePort: 20000, TickInterval: DefaultTickInterval, Founded: true}); err != nil {
		t.Fatal(err)
	}
	for field, options := range map[string]Options{
		"organisations": {Dir: l.dir, Orgs: 4}, "consensus": {Dir: l.dir, Consensus: Raft},
		"base port": {Dir: l.dir, BasePort: 21000}, "tick interval": {Dir: l.dir, TickInterval: DefaultTickInterval * 2},
	} {
		if _, _, err := resolve(options); err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "purge") {
			t.Errorf("%s: %v, want a refusal that names it and the way out", field, err)
		}
	}
	got, founded, err := resolve(Options{Dir: l.dir, BasePort: AnyPort})
	if err != nil || !founded || got.Orgs != 3 || got.BasePort != 20000 {
		t.Errorf("resolve: %+v, %v, %v", got, founded, err)
	}
}
