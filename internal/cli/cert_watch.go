package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
)

type watchFlags struct {
	url, issuerFile, after string
	tls                    tlsFlags
	asJSON                 bool
}

func newCertWatchCommand() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "print changes of status as they happen",
		Long: `Follows an organisation's bridge and prints each hold, release and revocation, whoever decided it, each rule that revokes what a CA has
issued, and each decision about a CA, until it is interrupted. When the connection is lost it goes on where it was.

What is printed is the bridge's word; certanchor monitor reports from verified logs, within seconds. Each line ends with the event's ID, which
--after takes; all organisations' bridges have the same IDs.`,
		Example: `  certanchor cert watch --bridge https://bridge.org2.example
  certanchor cert watch --bridge http://127.0.0.1:8889 --issuer pki/ca/ca.pem --after 1017-3 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.url, "bridge", "http://"+config.DefaultOCSPListen, "base URL of an organisation's bridge")
	fs.StringVar(&f.issuerFile, "issuer", "", "only what this CA has issued: its certificate, PEM")
	fs.StringVar(&f.after, "after", "", `ID of the last event that was seen; "0-0": all there are; default: those from now on`)
	fs.BoolVar(&f.asJSON, "json", false, "print each event as one line of JSON")
	f.tls.register(cmd)
	return cmd
}

func watchDefaults(c *config.Client) map[string][]string {
	return map[string][]string{"bridge": {c.BridgeURL}, "issuer": {c.Issuer}}
}

func (f *watchFlags) run(cmd *cobra.Command) error {
	conf := client.EventsConfig{URL: f.url, After: f.after}
	if f.after != "" {
		if _, _, err := client.ParseEventID(f.after); err != nil {
			return fmt.Errorf("%w: --after: %w", errUsage, err)
		}
	}
	if f.issuerFile != "" {
		issuer, err := readCertificate("issuer", f.issuerFile)
		if err != nil {
			return err
		}
		conf.CA = client.CAID(issuer)
	}
	var err error
	if conf.HTTP, err = f.tls.client(); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	conf.Event = func(e *client.StatusEvent) error { return printStatusEvent(out, e, f.asJSON) }
	conf.Down = func(err error, retry time.Duration) {
		slog.Warn("no events", "error", err, "retry_in", retry)
	}
	if err := client.Events(cmd.Context(), conf); cmd.Context().Err() == nil {
		return err
	}
	return nil // interrupted, as is usual
}

func printStatusEvent(w io.Writer, e *client.StatusEvent, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			ID string `json:"id"`
			*client.StatusEvent
		}{e.ID(), e})
	}
	what := "the CA"
	switch {
	case e.Serial != "":
		what = e.Serial
	case e.Rule != 0 && e.From != nil && e.To != nil:
		what = fmt.Sprintf("all logged from %s to %s", e.From.Format(time.RFC3339), e.To.Format(time.RFC3339))
	}
	_, err := fmt.Fprintf(w, "%s  %-9s  %-22s  %s  of CA %s  %s\n", e.Time.Format(time.RFC3339), plain(e.State), plain(e.Reason), plain(what), plain(e.CAID), e.ID())
	return err
}
