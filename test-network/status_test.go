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
