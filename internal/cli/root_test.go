package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestWrongUsageExitsWith2AndNamesTheHelp(t *testing.T) {
	for _, args := range [][]string{
		{"nosuch"}, {"ca", "nosuch"}, {"network", "nosuch"}, {"cert", "issue"}, {"cert", "issue", "--nosuch"},
		{"ca", "init", "extra"}, {"serve"}, {"demo", "--keep"}, {"cert", "revoke", "--reason", "superseded"},
		{"ca", "init", "--dir", "x", "--subject", "CN=x", "--passphrase-file", "a", "--passphrase-env", "b"},
		{"--log-level", "loud", "ca", "client", "x", "--dir", "y"},
	} {
		if code, _, errs := runCLI(args...); code != exitUsage || !strings.Contains(errs, "usage") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

func TestFailuresExitWith1(t *testing.T) {
	for args, want := range map[string]string{
		"cert show 01 --config /nonexistent.yaml":                       "the file does not exist",
		"ca serve --config /nonexistent.yaml":                           "the file does not exist",
		"cert status --cert /nonexistent.pem --issuer /nonexistent.pem": "--cert: open /nonexistent.pem",
	} {
		if code, _, errs := runCLI(strings.Fields(args)...); code != exitFailure || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %s", args, code, errs)
		}
	}
}

// TestEveryCommandHasHelpWithAnExample: what a person reads first.
func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: short %q, example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

// TestCertProofKnowsBothNamesOfItsFlag: --url is what --bridge was called.
func TestCertProofKnowsBothNamesOfItsFlag(t *testing.T) {
	p := newParty(t)
	for _, flag := range []string{"--bridge", "--url"} {
		code, _, errs := runCLI("cert", "proof", "--cert", p.path("cert.pem"), "--issuer", p.path("ca.pem"), flag, "nowhere")
		if code != exitFailure || !strings.Contains(errs, `URL "nowhere/logs/`) {
			t.Errorf("%s: exit %d, %s", flag, code, errs)
		}
	}
	if _, out, _ := runCLI("cert", "proof", "--help"); strings.Contains(out, "--url") || !strings.Contains(out, "--bridge") {
		t.Errorf("help is\n%s", out)
	}
}
