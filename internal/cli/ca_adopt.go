package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// adoptFlags are the command line of ca adopt.
type adoptFlags struct {
	o                             ca.AdoptOptions
	cert, keyFile, keyURI, config string
	passphrase                    keyfile.Source
	ocspURL                       string
	asJSON                        bool
}

func newCAAdoptCommand() *cobra.Command {
	var a adoptFlags
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "make the directory of a CA that has its key and certificate already",
		Long: `Makes a CA directory from a certificate and key that are in use, such as those of a cfssl server. The key is encrypted under a passphrase
(PKCS#8, PBES2), or stays in the PKCS #11 token that --key names. --profiles takes a cfssl configuration; what it needs beside that is added,
and each addition is told on standard error. The CA then is registered and served as a new one is. The certificates that it has issued so far are taken
into the ledger by certanchor ca import.

The key's file in the clear stays where it is: destroy it when the CA runs. A failure leaves nothing behind, and a directory that holds anything
is refused.`,
		Example: `  certanchor ca adopt --dir pki/ca --cert ca.pem --key-file ca-key.pem --profiles config.json \
    --passphrase-file pass --ocsp-url http://ocsp.example.org/ocsp`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&a.o.Dir, "dir", "", "directory to make (required)")
	f.StringVar(&a.cert, "cert", "", "the CA's certificate, PEM, followed by those above it up to the root (required)")
	f.StringVar(&a.keyFile, "key-file", "", "its private key, PEM without a passphrase; or --key")
	f.StringVar(&a.keyURI, "key", "", "PKCS #11 URI of its private key in a token (RFC 7512)")
	f.StringVar(&a.config, "profiles", "", "cfssl configuration with the CA's profiles; default: those of a new CA")
	f.StringVar(&a.ocspURL, "ocsp-url", "http://"+config.DefaultOCSPListen+"/ocsp", "OCSP URL for profiles that name none; empty: none")
	f.StringSliceVar(&a.o.CRLURLs, "crl-url", []string{"http://" + config.DefaultOCSPListen + "/crl/{ca}/full.crl"},
		"CRL URL for profiles that name none, with {ca} for the CA ID and, with --crl-shards, {shard}; further ones name the same CRL elsewhere; empty: none")
	f.IntVar(&a.o.CRLShards, "crl-shards", 0, "CRLs that certificates are spread over, at most 1024; 0: one complete CRL")
	f.BoolVar(&a.asJSON, "json", false, "print JSON")
	passphraseFlags(cmd, &a.passphrase)
	mustRequire(cmd, "dir", "cert")
	cmd.MarkFlagsMutuallyExclusive("key-file", "key")
	cmd.MarkFlagsOneRequired("key-file", "key")
	return cmd
}

func (a *adoptFlags) run(cmd *cobra.Command) (err error) {
	if a.o.Chain, err = pemcert.Read(a.cert); err != nil {
		return fmt.Errorf("--cert: %w", err)
	}
	if a.config != "" {
		if a.o.Profiles, err = os.ReadFile(a.config); err != nil {
			return fmt.Errorf("--profiles: %w", err)
		}
	}
	a.o.OCSPURL = a.ocspURL
	if err := a.readKey(); err != nil {
		return err
	}
	res, err := ca.Adopt(a.o)
	if err != nil {
		return err
	}
	for _, note := range res.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), note)
	}
	cert := a.o.Chain[0]
	id := wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String()
	if a.asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]any{
			"ca_id": id, "certificate": filepath.Join(a.o.Dir, "ca.pem"), "operator_token": res.OperatorToken,
			"not_after": cert.NotAfter.Format(time.RFC3339), "notes": append([]string{}, res.Notes...),
		})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "CA %s\n  certificate     %s, until %s\n  CA ID           %s\n  operator token  %s\n",
		cert.Subject, filepath.Join(a.o.Dir, "ca.pem"), cert.NotAfter.Format(time.DateOnly), id, res.OperatorToken)
	return nil
}

func (a *adoptFlags) readKey() (err error) {
	if a.keyFile != "" {
		if a.o.Key, err = ca.ReadPlainKey(a.keyFile); err != nil {
			return fmt.Errorf("--key-file: %w", err)
		}
		a.o.Passphrase, err = orPrompt(a.passphrase).NewPassphrase("the CA key")
		return err
	}
	if a.passphrase.File != "" || a.passphrase.Env != "" {
		return fmt.Errorf("%w: --passphrase-file, --passphrase-env: must not be set with a key in a token, whose PIN is at the URI's pin-source", errUsage)
	}
	if _, err := hsm.ParseURI("--key", a.keyURI); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	a.o.KeyURI = a.keyURI
	return nil
}
