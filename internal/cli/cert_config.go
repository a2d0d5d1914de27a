package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/config"
)

// withConfig gives a command the flag --config. Before the command runs, flags that were not given take their values from the
// file's client section; values returns them by flag.
func withConfig(cmd *cobra.Command, values func(*config.Client) map[string][]string) *cobra.Command {
	var file string
	cmd.Flags().StringVar(&file, "config", "", "YAML configuration whose client section has defaults for flags that are not given")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			return nil
		}
		conf, err := config.Load(file)
		if err != nil {
			return err
		}
		if conf.Client == nil {
			return &config.Error{File: file, Key: "client", Rule: "is missing"}
		}
		for name, list := range values(conf.Client) {
			if cmd.Flags().Changed(name) {
				continue
			}
			for _, v := range list {
				if v == "" {
					continue
				}
				if err := cmd.Flags().Set(name, v); err != nil {
					return fmt.Errorf("configuration %s: client: %w", file, err)
				}
			}
		}
		return nil
	}
	return cmd
}

// caDefaults are the client section's values for the flags of caFlags.
func caDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"ca-url": {c.CAURL}, "token-file": {c.TokenFile}}
}

func statusDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"url": {c.OCSPURL}, "issuer": {c.Issuer}}
}

func proofDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}, "issuer": {c.Issuer}, "channel": {c.Channel}, "log-key": c.LogKeys}
}
