package cli

import (
	"encoding/json"
	"os"
	"time"

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
	cmd.AddCommand(newBenchIssueCommand())
	return cmd
}

func newBenchIssueCommand() *cobra.Command {
	var (
		o      bench.IssueOptions
		asJSON bool
		file   string
	)
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "send certificates at a given rate and measure what becomes of them",
		Long: `Starts a ledger, CA bridges and OCSP bridges of its own and sends certificates over HTTP, signed beforehand, to the CA bridges'
add-chain (RFC 6962 section 4.1), or with --sign requests that they sign. It sends at the given rate whatever becomes of the earlier
ones, and measures each from the moment it was due until its SCT is in hand. On Fabric, what a transaction that does nothing commits of
the same bytes is measured first.`,
		Example: `  certanchor bench issue --rate 1500 --duration 60s
  certanchor bench issue --engine embedded --rate 4000 --duration 30s --out result.json
  certanchor bench issue --sign --rate 500 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if asJSON {
				o.Out = cmd.ErrOrStderr()
			}
			if o.Engine == bench.EngineEmbedded {
				o.CAs = 1
			}
			res, err := bench.Issue(cmd.Context(), o)
			if err != nil {
				return err
			}
			if file != "" {
				if err := writeJSON(file, res); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), res)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Engine, "engine", bench.EngineFabric, "ledger: fabric or embedded")
	f.IntVar(&o.CAs, "cas", 3, "organisations that issue at the same time (fabric)")
	f.Float64Var(&o.Rate, "rate", 1000, "certificates per second, over all CAs")
	f.DurationVar(&o.Duration, "duration", time.Minute, "how long to send")
	f.DurationVar(&o.Baseline, "baseline", 15*time.Second, "how long to measure the transaction that does nothing")
	f.BoolVar(&o.Sign, "sign", false, "send requests for the CAs to sign instead of signed certificates")
	f.StringVar(&file, "out", "", "file for the result, JSON")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, and progress to standard error")
	return cmd
}

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
