package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	testnetwork "github.com/certanchor/certanchor/test-network"
)

func TestNetworkTableShowsEveryNode(t *testing.T) {
	var out bytes.Buffer
	err := printStatusTable(&out, testnetwork.Status{
		Dir: "/somewhere", Channel: "certanchor", Consensus: "bft",
		Nodes: []testnetwork.NodeStatus{
			{Name: "org1.orderer", MSPID: "Org1OrdererMSP", Role: testnetwork.RoleOrderer, State: testnetwork.StateRunning, PID: 77,
				Endpoints: map[string]string{"orderer": "127.0.0.1:17053"}, Height: 12, Leader: true, Healthy: true, RSS: 40 << 20},
			{Name: "org2.peer", MSPID: "Org2MSP", Role: testnetwork.RolePeer, State: testnetwork.StateFrozen, PID: 78,
				Endpoints: map[string]string{"peer": "127.0.0.1:17060"}, Problem: "frozen", RSS: 60 << 20},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"org1.orderer", "12 *", "127.0.0.1:17053", "healthy", "org2.peer", "frozen", "100 MiB in all", "/somewhere"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("table does not show %q:\n%s", part, out.String())
		}
	}
}

func TestLogsShowTheLastLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int]string{-1: "one\ntwo\nthree\n", 0: "", 1: "three\n", 2: "two\nthree\n", 9: "one\ntwo\nthree\n"} {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := copyTail(&out, file, lines); err != nil || out.String() != want {
			t.Errorf("last %d lines: %q, %v, want %q", lines, out.String(), err, want)
		}
		file.Close()
	}
}

func TestNetworkUpAsksOnlyForWhatItsUserAsked(t *testing.T) {
	for _, test := range []struct {
		args []string
		want testnetwork.Options
	}{
		{nil, testnetwork.Options{}},
		{[]string{"--orgs", "4", "--consensus", "bft"}, testnetwork.Options{Orgs: 4, Consensus: "bft"}},
		{[]string{"--base-port", "0"}, testnetwork.Options{BasePort: testnetwork.AnyPort}},
		{[]string{"--base-port", "18050"}, testnetwork.Options{BasePort: 18050}},
	} {
		var asked testnetwork.Options
		cmd := newNetworkUpCommand(new(string))
		if err := cmd.ParseFlags(test.args); err != nil {
			t.Fatal(err)
		}
		asked.Orgs, _ = cmd.Flags().GetInt("orgs")
		asked.Consensus, _ = cmd.Flags().GetString("consensus")
		asked.BasePort, _ = cmd.Flags().GetInt("base-port")
		asked.TickInterval, _ = cmd.Flags().GetDuration("tick-interval")
		askedOnly(cmd, &asked)
		if asked.Orgs != test.want.Orgs || asked.Consensus != test.want.Consensus || asked.BasePort != test.want.BasePort || asked.TickInterval != 0 {
			t.Errorf("%v: %+v, want %+v", test.args, asked, test.want)
		}
	}
}

func TestNetworkCommandsRefuseWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"up", "extra"}, {"stop"}, {"logs"}, {"logs", "a", "b"}, {"status", "extra"}, {"down", "extra"},
	} {
		cmd := newNetworkCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append(args, "--dir", t.TempDir()))
		if err := cmd.Execute(); !errors.Is(err, errUsage) {
			t.Errorf("network %v: %v, want a usage error", args, err)
		}
	}
	cmd := newNetworkCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"status", "--dir", t.TempDir()})
	if err := cmd.Execute(); !errors.Is(err, testnetwork.ErrNoNetwork) {
		t.Errorf("status of nothing: %v, want ErrNoNetwork", err)
	}
}
