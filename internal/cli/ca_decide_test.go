package cli

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/network"
)

// council is a ledger of four organisations, with a CA that Org1MSP operates.
type council struct {
	t  *testing.T
	l  *cctest.Ledger
	ca *cctest.CA
}

func newCouncil(t *testing.T) *council {
	t.Helper()
	c := &council{t: t, ca: cctest.NewCA(t), l: cctest.NewLedger(t, chaincode.Config{
		MSPs: []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}, TickInterval: 15 * time.Second,
	})}
	c.l.Found(t)
	c.l.Register(t, c.ca, "Org1MSP")
	return c
}

// seat is one administrator's connection.
type seat struct {
	*council
	msp    string
	faults []error // of the next submissions
}

func (s *seat) MSPID() string { return s.msp }

func (s *seat) Evaluate(_ context.Context, function string, arg []byte) ([]byte, error) {
	e, refusal := s.l.Endorse(s.t, cctest.Admin(s.msp), function, arg)
	if refusal != nil {
		return nil, &network.RejectedError{Function: function, Reason: refusal}
	}
	return e.Result, nil
}

func (s *seat) Submit(_ context.Context, function string, arg []byte) (network.Receipt, error) {
	if len(s.faults) > 0 {
		err := s.faults[0]
		s.faults = s.faults[1:]
		return network.Receipt{}, err
	}
	result, refusal := s.l.Submit(s.t, cctest.Admin(s.msp), function, arg)
	if refusal != nil {
		return network.Receipt{}, &network.RejectedError{Function: function, Reason: refusal}
	}
	return network.Receipt{Result: result}, nil
}

// vote has the administrator of msp run a command, each as the help says: with the same flags.
func (c *council) vote(msp string, f decideFlags, faults ...error) (string, error) {
	c.t.Helper()
	if f.change == 0 {
		f.change = -1
	}
	f.caID = c.ca.ID.String()
	a, err := f.arg()
	if err != nil {
		return "", err
	}
	d, err := f.decide(c.t.Context(), &seat{c, msp, faults}, a)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = d.print(&out, f.asJSON)
	return out.String(), err
}

func (c *council) must(msp string, f decideFlags, parts ...string) {
	c.t.Helper()
	out, err := c.vote(msp, f)
	if err != nil {
		c.t.Fatalf("%s: %v", msp, err)
	}
	contains(c.t, msp, out, parts...)
}

func TestAMajoritySuspendsAndResumes(t *testing.T) {
	c := newCouncil(t)
	suspend, resume := decideFlags{kind: wire.DecideSuspend}, decideFlags{kind: wire.DecideResume}
	c.must("Org2MSP", suspend, "suspend about change 1 has 1 of 3 votes: Org2MSP\n", "is active")
	c.must("Org2MSP", suspend, "1 of 3 votes")
	c.must("Org3MSP", suspend, "2 of 3 votes: Org2MSP, Org3MSP")
	c.must("Org4MSP", suspend, "is decided", "is suspended by a majority")
	c.must("Org1MSP", resume, "resume about change 2 has 1 of 3 votes")
	c.must("Org2MSP", resume, "2 of 3")
	c.must("Org3MSP", resume, "is decided", "is active")
}

// TestTheOperatorCannotSetTheVotesApart: by suspending and resuming alone between them. Its own suspension counts as its vote.
func TestTheOperatorCannotSetTheVotesApart(t *testing.T) {
	c := newCouncil(t)
	suspend, resume := decideFlags{kind: wire.DecideSuspend}, decideFlags{kind: wire.DecideResume}
	c.must("Org2MSP", suspend, "1 of 3")
	for range 2 {
		c.must("Org1MSP", suspend, "is decided", "suspended by Org1MSP alone")
		c.l.Now = c.l.Now.Add(wire.RestAlone)
		c.must("Org1MSP", resume, "is decided", "is active")
	}
	c.must("Org1MSP", suspend, "suspend about change 5 is decided", "suspended by Org1MSP alone")
	c.must("Org3MSP", suspend, "is decided", "suspended by a majority")
}

func TestAMajorityRevokesWhatACAIssued(t *testing.T) {
	c := newCouncil(t)
	rule := decideFlags{
		kind: wire.DecideRule, reason: "cACompromise", from: "2025-12-31T00:00:00+01:00", to: cctest.T0.Format(time.RFC3339), invalidSince: "2025-12-31T00:00:00Z",
	}
	c.must("Org2MSP", rule, "revoke-issued about change 1 has 1 of 3 votes")
	c.must("Org1MSP", decideFlags{kind: wire.DecideSuspend}, "alone")
	c.must("Org3MSP", rule, "2 of 3")
	rule.asJSON = true
	out, err := c.vote("Org4MSP", rule)
	if err != nil {
		t.Fatal(err)
	}
	if got := fieldsOf(t, out); got["decided"] != true || got["ca_rules"] != 1.0 || got["needed"] != 3.0 || got["decision"] != "revoke-issued" || got["ca_state"] != "suspended" {
		t.Errorf("%v", got)
	}
}

func TestAMajorityRevokesOneCertificate(t *testing.T) {
	c := newCouncil(t)
	revoke := decideFlags{kind: wire.DecideRevoke, serial: "0x4F:0c", reason: "keyCompromise"}
	c.must("Org2MSP", revoke, "decide-revoke has 1 of 3 votes")
	c.must("Org3MSP", revoke, "2 of 3")
	// The same bytes go in again while their outcome is open.
	revoke.asJSON = true
	out, err := c.vote("Org4MSP", revoke, &network.ConflictError{TxID: "tx"}, &network.UnavailableError{Err: context.DeadlineExceeded})
	if err != nil {
		t.Fatal(err)
	}
	if got := fieldsOf(t, out); got["decided"] != true || got["serial"] != "4f0c" {
		t.Errorf("%v", got)
	}
}

func TestDecisionsThatAreRefused(t *testing.T) {
	c := newCouncil(t)
	for name, v := range map[string]struct {
		f    decideFlags
		want string
	}{
		"resume of an active CA": {decideFlags{kind: wire.DecideResume}, "must be suspended"},
		"another change":         {decideFlags{kind: wire.DecideSuspend, change: 9}, "change"},
		"interval the wrong way": {decideFlags{kind: wire.DecideRule, reason: "superseded", from: "2025-02-01T00:00:00Z", to: "2025-01-01T00:00:00Z"}, "must be after from"},
		"interval of the future": {decideFlags{kind: wire.DecideRule, reason: "superseded", from: "2025-02-01T00:00:00Z", to: "2027-01-01T00:00:00Z"}, "\"2027-01-01T00:00:00Z\": must be after from, 2025-02-01T00:00:00Z"},
		"hold":                   {decideFlags{kind: wire.DecideRevoke, serial: "01", reason: "certificateHold"}, "reason"},
		"no reason":              {decideFlags{kind: wire.DecideRevoke, serial: "01"}, "--reason"},
		"serial in words":        {decideFlags{kind: wire.DecideRevoke, serial: "one", reason: "superseded"}, "--serial"},
		"microseconds":           {decideFlags{kind: wire.DecideRule, reason: "superseded", from: "2025-02-01T00:00:00.000001Z", to: "2025-03-01T00:00:00Z"}, "three decimals"},
	} {
		if _, err := c.vote("Org2MSP", v.f); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := decideFlags{kind: wire.DecideSuspend, caID: strings.Repeat("0", 64), change: -1}
	a, err := other.arg()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.decide(t.Context(), &seat{c, "Org2MSP", nil}, a); err == nil || !strings.Contains(err.Error(), "trust list") {
		t.Errorf("unknown CA: %v", err)
	}
}

// TestDecisionsOnTheCommandLine: on a ledger of one organisation, one vote is a majority.
func TestDecisionsOnTheCommandLine(t *testing.T) {
	h := &holder{t: t, dir: t.TempDir(), ca: cctest.NewCA(t)}
	cert := h.write("ca.pem", pemOf(h.ca.Cert))
	conf := h.write("admin.yaml", []byte("ledger: {engine: "+config.EngineEmbedded+", embedded: {dir: "+filepath.Join(h.dir, "ledger")+"}}\n"))
	must0(t, "ca", "register", "--config", conf, "--ca-cert", cert, "--operating-msp", "LocalMSP")
	id := h.ca.ID.String()
	contains(t, "suspend", must0(t, "ca", "suspend", "--config", conf, "--ca-cert", cert), "suspend about change 1 is decided", "CA "+id+" is suspended by a majority")
	contains(t, "suspend again", must0(t, "ca", "suspend", "--config", conf, "--ca", id), "is suspended already")
	if got := fieldsOf(t, must0(t, "ca", "suspend", "--config", conf, "--ca", id, "--json")); got["already"] != true || got["decided"] != true || got["ca_state"] != "suspended" {
		t.Errorf("suspended again: %v", got)
	}
	contains(t, "resume", must0(t, "ca", "resume", "--config", conf, "--ca", id), "is decided", "is active")
	now := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	contains(t, "rule", must0(t, "ca", "revoke-issued", "--config", conf, "--ca", id, "--reason", "cACompromise", "--from", "2026-01-01T00:00:00Z", "--to", now), "is decided", "with 1 rules")
	got := fieldsOf(t, must0(t, "ca", "decide-revoke", "--config", conf, "--ca", id, "--reason", "superseded", "--serial", "01", "--json"))
	if got["decided"] != true || got["serial"] != "01" {
		t.Errorf("%v", got)
	}
	for args, code := range map[string]int{
		"ca suspend --config " + conf:                                                  exitUsage,
		"ca suspend --config " + conf + " --ca " + id + " --ca-cert " + cert:           exitUsage,
		"ca suspend --config " + conf + " --ca 00":                                     exitFailure,
		"ca resume --config " + conf + " --ca " + id:                                   exitFailure,
		"ca revoke-issued --config " + conf + " --ca " + id + " --reason x":            exitUsage,
		"ca decide-revoke --config " + conf + " --ca " + id + " --change 3":            exitUsage,
		"ca suspend --config /nonexistent.yaml --ca " + strings.Repeat("0", 64):        exitFailure,
		"ca decide-revoke --config x --ca " + id + " --serial 01 --reason nothing":     exitFailure,
		"ca decide-revoke --config x --ca " + id + " --serial zz --reason unspecified": exitUsage,
	} {
		if got, _, errs := runCLI(strings.Fields(args)...); got != code {
			t.Errorf("%s: exit %d, %s", args, got, errs)
		}
	}
}
