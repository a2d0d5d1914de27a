// Package cli is the certanchor command line: it reads flags and configuration, builds the pieces and prints what they say.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// Exit codes of Main.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// errUsage marks errors in flags and arguments.
var errUsage = errors.New("usage")

// Main runs the command line and returns the process's exit status: 0, 1 for a failure, 2 for wrong usage, 3 of verify for a
// certificate that is proven not to be good. SIGINT and SIGTERM cancel the command's context; a second one ends the process at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the default action is back for the second signal

	root := newRoot()
	started := false
	prepare(root, &started)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errRevoked):
		fmt.Fprintf(stderr, "certanchor: %v\n", err)
		return exitRevoked
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "certanchor: %v\n", err)
		return exitUsage
	case !started: // cobra refused the flags or arguments
		fmt.Fprintf(stderr, "certanchor: %v: %v; see %s --help\n", errUsage, err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "certanchor: %s\n", explain(err))
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "certanchor",
		Short: "a PKI anchored in a ledger that several organisations endorse",
		Long: `certanchor records certificate issuance and revocation in a Merkle-logged ledger that several organisations endorse, and
answers OCSP from it within a fraction of a second.

The ledger is either a Hyperledger Fabric channel or, on one machine, an embedded store that runs the same contract.`,
		Example: `  certanchor demo                      # one certificate's whole life, in seconds
  certanchor ca init --dir pki/ca --subject "CN=Example CA"
  certanchor serve --dir pki           # CA, ledger and OCSP responder in one process
  certanchor network up                # a real four-organisation Fabric network on this machine`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w of %s: %w; see %s --help", errUsage, cmd.CommandPath(), err, cmd.CommandPath())
	})
	var level string
	root.PersistentFlags().StringVar(&level, "log-level", "info", "least severity that is logged: debug, info, warn or error")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return setupLog(cmd, level) }
	root.AddCommand(
		newServeCommand(), newCACommand(), newOCSPBridgeCommand(), newCertCommand(), newCRLCommand(), newDemoCommand(), newBenchCommand(),
		newNetworkCommand(), newChaincodeCommand(), newChaincodeBuilderCommand(), newLedgerCommand(), newAuditCommand(),
		newProofCommand(), newVerifyCommand(), newPolicyCommand(), newMonitorCommand(),
	)
	return root
}

// prepare has every command note that it has started, and every group of commands refuse a word that is none of them.
func prepare(cmd *cobra.Command, started *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	} else if cmd.HasSubCommands() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: %q is no command of %s; see %s --help", errUsage, args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	if pre := cmd.PreRunE; pre != nil {
		cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
			err := pre(cmd, args)
			*started = *started || err != nil // a file that is wrong, not the usage
			return err
		}
	}
	for _, sub := range cmd.Commands() {
		prepare(sub, started)
	}
}

func setupLog(cmd *cobra.Command, level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("%w: --log-level %q must be debug, info, warn or error", errUsage, level)
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l})))
	return nil
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// explain adds what the user can see of a refusal: field, value and rule stand in the message already, so it is enough not
// to bury them in wrapping.
func explain(err error) string {
	var we *wire.Error
	if errors.As(err, &we) && err.Error() == we.Error() {
		return string(we.Code) + ": " + we.Error()
	}
	var p *problem.Problem
	if errors.As(err, &p) {
		return fmt.Sprintf("the server answered %d %s (%s): %s", p.Status, p.Title, p.Code, p.Detail)
	}
	return err.Error()
}

// printJSON writes v indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// noArgs refuses arguments, and names the flags that were probably meant.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := ""
	if names := cmd.Annotations[requiredFlags]; names != "" {
		meant = "use " + names + "; "
	}
	return fmt.Errorf("%w: %s takes no arguments, it got %q; %ssee %s --help", errUsage, cmd.CommandPath(), args[0], meant, cmd.CommandPath())
}

// oneArg accepts exactly one argument and says what it is when it is missing.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%w: %s takes one argument, %s; it got %d", errUsage, cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}
