package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
)

func newCAStatusCommand() *cobra.Command {
	var f caFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show a CA: certificate, key, ledger, journal, CRLs, responders",
		Long: `Asks a CA bridge how it is: its certificate and key; whether the ledger has it registered, active or suspended, with how many rules about it; what
its journal holds; its newest certificate on the ledger; CRLs, responders, and revocations that have not ended. Exit status 0: it can issue and
nothing is wrong; 1: not, and the last lines say why.`,
		Example: `  certanchor ca status --token-file pki/ca/operator.token
  certanchor ca status --ca-url https://ca.org1.example --token-file auditor.token --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if f.asJSON {
				err = printJSON(cmd.OutOrStdout(), st)
			} else {
				err = printCAStatus(cmd.OutOrStdout(), st)
			}
			if err == nil && len(st.Problems) > 0 {
				err = fmt.Errorf("the CA is not as it should be: %s", st.Problems[0])
			}
			return err
		},
	}
	f.register(cmd)
	return cmd
}

func printCAStatus(w io.Writer, st *caapi.CAStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("CA", "%s", st.Subject)
	row("CA ID", "%s", st.CAID)
	row("valid", "%s to %s", st.NotBefore, st.NotAfter)
	key := fmt.Sprintf("%s since %s", st.Key.State, st.Key.Since)
	if !st.Key.Usable {
		key += ", no certificates are signed: " + st.Key.Detail
	}
	row("key", "%s", key)
	row("profiles", "%d", st.Profiles)
	switch l := st.Ledger; {
	case l == nil && !st.Ready.Registered:
		row("ledger", "not registered, or not to be reached")
	case l == nil:
		row("ledger", "did not answer")
	default:
		state := l.State
		if l.SuspendedBy != "" {
			state += " by " + l.SuspendedBy
		}
		row("ledger", "%s since %s, operated by %s", state, l.Since, orDash(st.Ready.OperatingMSP))
		row("registered", "%s", l.Registered)
		row("rules", "%d", l.Rules)
		row("log", "%d entries", l.LogSize)
	}
	if len(st.Generations) > 1 {
		for _, g := range st.Generations { // what is above and below is about the one that issues
			name := "generation"
			if g.CAID == st.CAID {
				name = "this one"
			}
			ledger := "not on the ledger"
			if l := g.Ledger; l != nil {
				ledger = fmt.Sprintf("%s on the ledger, %d log entries", l.State, l.LogSize)
			}
			row(name, "%s, key %s since %s, %s, %d issued, %d unresolved, valid to %s", g.CAID, g.KeyState, g.Since, ledger, g.Journal.Issued, g.Journal.Unresolved, g.NotAfter)
		}
	}
	row("blocks", "%d on the ledger, %d read for queries", st.Ready.Height, st.Catalogue.Height)
	row("journal", "%d issued, %d unresolved, %d refused, %d abandoned", st.Journal.Issued, st.Journal.Unresolved, st.Journal.Refused, st.Journal.Abandoned)
	if a := st.Last; a != nil {
		row("newest", "%s, log index %d, block %d, %s", a.Serial, a.LogIndex, a.Block, a.Time)
	}
	row("revoking", "%d bulks run, %d are planned, %d certificates will be superseded, %d keys are blocked", st.Bulks.Running, st.Bulks.Planned, st.Superseding, st.BlockedKeys)
	for _, r := range st.Responders {
		said := "has applied the newest block"
		if !r.Applied {
			said = r.Error
		}
		row("responder", "%s: %s", r.URL, said)
	}
	if c := st.CRLs; c == nil || !c.Made {
		row("CRLs", "none are made")
	} else {
		row("CRLs", "%d, %d cannot be made, %d publishing points", len(c.Lists), len(c.Problems), len(c.Targets))
		for _, target := range c.Targets {
			row("CRL point", "%s: %s", target.URL, target.State)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
	return nil
}
