package cli

import (
	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/bench"
)

func newBenchCommand() *cobra.Command {
	var (
		o      bench.Options
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure both ledgers on this machine",
		Long: `Starts an embedded ledger and a four-organisation Fabric network of its own and measures: starting it and its memory, the time
from submission to commit, the time from a revocation's call to another organisation's OCSP answer, the cost of the clock, and
the time to the next commit after leaders freeze. Each latency stands beside a baseline of the same run. Takes some minutes.`,
		Example: `  certanchor bench
  certanchor bench --samples 1000 --json > result.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if asJSON {
				o.Out = cmd.ErrOrStderr()
			}
			res, err := bench.Run(cmd.Context(), o)
			if err == nil && asJSON {
				err = printJSON(cmd.OutOrStdout(), res)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&o.Samples, "samples", 100, "samples of each latency")
	cmd.Flags().IntVar(&o.Rounds, "rounds", 3, "leader failures of each kind")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the results as JSON, and progress to standard error")
	return cmd
}
