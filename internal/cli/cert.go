package cli

import (
	"encoding/pem"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

func newCertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cert", Short: "issue, revoke, show and check certificates",
		Example: `  certanchor cert issue --csr req.pem --token-file pki/ca/operator.token --out cert.pem
  certanchor cert status --cert cert.pem --issuer pki/ca/ca.pem`,
	}
	cmd.AddCommand(
		withConfig(newCertIssueCommand(), caDefaults), withConfig(newCertRevokeCommand(), caDefaults),
		withConfig(newCertReleaseCommand(), caDefaults), withConfig(newCertShowCommand(), caDefaults),
		withConfig(newCertStatusCommand(), statusDefaults), newCertProofCommand(),
		newCertIntentCommand(), newCertRevokeOwnCommand(), newCertWatchCommand(),
	)
	return cmd
}

func newCertIssueCommand() *cobra.Command {
	var (
		f                                     caFlags
		csrFile, profile, out, idempotencyKey string
	)
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "have a certificate signed, anchored in the ledger and released",
		Long: `Sends a certificate signing request to the CA. The certificate comes back when it is on the ledger, with its place in the
CA's log. With --idempotency-key the command can be repeated after a failure: the CA issues one certificate for one key.`,
		Example: `  certanchor cert issue --csr req.pem --token-file pki/ca/operator.token --out cert.pem`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			csr, err := os.ReadFile(csrFile)
			if err != nil {
				return fmt.Errorf("--csr: %w", err)
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			got, err := c.Issue(ctx, caapi.IssueRequest{CSR: string(csr), Profile: profile}, idempotencyKey)
			if err != nil {
				return err
			}
			return printIssued(cmd, got, out, f.asJSON)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&csrFile, "csr", "", "certificate signing request, PEM (required)")
	fs.StringVar(&profile, "profile", "server", "profile of the CA to issue under")
	fs.StringVar(&out, "out", "", "file for the certificate; without it, it is printed")
	fs.StringVar(&idempotencyKey, "idempotency-key", "", "name of this issuance, for repeating it safely")
	f.register(cmd)
	mustRequire(cmd, "csr")
	return cmd
}

// whichCert takes the serial number from the argument or from a certificate's file.
func whichCert(cmd *cobra.Command, args []string, certFile string) (string, error) {
	if (len(args) == 1) == (certFile != "") {
		return "", fmt.Errorf("%w: %s takes either a serial number or --cert", errUsage, cmd.CommandPath())
	}
	if certFile != "" {
		cert, err := readCertificate("cert", certFile)
		if err != nil {
			return "", err
		}
		serial, err := wire.SerialOf(cert.SerialNumber)
		return serial.String(), err
	}
	serial, err := wire.ParseSerial(args[0])
	return serial.String(), err
}

func newCertRevokeCommand() *cobra.Command {
	var (
		f                              caFlags
		certFile, reason, invalidSince string
	)
	cmd := &cobra.Command{
		Use:   "revoke [SERIAL]",
		Short: "revoke a certificate, or put it on hold",
		Long: `Revokes a certificate for one of RFC 5280's reasons: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded,
cessationOfOperation, privilegeWithdrawn, aACompromise; certificateHold suspends it until it is released or revoked. The command
returns when the organisation's own responders answer accordingly. Repeating it is safe: the first date stays.`,
		Example: `  certanchor cert revoke --cert cert.pem --reason keyCompromise --token-file pki/ca/operator.token
  certanchor cert revoke 4f0c9e... --reason superseded --token-file pki/ca/operator.token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := whichCert(cmd, args, certFile)
			if err != nil {
				return err
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			change, acknowledged, err := c.Revoke(ctx, caapi.RevokeRequest{Serial: serial, Reason: reason, InvalidityDate: invalidSince})
			return printChange(cmd, f, change, acknowledged, err)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&certFile, "cert", "", "the certificate, PEM, instead of its serial number")
	fs.StringVar(&reason, "reason", "", "reason (required)")
	fs.StringVar(&invalidSince, "invalidity-date", "", "when the key or certificate became bad, RFC 3339")
	f.register(cmd)
	mustRequire(cmd, "reason")
	return cmd
}

func newCertReleaseCommand() *cobra.Command {
	var (
		f        caFlags
		certFile string
	)
	cmd := &cobra.Command{
		Use:     "release [SERIAL]",
		Short:   "release a certificate from hold",
		Example: `  certanchor cert release --cert cert.pem --token-file pki/ca/operator.token`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := whichCert(cmd, args, certFile)
			if err != nil {
				return err
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			change, acknowledged, err := c.Release(ctx, serial)
			return printChange(cmd, f, change, acknowledged, err)
		},
	}
	cmd.Flags().StringVar(&certFile, "cert", "", "the certificate, PEM, instead of its serial number")
	f.register(cmd)
	return cmd
}

// printChange prints a change of status. One that is committed but not acknowledged by every responder is a failure that says so.
func printChange(cmd *cobra.Command, f caFlags, c *caapi.StatusChange, acknowledged bool, err error) error {
	if err != nil {
		return err
	}
	if f.asJSON {
		err = printJSON(cmd.OutOrStdout(), c)
	} else {
		verb := "is now"
		if !c.Changed {
			verb = "was already"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s", c.Serial, verb, c.State)
		if c.Reason != "" {
			fmt.Fprintf(cmd.OutOrStdout(), " (%s) since %s", c.Reason, c.RevocationTime)
		}
		fmt.Fprintf(cmd.OutOrStdout(), ", block %d\n", c.Block)
	}
	if err == nil && !acknowledged {
		return fmt.Errorf("not acknowledged by every responder: %s", c.Detail)
	}
	return err
}

func newCertShowCommand() *cobra.Command {
	var (
		f        caFlags
		certFile string
	)
	cmd := &cobra.Command{
		Use:     "show [SERIAL]",
		Short:   "print a certificate that the CA issued, its place in the log and its status on the ledger",
		Example: `  certanchor cert show 4f0c9e... --token-file pki/ca/operator.token`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := whichCert(cmd, args, certFile)
			if err != nil {
				return err
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			got, err := c.Get(ctx, serial)
			if err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), got)
			}
			return showCertificate(cmd, got)
		},
	}
	cmd.Flags().StringVar(&certFile, "cert", "", "the certificate, PEM, instead of its serial number")
	f.register(cmd)
	return cmd
}

func showCertificate(cmd *cobra.Command, c *caapi.Certificate) error {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "serial     %s\nCA         %s\n", c.Serial, c.CAID)
	if c.SerialOnly {
		fmt.Fprintln(w, "imported   as a serial number only: the ledger does not have the certificate")
	} else {
		fmt.Fprintf(w, "log index  %d at %s\n", c.LogIndex, c.Timestamp)
		if c.Imported {
			fmt.Fprintln(w, "imported   yes")
		}
	}
	if s := c.Status; s != nil {
		fmt.Fprintf(w, "status     %s since %s", s.State, s.Since)
		if s.Asserted != "" {
			fmt.Fprintf(w, " (since %s, as the CA said)", s.Asserted)
		}
		if s.Reason != "" {
			fmt.Fprintf(w, ", %s", s.Reason)
		}
		if s.InvalidityDate != "" {
			fmt.Fprintf(w, ", invalid since %s", s.InvalidityDate)
		}
		fmt.Fprintln(w)
	}
	if block, _ := pem.Decode([]byte(c.Certificate)); block == nil {
		return nil
	}
	_, err := fmt.Fprint(w, c.Certificate)
	return err
}
