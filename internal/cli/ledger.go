package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/node"
	"github.com/certanchor/certanchor/network/embedded"
)

func newLedgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ledger",
		Short:   "host or check an embedded ledger",
		Example: `  certanchor ledger serve --dir /var/lib/certanchor/ledger`,
		Long: `An embedded ledger is one organisation's ledger on one machine: the same rules as on Hyperledger Fabric, over a key-value
store in one directory. certanchor serve hosts its own; these commands are for running the pieces apart.`,
	}
	cmd.AddCommand(newLedgerServeCommand(), newLedgerVerifyCommand())
	return cmd
}

func newLedgerServeCommand() *cobra.Command {
	var (
		o      embedded.Options
		socket string
	)
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "host an embedded ledger for other processes, over a Unix socket",
		Long: `Hosts the embedded ledger in DIR, creating it when there is none, for the processes of the same user: a CA bridge and an
OCSP bridge that run apart share it through the socket. Only one process can have a ledger open.

Who can reach the socket may act in any role of the organisation, so its directory must be closed to other users (mode 0700).

Name, MSP ID and tick interval are fixed when the ledger is created. Later they may be left out; other values are refused.`,
		Example: `  certanchor ledger serve --dir /var/lib/certanchor/ledger
  certanchor ledger serve --dir ledger --socket run/ledger.sock --msp-id Org1MSP --tick-interval 5s`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				socket = filepath.Join(o.Dir, node.SocketFile)
			}
			o.Log = slog.Default()
			return serveLedger(cmd.Context(), o, socket)
		},
	}
	ledgerFlags(cmd, &o)
	cmd.Flags().StringVar(&socket, "socket", "", "Unix socket to serve on (default DIR/ledger.sock)")
	return cmd
}

func serveLedger(ctx context.Context, o embedded.Options, socket string) (err error) {
	ledger, err := embedded.Open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	listener, err := embedded.Listen(socket)
	if err != nil {
		return err
	}
	o.Log.Info("ledger is served", "dir", o.Dir, "socket", socket, "channel", ledger.Channel(), "msp_id", ledger.MSPID(), "tick_interval", ledger.TickInterval())
	return ledger.Serve(ctx, listener)
}

func newLedgerVerifyCommand() *cobra.Command {
	var o embedded.Options
	cmd := &cobra.Command{
		Use:   "verify --dir DIR",
		Short: "check the hash chain of an embedded ledger that nobody is using",
		Long: `Reads every block of the embedded ledger in DIR and checks its place in the hash chain. Prints the number of blocks and
the hash of the last one: two runs that print the same have seen the same history.`,
		Example: `  certanchor ledger verify --dir /var/lib/certanchor/ledger`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Log, o.MustExist = slog.Default(), true
			return verifyLedger(cmd, o)
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "", "directory of the ledger (required)")
	mustRequire(cmd, "dir")
	return cmd
}

func verifyLedger(cmd *cobra.Command, o embedded.Options) (err error) {
	ledger, err := embedded.Open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	height, hash, err := ledger.Verify(cmd.Context())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d blocks, last hash %x\n", ledger.Channel(), height, hash)
	return err
}

func ledgerFlags(cmd *cobra.Command, o *embedded.Options) {
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory of the ledger (required)")
	f.StringVar(&o.MSPID, "msp-id", "", "the organisation's MSP ID (default "+embedded.DefaultMSPID+" for a new ledger)")
	f.StringVar(&o.Channel, "channel", "", "name of the ledger (default "+embedded.DefaultChannel+" for a new one)")
	f.DurationVar(&o.TickInterval, "tick-interval", 0, fmt.Sprintf("how far apart clock ticks are meant to be (default %v for a new ledger)", embedded.DefaultTickInterval.Round(time.Second)))
	mustRequire(cmd, "dir")
}
