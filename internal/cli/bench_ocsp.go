package cli

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/bench"
)

func newBenchOCSPCommand() *cobra.Command {
	var (
		o      bench.OCSPOptions
		asJSON bool
		file   string
	)
	cmd := &cobra.Command{
		Use:   "ocsp",
		Short: "measure how many OCSP answers a second a responder gives, beside net/http and cfssl",
		Long: `Starts a CA with its OCSP responder, and what it is compared with: net/http with a handler that returns as many octets, the same with one
P-256 signature a request, and cfssl ocspserve with the same answers. Each is a process of its own on 127.0.0.1; requests come from another
one, which is wrk if it is installed. All are measured in turn in each round, and the medians of the rounds are compared.

cfssl is built with "go install" from Go's module cache or proxy unless --cfssl names the program; if it cannot be had, it is left out and the result says why.`,
		Example: `  certanchor bench ocsp
  certanchor bench ocsp --duration 30s --rounds 5 --out ocsp.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			if asJSON {
				o.Out = cmd.ErrOrStderr()
			}
			if o.Duration <= 0 || o.Rounds < 1 || o.Connections < 1 || o.Certificates < 1 {
				return fmt.Errorf("%w: --duration %v, --rounds %d, --connections %d, --certificates %d: must be positive",
					errUsage, o.Duration, o.Rounds, o.Connections, o.Certificates)
			}
			out, err := openResult(file) // before minutes of measuring
			if err != nil {
				return err
			}
			res, err := bench.OCSP(cmd.Context(), o)
			if err != nil {
				return errors.Join(err, out.discard())
			}
			if err := out.write(res); err != nil || !asJSON {
				return err
			}
			return printJSON(cmd.OutOrStdout(), res)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", 5*time.Second, "how long each is measured in each round")
	f.IntVar(&o.Rounds, "rounds", 3, "rounds")
	f.IntVar(&o.Connections, "connections", 64, "connections, each with one request under way")
	f.IntVar(&o.Certificates, "certificates", 100, "certificates that are asked about in turn")
	f.StringVar(&o.CFSSL, "cfssl", "", "cfssl program, v1.6.5; default: build it")
	f.BoolVar(&o.GoGenerator, "go-generator", false, "send the requests from this process even if wrk is installed")
	f.StringVar(&file, "out", "", "file for the result, JSON")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, and progress to standard error")
	return cmd
}

// newBenchOCSPBaselineCommand is a process of bench ocsp.
func newBenchOCSPBaselineCommand() *cobra.Command {
	var (
		kind string
		size int
	)
	cmd := &cobra.Command{
		Use: "ocsp-baseline", Short: "what bench ocsp compares a responder with", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
			defer stop()
			return bench.ServeBaseline(ctx, cmd.OutOrStdout(), kind, size)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", bench.BaselineConstant, "constant or signature")
	cmd.Flags().IntVar(&size, "size", 1000, "octets of an answer")
	return cmd
}
