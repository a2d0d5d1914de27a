package testnetwork

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptionsAreRefusedByFieldValueAndRule(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options Options
		want    []string
	}{
		"no directory":           {Options{}, []string{"directory"}},
		"too many organisations": {Options{Dir: "x", Orgs: 8}, []string{"organisations", "8", "from 1 to 7"}},
		"negative organisations": {Options{Dir: "x", Orgs: -1}, []string{"organisations", "-1", "from 1 to 7"}},
		"unknown consensus":      {Options{Dir: "x", Consensus: "kafka"}, []string{"consensus", `"kafka"`, `"bft" or "raft"`}},
		"privileged port":        {Options{Dir: "x", BasePort: 80}, []string{"base port", "80", "from 1024 to 65496"}},
		"port past the end":      {Options{Dir: "x", BasePort: 65500}, []string{"base port", "65500", "from 1024 to 65496"}},
		"tick interval":          {Options{Dir: "x", TickInterval: time.Millisecond}, []string{"tick interval", "1ms", "100ms"}},
		"missing program":        {Options{Dir: "x", Executable: "/nonexistent/certanchor"}, []string{"certanchor program", "/nonexistent/certanchor"}},
		"directory as program":   {Options{Dir: "x", Executable: "/"}, []string{"certanchor program", "not executable"}},
		"chaincode of nobody": {
			Options{Dir: "x", ChaincodeCommand: map[int][]string{5: {"evil"}}}, []string{"chaincode command", "5", "from 1 to 4"}},
		"empty chaincode command": {
			Options{Dir: "x", ChaincodeCommand: map[int][]string{1: nil}}, []string{"chaincode command", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.options.Executable == "" {
				test.options.Executable = self
			}
			_, err := test.options.complete()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestOptionsHaveDefaults(t *testing.T) {
	got, err := Options{Dir: "x"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if got.Orgs != DefaultOrgs || got.Consensus != BFT || got.BasePort != DefaultBasePort || got.TickInterval != DefaultTickInterval ||
		!filepath.IsAbs(got.Dir) || !filepath.IsAbs(got.Executable) || got.Progress == nil {
		t.Errorf("defaults: %+v", got)
	}
}
