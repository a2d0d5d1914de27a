package testnetwork

import (
	"strings"
	"testing"
)

func TestMetricsAreRead(t *testing.T) {
	got, err := parseMetrics(strings.NewReader(`# HELP ledger_blockchain_height Height of the chain in blocks.
# TYPE ledger_blockchain_height gauge
ledger_blockchain_height{channel="certanchor"} 17
ledger_blockchain_height{channel="other"} 99
consensus_BFT_leader_id{channel="certanchor"} 3
go_goroutines 1.5e+06
`))
	if err != nil || got[metricHeight] != 17 || got[metricBFTLeader] != 3 || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseMetrics(strings.NewReader(`ledger_blockchain_height{channel="certanchor"} NaN?`)); err == nil {
		t.Error("nonsense accepted")
	}
}

func TestLeaderIsWhomTheFurthestSee(t *testing.T) {
	for name, test := range map[string]struct {
		views []orderView
		want  int
	}{
		"nobody answers":                     {[]orderView{{}, {}}, 0},
		"all agree":                          {[]orderView{{2, 9}, {2, 9}, {2, 9}, {2, 9}}, 2},
		"one was frozen and thinks it leads": {[]orderView{{1, 7}, {2, 9}, {2, 9}, {2, 9}}, 2},
		"raft: only the leader knows":        {[]orderView{{0, 9}, {2, 9}, {0, 9}}, 2},
		"a tie is nobody":                    {[]orderView{{1, 9}, {2, 9}}, 0},
	} {
		if got := leaderOf(test.views); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestStragglersAreFound(t *testing.T) {
	s := Status{Nodes: []NodeStatus{
		{Name: "org1.peer", Role: RolePeer, State: StateRunning, Height: 48, Healthy: true},
		{Name: "org1.orderer", Role: RoleOrderer, State: StateRunning, Height: 47, Healthy: true},
		{Name: "org2.orderer", Role: RoleOrderer, State: StateRunning, Height: 16, Healthy: true},
		{Name: "org3.orderer", Role: RoleOrderer, State: StateFrozen},
		{Name: "org1.chaincode", Role: RoleChaincode, State: StateRunning, Healthy: true},
	}}
	if got := s.Behind(RoleOrderer); len(got) != 1 || got[0] != "org2.orderer" {
		t.Errorf("behind: %v, want org2.orderer alone", got)
	}
	if err := s.level(); err == nil || !strings.Contains(err.Error(), "org1.orderer") {
		t.Errorf("level: %v, want the first node that differs", err)
	}
}
