package cli

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
)

// clientFlags make or remove a client of a CA.
type clientFlags struct {
	dir, role, keyFile, rate string
	hmac, remove             bool
}

func newCAClientCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "client NAME",
		Short: "let another client use the CA's HTTP API, or no longer",
		Long: `Makes a bearer token for a new client and writes it to DIR/NAME.token; with --hmac a key that the client signs its requests with, to DIR/NAME.hmac. A
running CA knows the client, or that it was removed, a second later.
Roles: operator (issue, revoke, import), administrator (keys, profiles, backups), revoker (revoke), requester (issue), responder (get an OCSP
responder certificate), auditor (read); all but responder read. docs/operators.md has the table.`,
		Example: `  certanchor ca client org2 --dir pki/ca --role responder
  certanchor ca client webshop --dir pki/ca --role requester --hmac --rate 50/100
  certanchor ca client webshop --dir pki/ca --remove`,
		Args: oneArg("the client's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.remove {
				if err := ca.RemoveClient(f.dir, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is removed\n", args[0])
				return err
			}
			n := ca.NewClient{Name: args[0], Role: ca.Role(f.role), HMAC: f.hmac || f.keyFile != "", Rate: f.rate}
			if f.keyFile != "" {
				text, err := os.ReadFile(f.keyFile)
				if err == nil {
					n.Key, err = hex.DecodeString(strings.TrimSpace(string(text)))
				}
				if err != nil {
					return fmt.Errorf("--hmac-key: must be a file with a key in hexadecimal: %w", err)
				}
			}
			file, err := ca.MakeClient(f.dir, n)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", "", "the CA's directory (required)")
	fs.StringVar(&f.role, "role", string(ca.RoleRequester), ca.Roles())
	fs.BoolVar(&f.hmac, "hmac", false, "make an HMAC key instead of a token")
	fs.StringVar(&f.keyFile, "hmac-key", "", "take this HMAC key, hexadecimal in a file: one that cfssl's clients have")
	fs.StringVar(&f.rate, "rate", "", "requests that the client may make: PER_SECOND/BURST, or none for no limit (default: as ca.rate says)")
	fs.BoolVar(&f.remove, "remove", false, "take the client off the list")
	mustRequire(cmd, "dir")
	cmd.MarkFlagsMutuallyExclusive("remove", "hmac")
	cmd.MarkFlagsMutuallyExclusive("remove", "hmac-key")
	return cmd
}
