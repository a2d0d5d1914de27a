package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/bench"
	"github.com/certanchor/certanchor/internal/load"
)

func TestBenchIssueRefusesBeforeItMeasures(t *testing.T) {
	for want, args := range map[string][]string{
		`--engine "bogus"`: {"--engine", "bogus"},
		"--rate 0":         {"--rate", "0"},
		`--ca-key "dsa"`:   {"--ca-key", "dsa"},
		"--cas 0":          {"--cas", "0"},
		"--out: open":      {"--out", filepath.Join(t.TempDir(), "none", "result.json")},
	} {
		if code, _, errs := runCLI(append([]string{"bench", "issue"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
}

func TestBenchStatusRefusesBeforeItMeasures(t *testing.T) {
	for want, args := range map[string][]string{
		"--rate 0":        {"--rate", "0"},
		"--revoke-rate 0": {"--revoke-rate", "0"},
		"--samples 0":     {"--samples", "0"},
		"--rounds -1":     {"--rounds", "-1"},
		"--out: open":     {"--out", filepath.Join(t.TempDir(), "none", "result.json")},
	} {
		if code, _, errs := runCLI(append([]string{"bench", "status"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
}

func TestAStatusMeasurementFailsWhenABoundIsMissed(t *testing.T) {
	phase := func(p99 float64, failed int64, issued *load.Result) *bench.StatusPhase {
		p := &bench.StatusPhase{Issued: issued, Failed: map[string]int64{"no answer": failed}}
		p.Merge.P99, p.Everywhere.Samples = p99, 1000
		return p
	}
	kept := bench.Takeover{Frozen: []float64{900}, Killed: []float64{1999}}
	for want, r := range map[string]*bench.StatusResult{
		"":                       {Idle: phase(900, 0, nil), Loaded: phase(1000, 10, &load.Result{Sent: 1, Outcomes: map[string]int64{load.OK: 1}}), Takeover: kept},
		"merge delay idle":       {Idle: phase(1001, 0, nil), Loaded: phase(1, 0, nil), Takeover: kept},
		"merge delay under load": {Idle: phase(1, 0, nil), Loaded: phase(1001, 0, nil), Takeover: kept},
		"takeover: 2001 ms":      {Takeover: bench.Takeover{Killed: []float64{1, 2001}}},
		"11 of 1011 revocations": {Idle: phase(1, 11, nil), Takeover: kept},
		"issued: 1 of 1 failed":  {Loaded: phase(1, 0, &load.Result{Sent: 1}), Takeover: kept},
	} {
		err := judgeStatus(r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestAMeasurementWithManyFailuresFails(t *testing.T) {
	for ok, fails := range map[int64]bool{1000: false, 990: false, 989: true, 0: true} {
		if err := tooManyFailed(&load.Result{Sent: 1000, Outcomes: map[string]int64{load.OK: ok}}); (err != nil) != fails {
			t.Errorf("%d of 1000: %v", ok, err)
		}
	}
}

func TestTheResultFileIsThereOnlyWithAResult(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result.json")
	for _, c := range []struct {
		value any
		want  string
	}{{nil, ""}, {"a long result", "\"a long result\"\n"}, {1, "1\n"}, {nil, "1\n"}} {
		r, err := openResult(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.value == nil {
			err = r.discard()
		} else {
			err = r.write(c.value)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != c.want {
			t.Errorf("file has %q, want %q", got, c.want)
		}
	}
}

func TestBenchOCSPRefusesBeforeItMeasures(t *testing.T) {
	for want, args := range map[string][]string{
		"--rounds 0":      {"--rounds", "0"},
		"--duration 0s":   {"--duration", "0s"},
		"--connections 0": {"--connections", "0"},
		"--out: open":     {"--out", filepath.Join(t.TempDir(), "none", "result.json")},
	} {
		if code, _, errs := runCLI(append([]string{"bench", "ocsp"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
}
