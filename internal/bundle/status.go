package bundle

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/status"
)

// facts is what status.Evaluate takes.
type facts struct {
	rec   wire.CertRecord
	revs  []wire.Revocation
	rules []wire.Rule
}

func (f *facts) evaluate() status.Status { return status.Evaluate(&f.rec, f.revs, f.rules) }

// evaluate decides the status, with the one function that the ledger uses.
func (v *verifier) evaluate() error {
	f, err := v.atTick()
	if err != nil {
		return err
	}
	at := f.evaluate()
	later := facts{rec: f.rec, revs: slices.Clone(f.revs), rules: slices.Clone(f.rules)}
	for i := range v.newerLeaves {
		if err := v.apply(&later, &v.newerLeaves[i]); err != nil {
			return err
		}
	}
	// A bundle chooses which newer leaves it has. A release could come with the revocation after it left out, so newer leaves only make it
	// worse; what is better must wait for the next Tick.
	if s := later.evaluate(); s.State >= at.State {
		f, at = later, s
	}
	v.r.Status, v.r.By = at, f.by()
	if at.State == wire.CertRevoked {
		return nil
	}
	return v.complete(f.rules)
}

// atTick makes the record and revocations that the map stands for.
func (v *verifier) atTick() (facts, error) {
	f := facts{rules: v.rulesOfCA, rec: wire.CertRecord{
		V: wire.Version, State: wire.CertValid, Final: v.r.Final, Pre: v.r.Pre,
		SPKIHash: v.spkiHash[:], NotAfter: wire.MillisOf(v.cert.NotAfter),
	}}
	if v.mapHolder != nil {
		f.revs = append(f.revs, v.mapHolder.Revocation(v.spkiHash[:]))
	}
	m := v.mapCert
	if m == nil {
		return f, nil
	}
	f.rec.State, f.rec.Reason, f.rec.StatusTime, f.rec.Invalidity, f.rec.Change = m.State, m.Reason, m.Time, m.Invalidity, m.Change
	f.rec.Imported, f.rec.Asserted, f.rec.Antedated = m.Imported, m.Asserted, m.Antedated
	if m.State < wire.CertValid || m.State > wire.CertRevoked {
		return f, fmt.Errorf("%w: certificate in the map: state %d: must be %d to %d", ErrFormat, m.State, wire.CertValid, wire.CertRevoked)
	}
	if m.Quorum != nil {
		f.revs = append(f.revs, m.Quorum.Revocation())
	}
	return f, nil
}

// apply adds a newer leaf. Of leaves about the same, the highest change number wins, in whatever order they were integrated.
func (v *verifier) apply(f *facts, l *wire.StatusLeaf) error {
	switch l.Kind {
	case wire.LeafCert:
		if s := wire.CertState(l.State); s < wire.CertValid || s > wire.CertRevoked {
			return fmt.Errorf("%w: newer status: state %d: must be %d to %d", ErrFormat, l.State, wire.CertValid, wire.CertRevoked)
		}
		if l.Change > f.rec.Change {
			f.rec.State, f.rec.Reason, f.rec.StatusTime, f.rec.Invalidity, f.rec.Change = wire.CertState(l.State), l.Reason, l.Time, l.Invalidity, l.Change
			f.rec.Imported, f.rec.Asserted, f.rec.Antedated = l.Imported, l.Asserted, l.Antedated
		}
	case wire.LeafCA:
		if l.Change > v.mapCA.Change {
			v.mapCA.Change, v.r.CA = l.Change, wire.CAState(l.State)
		}
	case wire.LeafRevocation:
		r := wire.Revocation{
			V: wire.Version, Source: l.Source, SPKIHash: l.SPKIHash, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity, Change: l.Change,
		}
		i := slices.IndexFunc(f.revs, func(o wire.Revocation) bool { return o.Source == r.Source && bytes.Equal(o.SPKIHash, r.SPKIHash) })
		if i < 0 {
			f.revs = append(f.revs, r)
		} else if r.Change > f.revs[i].Change {
			f.revs[i] = r
		}
	case wire.LeafRule:
		if !slices.ContainsFunc(f.rules, func(r wire.Rule) bool { return r.N == l.Change }) {
			f.rules = append(f.rules, wire.Rule{
				V: wire.Version, N: l.Change, From: l.From, To: l.To, Reason: l.Reason, Time: l.Time, Invalidity: l.Invalidity,
			})
		}
	default:
		return fmt.Errorf("%w: newer status of kind %d", ErrFormat, l.Kind)
	}
	return nil
}

// by lists who put the certificate on hold or revoked it.
func (f *facts) by() []string {
	var by []string
	if f.rec.State == wire.CertHeld || f.rec.State == wire.CertRevoked {
		by = append(by, "ca")
	}
	for i := range f.revs {
		if r := &f.revs[i]; status.Applies(r, f.rec.SPKIHash) {
			by = append(by, map[wire.Source]string{wire.SourceHolder: "holder", wire.SourceQuorum: "quorum"}[r.Source])
		}
	}
	for i := range f.rules {
		if r := &f.rules[i]; status.Covers(r, f.rec.Pre) || status.Covers(r, f.rec.Final) {
			by = append(by, fmt.Sprintf("rule %d", r.N))
		}
	}
	return by
}

// complete makes sure that no rule revokes the certificate by an entry that the bundle leaves out. A certificate with a precertificate has two
// timestamps, and either counts.
func (v *verifier) complete(rules []wire.Rule) error {
	switch {
	case v.r.Final != nil && v.r.Pre != nil:
		return nil
	case v.r.Final == nil:
		// The certificate itself may have been logged at any time since.
		for i := range rules {
			if rules[i].To > v.r.Pre.Time {
				return fmt.Errorf("%w: rule %d may cover the certificate's own entry, and only its precertificate's is shown", ErrIncomplete, rules[i].N)
			}
		}
	case hasSCTList(v.cert): // the ledger takes no other certificate once it has the precertificate
		// That was logged no later, at a time that nothing here proves: whose SCTs these are, and their timestamps, are the CA's word.
		for i := range rules {
			if rules[i].From <= v.r.Final.Time {
				return fmt.Errorf("%w: the certificate has an SCT list, and rule %d may cover its precertificate's entry, which is not shown", ErrIncomplete, rules[i].N)
			}
		}
	}
	return nil
}

func hasSCTList(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(ctleaf.OIDSCTList) })
}
