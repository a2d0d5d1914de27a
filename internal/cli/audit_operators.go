package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/internal/node"
	"github.com/certanchor/certanchor/internal/oplog"
)

// operatorsFlags are the flags of certanchor audit operators.
type operatorsFlags struct {
	auditFlags
	caDirs                []string
	caID                  string
	files                 []string
	since, until          string
	actor, action         string
	records, newest, json bool
	all                   bool
	knownGaps             []uint
}

func newAuditOperatorsCommand() *cobra.Command {
	var f operatorsFlags
	cmd := &cobra.Command{
		Use:   "operators",
		Short: "verify the log of what a CA's operators did, against the heads anchored in the ledger, and print it",
		Long: `Reads the operators' log of a CA, which may be running, and verifies that each record follows from the one before. With a ledger it compares
the log with every head of it that the CA has anchored there: records that were changed, deleted, cut off or replaced, and an old copy that
was continued, are found, and the first of them is named. A generation that begins after a restore from a backup tells what was lost; exit
status 1 until --known-gap names it. A CA with several bridges has a log of each; those that the ledger knows and that are not given are named
as not shown. Without a ledger the log is only compared with itself: whoever can write it can make another one.

Exit status 0 means that each log given is what it was, 1 that one differs or has a gap, with --all also that one is not shown. docs/operators-log.md has the format.`,
		Example: `  certanchor audit operators --dir pki/ca --config auditor.yaml
  certanchor audit operators --dir pki/ca --socket pki/ledger/ledger.sock --since 24h --actor alice --json
  certanchor audit operators --dir ca --dir ca2 --config auditor.yaml --all           # of all bridges
  certanchor audit operators --file 0.log --ca-id 5f0c... --config auditor.yaml      # a copy`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.caDirs, "dir", nil, "the CA's directory; several times for the CA's further bridges")
	fs.BoolVar(&f.all, "all", false, "exit status 1 if the ledger has a log of the CA that is not given")
	fs.StringArrayVar(&f.files, "file", nil, "a file of the log, instead of those in --dir; one for each generation")
	fs.StringVar(&f.caID, "ca-id", "", "the CA's ID, instead of that of the certificate in --dir")
	fs.StringVar(&f.configFile, "config", "", "YAML configuration with the section ledger")
	fs.StringVar(&f.ledger, "ledger", "", "directory of an embedded ledger that no process has open, instead of --config")
	fs.StringVar(&f.socket, "socket", "", "socket of an embedded ledger, instead of --config")
	fs.BoolVar(&f.newest, "newest", false, "compare with the newest anchored head only, without reading the blocks")
	fs.UintSliceVar(&f.knownGaps, "known-gap", nil, "generation before which the loss of records is known and dealt with; may be given several times")
	fs.BoolVar(&f.records, "records", false, "print the records, too")
	fs.StringVar(&f.since, "since", "", "only records of this time or later: RFC 3339, a date, or a duration before now such as 24h")
	fs.StringVar(&f.until, "until", "", "only records before this time")
	fs.StringVar(&f.actor, "actor", "", "only records of this actor")
	fs.StringVar(&f.action, "action", "", "only records whose action contains this")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("config", "ledger", "socket")
	cmd.MarkFlagsOneRequired("dir", "file")
	return cmd
}

// operatorsReport is what --json prints.
type operatorsReport struct {
	auditedLog
	More     []auditedLog `json:"more,omitempty"` // further bridges' logs
	NotShown []unshownLog `json:"not_shown"`      // null without a ledger and with --newest: nobody looked
}

// auditedLog is one log.
type auditedLog struct {
	*oplog.Report
	Anchors int           `json:"anchors"`
	Records []shownRecord `json:"records,omitempty"`
}

// shownRecord is an entry with its outcome.
type shownRecord struct {
	Generation uint64            `json:"generation"`
	Seq        uint64            `json:"seq"`
	Time       time.Time         `json:"time"`
	Actor      string            `json:"actor,omitempty"`
	How        string            `json:"how,omitempty"`
	Source     string            `json:"source,omitempty"`
	Action     string            `json:"action"`
	Target     string            `json:"target,omitempty"`
	Detail     map[string]string `json:"detail,omitempty"`
	Outcome    string            `json:"outcome"`
	Ended      time.Time         `json:"ended,omitzero"`
}

// noOutcome is what is shown of an action that is under way, or whose process ended.
const noOutcome = "unknown: no outcome is recorded"

func (f *operatorsFlags) run(cmd *cobra.Command) error {
	compared := f.configFile != "" || f.ledger != "" || f.socket != ""
	if f.all && (!compared || f.newest) {
		return fmt.Errorf("%w: --all needs a ledger's blocks: --config, --ledger or --socket, without --newest", errUsage)
	}
	logs, id, err := f.logs()
	if err != nil {
		return err
	}
	pick, err := f.filter(time.Now())
	if err != nil {
		return err
	}
	var histories map[string][]oplog.Anchor
	if compared {
		if histories, err = f.histories(cmd, id, logs); err != nil {
			return err
		}
	}
	var audited []auditedLog
	for _, l := range logs {
		var shown []shownRecord
		show := func(uint64, *oplog.Record) error { return nil }
		if f.records || f.since != "" || f.until != "" || f.actor != "" || f.action != "" {
			show = (&collector{pick: pick, to: &shown, waiting: map[uint64]int{}}).add
		}
		report, err := oplog.Verify(l.files, id, l.name, compared, histories[l.name], show)
		if err != nil {
			return err
		}
		audited = append(audited, auditedLog{report, len(histories[l.name]), shown})
	}
	var missing []unshownLog
	if compared && !f.newest {
		missing = unshown(logs, histories)
	}
	if f.json {
		err = printJSON(cmd.OutOrStdout(), operatorsReport{audited[0], audited[1:], missing})
	} else {
		err = printLogs(cmd.OutOrStdout(), audited, missing)
	}
	if err != nil {
		return err
	}
	for _, l := range audited {
		if err := f.verdict(l.Report); err != nil {
			return err
		}
	}
	if f.all && len(missing) > 0 {
		return fmt.Errorf("%s; the first %s", plural(uint64(len(missing)), "operators' log of the CA is not shown", "operators' logs of the CA are not shown"), missing[0])
	}
	return nil
}

func printLogs(out io.Writer, audited []auditedLog, missing []unshownLog) error {
	for i, l := range audited {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := printOperators(out, l.Report, l.Anchors, l.Records); err != nil {
			return err
		}
	}
	for _, u := range missing {
		if _, err := fmt.Fprintln(out, u); err != nil {
			return err
		}
	}
	return nil
}

// verdict is the exit status.
func (f *operatorsFlags) verdict(r *oplog.Report) error {
	of := ""
	if r.Name != "" {
		of = r.Name + ": "
	}
	if n := len(r.Differences); n > 0 {
		return fmt.Errorf("%s%s; the first: %s", of, differences(n), r.Differences[0])
	}
	for _, g := range r.Gaps {
		if !slices.Contains(f.knownGaps, uint(g.Before)) {
			return fmt.Errorf("%sRECORDS ARE LOST: %s (--known-gap %d if that is dealt with)", of, g, g.Before)
		}
	}
	return nil
}

// histories asks the ledger for the anchored heads: of all logs of the CA, or with --newest of those given.
func (f *operatorsFlags) histories(cmd *cobra.Command, id wire.CAID, logs []logFiles) (_ map[string][]oplog.Anchor, err error) {
	conf, err := f.configuration()
	if err != nil {
		return nil, err
	}
	ledger, err := node.OpenLedger(cmd.Context(), conf, wire.RoleAuditor)
	if err != nil {
		return nil, err
	}
	defer func() { err = closing(err, ledger) }()
	if f.newest {
		all := map[string][]oplog.Anchor{}
		for _, l := range logs {
			a, err := oplog.Newest(cmd.Context(), ledger, id, l.name)
			if err != nil {
				return nil, err
			}
			if a != nil {
				all[l.name] = []oplog.Anchor{*a}
			}
		}
		return all, nil
	}
	bar := newProgressBar(cmd.ErrOrStderr())
	defer bar.end()
	began := time.Now()
	all, err := oplog.Histories(cmd.Context(), ledger, id, func(done, of uint64) {
		if time.Since(began) > time.Second {
			bar.show(session.Progress{Stage: "blocks", Done: done, Of: of})
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil, errors.New("interrupted; --newest reads no blocks")
	}
	return all, err
}

// filter tells which entries are asked for.
func (f *operatorsFlags) filter(now time.Time) (func(*oplog.Record) bool, error) {
	since, err := parseMoment("--since", f.since, now)
	if err != nil {
		return nil, err
	}
	until, err := parseMoment("--until", f.until, now)
	if err != nil {
		return nil, err
	}
	return func(r *oplog.Record) bool {
		at := r.Time.Time()
		return !at.Before(since) && (until.IsZero() || at.Before(until)) && (f.actor == "" || r.Actor == f.actor) && strings.Contains(r.Action, f.action)
	}, nil
}

// parseMoment reads a time, a date, or how long ago; empty: the zero time.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %s %q must be an RFC 3339 time, a date such as 2026-01-31, or a duration such as 24h", errUsage, flag, text)
}

// collector joins entries with their outcomes.
type collector struct {
	pick       func(*oplog.Record) bool
	to         *[]shownRecord
	generation uint64
	waiting    map[uint64]int // by the entry's number
}

func (c *collector) add(generation uint64, r *oplog.Record) error {
	if generation != c.generation {
		c.generation, c.waiting = generation, map[uint64]int{}
	}
	switch r.Kind {
	case oplog.Tells:
		if !c.pick(r) {
			return nil
		}
		s := shownRecord{
			Generation: generation, Seq: r.Seq, Time: r.Time.Time(), Actor: r.Actor, How: r.How, Source: r.Source, Action: r.Action, Target: r.Target,
			Detail: r.Detail, Outcome: r.Outcome,
		}
		if s.Outcome == "" {
			s.Outcome, c.waiting[r.Seq] = noOutcome, len(*c.to)
		}
		*c.to = append(*c.to, s)
	case oplog.Ends:
		i, ok := c.waiting[r.Of]
		if !ok {
			return nil
		}
		delete(c.waiting, r.Of)
		s := &(*c.to)[i]
		s.Outcome, s.Ended = r.Outcome, r.Time.Time()
		if r.Target != "" {
			s.Target = r.Target
		}
		if len(r.Detail) > 0 {
			detail := maps.Clone(r.Detail)
			maps.Copy(detail, s.Detail)
			s.Detail = detail
		}
	case oplog.Begins:
		if r.Lost != nil && c.pick(r) {
			*c.to = append(*c.to, shownRecord{Generation: generation, Time: r.Time.Time(), Action: "GENERATION BEGINS", Target: "after the loss of " + r.Lost.String(), Outcome: oplog.Done})
		}
	}
	return nil
}

func printOperators(out io.Writer, r *oplog.Report, anchors int, shown []shownRecord) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(shown) > 0 {
		fmt.Fprintln(w, "RECORD\tTIME\tACTOR\tHOW\tSOURCE\tACTION\tTARGET\tOUTCOME")
	}
	for _, s := range shown { // every text of the log is printable and has no tabs
		fmt.Fprintf(w, "%d.%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Generation, s.Seq, s.Time.Format(time.RFC3339), orDash(s.Actor), orDash(s.How), orDash(s.Source), s.Action, orDash(s.Target), s.Outcome)
	}
	if len(shown) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "CA\t%s\n", r.CAID)
	if r.Name != "" {
		fmt.Fprintf(w, "log\t%s\n", r.Name)
	}
	for _, p := range r.Parts {
		fmt.Fprintf(w, "generation %d\t%s, %s to %s, %d without outcome, root %s\n", p.Generation, plural(p.Records, "record", "records"),
			p.First.Format(time.RFC3339), p.Last.Format(time.RFC3339), p.Unfinished, p.Root)
		if r.Compared {
			fmt.Fprintf(w, "\tagrees with %s, up to record %d; %d not anchored yet\n", plural(uint64(p.Heads), "anchored head", "anchored heads"), p.Anchored, p.Records-p.Anchored) //nolint:gosec // a count
		}
		if p.Incomplete > 0 {
			fmt.Fprintf(w, "\t%d bytes at the end are a write under way, or one that was interrupted\n", p.Incomplete)
		}
	}
	for _, g := range r.Gaps {
		fmt.Fprintf(w, "RECORDS ARE LOST\t%s\n", g)
	}
	result := "the log is what the ledger has anchored"
	switch {
	case len(r.Differences) > 0:
		result = strings.ToUpper(differences(len(r.Differences)))
	case !r.Compared:
		result = "each record follows from the one before; NOT COMPARED WITH A LEDGER: whoever can write the log can make another one"
	case anchors == 0:
		result = "each record follows from the one before; NOTHING IS ANCHORED in this ledger"
	}
	fmt.Fprintf(w, "result\t%s\n", result)
	for i, d := range r.Differences {
		fmt.Fprintf(w, "%d\t%s\n", i+1, strings.ReplaceAll(d.String(), "\t", " "))
	}
	return w.Flush()
}
