package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/node"
)

func newEncryptKeysCommand() *cobra.Command {
	var (
		configFile string
		asJSON     bool
	)
	cmd := &cobra.Command{
		Use:   "encrypt-keys",
		Short: "encrypt the key files of an OCSP bridge that are not",
		Long: `Encrypts log.key, cosigner.key, the keys of CT logs and OCSP responders, and that of the indirect CRL, under ocsp_bridge.key_passphrase. Each file is replaced whole or not at
all, so the command may be repeated. It prints the files that it has encrypted. A copy of an unencrypted file elsewhere stays what it is.`,
		Example: `  certanchor ocsp-bridge encrypt-keys --config org2.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := config.Load(configFile)
			if err != nil {
				return err
			}
			done, err := node.EncryptKeys(conf)
			if err != nil {
				return err
			}
			if asJSON {
				if done == nil {
					done = []string{}
				}
				return printJSON(cmd.OutOrStdout(), map[string][]string{"encrypted": done})
			}
			for _, path := range done {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "YAML configuration with the section ocsp_bridge (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	mustRequire(cmd, "config")
	return cmd
}
