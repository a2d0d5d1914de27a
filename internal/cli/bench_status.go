package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/bench"
)

func newBenchStatusCommand() *cobra.Command {
	var (
		o      bench.StatusOptions
		asJSON bool
		file   string
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "measure how soon revocations count everywhere",
		Long: fmt.Sprintf(`Starts a four-organisation Fabric network, CA bridges and OCSP bridges of its own and measures:

- from a change of status to its place in the status log, while the bridge of the organisation whose turn it is to integrate is frozen, and
  while it is gone: the takeover by another organisation;
- from the call that revokes a certificate until every organisation's OCSP responder says revoked, and from the change's block until it is in
  the status log: first one at a time on an idle network, then while certificates are issued. Responders are asked every 5 ms.

Exit status 1 if 1 %% of the changes waited longer than %v for the status log, if a takeover took longer than %v, or if
more than 1 %% of what was sent failed.`, bench.MergeDelayBound, bench.TakeoverBound),
		Example: `  certanchor bench status
  certanchor bench status --rate 500 --revoke-rate 10 --samples 1000 --out status.json
  certanchor bench status --samples 50 --rounds 1 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if asJSON {
				o.Out = cmd.ErrOrStderr()
			}
			if err := checkBenchStatus(&o); err != nil {
				return err
			}
			out, err := openResult(file) // before minutes of measuring
			if err != nil {
				return err
			}
			res, err := bench.Status(cmd.Context(), o)
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
			return judgeStatus(res)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.CAs, "cas", 3, "organisations that issue at the same time")
	f.Float64Var(&o.Rate, "rate", 300, "certificates per second that are issued, over all CAs")
	f.Float64Var(&o.RevokeRate, "revoke-rate", 10, "revocations per second while certificates are issued")
	f.IntVar(&o.Samples, "samples", 1000, "revocations, idle and again while certificates are issued")
	f.IntVar(&o.Rounds, "rounds", 5, "takeovers of each kind")
	f.StringVar(&file, "out", "", "file for the result, JSON")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, and progress to standard error")
	return cmd
}

func checkBenchStatus(o *bench.StatusOptions) error {
	switch {
	case !(o.Rate > 0) || !(o.RevokeRate > 0):
		return fmt.Errorf("%w: --rate %v, --revoke-rate %v: must be positive", errUsage, o.Rate, o.RevokeRate)
	case o.CAs < 1 || o.Samples < 1 || o.Rounds < 1:
		return fmt.Errorf("%w: --cas %d, --samples %d, --rounds %d: must be at least 1", errUsage, o.CAs, o.Samples, o.Rounds)
	}
	return nil
}

// judgeStatus is an error when a bound was missed or much of the load failed.
func judgeStatus(r *bench.StatusResult) error {
	missed := r.Missed()
	for _, p := range []*bench.StatusPhase{r.Idle, r.Loaded} {
		if p == nil {
			continue
		}
		if err := tooManyFailed(p.Issued); err != nil {
			missed = append(missed, "issued: "+err.Error())
		}
		failed, all := int64(0), int64(p.Everywhere.Samples)
		for _, n := range p.Failed {
			failed, all = failed+n, all+n
		}
		if float64(failed) > failuresAllowed*float64(all) {
			missed = append(missed, fmt.Sprintf("%d of %d revocations failed", failed, all))
		}
	}
	if len(missed) == 0 {
		return nil
	}
	return errors.New(strings.Join(missed, "; "))
}
