package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/load"
)

func TestBenchIssueRefusesBeforeItMeasures(t *testing.T) {
	for want, args := range map[string][]string{
		`--engine "bogus"`: {"--engine", "bogus"},
		"--rate 0":         {"--rate", "0"},
		"--cas 0":          {"--cas", "0"},
		"--out: open":      {"--out", filepath.Join(t.TempDir(), "none", "result.json")},
	} {
		if code, _, errs := runCLI(append([]string{"bench", "issue"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %s", args, code, errs)
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
