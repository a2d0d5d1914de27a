package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/test-network/ccaas"
)

// newChaincodeBuilderCommand is what a peer runs, through scripts the network writes, as its external builder.
func newChaincodeBuilderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "chaincode-builder",
		Short:   "external builder for chaincode as a service; run by peers",
		Long:    "chaincode-builder implements the steps of Fabric's external builders for packages of type ccaas. Peers run it.",
		Example: "  certanchor chaincode-builder detect SOURCE METADATA",
		Hidden:  true,
		Args:    noArgs,
	}
	var clientCert, clientKey string
	release := &cobra.Command{
		Use:     "release OUTPUT RELEASE",
		Short:   "hand the connection to the peer, with the key it is to use",
		Example: "  certanchor chaincode-builder release --client-cert cert.pem --client-key key.pem OUTPUT RELEASE",
		Args:    directories(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return ccaas.Release(args[0], args[1], clientCert, clientKey)
		},
	}
	release.Flags().StringVar(&clientCert, "client-cert", "", "PEM certificate the peer shows to the chaincode server")
	release.Flags().StringVar(&clientKey, "client-key", "", "its private key")
	cmd.AddCommand(
		&cobra.Command{
			Use:     "detect SOURCE METADATA",
			Short:   "succeed if the package is chaincode as a service",
			Example: "  certanchor chaincode-builder detect SOURCE METADATA",
			Args:    directories(2),
			RunE:    func(_ *cobra.Command, args []string) error { return ccaas.Detect(args[1]) },
		},
		&cobra.Command{
			Use:     "build SOURCE METADATA OUTPUT",
			Short:   "check the package's connection and keep it",
			Example: "  certanchor chaincode-builder build SOURCE METADATA OUTPUT",
			Args:    directories(3),
			RunE:    func(_ *cobra.Command, args []string) error { return ccaas.Build(args[0], args[2]) },
		},
		release,
	)
	return cmd
}

func directories(count int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != count {
			return fmt.Errorf("%w: %s takes %d directories, it got %d arguments", errUsage, cmd.CommandPath(), count, len(args))
		}
		return nil
	}
}
