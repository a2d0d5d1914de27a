package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/caimport/mirror"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/node"
)

func newCAMirrorCommand() *cobra.Command {
	var (
		ca           importedCA
		c            mirror.Config
		once, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "keep an outside CA's status in the ledger, from its CRL and its OCSP responder",
		Long: `Looks at a CA's CRL again and again, and brings what changes onto the ledger: for a CA that does not speak to it yet. It acts as an operator of
the organisation that operates the CA there (certanchor ca register), and needs no key of the CA.

A CRL is believed if the CA has signed it, it is complete and in force, and its number goes up; anything else is refused and reported. New
revocations are imported, without certificate where the ledger has none. What was on hold and is not listed by a newer CRL is released, but only
while it is on hold with the date that the CA has published: a hold that somebody else has put on stays.

With --ocsp, the CA's responder is asked about the ledger's valid certificates of this CA that are not on the CRL, one after the other, so that news
arrive between two CRLs. docs/import.md tells more.`,
		Example: `  certanchor ca mirror --config ca.yaml --ca-cert ca.pem --dir mirror --crl http://crl.example.org/ca.crl
  certanchor ca mirror --config ca.yaml --ca-cert ca.pem --dir mirror --crl http://crl.example.org/ca.crl \
    --ocsp http://ocsp.example.org --ocsp-rate 20
  certanchor ca mirror --config ca.yaml --ca-cert ca.pem --dir mirror --crl file:///var/lib/ca/ca.crl --once --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			id, err := ca.caID()
			if err != nil {
				return err
			}
			conf, err := config.Load(ca.configFile)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if c.Ledger, err = node.OpenLedger(ctx, conf, wire.RoleOperator); err != nil {
				return err
			}
			defer func() { err = closing(err, c.Ledger) }()
			if c.CA, err = caimport.FindAuthority(ctx, c.Ledger, id); err != nil {
				return err
			}
			c.Log = slog.Default()
			m, err := mirror.Open(c)
			if err != nil {
				return err
			}
			defer func() { err = closing(err, m) }()
			if !once {
				return m.Run(ctx)
			}
			err = m.Once(ctx)
			return errors.Join(err, printMirrored(cmd.OutOrStdout(), m.Report(), asJSON))
		},
	}
	ca.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&c.Dir, "dir", "", "directory of the mirror's own state, made when absent (required)")
	fs.StringVar(&c.CRL, "crl", "", "URL of the CA's complete CRL: http://, https:// or file:// (required)")
	fs.StringVar(&c.OCSP, "ocsp", "", "URL of the CA's OCSP responder: http:// or https://; default: it is not asked")
	fs.Float64Var(&c.OCSPRate, "ocsp-rate", mirror.DefaultOCSPRate, fmt.Sprintf("requests to the responder a second, at most %d", mirror.MaxOCSPRate))
	fs.DurationVar(&c.Interval, "interval", mirror.DefaultInterval, fmt.Sprintf("between two looks at the CRL, at least %s; sooner when its nextUpdate is", mirror.LeastInterval))
	fs.DurationVar(&c.Timeout, "timeout", mirror.DefaultTimeout, "for reading the CRL")
	fs.Int64Var(&c.MaxCRLBytes, "max-crl-bytes", mirror.DefaultMaxCRLBytes, "longer CRLs are refused")
	fs.BoolVar(&once, "once", false, "look once, ask the responder once about each certificate, and end; the exit status is 1 if the CRL was refused")
	fs.BoolVar(&asJSON, "json", false, "with --once: print a report in JSON")
	mustRequire(cmd, "dir", "crl")
	return cmd
}

func printMirrored(w io.Writer, r mirror.Report, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	number := r.Number
	if number == "" {
		number = "none"
	}
	_, err := fmt.Fprintf(w, "CRL number %s of %s, next %s\n%10d  entries told to the ledger, %d of them new to it\n%10d  holds released\n%10d  on hold because the CA says so\n",
		number, r.ThisUpdate.Format(time.RFC3339), r.NextUpdate.Format(time.RFC3339), r.Imported, r.Changed, r.Released, r.Held)
	if err == nil && r.Asked > 0 {
		_, err = fmt.Fprintf(w, "%10d  certificates asked about over OCSP, %d of them news, %d without a believable answer\n", r.Asked, r.OCSPNews, r.OCSPFailed)
	}
	if err == nil && r.Retry > 0 {
		_, err = fmt.Fprintf(w, "%10d  entries that the ledger refuses, tried again next time\n", r.Retry)
	}
	return err
}
