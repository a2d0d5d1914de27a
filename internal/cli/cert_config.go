package cli

import (
	"fmt"
	"maps"
	"slices"

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
		section, err := conf.NeedClient()
		if err != nil {
			return err
		}
		given := givenCredential(cmd.Flags())
		for name, list := range values(section) {
			if cmd.Flags().Changed(name) || given && slices.Contains(credentialFlags, name) {
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

// together makes one set of defaults of several.
func together(all ...func(*config.Client) map[string][]string) func(*config.Client) map[string][]string {
	return func(c *config.Client) map[string][]string {
		sum := map[string][]string{}
		for _, values := range all {
			maps.Copy(sum, values(c))
		}
		return sum
	}
}

// defaults are the client section's policy, unless a file is given: the fingerprint would be of another one.
func (f *trustFlags) defaults(c *config.Client) map[string][]string {
	if f.file != "" {
		return nil
	}
	return map[string][]string{"policy": {c.Policy}, "policy-fingerprint": {c.PolicyFingerprint}}
}

// defaults are how the client section says to connect. A certificate that is given has a key of its own.
func (f *tlsFlags) defaults(c *config.Client) map[string][]string {
	if c.TLS == nil {
		return nil
	}
	all := map[string][]string{"tls-ca": {c.TLS.CA}}
	if f.cert == "" && f.key == "" {
		all["client-cert"], all["client-key"] = []string{c.TLS.Cert}, []string{c.TLS.Key}
	}
	return all
}

func bridgeDefault(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}}
}

// defaults: a policy, unless keys are given or are all there is.
func (f *monitorFlags) defaults(c *config.Client) map[string][]string {
	switch {
	case len(f.logKeys) > 0:
		return nil
	case f.trust.file == "" && c.Policy == "":
		return map[string][]string{"log-key": c.LogKeys}
	}
	return f.trust.defaults(c)
}

func statusDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"url": {c.OCSPURL}, "issuer": {c.Issuer}}
}

func proofDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}, "issuer": {c.Issuer}, "channel": {c.Channel}, "log-key": c.LogKeys}
}
