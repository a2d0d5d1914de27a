package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/pemcert"
)

const (
	bundleTimeout = 30 * time.Second       // two ticks, as they usually are
	bundlePause   = 500 * time.Millisecond // before a bridge is asked again, at least
)

func newProofCommand() *cobra.Command {
	var f bundleFlags
	cmd := &cobra.Command{
		Use:   "proof CERT",
		Short: "get a certificate's bundle: proof of its issuance and its newest status in one file",
		Long: `Asks an organisation's bridge for the bundle of a certificate (PEM or DER): one file that shows, without a network, that the certificate
is in its CA's log and what its status is. Send it along with the certificate; certanchor verify checks it. A bundle is good for as long
as the policy's max-age says, and any organisation's bridge has it for any CA. A new CA has bundles from the next tick on: until --timeout,
it is waited for.

With --policy the bundle is verified first, and not written if anything in it does not hold. The issuer's certificate is taken from CERT if that holds
the chain too.`,
		Example: `  certanchor proof cert.pem --issuer ca.pem --bridge https://bridge.org2.example -o cert.bundle
  certanchor proof chain.pem --bridge https://bridge.org2.example --policy policy.txt -o cert.bundle`,
		Args: oneArg("the certificate's file"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.bridge, "bridge", "http://"+config.DefaultOCSPListen, "base URL of an organisation's OCSP bridge")
	fs.StringVar(&f.issuer, "issuer", "", "the CA's certificate, PEM or DER, unless CERT holds it too")
	fs.StringVarP(&f.out, "out", "o", "", "file for the bundle, replaced if it is there (required)")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
	fs.DurationVar(&f.timeout, "timeout", bundleTimeout, "how long to wait, also for a bridge that has no bundle yet")
	f.trust.register(cmd)
	f.tls.register(cmd)
	mustRequire(cmd, "out")
	return withConfig(cmd, together(bundleDefaults, f.trust.defaults, f.tls.defaults))
}

func bundleDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}, "issuer": {c.Issuer}}
}

type bundleFlags struct {
	bridge, issuer, out string
	trust               trustFlags
	tls                 tlsFlags
	asJSON              bool
	timeout             time.Duration
}

func (f *bundleFlags) run(cmd *cobra.Command, certFile string) error {
	policy, err := f.trust.load() // before anything is asked for
	if err != nil {
		return err
	}
	cert, issuer, err := readWithIssuer("CERT", certFile, f.issuer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	c := client.Client{LogURL: f.bridge}
	if c.HTTP, err = f.tls.client(); err != nil {
		return err
	}
	data, err := f.await(ctx, cmd.ErrOrStderr(), &c, cert, issuer)
	if err != nil {
		return err
	}
	var v *proven
	if policy != nil {
		if v, err = prove(policy, f.trust.pin != "", cert, data, time.Now()); err != nil {
			return fmt.Errorf("%s: the bundle is not written: %w", f.bridge, err)
		}
	}
	if err := replaceFile(f.out, data); err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if f.asJSON {
		out := map[string]any{}
		if v != nil {
			out = v.fields()
		}
		out["bundle"], out["bytes"], out["verified"] = f.out, len(data), v != nil
		return printJSON(w, out)
	}
	if v != nil {
		if err := v.print(w, false); err != nil {
			return err
		}
	}
	note := ""
	if v == nil {
		note = ", not verified: certanchor verify does, or --policy here"
	}
	_, err = fmt.Fprintf(w, "%s: %d bytes%s\n", f.out, len(data), note)
	return err
}

// await fetches the bundle. While the bridge says that there is none now, it waits for as long as the bridge asks, and asks again.
func (f *bundleFlags) await(ctx context.Context, notes io.Writer, c *client.Client, cert, issuer *x509.Certificate) ([]byte, error) {
	said := ""
	for {
		data, err := c.FetchBundle(ctx, cert, issuer)
		var not *client.UnavailableError
		if !errors.As(err, &not) {
			if err != nil && said != "" && ctx.Err() != nil {
				return nil, fmt.Errorf("no bundle within --timeout %v: %s: %s", f.timeout, f.bridge, said)
			}
			return data, err
		}
		if not.Detail != said {
			said = not.Detail
			fmt.Fprintf(notes, "%s has no bundle yet: %s; waiting, up to %v\n", f.bridge, said, f.timeout)
		}
		wait := max(not.RetryAfter, bundlePause)
		if deadline, ok := ctx.Deadline(); ok && time.Now().Add(wait).After(deadline) {
			return nil, fmt.Errorf("no bundle within --timeout %v: %w", f.timeout, err)
		}
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("no bundle: %w", errors.Join(ctx.Err(), err))
		case <-pause.C:
		}
	}
}

// readCertificates returns the certificates of a PEM file in its order, or the one of a DER file. what names the flag or argument.
func readCertificates(what, path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var certs []*x509.Certificate
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		certs, err = pemcert.Parse(data)
	} else {
		var cert *x509.Certificate
		cert, err = x509.ParseCertificate(data)
		certs = []*x509.Certificate{cert}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", what, path, err)
	}
	return certs, nil
}

// readWithIssuer reads a certificate, and its issuer's from issuerFile or, if that is empty, from behind it in the same file.
func readWithIssuer(what, certFile, issuerFile string) (cert, issuer *x509.Certificate, err error) {
	certs, err := readCertificates(what, certFile)
	if err != nil {
		return nil, nil, err
	}
	if issuerFile != "" {
		issuers, err := readCertificates("--issuer", issuerFile)
		if err != nil {
			return nil, nil, err
		}
		return certs[0], issuers[0], nil
	}
	for _, c := range certs[1:] {
		if bytes.Equal(c.RawSubject, certs[0].RawIssuer) {
			return certs[0], c, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: --issuer must name the certificate of %q: %s does not hold it", errUsage, certs[0].Issuer, certFile)
}

// replaceFile puts data in place of path, whole or not at all.
func replaceFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".certanchor-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(data))
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("couldn't write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
