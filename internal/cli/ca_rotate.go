package cli

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

func newCARotateCommand() *cobra.Command {
	var (
		o                       ca.RotateOptions
		subject, key, algorithm string
		passphrase              keyfile.Source
		below                   subordinateFlags
		asJSON                  bool
	)
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "give the CA a new key, with overlap",
		Long: `Makes the next generation of the CA's key, in the directory next of the CA's own: self-signed, or with --csr-out a request for a root, whose certificate --finish puts in. Run again,
it tells how far the rotation has come (a second rotation on the same day takes --again); killed at any moment, it is run again.

A new key is a new CA on the ledger, so a majority of the organisations must assent to it with certanchor ca register, as for the first. A running CA bridge finds
it by itself. As soon as it is on the trust list, the new key certifies this organisation's OCSP responders, then issues, and the old one is retired: it goes on signing
CRLs and OCSP responders' certificates, and the bridge goes on revoking its certificates, until they have ended.`,
		Example: `  certanchor ca rotate --dir pki/ca --passphrase-file pass
  certanchor ca register --config admin.yaml --ca-cert pki/ca/next/ca.pem --operating-msp Org1MSP   # each organisation
  certanchor ca rotate --dir pki/ca --status`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if below.finish {
				return below.run(cmd, o.Dir, true, asJSON)
			}
			if subject != "" {
				if o.Subject, err = parseSubject(subject); err != nil {
					return err
				}
			}
			flag := "--key"
			if hsm.IsURI(key) {
				o.KeyURI, key, flag = key, algorithm, "--key-algorithm"
			}
			if o.Algorithm, err = keyfile.ParseAlgorithm(key); err != nil {
				return fmt.Errorf("%w: %s: %w", errUsage, flag, err)
			}
			o.Request, o.By = below.csrOut != "", operatorName(o.By)
			o.Passphrase = func() ([]byte, error) { return orPrompt(passphrase).NewPassphrase("the next CA key") }
			r, err := ca.Rotate(o)
			if err != nil {
				return err
			}
			return printRotation(cmd, &below, o.Dir, r, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "the CA's directory (required)")
	f.StringVar(&subject, "subject", "", "distinguished name; default: the CA's own, the keys tell the two apart")
	f.StringVar(&key, "key", "p256", "key: p256, p384, rsa2048 or rsa3072 in a file, or the PKCS #11 URI of another one than the present (RFC 7512)")
	f.StringVar(&algorithm, "key-algorithm", "p256", "of a key that is to be made in a token")
	f.DurationVar(&o.Validity, "validity", 0, "how long the certificate is valid; default: as long as the present one")
	f.BoolVar(&o.Status, "status", false, "tell how far the rotation has come, and make nothing")
	f.BoolVar(&o.Again, "again", false, "make another key although the present one has been in use for less than a day")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	passphraseFlags(cmd, &passphrase)
	byFlag(cmd, &o.By)
	below.register(cmd)
	mustRequire(cmd, "dir")
	return cmd
}

func printRotation(cmd *cobra.Command, below *subordinateFlags, dir string, r *ca.Rotation, asJSON bool) error {
	next, id := "", ""
	switch {
	case r.Certificate == nil:
		text, err := os.ReadFile(r.Request)
		if err == nil {
			id, err = requestID(text)
		}
		if err == nil && below.csrOut != "" {
			err = writeOut(cmd, below.csrOut, text)
		}
		if err != nil {
			return err
		}
		next = fmt.Sprintf("certanchor ca root sign --csr %s on the root's machine, then certanchor ca rotate --dir %s --finish --cert sub.pem --chain root.pem", r.Request, dir)
	case r.State == keystate.Generated:
		id = idOf(r.Certificate)
		next = fmt.Sprintf("administrators of a majority of the organisations run certanchor ca register --ca-cert %s (followed by its chain, if it is below a root); "+
			"the running CA bridge takes the new key into use then", filepath.Join(r.Dir, "ca.pem"))
	case r.State == keystate.Active && r.OldState == keystate.Active:
		id = idOf(r.Certificate)
		next = "the new key is trusted; the bridge waits until the OCSP responders have its certificates, two minutes at most"
	case r.State == keystate.Suspended:
		id = idOf(r.Certificate)
		next = suspended("new", r.Certificate)
	case r.State == keystate.Active && r.OldState == keystate.Suspended:
		id = idOf(r.Certificate)
		next = suspended("old", r.Old)
	case over(r.State):
		id = idOf(r.Certificate)
		next = fmt.Sprintf("the new key is %s, too: certanchor ca rotate --dir %s makes another one", r.State, dir)
	default:
		id = idOf(r.Certificate)
		next = "nothing: the rotation is over; certanchor ca key destroy --ca-id " + idOf(r.Old) + " once the old certificates have ended"
	}
	if asJSON {
		out := map[string]string{"dir": r.Dir, "ca_id": id, "state": string(r.State), "old_ca_id": idOf(r.Old), "old_state": string(r.OldState), "next": next, "csr": r.Request}
		if r.Certificate != nil {
			out["certificate"], out["not_after"] = filepath.Join(r.Dir, "ca.pem"), r.Certificate.NotAfter.Format(time.RFC3339)
		}
		return printJSON(cmd.OutOrStdout(), out)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "old key  %s, %s\nnew key  %s, %s, in %s\nnext     %s\n", idOf(r.Old), r.OldState, id, r.State, r.Dir, next)
	return nil
}

// suspended says what ends a suspension that every request is refused for.
func suspended(which string, cert *x509.Certificate) string {
	id := idOf(cert)
	return fmt.Sprintf("nothing is issued: the %s key is suspended; certanchor ca key resume --ca-id %s, or certanchor ca key retire --ca-id %s", which, id, id)
}

func over(s keystate.State) bool { return s == keystate.Retired || s == keystate.Destroyed }
