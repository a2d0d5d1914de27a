package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/node"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

func newServeCommand() *cobra.Command {
	var (
		configFile, dir, caListen, ocspListen string
		passphrase                            keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run ledger, CA and OCSP responder of one organisation in one process",
		Long: `Runs everything one organisation needs on one machine: the embedded ledger, the CA bridge and the OCSP bridge.

With --dir, the CA is in DIR/ca (made by certanchor ca init), the ledger in DIR/ledger and the OCSP bridge's state in
DIR/ocsp-bridge; the last two are made at the first start. With --config, a YAML file says it all.`,
		Example: `  certanchor ca init --dir pki/ca --subject "CN=Example CA"
  certanchor serve --dir pki
  certanchor serve --config certanchor.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (dir == "") == (configFile == "") {
				return fmt.Errorf("%w: give either --dir or --config", errUsage)
			}
			if configFile == "" {
				return node.ServeAll(cmd.Context(), fromDir(dir, caListen, ocspListen, orPrompt(passphrase)))
			}
			conf, err := config.Load(configFile)
			if err != nil {
				return err
			}
			return node.ServeAll(cmd.Context(), conf)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory of everything")
	f.StringVar(&configFile, "config", "", "YAML configuration with the sections ledger, ca and ocsp_bridge")
	f.StringVar(&caListen, "ca-listen", config.DefaultCAListen, "with --dir: host:port of the CA's API")
	f.StringVar(&ocspListen, "ocsp-listen", config.DefaultOCSPListen, "with --dir: host:port of the OCSP responder and the logs")
	passphraseFlags(cmd, &passphrase)
	return cmd
}

// fromDir is the configuration that serve --dir stands for.
func fromDir(dir, caListen, ocspListen string, passphrase keyfile.Source) *config.File {
	return &config.File{
		Path:       "--dir " + dir,
		Ledger:     config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{Dir: filepath.Join(dir, "ledger")}},
		CA:         &config.CA{Dir: filepath.Join(dir, "ca"), Listen: caListen, Passphrase: passphrase},
		OCSPBridge: &config.OCSPBridge{Dir: filepath.Join(dir, "ocsp-bridge"), Listen: ocspListen, Settings: ocspbridge.DefaultSettings()},
	}
}

func newOCSPBridgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ocsp-bridge", Short: "answer OCSP and serve the logs from the ledger",
		Example: `  certanchor ocsp-bridge serve --config org2.yaml`,
	}
	cmd.AddCommand(newOCSPBridgeServeCommand(), newEncryptKeysCommand())
	return cmd
}

func newOCSPBridgeServeCommand() *cobra.Command {
	var configFile, listen string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run one organisation's OCSP bridge",
		Long: `Follows the ledger through the organisation's own peer, and serves over HTTP:

  /ocsp                       OCSP, for every CA that certifies this responder
  /logs                       all logs: checkpoints that a quorum cosigns, tiles, proofs, and a certificate's bundle (certanchor proof)
  /logs/CA/ct/v1, static      the issuance logs for certificate transparency clients, /log_list.json lists them
  /policy                     the consortium's policy, if ocsp_bridge.policy names the file
  /v1/revocations             takes revocations that a certificate's own key has signed (certanchor cert revoke-own)
  /v1/heads, /v1/alarms       what the organisations' logs are, and evidence of split views
  /healthz, /readyz, /metrics for whoever operates it

It cosigns other organisations' checkpoints, submits the ledger's Ticks, and integrates changes of status into the status log. While its
view of the ledger is stale it refuses to answer: tryLater over OCSP, and 503 elsewhere with the reason at /readyz.
See docs/configuration.md for the ledger and ocsp_bridge sections.`,
		Example: `  certanchor ocsp-bridge serve --config org2.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := config.Load(configFile)
			if err != nil {
				return err
			}
			if conf.OCSPBridge != nil && listen != "" {
				conf.OCSPBridge.Listen = listen
			}
			return node.ServeOCSPBridge(cmd.Context(), conf)
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "YAML configuration (required)")
	cmd.Flags().StringVar(&listen, "listen", "", "host:port to listen on, instead of ocsp_bridge.listen")
	mustRequire(cmd, "config")
	return cmd
}
