package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
)

func newCACRLCommand() *cobra.Command {
	var f caFlags
	cmd := &cobra.Command{
		Use:   "crl",
		Short: "show which CRLs a CA has signed, and which OCSP bridges serve them",
		Long: `Asks a CA bridge for the CRLs that it has signed last, what keeps it from signing more, and which of the OCSP bridges that it publishes to serve
them. Exit status 0: every bridge serves the newest; 1: not.`,
		Example: `  certanchor ca crl --token-file pki/ca/operator.token
  certanchor ca crl --ca-url https://ca.org1.example --token-file auditor.token --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			st, err := c.CRLs(ctx)
			if err != nil {
				return err
			}
			if f.asJSON {
				err = printJSON(cmd.OutOrStdout(), st)
			} else {
				err = printCRLs(cmd.OutOrStdout(), st)
			}
			if err != nil {
				return err
			}
			return crlsHealthy(st)
		},
	}
	f.register(cmd)
	return cmd
}

// crlsHealthy says what is not as it should be.
func crlsHealthy(st *caapi.CRLs) error {
	if !st.Made {
		return errors.New("this CA makes no CRLs: ca.crl is not configured")
	}
	if len(st.Problems) > 0 {
		return fmt.Errorf("a CRL is due and cannot be made: %s: %s", st.Problems[0].Stage, st.Problems[0].Detail)
	}
	for _, t := range st.Targets {
		if t.State != caapi.TargetCurrent {
			return fmt.Errorf("%s does not serve the newest CRLs: %s", t.URL, t.State)
		}
	}
	if len(st.Lists) == 0 {
		return errors.New("no CRL has been signed yet")
	}
	return nil
}

func printCRLs(w io.Writer, st *caapi.CRLs) error {
	fmt.Fprintf(w, "CRLs of the CA %s, of what %s says\n\n", st.CAID, orDash(st.Contents))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CRL\tNUMBER\tENTRIES\tTHIS UPDATE\tNEXT UPDATE")
	for _, c := range st.Lists {
		name, number := c.Kind, fmt.Sprint(c.Number)
		if c.Scope != "" {
			name = c.Scope
		}
		if c.Base != 0 {
			number += fmt.Sprintf(" against %d", c.Base)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", name, number, c.Entries, c.ThisUpdate, c.NextUpdate)
	}
	fmt.Fprintln(t, "\nSERVED BY\tSTATE\tCOMPLETE\tDELTA\tBEHIND\tSINCE")
	for _, b := range st.Targets {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", b.URL, b.State, numberOrDash(b.Number), numberOrDash(b.Delta), b.Behind, orDash(b.Since))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range st.Targets {
		if b.Detail != "" {
			fmt.Fprintf(w, "\n%s says: %s\n", b.URL, b.Detail)
		}
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "\nno new CRL %s since %s: %s: %s\n", p.Scope, p.Since, p.Stage, p.Detail)
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func numberOrDash(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
