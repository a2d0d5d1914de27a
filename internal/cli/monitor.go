package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// progressEvery keeps a long first read from filling the terminal, and a short one silent.
const progressEvery = 2 * time.Second

type monitorFlags struct {
	url, state, webhook     string
	match, logKeys          []string
	trust                   trustFlags
	tls                     tlsFlags
	asJSON, once, fromStart bool
	interval, giveUp        time.Duration
	parallel                int
}

func newMonitorCommand() *cobra.Command {
	var f monitorFlags
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "report new certificates and status changes for names, from verified logs",
		Long: `Follows every issuance log and the status log of a ledger at one organisation's bridge, and reports each certificate and
precertificate for a name that matches, and each hold, release and revocation of one, whoever decided it.

Nothing is believed that does not hash up to a checkpoint signed as the policy wants, and no checkpoint that does not continue the one
before: a log that shrinks, forks or is damaged is an alarm, with both signed checkpoints as evidence.

--match example.org is that name and all below it, wildcards included; *.example.org only those below; also e-mail addresses
(a@example.org), IP addresses and prefixes (192.0.2.0/24). Internationalised names are given as A-labels (xn--...).

With --state a restart goes on where the last run ended. Events come at least once: those that were delivered just before a kill come again
with the same ID. Without --from-start reports begin with what is logged from now on.

Exit status of --once: 0 caught up, 1 alarm or failure; what was read is summed up on standard error. Otherwise it runs until it is interrupted.`,
		Example: `  certanchor monitor --bridge https://log.org2.example --match example.org --state example.state \
    --policy consortium.policy --policy-fingerprint 5d0c...e1
  certanchor monitor --bridge http://127.0.0.1:8889 --match example.org --match '*.example.net' --log-key certanchor/LocalMSP+1b2c3d4e+AW... --json
  certanchor monitor --bridge https://log.org2.example --match example.org --state example.state --from-start --once \
    --policy consortium.policy --policy-fingerprint 5d0c...e1 --webhook https://alerts.example/hook   # from cron`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.url, "bridge", "http://"+config.DefaultOCSPListen, "base URL of an organisation's bridge")
	fs.StringArrayVar(&f.match, "match", nil, "what to look for; may be given several times (required)")
	fs.StringVar(&f.state, "state", "", "file that remembers what was verified and delivered")
	fs.StringArrayVar(&f.logKeys, "log-key", nil, "instead of a policy: verifier key whose signature is enough (C2SP signed-note); may be given several times")
	fs.BoolVar(&f.asJSON, "json", false, "print each event as one line of JSON")
	fs.StringVar(&f.webhook, "webhook", "", `URL that events are also posted to, as {"events": [...]}, until it answers 2xx`)
	fs.BoolVar(&f.once, "once", false, "end when caught up")
	fs.BoolVar(&f.fromStart, "from-start", false, "also report what is in the logs already")
	fs.DurationVar(&f.interval, "interval", client.DefaultInterval, "between polls")
	fs.DurationVar(&f.giveUp, "give-up", client.DefaultGiveUp, "with --once: how long to try what fails")
	fs.IntVar(&f.parallel, "parallel", client.DefaultParallel, "requests at a time")
	f.trust.register(cmd)
	f.tls.register(cmd)
	mustRequire(cmd, "match")
	return withConfig(cmd, together(bridgeDefault, f.defaults, f.tls.defaults))
}

func (f *monitorFlags) run(cmd *cobra.Command) error {
	out, progress := &eventPrinter{w: cmd.OutOrStdout(), asJSON: f.asJSON}, &progressPrinter{w: cmd.ErrOrStderr()}
	for _, m := range f.match {
		if err := client.CheckMatch(m); err != nil {
			return fmt.Errorf("%w: --match: %w", errUsage, err)
		}
	}
	conf := client.MonitorConfig{
		URL: f.url, Match: f.match, StateFile: f.state, FromStart: f.fromStart, Interval: f.interval, GiveUp: f.giveUp, Parallel: f.parallel,
		Deliver: out.deliver, Progress: progress.print,
	}
	if err := f.trusted(&conf); err != nil {
		return err
	}
	var err error
	if conf.HTTP, err = f.tls.client(); err != nil {
		return err
	}
	if f.once && f.state == "" && !f.fromStart {
		return fmt.Errorf("%w: --once needs --state or --from-start: there is nothing new since now", errUsage)
	}
	if f.webhook != "" {
		hook := &client.Webhook{URL: f.webhook}
		if err := hook.Check(); err != nil {
			return fmt.Errorf("%w: --webhook: %w", errUsage, err)
		}
		if f.once {
			hook.GiveUp = f.giveUp
		}
		// What was printed and not accepted comes again after a restart, on both ways.
		conf.Deliver = func(ctx context.Context, events []client.Event) error {
			return errors.Join(out.deliver(ctx, events), hook.Deliver(ctx, events))
		}
	}
	m, err := client.NewMonitor(conf)
	if err != nil {
		return err
	}
	if f.once {
		err := m.CatchUp(cmd.Context())
		done := m.Summary()
		fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s verified, %d reported\n", plural(done.Logs, "log", "logs"), plural(done.Entries, "entry", "entries"), out.count)
		return err
	}
	if err := m.Run(cmd.Context()); cmd.Context().Err() == nil {
		return err
	}
	return nil // interrupted, as is usual
}

// trusted says whose checkpoints count.
func (f *monitorFlags) trusted(conf *client.MonitorConfig) (err error) {
	if conf.Policy, err = f.trust.load(); err != nil {
		return err
	}
	switch {
	case conf.Policy == nil && len(f.logKeys) == 0:
		return fmt.Errorf("%w: give --policy, or --log-key: a key from the server itself would prove nothing", errUsage)
	case conf.Policy != nil && len(f.logKeys) > 0:
		return fmt.Errorf("%w: give --policy or --log-key, not both: the weaker one would count", errUsage)
	}
	conf.LogKeys, err = client.ParseLogKeys(f.logKeys...)
	return err
}

// tlsFlags are for a bridge that only members may read, or whose certificate is of the organisation's own CA.
type tlsFlags struct{ roots, cert, key string }

func (f *tlsFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.roots, "tls-ca", "", "PEM file with the roots of the bridge's TLS certificate; default: the system's")
	fs.StringVar(&f.cert, "client-cert", "", "PEM file with the TLS client certificate for a bridge that only members may read")
	fs.StringVar(&f.key, "client-key", "", "PEM file with its key")
}

// client returns nil for the default.
func (f *tlsFlags) client() (*http.Client, error) {
	if (f.cert == "") != (f.key == "") {
		return nil, fmt.Errorf("%w: --client-cert and --client-key belong together", errUsage)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.roots != "" {
		certs, err := pemcert.Read(f.roots)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			conf.RootCAs.AddCert(c)
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--client-cert: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	if f.roots == "" && f.cert == "" {
		return nil, nil
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("http.DefaultTransport is not an *http.Transport")
	}
	transport = transport.Clone()
	transport.TLSClientConfig = conf
	return &http.Client{Transport: transport}, nil
}

// eventPrinter writes events for people, or one per line as JSON.
type eventPrinter struct {
	w      io.Writer
	asJSON bool
	count  int // events that were printed
}

func (p *eventPrinter) deliver(_ context.Context, events []client.Event) error {
	for i := range events {
		var err error
		if p.asJSON {
			err = json.NewEncoder(p.w).Encode(&events[i])
		} else {
			_, err = io.WriteString(p.w, eventText(&events[i]))
		}
		if err != nil {
			return fmt.Errorf("print event %s: %w", events[i].ID, err)
		}
		p.count++
	}
	return nil
}

func plural[N int | uint64](n N, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func eventText(e *client.Event) string {
	var b strings.Builder
	what := string(e.Kind)
	if e.Change != "" {
		what = e.Change
	}
	if e.Alarm != "" {
		what = "ALARM " + e.Alarm
	}
	fmt.Fprintf(&b, "%s  %-14s  %s\n", e.Time.Format(time.RFC3339), what, plain(strings.Join(e.Names, ", ")))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", name, plain(value))
		}
	}
	line("entry", fmt.Sprintf("%d of %s", e.Index, e.Log))
	line("serial", e.Serial)
	line("issuer", e.Issuer)
	if !e.NotAfter.IsZero() {
		line("valid", e.NotBefore.Format(time.RFC3339)+" to "+e.NotAfter.Format(time.RFC3339))
	}
	line("sha256", e.SHA256)
	line("reason", e.Reason)
	line("by", e.By)
	if !e.To.IsZero() {
		line("covers", fmt.Sprintf("%d matching certificates, of those logged from %s to %s", e.Covers, e.From.Format(time.RFC3339), e.To.Format(time.RFC3339)))
	}
	line("detail", e.Detail)
	for _, signed := range e.Evidence {
		line("evidence", strconv.Quote(signed))
	}
	return b.String()
}

// plain keeps what a certificate says from steering the terminal.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// progressPrinter tells of long reads only.
type progressPrinter struct {
	w    io.Writer
	last time.Time
}

func (p *progressPrinter) print(now client.MonitorProgress) {
	if p.last.IsZero() {
		p.last = time.Now()
	}
	if time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.w, "%s: %d of %d entries, %.0f/s, %v left\n", now.Log, now.Next, now.Size, now.PerSecond, now.Remaining.Round(time.Second))
}
