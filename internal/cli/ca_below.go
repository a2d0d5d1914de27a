package cli

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// subordinateFlags make a CA below a root in two steps: a request, and the certificate that the root has made of it.
type subordinateFlags struct {
	csrOut, cert, chain string
	finish              bool
}

func (f *subordinateFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.csrOut, "csr-out", "", "make a request for a CA below a root and write it to this file, which must not exist")
	fs.BoolVar(&f.finish, "finish", false, "put in the certificate that a root has made of the request")
	fs.StringVar(&f.cert, "cert", "", "with --finish: the certificate, PEM; its chain may follow in the same file")
	fs.StringVar(&f.chain, "chain", "", "with --finish: its issuers up to the root, issuer first, PEM")
	cmd.MarkFlagsMutuallyExclusive("csr-out", "finish")
	cmd.MarkFlagsRequiredTogether("finish", "cert")
}

// check refuses what --finish would be needed for.
func (f *subordinateFlags) check(cmd *cobra.Command, subject string) error {
	if subject == "" {
		return fmt.Errorf("%w: --subject must be given; see %s --help", errUsage, cmd.CommandPath())
	}
	if f.chain != "" {
		return fmt.Errorf("%w: --chain goes with --finish", errUsage)
	}
	if f.csrOut == "" {
		return nil
	}
	if _, err := os.Lstat(f.csrOut); err == nil {
		return fmt.Errorf("--csr-out %s: %w", f.csrOut, os.ErrExist)
	}
	return nil
}

// written gives out the request that was made in dir.
func (f *subordinateFlags) written(cmd *cobra.Command, dir, token string, asJSON bool) error {
	text, err := os.ReadFile(filepath.Join(dir, ca.RequestFile))
	if err != nil {
		return err
	}
	if err := writeOut(cmd, f.csrOut, text); err != nil {
		return fmt.Errorf("the request is in %s; --csr-out: %w", filepath.Join(dir, ca.RequestFile), err)
	}
	id, err := requestID(text)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]string{"ca_id": id, "csr": f.csrOut, "operator_token": token})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "request  %s\nCA ID    %s\nnext     certanchor ca root sign --csr %s --out sub.pem on the root's machine, and here\n         certanchor ca init --dir %s --finish --cert sub.pem --chain root.pem\n",
		f.csrOut, id, filepath.Base(f.csrOut), dir)
	return nil
}

// run is --finish.
func (f *subordinateFlags) run(cmd *cobra.Command, dir string, successor, asJSON bool) error {
	certs, err := pemcert.Read(f.cert)
	if err != nil {
		return fmt.Errorf("--cert: %w", err)
	}
	cert, chain := certs[0], certs[1:]
	if f.chain != "" {
		more, err := pemcert.Read(f.chain)
		if err != nil {
			return fmt.Errorf("--chain: %w", err)
		}
		chain = append(chain, more...)
	}
	o := ca.FinishOptions{Dir: dir, Cert: cert, Chain: chain}
	finish := ca.Finish
	if successor {
		finish = ca.FinishRotation
	}
	if err := finish(o); err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]string{"ca_id": idOf(cert), "not_after": cert.NotAfter.Format(time.RFC3339)})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "CA %s, certified by %s until %s\n  CA ID  %s\n  next   certanchor ca register, with ca.pem and chain.pem of %s in one file\n",
		cert.Subject, cert.Issuer, cert.NotAfter.Format(time.DateOnly), idOf(cert), dir)
	return nil
}

func idOf(cert *x509.Certificate) string { return wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String() }

func requestID(text []byte) (string, error) {
	csr, err := ca.ParseRequest(text)
	if err != nil {
		return "", err
	}
	return wire.CAIDOf(csr.RawSubjectPublicKeyInfo).String(), nil
}
