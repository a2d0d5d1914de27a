package cli

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode"
	ccfabric "github.com/certanchor/certanchor/chaincode/fabric"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func newChaincodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "chaincode",
		Short:   "the contract that every organisation of a Fabric channel runs",
		Example: `  certanchor chaincode serve --help`,
	}
	cmd.AddCommand(newChaincodeServeCommand())
	return cmd
}

// chaincodeFlags are the flags of chaincode serve.
type chaincodeFlags struct {
	address, packageID        string
	tlsCert, tlsKey, clientCA string
	consortium                []string
	tickInterval              time.Duration
}

func newChaincodeServeCommand() *cobra.Command {
	var f chaincodeFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run one organisation's chaincode server",
		Long: `Runs the contract as a chaincode-as-a-service server: the organisation's peer connects to it over mutual TLS and has it
execute transactions. It keeps no state and can be restarted at any time.

--consortium and --tick-interval are this organisation's own view of who shares the ledger. The ledger can be founded only as
enough organisations have configured it alike, so every organisation sets them itself, from what was agreed.`,
		Example: `  certanchor chaincode serve --address org1.example:9999 \
    --package-id certanchor:5c1d9b7e... \
    --tls-cert tls/server.pem --tls-key tls/server-key.pem --client-ca tls/ca.pem \
    --consortium Org1MSP,Org2MSP,Org3MSP,Org4MSP --tick-interval 15s`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.serve(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "host:port to listen on (required)")
	flags.StringVar(&f.packageID, "package-id", "", "ID of the chaincode package that is installed on the peer, label:hash (required)")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "file with the server's certificate, PEM (required)")
	flags.StringVar(&f.tlsKey, "tls-key", "", "file with the server's private key, PEM (required)")
	flags.StringVar(&f.clientCA, "client-ca", "", "file with the CA certificates of the peers that may connect, PEM (required)")
	flags.StringSliceVar(&f.consortium, "consortium", nil, "MSP IDs of all organisations that share the ledger, comma-separated (required)")
	flags.DurationVar(&f.tickInterval, "tick-interval", wire.DefaultTickInterval, "interval of the ledger's clock, the same at every organisation and not less than its peers' peer.authentication.timewindow")
	for _, name := range []string{"address", "package-id", "tls-cert", "tls-key", "client-ca", "consortium"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

func (f *chaincodeFlags) serve(cmd *cobra.Command) error {
	contract, err := chaincode.New(chaincode.Config{MSPs: f.consortium, TickInterval: f.tickInterval})
	if err != nil {
		return err
	}
	cfg := ccfabric.ServerConfig{Address: f.address, PackageID: f.packageID, Executor: contract, Log: slog.Default()}
	for _, file := range []struct {
		flag, path string
		content    *[]byte
	}{
		{"tls-cert", f.tlsCert, &cfg.TLSCert}, {"tls-key", f.tlsKey, &cfg.TLSKey}, {"client-ca", f.clientCA, &cfg.ClientCA},
	} {
		if *file.content, err = os.ReadFile(file.path); err != nil {
			return fmt.Errorf("--%s: %w", file.flag, err)
		}
	}
	return ccfabric.Serve(cmd.Context(), cfg)
}
