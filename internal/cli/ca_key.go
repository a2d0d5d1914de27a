package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

// keyFlags say whose key: that of a running CA, over its API, or that in a directory that no CA runs in.
type keyFlags struct {
	caFlags
	dir, caID, why, by string
}

func newCAKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "show and change the state of the CA's key",
		Long: `A CA's key is generated, active, suspended, retired or destroyed; each change is kept with who, when and why. Where the CA runs, changes go through its API
(role administrator) and take effect before the command returns; --dir changes the key of a CA that does not run. docs/keys.md tells about each state.`,
		Example: `  certanchor ca key show --token-file pki/ca/administrator.token
  certanchor ca key suspend --token-file pki/ca/administrator.token --why "a custodian's card is missing"`,
	}
	for _, c := range []struct {
		use, to, short, example string
	}{
		{"suspend", "suspended", "have the key sign nothing: no certificates, no CRLs, no responder certificates", `--why "a custodian's card is missing"`},
		{"resume", "active", "bring a suspended key back into the state it was in", `--why "the card was found in the safe"`},
		{"retire", "retired", "end issuing: the key signs CRLs and OCSP responders' certificates only, so that what was issued keeps its status", `--why "rotated"`},
	} {
		cmd.AddCommand(newKeyChangeCommand(c.use, c.to, c.short, c.example))
	}
	cmd.AddCommand(newKeyShowCommand(), newKeyDestroyCommand())
	return cmd
}

func (f *keyFlags) register(cmd *cobra.Command, change bool) *cobra.Command {
	f.caFlags.register(cmd)
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of a CA that does not run, instead of --ca-url")
	cmd.Flags().StringVar(&f.caID, "ca-id", "", "which generation of the CA's key; default: the one that issues")
	if change {
		cmd.Flags().StringVar(&f.why, "why", "", "the reason, for the record (required)")
		byFlag(cmd, &f.by)
		mustRequire(cmd, "why")
	}
	return withConfig(cmd, caDefaults)
}

// change makes a change, through the API or in the directory.
func (f *keyFlags) change(ctx context.Context, r caapi.KeyRequest) (*caapi.Key, error) {
	if f.dir == "" {
		c, ctx, cancel, err := f.client(ctx)
		if err != nil {
			return nil, err
		}
		defer cancel()
		return c.ChangeKey(ctx, r)
	}
	to, err := keystate.Parse("to", r.To)
	if err != nil {
		return nil, err
	}
	return ca.ChangeKeyOffline(f.dir, r.CAID, ca.KeyChange{To: to, By: operatorName(f.by), Why: r.Why, Confirm: r.Confirm, Force: r.Force == "true"})
}

func newKeyShowCommand() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use: "show", Short: "show the key's state and its history",
		Example: `  certanchor ca key show --token-file pki/ca/operator.token
  certanchor ca key show --dir pki/ca --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := f.show(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), k)
		},
	}
	return f.register(cmd, false)
}

func (f *keyFlags) show(ctx context.Context) (*caapi.Key, error) {
	if f.dir != "" {
		return ca.KeyOffline(f.dir, f.caID)
	}
	c, ctx, cancel, err := f.client(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return c.Key(ctx, f.caID)
}

func newKeyChangeCommand(use, to, short, example string) *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use: use, Short: short,
		Example: "  certanchor ca key " + use + " --token-file pki/ca/administrator.token " + example,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to := to
			if use == "resume" {
				// A key that was retired before goes back to that.
				k, err := f.show(cmd.Context())
				if err != nil {
					return err
				}
				if n := len(k.History); n > 0 && k.State == string(keystate.Suspended) {
					to = k.History[n-1].From
				}
			}
			k, err := f.change(cmd.Context(), caapi.KeyRequest{To: to, Why: f.why, CAID: f.caID})
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), k)
		},
	}
	return f.register(cmd, true)
}

func newKeyDestroyCommand() *cobra.Command {
	var (
		f       keyFlags
		confirm string
		force   bool
	)
	cmd := &cobra.Command{
		Use: "destroy", Short: "destroy the key, for ever",
		Long: `Overwrites and removes the key file, or destroys the objects in the PKCS #11 token. It is refused while the key is active, and while certificates of it may still
need CRLs, unless --force. Copies of the key elsewhere, in backups above all, are not found by this.`,
		Example: `  certanchor ca key destroy --token-file pki/ca/administrator.token --ca-id 5f1c… --confirm 5f1c… --why "rotated a year ago, all certificates have ended"`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := caapi.KeyRequest{To: string(keystate.Destroyed), Why: f.why, CAID: f.caID, Confirm: confirm}
			if force {
				r.Force = "true"
			}
			k, err := f.change(cmd.Context(), r)
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), k)
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the CA ID of the key (required)")
	cmd.Flags().BoolVar(&force, "force", false, "although certificates of the key may still need CRLs")
	mustRequire(cmd, "confirm")
	return f.register(cmd, true)
}

func (f *keyFlags) print(w io.Writer, k *caapi.Key) error {
	if f.asJSON {
		return printJSON(w, k)
	}
	signs := strings.Join(k.Signs, ", ")
	if signs == "" {
		signs = "nothing"
	}
	fmt.Fprintf(w, "key of the CA %s: %s\n  signs         %s\n  CRLs needed   until %s\n", k.CAID, k.State, signs, k.Needed)
	if k.Token != "" {
		fmt.Fprintf(w, "  token         %s\n", k.Token)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nSINCE\tSTATE\tBY\tKNOWN BY\tWHY")
	for _, h := range k.History {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", h.Time, h.To, h.By, h.How, h.Why)
	}
	return t.Flush()
}
