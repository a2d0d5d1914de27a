package testnetwork

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// render parses what a template makes of data.
func render(t *testing.T, name string, data any) map[string]any {
	t.Helper()
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name+".tmpl", data); err != nil {
		t.Fatal(err)
	}
	var parsed map[string]any
	if err := yaml.Unmarshal(out.Bytes(), &parsed); err != nil {
		t.Fatalf("%s is not YAML: %v\n%s", name, err, out.String())
	}
	return parsed
}

// at follows a dotted path through parsed YAML.
func at(t *testing.T, parsed map[string]any, path string) any {
	t.Helper()
	var value any = parsed
	for key := range strings.SplitSeq(path, ".") {
		section, ok := value.(map[string]any)
		if !ok {
			t.Fatalf("%s: no section at %q", path, key)
		}
		if value, ok = section[key]; !ok {
			t.Fatalf("%s: no key %q", path, key)
		}
	}
	return value
}

// A path that would break out of any quoting that is not complete.
const awkwardDir = `/tmp/it's "a": dir #1 {{x}}`

func TestPeerWaitsAreShort(t *testing.T) {
	l := layout{dir: awkwardDir, basePort: 20000}
	core := render(t, "core.yaml", l.peerConfig(2))
	for path, most := range map[string]time.Duration{
		"peer.authentication.timewindow":                10 * time.Second,
		"peer.gateway.endorsementTimeout":               3 * time.Second,
		"peer.gateway.broadcastTimeout":                 3 * time.Second,
		"peer.gateway.dialTimeout":                      3 * time.Second,
		"peer.deliveryclient.blockCensorshipTimeoutKey": 3 * time.Second,
		"peer.deliveryclient.reConnectBackoffThreshold": 5 * time.Second,
		"peer.gossip.aliveExpirationTimeout":            10 * time.Second,
		"chaincode.executetimeout":                      5 * time.Second,
	} {
		got, err := time.ParseDuration(at(t, core, path).(string))
		if err != nil || got <= 0 || got > most {
			t.Errorf("%s: %v (%v), must be above 0 and at most %v", path, got, err, most)
		}
	}
	for path, want := range map[string]any{
		"peer.fileSystemPath":                        awkwardDir + "/data/org2.peer",
		"peer.listenAddress":                         "127.0.0.1:20010",
		"peer.localMspId":                            "Org2MSP",
		"peer.tls.enabled":                           true,
		"operations.tls.enabled":                     true,
		"vm.endpoint":                                "",
		"ledger.history.enableHistoryDatabase":       false,
		"chaincode.runtimeParams.useWriteBatch":      true,
		"chaincode.runtimeParams.useGetMultipleKeys": true,
	} {
		if got := at(t, core, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestOrdererConfiguration(t *testing.T) {
	l := layout{dir: awkwardDir, basePort: 20000}
	orderer := render(t, "orderer.yaml", l.ordererConfig(3, 4))
	for path, want := range map[string]any{
		"General.ListenAddress":        "127.0.0.1",
		"General.ListenPort":           uint64(20023),
		"General.LocalMSPID":           "Org3OrdererMSP",
		"General.TLS.Enabled":          true,
		"Admin.TLS.Enabled":            true,
		"Admin.TLS.ClientAuthRequired": true,
		"Operations.TLS.Enabled":       true,
		"FileLedger.Location":          awkwardDir + "/data/org3.orderer/ledger",
	} {
		if got := at(t, orderer, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if cas := at(t, orderer, "General.Cluster.RootCAs").([]any); len(cas) != 4 {
		t.Errorf("cluster trusts %d TLS roots, want 4: %v", len(cas), cas)
	}
}

func TestChannelOfEverySizeAndConsensus(t *testing.T) {
	l := layout{dir: awkwardDir, basePort: 20000}
	for orgs := 1; orgs <= MaxOrgs; orgs++ {
		bft := render(t, "configtx.yaml", l.channelConfig(orgs, BFT))
		if consenters := at(t, bft, "Profiles.Network.Orderer.ConsenterMapping").([]any); len(consenters) != orgs {
			t.Errorf("BFT with %d organisations has %d consenters", orgs, len(consenters))
		}
		raft := render(t, "configtx.yaml", l.channelConfig(orgs, Raft))
		if consenters := at(t, raft, "Profiles.Network.Orderer.EtcdRaft.Consenters").([]any); len(consenters) != orgs {
			t.Errorf("raft with %d organisations has %d consenters", orgs, len(consenters))
		}
		if names := at(t, bft, "Organizations").([]any); len(names) != 2*orgs {
			t.Errorf("%d organisations have %d MSPs, want a peer's and an orderer's each", orgs, len(names))
		}
	}
}
