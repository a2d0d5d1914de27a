package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/node"
	"github.com/certanchor/certanchor/internal/pemcert"
)

func newCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "make, register and run a certificate authority",
		Example: `  certanchor ca init --dir pki/ca --subject "CN=Example CA,O=Example"`,
	}
	cmd.AddCommand(newCAInitCommand(), newCAClientCommand(), newCARegisterCommand(), newCAServeCommand(), withConfig(newCACRLCommand(), caDefaults))
	cmd.AddCommand(newCADecideCommands()...)
	cmd.AddCommand(newCABackupCommand(), newCARestoreCommand(), newCARestoredCommand())
	cmd.AddCommand(newCADualCommands()...)
	cmd.AddCommand(newCAKeyCommand(), newCARootCommand(), newCARotateCommand())
	return cmd
}

// passphraseFlags say where the CA key's passphrase comes from; without either it is asked for.
func passphraseFlags(cmd *cobra.Command, s *keyfile.Source) {
	cmd.Flags().StringVar(&s.File, "passphrase-file", "", "file with the CA key's passphrase in its only line, readable by its owner only")
	cmd.Flags().StringVar(&s.Env, "passphrase-env", "", "environment variable that holds the CA key's passphrase")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-env")
}

// orPrompt asks on the terminal when no other source was named.
func orPrompt(s keyfile.Source) keyfile.Source {
	s.Prompt = s.File == "" && s.Env == ""
	return s
}

func newCAInitCommand() *cobra.Command {
	var (
		o          ca.InitOptions
		subject    string
		key        string
		algorithm  string
		passphrase keyfile.Source
		below      subordinateFlags
		asJSON     bool
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "make a CA: key, self-signed certificate, profiles and an operator's token",
		Long: `Makes a certificate authority in a directory of its own. The key is encrypted under a passphrase (PKCS#8, PBES2), or stays in a PKCS #11
token that --key names: one that is there is used, one that is not is made. A failure leaves nothing behind, and a directory that holds anything
is refused. docs/hsm.md tells about tokens.

For a CA below a root, --csr-out makes a request instead of the certificate, and --finish puts the certificate in that the root has made of it.`,
		Example: `  certanchor ca init --dir pki/ca --subject "CN=Example CA,O=Example" --passphrase-file pass \
    --ocsp-url http://ocsp.example.org/ocsp
  certanchor ca init --dir pki/ca --subject "CN=Example CA,O=Example" \
    --key 'pkcs11:token=pki;object=ca?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/certanchor/pin'
  certanchor ca init --dir pki/ca --subject "CN=Example Issuing CA,O=Example" --csr-out sub.csr
  certanchor ca init --dir pki/ca --finish --cert sub.pem --chain root.pem`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if below.finish {
				return below.run(cmd, o.Dir, false, asJSON)
			}
			err := below.check(cmd, subject)
			if err != nil {
				return err
			}
			o.Request = below.csrOut != ""
			if o.Subject, err = parseSubject(subject); err != nil {
				return err
			}
			if err = initKey(&o, key, algorithm, passphrase); err != nil {
				return err
			}
			res, err := ca.Init(o)
			if err != nil {
				return err
			}
			if o.Request {
				return below.written(cmd, o.Dir, res.OperatorToken, asJSON)
			}
			id := wire.CAIDOf(res.Certificate.RawSubjectPublicKeyInfo).String()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{
					"ca_id": id, "certificate": filepath.Join(o.Dir, "ca.pem"), "operator_token": res.OperatorToken,
					"not_after": res.Certificate.NotAfter.Format(time.RFC3339),
				})
			}
			if o.KeyURI != "" && !res.KeyMade {
				fmt.Fprintln(cmd.ErrOrStderr(), "the token had this key already; it is used")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "CA %s\n  certificate     %s, until %s\n  CA ID           %s\n  operator token  %s\n",
				res.Certificate.Subject, filepath.Join(o.Dir, "ca.pem"), res.Certificate.NotAfter.Format(time.DateOnly), id, res.OperatorToken)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory to make (required)")
	f.StringVar(&subject, "subject", "", `distinguished name, such as "CN=Example CA,O=Example" (required, but with --finish)`)
	f.StringVar(&key, "key", "p256", "key: p256, p384, rsa2048 or rsa3072 in a file, or the PKCS #11 URI of one in a token (RFC 7512)")
	f.StringVar(&algorithm, "key-algorithm", "p256", "of a key that is to be made in a token: p256, p384, rsa2048 or rsa3072")
	f.DurationVar(&o.Validity, "validity", ca.DefaultValidity, "how long the CA certificate is valid")
	f.IntVar(&o.PathLen, "path-len", 0, "CA certificates that may stand below this one")
	f.StringVar(&o.OCSPURL, "ocsp-url", "http://"+config.DefaultOCSPListen+"/ocsp", "OCSP URL that goes into issued certificates; empty: none")
	f.StringSliceVar(&o.CRLURLs, "crl-url", []string{"http://" + config.DefaultOCSPListen + "/crl/{ca}/full.crl"},
		"CRL URL that goes into issued certificates, with {ca} for the CA ID and, with --crl-shards, {shard}; further ones name the same CRL elsewhere; empty: none")
	f.IntVar(&o.CRLShards, "crl-shards", 0, "CRLs that certificates are spread over, at most 1024; 0: one complete CRL")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	passphraseFlags(cmd, &passphrase)
	below.register(cmd)
	mustRequire(cmd, "dir")
	return cmd
}

// initKey takes --key and what belongs to it.
func initKey(o *ca.InitOptions, key, algorithm string, passphrase keyfile.Source) (err error) {
	flag := "--key"
	if hsm.IsURI(key) {
		if passphrase.File != "" || passphrase.Env != "" {
			return fmt.Errorf("%w: --passphrase-file, --passphrase-env: must not be set with a key in a token, whose PIN is at the URI's pin-source", errUsage)
		}
		if _, err := hsm.ParseURI(flag, key); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		o.KeyURI, key, flag = key, algorithm, "--key-algorithm"
	}
	if o.Algorithm, err = keyfile.ParseAlgorithm(key); err != nil {
		return fmt.Errorf("%w: %s: %w", errUsage, flag, err)
	}
	if o.KeyURI == "" {
		o.Passphrase, err = orPrompt(passphrase).NewPassphrase("the new CA key")
	}
	return err
}

func newCARegisterCommand() *cobra.Command {
	var (
		configFile, certFile, msp string
		asJSON                    bool
	)
	cmd := &cobra.Command{
		Use:   "register",
		Short: "assent, as one organisation's administrator, to a CA being trusted",
		Long: `Submits a CA certificate to the ledger. It is on the trust list as soon as a majority of organisations has submitted the same
bytes, so every organisation's administrator runs this with the same file. The ledger section of the configuration must name an
identity with the role administrator.`,
		Example: `  certanchor ca register --config admin.yaml --ca-cert ca.pem --operating-msp Org1MSP`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := config.Load(configFile)
			if err != nil {
				return err
			}
			res, err := registerCA(cmd.Context(), conf, certFile, msp)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"ca_id": res.CAID.String(), "registered": res.Registered, "votes": res.Votes, "needed": res.Needed})
			}
			if res.Registered {
				fmt.Fprintf(cmd.OutOrStdout(), "CA %s is on the trust list, operated by %s\n", res.CAID, msp)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "CA %s has %d of %d votes: %v\n", res.CAID, len(res.Votes), res.Needed, res.Votes)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&configFile, "config", "", "YAML configuration with the administrator's ledger section (required)")
	f.StringVar(&certFile, "ca-cert", "", "the CA's certificate, PEM, followed by its chain if it is not a root (required)")
	f.StringVar(&msp, "operating-msp", "", "MSP ID of the organisation that may issue and revoke (required)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	mustRequire(cmd, "config", "ca-cert", "operating-msp")
	return cmd
}

func registerCA(ctx context.Context, conf *config.File, certFile, msp string) (res wire.RegisterCAResult, err error) {
	certs, err := pemcert.Read(certFile)
	if err != nil {
		return res, fmt.Errorf("--ca-cert: %w", err)
	}
	var chain [][]byte
	for _, c := range certs[1:] {
		chain = append(chain, c.Raw)
	}
	conn, err := node.OpenLedger(ctx, conf, wire.RoleAdministrator)
	if err != nil {
		return res, err
	}
	defer func() { err = closing(err, conn) }()
	return ca.Register(ctx, conn, certs[0].Raw, chain, msp)
}

func newCAServeCommand() *cobra.Command {
	var (
		configFile, listen string
		passphrase         keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the CA bridge: take requests, sign, anchor in the ledger, release",
		Long: `Runs the CA's HTTP API. No certificate leaves it before it is on the ledger. After a crash it first finishes what its journal
holds. See docs/configuration.md for the ledger and ca sections.`,
		Example: `  certanchor ca serve --config ca.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := config.Load(configFile)
			if err != nil {
				return err
			}
			if conf.CA != nil && listen != "" {
				conf.CA.Listen = listen
			}
			if conf.CA != nil && (passphrase.File != "" || passphrase.Env != "") {
				conf.CA.Passphrase = passphrase
			}
			return node.ServeCA(cmd.Context(), conf)
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "YAML configuration (required)")
	cmd.Flags().StringVar(&listen, "listen", "", "host:port of the API, instead of ca.listen")
	passphraseFlags(cmd, &passphrase)
	mustRequire(cmd, "config")
	return cmd
}
