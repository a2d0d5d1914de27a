package status

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestEvaluateReadsTheRecord(t *testing.T) {
	rec := &wire.CertRecord{State: wire.CertRevoked, Reason: wire.KeyCompromise, StatusTime: 3, Invalidity: 2, Change: 4, NotAfter: 1}
	want := Status{State: wire.CertRevoked, Reason: wire.KeyCompromise, Time: 3, Invalidity: 2, Change: 4}
	if got := Evaluate(rec, nil, nil); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestEvaluateJoins(t *testing.T) {
	key, other := []byte{1}, []byte{2}
	valid := wire.CertRecord{State: wire.CertValid, StatusTime: 10, SPKIHash: key, Final: &wire.LogEntry{Time: 10}, Pre: &wire.LogEntry{Time: 5}}
	held := valid
	held.State, held.Reason, held.StatusTime, held.Change = wire.CertHeld, wire.CertificateHold, 20, 3
	revoked := valid
	revoked.State, revoked.Reason, revoked.StatusTime, revoked.Change = wire.CertRevoked, wire.Superseded, 40, 1
	bare := wire.CertRecord{State: wire.CertValid, StatusTime: 10, Imported: true, Change: 2}
	bareHeld := wire.CertRecord{State: wire.CertHeld, Reason: wire.CertificateHold, StatusTime: 20, Imported: true, Asserted: 3, Antedated: true, Change: 1}
	imported := revoked
	imported.Imported, imported.Asserted, imported.Antedated = true, 4, true
	goodBefore := revoked
	goodBefore.Imported, goodBefore.Asserted = true, 4
	afterwards := revoked
	afterwards.Asserted = 4
	released := valid
	released.Imported, released.Asserted, released.Change = true, 4, 2
	holder := func(key []byte, reason wire.Reason, at wire.Millis) wire.Revocation {
		return wire.Revocation{Source: wire.SourceHolder, SPKIHash: key, Reason: reason, Time: at, Change: 1}
	}
	quorum := wire.Revocation{Source: wire.SourceQuorum, Reason: wire.PrivilegeWithdrawn, Time: 30, Change: 1}
	rule := func(from, to wire.Millis) wire.Rule {
		return wire.Rule{From: from, To: to, Reason: wire.CACompromise, Time: 50}
	}
	const r = wire.CertRevoked
	for _, c := range []struct {
		name  string
		rec   wire.CertRecord
		revs  []wire.Revocation
		rules []wire.Rule
		want  Status
	}{
		{"nobody", valid, nil, nil, Status{State: wire.CertValid, Time: 10}},
		{"hold", held, nil, nil, Status{State: wire.CertHeld, Reason: wire.CertificateHold, Time: 20, Change: 3}},
		{"holder", valid, []wire.Revocation{holder(key, wire.Superseded, 30)}, nil, Status{State: r, Reason: wire.Superseded, Time: 30, Change: 1}},
		{"holder of another key", valid, []wire.Revocation{holder(other, wire.Superseded, 30)}, nil, Status{State: wire.CertValid, Time: 10}},
		{"nobody's", valid, []wire.Revocation{{Source: 3, SPKIHash: key, Time: 30, Change: 1}}, nil, Status{State: wire.CertValid, Time: 10}},
		{"quorum", valid, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 30, Change: 1}},
		{"under a hold", held, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 20, Change: 4}},
		{"before the operator", revoked, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 30, Change: 2}},
		{"compromise after the operator", revoked, []wire.Revocation{holder(key, wire.KeyCompromise, 60)}, nil, Status{State: r, Reason: wire.KeyCompromise, Time: 40, Change: 2}},
		{"rule on the certificate", valid, nil, []wire.Rule{rule(10, 11)}, Status{State: r, Reason: wire.CACompromise, Time: 50, Change: 1}},
		{"rule on the precertificate", valid, nil, []wire.Rule{rule(5, 6)}, Status{State: r, Reason: wire.CACompromise, Time: 50, Change: 1}},
		{"rule on both", valid, nil, []wire.Rule{rule(0, 100)}, Status{State: r, Reason: wire.CACompromise, Time: 50, Change: 1}},
		{"imported", imported, nil, nil, Status{State: r, Reason: wire.Superseded, Time: 40, Asserted: 4, Antedated: true, Change: 1}},
		{"imported as valid, revoked later", goodBefore, nil, nil, Status{State: r, Reason: wire.Superseded, Time: 40, Asserted: 4, Change: 1}},
		{"imported, and before it others", imported, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 30, Asserted: 4, Antedated: true, Change: 2}},
		{"issued, and a date imported", afterwards, nil, nil, Status{State: r, Reason: wire.Superseded, Time: 40, Asserted: 4, Change: 1}},
		{"imported and released", released, nil, nil, Status{State: wire.CertValid, Time: 10, Change: 2}},
		{"imported, released, revoked by others", released, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 30, Change: 3}},
		{"a serial number", bare, nil, nil, Status{State: Unknown, Time: 10, Change: 2}},
		{"a serial number, and a holder", bare, []wire.Revocation{holder(key, wire.Superseded, 30)}, []wire.Rule{rule(0, 100)}, Status{State: Unknown, Time: 10, Change: 2}},
		{"a serial number, and a majority", bare, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 30, Change: 3}},
		{"a serial number on hold", bareHeld, nil, nil, Status{State: wire.CertHeld, Reason: wire.CertificateHold, Time: 20, Asserted: 3, Antedated: true, Change: 1}},
		{"a serial number on hold, and a majority", bareHeld, []wire.Revocation{quorum}, nil, Status{State: r, Reason: wire.PrivilegeWithdrawn, Time: 20, Asserted: 3, Antedated: true, Change: 2}},
		{"rules on neither", valid, nil, []wire.Rule{rule(0, 5), rule(6, 10), rule(11, 100)}, Status{State: wire.CertValid, Time: 10}},
	} {
		if got := Evaluate(&c.rec, c.revs, c.rules); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// drawReason favours what is special.
func drawReason(t *rapid.T) wire.Reason {
	return rapid.SampledFrom([]wire.Reason{wire.Unspecified, wire.KeyCompromise, wire.CACompromise, wire.Superseded}).Draw(t, "reason")
}

// drawRevocations draws revocations by a majority and by the holders of keys.
func drawRevocations(t *rapid.T, key *rapid.Generator[[]byte]) []wire.Revocation {
	at := func(what string) wire.Millis { return wire.Millis(rapid.IntRange(1, 6).Draw(t, what)) }
	maybe := func(what string) wire.Millis { return wire.Millis(rapid.IntRange(0, 3).Draw(t, what)) }
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) wire.Revocation {
		return wire.Revocation{
			Source: wire.Source(rapid.IntRange(1, 2).Draw(t, "source")), SPKIHash: key.Draw(t, "key"),
			Reason: drawReason(t), Time: at("time"), Invalidity: maybe("invalidity"), Change: uint64(rapid.IntRange(1, 2).Draw(t, "change")),
		}
	}), 0, 4).Draw(t, "revocations")
}

func drawCase(t *rapid.T) (*wire.CertRecord, []wire.Revocation, []wire.Rule) {
	at := func(what string) wire.Millis { return wire.Millis(rapid.IntRange(1, 6).Draw(t, what)) }
	maybe := func(what string) wire.Millis { return wire.Millis(rapid.IntRange(0, 3).Draw(t, what)) }
	key := rapid.SampledFrom([][]byte{{1}, {2}})
	rec := &wire.CertRecord{
		State: wire.CertState(rapid.IntRange(1, 3).Draw(t, "state")), StatusTime: at("since"), SPKIHash: []byte{1}, Final: &wire.LogEntry{Time: at("final")},
	}
	switch rec.State {
	case wire.CertHeld:
		rec.Reason, rec.Change = wire.CertificateHold, 1
	case wire.CertRevoked:
		rec.Reason, rec.Change, rec.Invalidity = drawReason(t), 1, maybe("invalidity")
	}
	if rapid.Bool().Draw(t, "imported") {
		rec.Imported, rec.Asserted, rec.Antedated = true, maybe("asserted"), rapid.Bool().Draw(t, "antedated")
		if rapid.Bool().Draw(t, "serial number only") {
			rec.Final, rec.SPKIHash = nil, nil
			return rec, drawRevocations(t, key), nil
		}
	}
	if rapid.Bool().Draw(t, "with a precertificate") {
		rec.Pre = &wire.LogEntry{Time: at("pre")}
	}
	revs := drawRevocations(t, key)
	rules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) wire.Rule {
		from := at("from")
		return wire.Rule{From: from, To: from + at("length"), Reason: drawReason(t), Time: at("time"), Invalidity: maybe("invalidity")}
	}), 0, 3).Draw(t, "rules")
	return rec, revs, rules
}

// Whoever applies the same changes in another order, as every index, map and verifier may, tells the same status.
func TestEvaluateDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec, revs, rules := drawCase(t)
		want := Evaluate(rec, revs, rules)
		revs, rules = rapid.Permutation(revs).Draw(t, "another order"), rapid.Permutation(rules).Draw(t, "another order of rules")
		if got := Evaluate(rec, revs, rules); got != want {
			t.Fatalf("%+v in one order, %+v in another", want, got)
		}
		before := Evaluate(rec, revs, rules)
		if len(revs) > 0 && Applies(&revs[0], rec.SPKIHash) {
			before = Evaluate(rec, revs[1:], rules)
		}
		if before.State == wire.CertRevoked && (want.State != wire.CertRevoked || want.Time > before.Time || want.Since() > before.Since() || before.Reason == wire.KeyCompromise && want.Reason != before.Reason) {
			t.Fatalf("one revocation more made %+v of %+v", want, before)
		}
	})
}

// Neither the order of revocations nor how often one is told matters. They are joined all at once: from the result of some and the
// rest only the date could be told.
func TestJoinKnowsNoOrder(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) revocation {
		return revocation{
			reason: drawReason(t), time: wire.Millis(rapid.IntRange(1, 4).Draw(t, "time")), invalidity: wire.Millis(rapid.IntRange(0, 3).Draw(t, "invalidity")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(one, 1, 6).Draw(t, "revocations")
		want := join(parts)
		if got := join(rapid.Permutation(parts).Draw(t, "another order")); got != want {
			t.Fatalf("%+v in one order, %+v in another", want, got)
		}
		if got := join(slices.Concat(parts, parts)); got != want {
			t.Fatalf("%+v once, %+v twice", want, got)
		}
		cut := rapid.IntRange(1, len(parts)).Draw(t, "cut")
		if got := join(append([]revocation{join(parts[:cut])}, parts[cut:]...)); got.time != want.time {
			t.Fatalf("%+v at once, %+v in two parts", want, got)
		}
	})
}
