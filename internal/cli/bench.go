package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/bench"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/load"
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
		Args: noArgs,
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
	cmd.AddCommand(newBenchIssueCommand(), newBenchStatusCommand(), newBenchOCSPCommand(), newBenchOCSPBaselineCommand())
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
the same bytes is measured first, and printed with it as "bound" what could be reached of that if nothing but the CA's signatures were
verified beside it.

Exit status 1 if more than 1 % of what was sent failed: the rate was too much, or something is broken.`,
		Example: `  certanchor bench issue --rate 1500 --duration 60s
  certanchor bench issue --engine embedded --rate 4000 --duration 30s --out result.json
  certanchor bench issue --sign --rate 500 --json
  certanchor bench issue --ca-key rsa2048 --rate 1500`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if asJSON {
				o.Out = cmd.ErrOrStderr()
			}
			if o.Engine == bench.EngineEmbedded {
				o.CAs = 1
			}
			if err := checkBenchIssue(&o); err != nil {
				return err
			}
			out, err := openResult(file) // before minutes of measuring
			if err != nil {
				return err
			}
			res, err := bench.Issue(cmd.Context(), o)
			if err != nil {
				return errors.Join(err, out.discard())
			}
			if err := out.write(res); err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), res); err != nil {
					return err
				}
			}
			return tooManyFailed(res.Load)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Engine, "engine", bench.EngineFabric, "ledger: fabric or embedded")
	f.IntVar(&o.CAs, "cas", 3, "organisations that issue at the same time (fabric)")
	f.Float64Var(&o.Rate, "rate", 1000, "certificates per second, over all CAs")
	f.DurationVar(&o.Duration, "duration", time.Minute, "how long to send")
	f.DurationVar(&o.Baseline, "baseline", 15*time.Second, "how long to measure the transaction that does nothing")
	f.StringVar((*string)(&o.CAKey), "ca-key", string(keyfile.P256), "key of the CAs: p256, p384 or rsa2048; endorsers verify a signature of it for each certificate")
	f.BoolVar(&o.Sign, "sign", false, "send requests for the CAs to sign instead of signed certificates")
	f.StringVar(&file, "out", "", "file for the result, JSON")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, and progress to standard error")
	return cmd
}

func checkBenchIssue(o *bench.IssueOptions) error {
	switch {
	case o.Engine != bench.EngineFabric && o.Engine != bench.EngineEmbedded:
		return fmt.Errorf("%w: --engine %q: must be %s or %s", errUsage, o.Engine, bench.EngineFabric, bench.EngineEmbedded)
	case !(o.Rate > 0) || o.Duration <= 0:
		return fmt.Errorf("%w: --rate %v, --duration %v: must be positive", errUsage, o.Rate, o.Duration)
	case o.CAKey != keyfile.P256 && o.CAKey != keyfile.P384 && o.CAKey != keyfile.RSA2048:
		return fmt.Errorf("%w: --ca-key %q: must be %s, %s or %s", errUsage, o.CAKey, keyfile.P256, keyfile.P384, keyfile.RSA2048)
	case o.CAs < 1:
		return fmt.Errorf("%w: --cas %d: must be at least 1", errUsage, o.CAs)
	}
	return nil
}

// failuresAllowed is how much of the load may fail before the measurement counts as failed.
const failuresAllowed = 0.01

func tooManyFailed(r *load.Result) error {
	if r == nil {
		return nil
	}
	failed := r.Sent - r.Outcomes[load.OK]
	if float64(failed) <= failuresAllowed*float64(r.Sent) {
		return nil
	}
	return fmt.Errorf("%d of %d failed, more than %v %%", failed, r.Sent, 100*failuresAllowed)
}

// resultFile is a file that a result will be written to; nil: none.
type resultFile struct {
	*os.File
	made bool
}

// openResult opens path so that the result can be written to it. What the file has stays until then.
func openResult(path string) (*resultFile, error) {
	if path == "" {
		return nil, nil
	}
	_, err := os.Stat(path)
	r := &resultFile{made: errors.Is(err, fs.ErrNotExist)}
	if r.File, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("%w: --out: %w", errUsage, err)
	}
	return r, nil
}

func (r *resultFile) discard() error {
	if r == nil {
		return nil
	}
	err := r.Close()
	if r.made {
		err = errors.Join(err, os.Remove(r.Name()))
	}
	return err
}

func (r *resultFile) write(v any) error {
	if r == nil {
		return nil
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return errors.Join(err, r.discard())
	}
	if err = r.Truncate(0); err == nil {
		_, err = r.Write(append(data, '\n'))
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}
