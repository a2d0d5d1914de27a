package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/node"
	"github.com/certanchor/certanchor/network"
)

const decidePause = 500 * time.Millisecond // before a decision is submitted again

var decisionNames = map[wire.DecisionKind]string{
	wire.DecideSuspend: "suspend", wire.DecideResume: "resume", wire.DecideRule: "revoke-issued", wire.DecideRevoke: "decide-revoke",
}

// decideFlags are one organisation's vote.
type decideFlags struct {
	kind                                   wire.DecisionKind
	configFile, caID, caCert               string
	change                                 int64 // -1: not given
	serial, from, to, reason, invalidSince string
	asJSON                                 bool
	timeout                                time.Duration
}

const decideHelp = `

It is a vote of one organisation, whose administrator's identity the ledger section of the configuration names. It takes effect when a
majority of organisations has submitted identical bytes, so all run this with the same flags; the output tells how many have. Repeating it is safe.`

func newCADecideCommands() []*cobra.Command {
	suspend := newDecideCommand(&decideFlags{kind: wire.DecideSuspend}, &cobra.Command{
		Use:   "suspend",
		Short: "vote, as one organisation's administrator, to suspend a CA",
		Long: `Suspends a CA: it issues nothing and releases nothing from hold until it is resumed. What it has issued keeps its status. The
organisation that operates the CA may do so alone, at once; a suspension by a majority only a majority ends.` + decideHelp,
		Example: `  certanchor ca suspend --config admin.yaml --ca-cert ca.pem
  certanchor ca suspend --config admin.yaml --ca 5e8f... --change 3   # the vote that another organisation was told of`,
	})
	resume := newDecideCommand(&decideFlags{kind: wire.DecideResume}, &cobra.Command{
		Use:   "resume",
		Short: "vote, as one organisation's administrator, to end a CA's suspension",
		Long: `Ends a suspension. The organisation that suspended a CA alone may end that alone, a minute later at the earliest; one by a majority takes a
majority.` + decideHelp,
		Example: `  certanchor ca resume --config admin.yaml --ca-cert ca.pem`,
	})
	ruleFlags := &decideFlags{kind: wire.DecideRule}
	rule := newDecideCommand(ruleFlags, &cobra.Command{
		Use:   "revoke-issued",
		Short: "vote to revoke, at once, everything that a CA issued in an interval",
		Long: `Revokes, by one entry on the ledger, every certificate of a CA whose log entry has a timestamp at or after --from and before --to: all that a
stolen CA key signed, however many. It is final. --to must not be in the future: what is logged later is not covered, so suspend the CA first.` + decideHelp,
		Example: `  certanchor ca revoke-issued --config admin.yaml --ca-cert ca.pem --reason cACompromise \
    --from 2026-05-01T00:00:00Z --to 2026-05-03T09:30:00Z`,
	})
	revokeFlags := &decideFlags{kind: wire.DecideRevoke}
	revoke := newDecideCommand(revokeFlags, &cobra.Command{
		Use:     "decide-revoke",
		Short:   "vote to revoke one certificate, whatever its CA does",
		Long:    `Revokes one certificate of a CA that does not revoke it itself. It is final.` + decideHelp,
		Example: `  certanchor ca decide-revoke --config admin.yaml --ca-cert ca.pem --serial 4f0c9e... --reason keyCompromise`,
	})
	rule.Flags().StringVar(&ruleFlags.from, "from", "", "first timestamp that is covered, RFC 3339 (required)")
	rule.Flags().StringVar(&ruleFlags.to, "to", "", "first timestamp that is not covered any more, RFC 3339 (required)")
	mustRequire(rule, "from", "to")
	revoke.Flags().StringVar(&revokeFlags.serial, "serial", "", "the certificate's serial number, hexadecimal (required)")
	mustRequire(revoke, "serial")
	for cmd, f := range map[*cobra.Command]*decideFlags{rule: ruleFlags, revoke: revokeFlags} {
		cmd.Flags().StringVar(&f.reason, "reason", "", "RFC 5280's name of the reason; certificateHold is not one (required)")
		cmd.Flags().StringVar(&f.invalidSince, "invalidity-date", "", "since when the keys or certificates are bad, RFC 3339")
		mustRequire(cmd, "reason")
	}
	return []*cobra.Command{suspend, resume, rule, revoke}
}

func newDecideCommand(f *decideFlags, cmd *cobra.Command) *cobra.Command {
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }
	fs := cmd.Flags()
	fs.StringVar(&f.configFile, "config", "", "YAML configuration with the administrator's ledger section (required)")
	fs.StringVar(&f.caID, "ca", "", "the CA's ID: SHA-256 of its public key, hexadecimal")
	fs.StringVar(&f.caCert, "ca-cert", "", "the CA's certificate, PEM or DER, instead of its ID")
	if f.kind != wire.DecideRevoke { // which does not depend on the CA's state
		fs.Int64Var(&f.change, "change", -1, "change number of the CA that the vote is about, to join others' votes (default: read from the ledger)")
	}
	fs.DurationVar(&f.timeout, "timeout", time.Minute, "how long to try")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("ca", "ca-cert")
	cmd.MarkFlagsOneRequired("ca", "ca-cert")
	mustRequire(cmd, "config")
	return cmd
}

func (f *decideFlags) run(cmd *cobra.Command) error {
	a, err := f.arg()
	if err != nil {
		return err
	}
	conf, err := config.Load(f.configFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	conn, err := node.OpenLedger(ctx, conf, wire.RoleAdministrator)
	if err != nil {
		return err
	}
	d, err := f.decide(ctx, conn, a)
	if err = closing(err, conn); err != nil {
		return err
	}
	return d.print(cmd.OutOrStdout(), f.asJSON)
}

// arg is what the flags say, but for the change number.
func (f *decideFlags) arg() (*wire.DecideArg, error) {
	a := &wire.DecideArg{V: wire.Version, Kind: f.kind}
	var err error
	if f.caCert != "" {
		certs, err := readCertificates("--ca-cert", f.caCert)
		if err != nil {
			return nil, err
		}
		a.CAID = wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo)
	} else if a.CAID, err = wire.ParseCAID(strings.ToLower(f.caID)); err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	if f.kind == wire.DecideRevoke {
		if a.Serial, err = wire.ParseSerial(f.serial); err != nil {
			return nil, fmt.Errorf("%w: --serial: %w", errUsage, err)
		}
	}
	if f.kind == wire.DecideRevoke || f.kind == wire.DecideRule {
		if a.Reason, err = wire.ParseReason(f.reason); err != nil {
			return nil, fmt.Errorf("--reason: %w", err)
		}
	}
	for flag, t := range map[string]struct {
		text string
		to   *wire.Millis
	}{"from": {f.from, &a.From}, "to": {f.to, &a.To}, "invalidity-date": {f.invalidSince, &a.Invalidity}} {
		if t.text == "" {
			continue
		}
		// Every organisation's vote must be the same to the octet, so nothing is rounded in silence.
		at, err := time.Parse(time.RFC3339, t.text)
		if err != nil || !at.Equal(at.Truncate(time.Millisecond)) {
			return nil, fmt.Errorf("%w: --%s %q: must be RFC 3339 with at most three decimals, such as 2026-05-01T12:00:00Z", errUsage, flag, t.text)
		}
		*t.to = wire.MillisOf(at)
	}
	return a, nil
}

// decider is what a vote needs of a network.Ledger.
type decider interface {
	Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error)
	Evaluate(ctx context.Context, function string, arg []byte) ([]byte, error)
	MSPID() string
}

// decision is how a vote stands.
type decision struct {
	arg     *wire.DecideArg
	res     wire.DecideResult
	ca      *wire.CARecord // afterwards
	already bool           // it was so before, and nothing was submitted
}

// decide submits a, with the change number filled in.
func (f *decideFlags) decide(ctx context.Context, ledger decider, a *wire.DecideArg) (*decision, error) {
	ca, err := readCA(ctx, ledger, a.CAID)
	if err != nil {
		return nil, err
	}
	switch {
	case f.kind == wire.DecideRevoke:
	case f.change >= 0:
		a.Change = uint64(f.change)
	default:
		a.Change = changeToVoteOn(f.kind, ca, ledger.MSPID())
	}
	d := &decision{arg: a, ca: ca}
	if f.kind == wire.DecideSuspend && f.change < 0 && ca.State == wire.CASuspended && ca.SuspendedBy == "" {
		d.already, d.res.Decided = true, true
		return d, nil
	}
	if d.res, err = submitDecision(ctx, ledger, wire.Encode(a)); err != nil {
		return nil, withTimes(err)
	}
	d.ca, err = readCA(ctx, ledger, a.CAID)
	return d, err
}

var ledgerTime = regexp.MustCompile(`\b([0-9]{10,14}) ms\b`)

// toldTimes is a refusal by the ledger, which counts milliseconds, as people read it.
type toldTimes struct {
	text string
	err  error
}

func (e *toldTimes) Error() string { return e.text }
func (e *toldTimes) Unwrap() error { return e.err }

func withTimes(err error) error {
	return &toldTimes{ledgerTime.ReplaceAllStringFunc(err.Error(), func(s string) string {
		ms, e := strconv.ParseInt(strings.TrimSuffix(s, " ms"), 10, 64)
		if e != nil {
			return s
		}
		return stamp(time.UnixMilli(ms))
	}), err}
}

// changeToVoteOn is the change number that other organisations' administrators choose as well. Settled moves only with decisions of a majority, so
// what the operating organisation does alone in between does not set the votes apart (docs/decisions/0007-status-by-others.md). That
// organisation itself decides alone about the entry as it is.
func changeToVoteOn(kind wire.DecisionKind, ca *wire.CARecord, msp string) uint64 {
	alone := kind == wire.DecideSuspend && msp == ca.OperatingMSP && ca.State == wire.CAActive
	if kind == wire.DecideResume || alone {
		return ca.Change
	}
	return ca.Settled
}

func readCA(ctx context.Context, ledger decider, id wire.CAID) (*wire.CARecord, error) {
	encoded, err := ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.CAKey(id)}}))
	if err != nil {
		return nil, err
	}
	var res wire.ReadResult
	if err := wire.Decode(encoded, &res); err != nil {
		return nil, err
	}
	if len(res.Values) != 1 || res.Values[0] == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a CA on the trust list")
	}
	ca := new(wire.CARecord)
	return ca, wire.Decode(res.Values[0], ca)
}

// submitDecision repeats the same bytes while their outcome is open: another organisation's vote came in between, or the network is away.
func submitDecision(ctx context.Context, ledger decider, arg []byte) (res wire.DecideResult, err error) {
	pause := time.NewTicker(decidePause)
	defer pause.Stop()
	for {
		receipt, err := ledger.Submit(ctx, wire.FnDecide, arg)
		if err == nil {
			return res, wire.Decode(receipt.Result, &res)
		}
		if !errors.Is(err, network.ErrConflict) && !errors.Is(err, network.ErrUnavailable) && !errors.Is(err, network.ErrUnknownOutcome) {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-pause.C:
		}
	}
}

func (d *decision) print(w io.Writer, asJSON bool) error {
	name := decisionNames[d.arg.Kind]
	state := "active"
	if d.ca.State == wire.CASuspended {
		state = "suspended"
	}
	if asJSON {
		votes := append([]string{}, d.res.Votes...)
		out := map[string]any{
			"ca_id": d.arg.CAID.String(), "decision": name, "decided": d.res.Decided, "votes": votes, "needed": d.res.Needed,
			"ca_state": state, "ca_suspended_by": d.ca.SuspendedBy, "ca_rules": d.ca.Rules, "already": d.already,
		}
		if d.arg.Kind == wire.DecideRevoke {
			out["serial"] = d.arg.Serial.String()
		} else {
			out["change"] = d.arg.Change
		}
		return printJSON(w, out)
	}
	about := ""
	if d.arg.Kind != wire.DecideRevoke {
		about = fmt.Sprintf(" about change %d", d.arg.Change)
	}
	if d.already {
		_, err := fmt.Fprintf(w, "CA %s is suspended already, by a majority; nothing was submitted\n", d.arg.CAID)
		return err
	}
	if d.res.Decided {
		fmt.Fprintf(w, "%s%s is decided\n", name, about)
	} else {
		fmt.Fprintf(w, "%s%s has %d of %d votes: %s\n", name, about, len(d.res.Votes), d.res.Needed, strings.Join(d.res.Votes, ", "))
	}
	switch {
	case d.ca.State == wire.CASuspended && d.ca.SuspendedBy != "":
		state = fmt.Sprintf("suspended by %s alone, which may resume it alone; a majority's suspension takes %d votes", d.ca.SuspendedBy, d.res.Needed)
	case d.ca.State == wire.CASuspended:
		state = "suspended by a majority"
	}
	_, err := fmt.Fprintf(w, "CA %s is %s, with %d rules\n", d.arg.CAID, state, d.ca.Rules)
	return err
}
