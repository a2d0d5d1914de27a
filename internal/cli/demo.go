package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/demo"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// networkRuns reports whether a network in dir has all its nodes up.
func networkRuns(ctx context.Context, dir string) bool {
	net, err := testnetwork.Open(dir)
	if err != nil {
		return false
	}
	status, err := net.Status(ctx)
	return err == nil && status.Healthy
}

func newDemoCommand() *cobra.Command {
	var (
		o            demo.Options
		stop, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "one certificate's whole life, step by step, with measured times",
		Long: `Creates a CA, issues for requests made by openssl, asks OCSP, verifies an inclusion proof, revokes, asks again, and asks about a
certificate that was never issued. It ends with a non-zero status at the first step that is not as it must be.

With --engine fabric, org1's CA issues and org2's responder answers, on the network of certanchor network up when that is
running, which stays up, and else on one that the demo starts and stops.
With --keep the services stay up, and DIR/endpoints.json says where they are; --stop ends them.`,
		Example: `  certanchor demo
  certanchor network up && certanchor demo --engine fabric
  certanchor demo --engine fabric --keep --state /tmp/certanchor-demo
  certanchor demo --stop --state /tmp/certanchor-demo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (stop || o.Keep) && o.StateDir == "" {
				return fmt.Errorf("%w: --state must name a directory with --keep and --stop", errUsage)
			}
			if stop {
				return demo.Stop(cmd.Context(), o.StateDir)
			}
			if !asJSON {
				o.Out = cmd.OutOrStdout()
			}
			if o.Engine == config.EngineFabric && o.NetworkDir == "" && networkRuns(cmd.Context(), defaultNetworkDir()) {
				o.NetworkDir = defaultNetworkDir()
			}
			res, err := demo.Run(cmd.Context(), o)
			if asJSON {
				if jsonErr := printJSON(cmd.OutOrStdout(), res); err == nil {
					err = jsonErr
				}
			}
			if err == nil && !asJSON {
				fmt.Fprintln(cmd.OutOrStdout(), "\nEverything was as it must be.")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Engine, "engine", config.EngineEmbedded, "ledger: embedded or fabric")
	f.StringVar(&o.NetworkDir, "network", "", "with --engine fabric: directory of a running network to use (default: that of network up, if it runs)")
	f.StringVar(&o.StateDir, "state", "", "directory for everything; without it, a temporary one")
	f.BoolVar(&o.Keep, "keep", false, "leave the services up")
	f.BoolVar(&stop, "stop", false, "end the services that an earlier demo left up")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
