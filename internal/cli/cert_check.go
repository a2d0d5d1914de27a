package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/network/embedded"
)

func newCertStatusCommand() *cobra.Command {
	var (
		certFile, issuerFile, url string
		timeout                   time.Duration
		asJSON                    bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "ask an OCSP responder about a certificate and verify the answer",
		Long: `Asks an OCSP responder, by default the one that the certificate names, and verifies the answer: signed by the issuer or its
delegate, about this certificate, in answer to this very request (nonce), valid now. Exit status 0 means good, 1 anything else.`,
		Example: `  certanchor cert status --cert cert.pem --issuer pki/ca/ca.pem
  certanchor cert status --cert cert.pem --issuer ca.pem --url http://ocsp.org2.example/ocsp --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cert, err := readCertificate("cert", certFile)
			if err != nil {
				return err
			}
			issuer, err := readCertificate("issuer", issuerFile)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			c := client.Client{OCSPURL: url}
			answer, err := c.Status(ctx, cert, issuer)
			if err != nil {
				return err
			}
			if err := printAnswer(cmd.OutOrStdout(), answer, asJSON); err != nil {
				return err
			}
			if answer.Status != client.Good {
				return fmt.Errorf("the certificate is not good: %s", answer.Status)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&certFile, "cert", "", "the certificate, PEM (required)")
	fs.StringVar(&issuerFile, "issuer", "", "the CA's certificate, PEM (required)")
	fs.StringVar(&url, "url", "", "OCSP responder to ask instead of the one the certificate names")
	fs.DurationVar(&timeout, "timeout", client.DefaultTimeout, "how long to wait")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	mustRequire(cmd, "cert", "issuer")
	return cmd
}

func printAnswer(w io.Writer, a *client.Answer, asJSON bool) error {
	if asJSON {
		out := map[string]string{
			"status": a.Status.String(), "this_update": a.ThisUpdate.Format(time.RFC3339), "next_update": a.NextUpdate.Format(time.RFC3339),
			"produced_at": a.ProducedAt.Format(time.RFC3339), "responder": a.Signer.Subject.String(),
		}
		if a.Status == client.Revoked {
			out["revoked_at"], out["reason"] = a.RevokedAt.Format(time.RFC3339), a.Reason
		}
		return printJSON(w, out)
	}
	fmt.Fprintf(w, "%s\n", a.Status)
	if a.Status == client.Revoked {
		fmt.Fprintf(w, "  revoked      %s, %s\n", a.RevokedAt.Format(time.RFC3339), a.Reason)
	}
	_, err := fmt.Fprintf(w, "  this update  %s\n  next update  %s\n  responder    %s\n", a.ThisUpdate.Format(time.RFC3339), a.NextUpdate.Format(time.RFC3339), a.Signer.Subject)
	return err
}

func newCertProofCommand() *cobra.Command {
	var f proofFlags
	cmd := &cobra.Command{
		Use:   "proof",
		Short: "fetch and verify the proof that a certificate is in its CA's log",
		Long: `Fetches a C2SP tlog-proof from an organisation's bridge, or reads one from a file, and verifies it: the certificate's leaf, the
Merkle path, and the checkpoint's signature by the log key. Without --log-key the key is taken from the same server, which
shows that the server is consistent with itself and no more: relying parties pin the key.`,
		Example: `  certanchor cert proof --cert cert.pem --issuer pki/ca/ca.pem --log-key certanchor/LocalMSP+1b2c3d4e+AW... --out cert.proof
  certanchor cert proof --cert cert.pem --issuer pki/ca/ca.pem --log-key certanchor/LocalMSP+1b2c3d4e+AW... --proof cert.proof`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.certFile, "cert", "", "the certificate, PEM (required)")
	fs.StringVar(&f.issuerFile, "issuer", "", "the CA's certificate, PEM (required)")
	fs.StringVar(&f.url, "bridge", "http://"+config.DefaultOCSPListen, "base URL of an organisation's OCSP bridge")
	fs.StringVar(&f.oldURL, "url", "", "what --bridge was called")
	if err := fs.MarkHidden("url"); err != nil {
		panic(err)
	}
	fs.StringVar(&f.channel, "channel", embedded.DefaultChannel, "name of the ledger")
	fs.StringArrayVar(&f.logKeys, "log-key", nil, "verifier key to trust (C2SP signed-note); may be given several times")
	fs.StringVar(&f.proofFile, "proof", "", "verify this file, without any network")
	fs.StringVar(&f.out, "out", "", "write the proof to this file")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
	fs.DurationVar(&f.timeout, "timeout", client.DefaultTimeout, "how long to wait")
	f.tls.register(cmd)
	mustRequire(cmd, "cert", "issuer")
	return withConfig(cmd, together(proofDefaults, f.tls.defaults))
}

type proofFlags struct {
	tls                                                        tlsFlags
	certFile, issuerFile, url, oldURL, channel, proofFile, out string
	logKeys                                                    []string
	asJSON                                                     bool
	timeout                                                    time.Duration
}

func (f *proofFlags) run(cmd *cobra.Command) error {
	f.url = cmp.Or(f.oldURL, f.url)
	cert, err := readCertificate("cert", f.certFile)
	if err != nil {
		return err
	}
	issuer, err := readCertificate("issuer", f.issuerFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	c := client.Client{LogURL: f.url}
	if c.HTTP, err = f.tls.client(); err != nil {
		return err
	}
	var text []byte
	if f.proofFile != "" {
		if len(f.logKeys) == 0 {
			return fmt.Errorf("%w: --proof needs --log-key: offline there is no server to take a key from", errUsage)
		}
		if text, err = os.ReadFile(f.proofFile); err != nil {
			return fmt.Errorf("--proof: %w", err)
		}
	} else {
		text, err = c.FetchProof(ctx, cert, issuer)
	}
	if err != nil {
		return err
	}
	pinned := len(f.logKeys) > 0
	if !pinned {
		if f.logKeys, err = c.ServedLogKeys(ctx, issuer); err != nil {
			return err
		}
	}
	keys, err := client.ParseLogKeys(f.logKeys...)
	if err != nil {
		return err
	}
	inclusion, err := client.VerifyInclusion(cert, issuer, text, client.Origin(f.channel, issuer), keys...)
	if err != nil {
		return err
	}
	if f.out != "" {
		if err := os.WriteFile(f.out, text, 0o644); err != nil {
			return err
		}
	}
	return f.print(cmd.OutOrStdout(), inclusion, pinned)
}

func (f *proofFlags) print(w io.Writer, i *client.Inclusion, pinned bool) error {
	if f.asJSON {
		return printJSON(w, map[string]any{
			"included": true, "origin": i.Origin, "index": i.Index, "size": i.Size, "root": hex.EncodeToString(i.Root[:]),
			"logged": i.Logged.Format(time.RFC3339Nano), "signed_by": i.SignedBy, "key_pinned": pinned,
		})
	}
	note := "pinned by --log-key"
	if !pinned {
		note = "taken from the server itself, not pinned: " + strings.Join(f.logKeys, ", ")
	}
	_, err := fmt.Fprintf(w, "included at index %d of %d\n  log       %s\n  logged    %s\n  root      %x\n  signed by %s\n  log key   %s\n",
		i.Index, i.Size, i.Origin, i.Logged.Format(time.RFC3339Nano), i.Root, strings.Join(i.SignedBy, ", "), note)
	return err
}
