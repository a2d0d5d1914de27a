package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/lognames"
)

// intentFlags say what the holder of a key signs.
type intentFlags struct {
	certFile, issuerFile, keyFile, channel string
	reason, invalidSince                   string
	expires                                time.Duration
	passphrase                             keyfile.Source
}

func (f *intentFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.certFile, "cert", "", "the certificate, PEM or DER")
	fs.StringVar(&f.issuerFile, "issuer", "", "the CA's certificate, PEM or DER, unless --cert holds it too")
	fs.StringVar(&f.keyFile, "key", "", "the certificate's private key: PEM, PKCS#8 (encrypted or not), PKCS#1 or SEC 1")
	fs.StringVar(&f.reason, "reason", wire.KeyCompromise.String(), "RFC 5280's name of the reason; certificateHold is not one")
	fs.StringVar(&f.invalidSince, "invalidity-date", "", "since when the key is suspect, RFC 3339")
	fs.DurationVar(&f.expires, "expires", intent.DefaultLifetime, fmt.Sprintf("until when the ledger takes it, by the ledger's clock; at most %v", intent.MaxLifetime))
	fs.StringVar(&f.passphrase.File, "passphrase-file", "", "file with the passphrase of --key in its only line, readable by its owner only")
	fs.StringVar(&f.passphrase.Env, "passphrase-env", "", "environment variable that holds the passphrase of --key")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-env")
}

// read reads the certificates; sign signs for channel.
func (f *intentFlags) read() (cert, issuer *x509.Certificate, err error) {
	return readWithIssuer("--cert", f.certFile, f.issuerFile)
}

func (f *intentFlags) sign(cert, issuer *x509.Certificate, channel string, now time.Time) (*wire.RevokeArg, error) {
	reason, err := wire.ParseReason(f.reason)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if f.invalidSince != "" {
		if since, err = time.Parse(time.RFC3339, f.invalidSince); err != nil {
			return nil, fmt.Errorf("%w: --invalidity-date %q: must be RFC 3339, such as 2026-05-01T12:00:00Z", errUsage, f.invalidSince)
		}
	}
	if f.expires < 0 || f.expires > intent.MaxLifetime {
		return nil, fmt.Errorf("%w: --expires %v: must be at most %v: an intent is signed when it is needed, not kept for later", errUsage, f.expires, intent.MaxLifetime)
	}
	key, err := readHolderKey(f.keyFile, f.passphrase)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && !public.Equal(key.Public()) {
		return nil, fmt.Errorf("--key %s is not the private key of --cert %s", f.keyFile, f.certFile)
	}
	return intent.Sign(key, cert, issuer, intent.Terms{Channel: channel, Reason: reason, Invalidity: since, Now: now, Lifetime: f.expires})
}

// readHolderKey reads a private key in any form that servers keep theirs in.
func readHolderKey(path string, passphrase keyfile.Source) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s: must hold a PEM block PRIVATE KEY, ENCRYPTED PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY", path)
		}
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			phrase, err := orPrompt(passphrase).Passphrase(path)
			if err != nil {
				return nil, err
			}
			return keyfile.Load(path, phrase)
		default: // EC PARAMETERS, or certificates in the same file
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, block.Type, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s: holds a %T, which cannot sign", path, key)
		}
		return signer, nil
	}
}

func newCertIntentCommand() *cobra.Command {
	var (
		f   intentFlags
		out string
	)
	cmd := &cobra.Command{
		Use:   "intent",
		Short: "sign, offline, that a certificate is to be revoked, with its own key",
		Long: `Signs a statement that revokes a certificate, with the certificate's own key and without any network: on the machine that has the key. Any
organisation's bridge takes it (certanchor cert revoke-own --intent, or POST to /v1/revocations); the CA is not asked.

It is good on one ledger, for this certificate, and expires within 24 hours: the ledger's rule, so it cannot be prepared on the day of issuance
and kept. Whoever has the file can submit it until then. The default leaves an hour for clocks that differ.`,
		Example: `  certanchor cert intent --cert cert.pem --issuer ca.pem --key key.pem --channel certanchor -o revoke.pem
  curl --data-binary @revoke.pem https://bridge.org2.example/v1/revocations`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cert, issuer, err := f.read()
			if err != nil {
				return err
			}
			arg, err := f.sign(cert, issuer, f.channel, time.Now())
			if err != nil {
				return err
			}
			signed, _, err := intent.Check(arg)
			if err != nil {
				return err
			}
			if err := os.WriteFile(out, intent.Marshal(arg), 0o600); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: revokes %s of CA %s on %s (%s), until %s\n", out, signed.Serial, signed.CAID, signed.Channel, signed.Reason, stamp(signed.Expires.Time()))
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.channel, "channel", "", "name of the ledger (required)")
	cmd.Flags().StringVarP(&out, "out", "o", "", "file for the signed statement (required)")
	mustRequire(cmd, "cert", "key", "channel", "out")
	return cmd
}

func newCertRevokeOwnCommand() *cobra.Command {
	var (
		f          intentFlags
		intentFile string
		bridges    []string
		secure     tlsFlags
		timeout    time.Duration
		asJSON     bool
	)
	cmd := &cobra.Command{
		Use:   "revoke-own",
		Short: "revoke a certificate with its own key, at any organisation's bridge",
		Long: `Signs that the certificate is to be revoked, with its own key, and has an organisation's bridge put that on the ledger. The CA is not asked and
cannot prevent it; the revocation is final. While no bridge takes it, the same statement is sent again until --timeout; repeating the command is
safe as well: the first date stays. With --intent a statement that was signed elsewhere is sent.

What a bridge answers is its word. certanchor proof, at another organisation's bridge, and certanchor verify prove the revocation.`,
		Example: `  certanchor cert revoke-own --cert cert.pem --issuer ca.pem --key key.pem --bridge https://bridge.org2.example
  certanchor cert revoke-own --intent revoke.pem --bridge https://bridge.org2.example --bridge https://bridge.org3.example`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			h, err := secure.client()
			if err != nil {
				return err
			}
			arg, err := f.obtain(ctx, h, intentFile, bridges)
			if err != nil {
				return err
			}
			s := intent.Sender{Bridges: bridges, HTTP: h}
			res, err := s.Send(ctx, arg)
			if err != nil {
				return err
			}
			return printRevoked(cmd, res, asJSON)
		},
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.channel, "channel", "", "name of the ledger (default: what the first bridge says)")
	fs.StringVar(&intentFile, "intent", "", "statement to send (certanchor cert intent), instead of --cert and --key")
	fs.StringArrayVar(&bridges, "bridge", []string{"http://" + config.DefaultOCSPListen}, "base URL of an organisation's OCSP bridge; may be given several times, and they are asked in turn")
	fs.DurationVar(&timeout, "timeout", time.Minute, "how long to try")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	secure.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("intent", "cert")
	cmd.MarkFlagsMutuallyExclusive("intent", "key")
	return withConfig(cmd, together(revokeOwnDefaults, secure.defaults))
}

func revokeOwnDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}, "issuer": {c.Issuer}, "channel": {c.Channel}}
}

// obtain reads the intent from a file, or signs one.
func (f *intentFlags) obtain(ctx context.Context, h *http.Client, file string, bridges []string) (*wire.RevokeArg, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--intent: %w", err)
		}
		arg, err := intent.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("--intent %s: %w", file, err)
		}
		return arg, nil
	}
	if f.certFile == "" || f.keyFile == "" {
		return nil, fmt.Errorf("%w: either --intent, or --cert and --key must be given", errUsage)
	}
	cert, issuer, err := f.read()
	if err != nil {
		return nil, err
	}
	channel := f.channel
	if channel == "" {
		if channel, err = askChannel(ctx, h, bridges[0], issuer); err != nil {
			return nil, err
		}
	}
	return f.sign(cert, issuer, channel, time.Now())
}

// askChannel asks a bridge which ledger issuer's log is on. One that lies gets an intent that its ledger refuses.
func askChannel(ctx context.Context, h *http.Client, bridge string, issuer *x509.Certificate) (string, error) {
	code, body, err := get(ctx, h, bridge, "/logs", 16<<20)
	if err != nil {
		return "", err
	}
	if code != http.StatusOK {
		return "", fmt.Errorf("%s/logs: HTTP status %d: give the ledger's name with --channel", bridge, code)
	}
	var logs []struct {
		CAID   string `json:"ca_id"`
		Origin string `json:"origin"`
	}
	if err := json.Unmarshal(body, &logs); err != nil {
		return "", fmt.Errorf("%s/logs: the answer is not understood: %w", bridge, err)
	}
	id := wire.CAIDOf(issuer.RawSubjectPublicKeyInfo)
	for _, l := range logs {
		channel, ok := strings.CutSuffix(l.Origin, lognames.Issuance("", id))
		if ok && channel != "" && l.CAID == id.String() {
			return channel, nil
		}
	}
	return "", fmt.Errorf("%w: %s/logs lists no log of CA %s: it is not on this ledger's trust list", client.ErrNotLogged, bridge, id)
}

func printRevoked(cmd *cobra.Command, res *intent.Result, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), res)
	} else {
		verb, where := "is now", fmt.Sprintf(", block %d, transaction %s", res.Block, res.TxID)
		if !res.Changed {
			verb, where = "was already", ""
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s revoked by its key's holder (%s) since %s%s\n", res.Serial, verb, res.Reason, res.Time, where)
	}
	if err == nil && res.Detail != "" {
		return errors.New(res.Detail)
	}
	return err
}
