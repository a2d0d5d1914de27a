package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/certanchor/certanchor/internal/caapi"
)

// printPlan shows a list: all of its numbers, and the first certificates.
func printPlan(w io.Writer, b *caapi.Bulk, results func(func(*caapi.BulkResult) error) error) error {
	fmt.Fprintf(w, "%s %d certificates", b.Operation, b.Total)
	if b.Reason != "" {
		fmt.Fprintf(w, ", %s", b.Reason)
	}
	fmt.Fprintf(w, "; all that match in %d blocks; digest %s\n", b.AsOf, b.Digest)
	if b.Unnamed > 0 {
		fmt.Fprintf(w, "%d certificates are not in it whose names the ledger does not have\n", b.Unnamed)
	}
	if b.Total == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERIAL\tSTATE\tNAMES")
	err := results(func(r *caapi.BulkResult) error {
		state := r.State
		if state == "" {
			state = "not on the ledger"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Serial, state, orDash(strings.Join(r.Names, ", ")))
		return nil
	})
	if err != nil {
		return err
	}
	if more := b.Total - shownCertificates; more > 0 {
		fmt.Fprintf(t, "and %d more\n", more)
	}
	return t.Flush()
}

// printBulk is the table at the end.
func printBulk(w io.Writer, b *caapi.Bulk, failures []*caapi.BulkResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "bulk\t%s\noperation\t%s %s\nchanged\t%d\nwere so already\t%d\nfailed\t%d\nin all\t%d\n", b.ID, b.Operation, b.Reason, b.Changed, b.Already, b.Failed, b.Total)
	if b.Block > 0 {
		fmt.Fprintf(t, "last block\t%d\n", b.Block)
	}
	if b.KeyBlocked {
		fmt.Fprintf(t, "blocked key\t%s\n", b.SPKI)
	}
	for _, r := range b.Responders {
		said := "answers accordingly"
		if !r.Applied {
			said = "has not confirmed: " + r.Error
		}
		fmt.Fprintf(t, "%s\t%s\n", r.URL, said)
	}
	for _, r := range failures {
		fmt.Fprintf(t, "%s\t%s %s: %s\n", r.Serial, r.Error.Field, r.Error.Value, r.Error.Rule)
	}
	if more := b.Failed - len(failures); more > 0 {
		fmt.Fprintf(t, "and %d more\tcertanchor ca revoke --bulk %s --json has them all\n", more, b.ID)
	}
	return t.Flush()
}
