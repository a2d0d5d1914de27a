package bundle_test

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/bundle/bundletest"
	"github.com/certanchor/certanchor/internal/policy/policytest"
)

var four = []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}

// verify expects a bundle that holds.
func verify(t *testing.T, w *bundletest.World, cert *x509.Certificate, data []byte) *bundle.Result {
	t.Helper()
	r, err := bundle.Verify(w.Policy, cert, data, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBundleFollowsACertificatesLife(t *testing.T) {
	w := bundletest.New(t, 3, four...)
	w.Issue()
	cert := w.Issue()
	w.Tick()
	tick := w.Now
	r := verify(t, w, cert, w.Bundle(cert, false))
	if r.Status.State != wire.CertValid || len(r.By) != 0 || !r.AsOf.Equal(tick) || r.CA != wire.CAActive || r.CAID != w.CA.ID ||
		r.Final == nil || r.Final.Index != 1 || r.Pre != nil || !slices.Equal(r.LogCosigners, four) || !slices.Equal(r.StatusCosigners, four) {
		t.Errorf("good: %+v", r)
	}
	w.Set(cert, wire.CertHeld, wire.CertificateHold)
	held := w.Now
	if r := verify(t, w, cert, w.Bundle(cert, false)); r.Status.State != wire.CertValid {
		t.Errorf("held, but not yet at a tick, and without the newer leaf: %+v", r)
	}
	if r := verify(t, w, cert, w.Bundle(cert, true)); r.Status.State != wire.CertHeld || !slices.Equal(r.By, []string{"ca"}) || !r.AsOf.Equal(tick) {
		t.Errorf("held, with the newer leaf: %+v", r)
	}
	w.Tick()
	r = verify(t, w, cert, w.Bundle(cert, false))
	if r.Status.State != wire.CertHeld || r.Status.Reason != wire.CertificateHold || r.Status.Time != wire.MillisOf(held) {
		t.Errorf("held: %+v", r)
	}
	w.Set(cert, wire.CertValid, wire.Unspecified)
	if r := verify(t, w, cert, w.Bundle(cert, true)); r.Status.State != wire.CertHeld {
		t.Errorf("a newer leaf made it better: %+v", r)
	}
	w.Tick()
	if r := verify(t, w, cert, w.Bundle(cert, true)); r.Status.State != wire.CertValid || len(r.By) != 0 {
		t.Errorf("released: %+v", r)
	}
	w.Set(cert, wire.CertRevoked, wire.Superseded)
	at := w.Now
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafRevocation, Serial: cctest.Serial(t, cert), Change: 1, State: uint(wire.CertRevoked), Reason: wire.KeyCompromise,
		Source: wire.SourceHolder, SPKIHash: spki[:],
	})
	for range 2 { // by newer leaves, and in the map
		r = verify(t, w, cert, w.Bundle(cert, true))
		if r.Status.State != wire.CertRevoked || r.Status.Reason != wire.KeyCompromise || r.Status.Time != wire.MillisOf(at) || !slices.Equal(r.By, []string{"ca", "holder"}) {
			t.Errorf("revoked: %+v", r)
		}
		w.Tick()
	}
	other := w.Issue()
	if r := verify(t, w, other, w.Bundle(other, true)); r.Status.State != wire.CertValid {
		t.Errorf("another certificate, logged after the tick: %+v", r)
	}
}

// TestTwinsOfOneSerialDoNotCount: the CA has signed other certificates with the same serial number, and their holders revoke them.
func TestTwinsOfOneSerialDoNotCount(t *testing.T) {
	w := bundletest.New(t, 1, four[0])
	cert := w.Issue()
	w.Tick()
	alone := len(w.Bundle(cert, true))
	twin := func(n byte) wire.StatusLeaf {
		return wire.StatusLeaf{
			Kind: wire.LeafRevocation, Serial: cctest.Serial(t, cert), Change: 1, State: uint(wire.CertRevoked),
			Source: wire.SourceHolder, SPKIHash: append(make([]byte, 31), n),
		}
	}
	for n := range byte(200) {
		w.Change(twin(n))
	}
	w.Tick()
	data := w.Bundle(cert, true)
	if r := verify(t, w, cert, data); r.Status.State != wire.CertValid || len(r.By) != 0 {
		t.Errorf("%+v", r)
	}
	if grown := len(data) - alone; grown > 2000 { // proofs are as much longer as the logs are larger
		t.Errorf("200 twins make the bundle %d octets longer", grown)
	}
	index := w.Status.Head().Size
	w.Change(twin(201))
	p := w.Parts(cert, true)
	p.Newer = []uint64{index}
	if r, err := bundle.Verify(w.Policy, cert, w.Make(p), w.Now); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("a twin's revocation among the newer leaves: %+v, %v", r, err)
	}
	w.Revoke(cert, wire.Superseded)
	for _, when := range []string{"newer", "in the map"} {
		r := verify(t, w, cert, w.Bundle(cert, true))
		if r.Status.State != wire.CertRevoked || r.Status.Reason != wire.Superseded || !slices.Equal(r.By, []string{"holder"}) || r.Status.Change != 1 {
			t.Errorf("revoked by its own holder, %s: %+v", when, r)
		}
		w.Tick()
	}
}

func TestRulesAndTheCAsStateAreShown(t *testing.T) {
	w := bundletest.New(t, 3, four...)
	before := w.Issue()
	start := w.Now.Add(time.Millisecond)
	inside := w.Issue()
	w.Rule(start, w.Now.Add(time.Millisecond), wire.CACompromise)
	decided := w.Now
	after := w.Issue()
	w.Change(wire.StatusLeaf{Kind: wire.LeafCA, Change: 2, State: uint(wire.CASuspended)})
	for _, when := range []string{"newer", "in the map"} {
		r := verify(t, w, inside, w.Bundle(inside, true))
		if r.Status.State != wire.CertRevoked || r.Status.Reason != wire.CACompromise || r.Status.Time != wire.MillisOf(decided) || !slices.Equal(r.By, []string{"rule 1"}) {
			t.Errorf("%s: inside: %+v", when, r)
		}
		for _, cert := range []*x509.Certificate{before, after} {
			if r := verify(t, w, cert, w.Bundle(cert, true)); r.Status.State != wire.CertValid || r.CA != wire.CASuspended {
				t.Errorf("%s: outside: %+v", when, r)
			}
		}
		w.Tick()
	}
	p := w.Parts(inside, false)
	p.Rules = nil
	if _, err := bundle.Verify(w.Policy, inside, w.Make(p), w.Now); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("a rule left out: %v", err)
	}
	p.Rules = []wire.Rule{w.Parts(inside, false).Rules[0]}
	p.Rules[0].To--
	if _, err := bundle.Verify(w.Policy, inside, w.Make(p), w.Now); !errors.Is(err, bundle.ErrProof) {
		t.Errorf("a rule changed: %v", err)
	}
}

// TestAnEntryThatARuleCoversCannotBeLeftOut: a certificate has two timestamps, and a bundle must not hide the one that revokes it.
func TestAnEntryThatARuleCoversCannotBeLeftOut(t *testing.T) {
	w := bundletest.New(t, 1, four[0])
	cert := w.Cert(w.Now.Add(time.Second)) // its SCT is of the precertificate's entry
	w.Log(cert, bundle.Precert)
	between := w.Now.Add(time.Millisecond)
	w.Log(cert, bundle.Final)
	only := func(kind bundle.Kind) []byte {
		p := w.Parts(cert, false)
		p.Entries = slices.DeleteFunc(slices.Clone(p.Entries), func(e bundle.EntryRef) bool { return e.Kind != kind })
		return w.Make(p)
	}
	w.Tick()
	for _, data := range [][]byte{w.Bundle(cert, false), only(bundle.Final), only(bundle.Precert)} {
		if r := verify(t, w, cert, data); r.Status.State != wire.CertValid {
			t.Errorf("without rules: %+v", r)
		}
	}
	w.Rule(bundletest.Start, between, wire.CACompromise) // covers the precertificate
	w.Tick()
	for _, data := range [][]byte{w.Bundle(cert, false), only(bundle.Precert)} {
		if r := verify(t, w, cert, data); r.Status.State != wire.CertRevoked || !slices.Equal(r.By, []string{"rule 1"}) {
			t.Errorf("%+v", r)
		}
	}
	if r, err := bundle.Verify(w.Policy, cert, only(bundle.Final), w.Now); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("precertificate left out: %+v, %v", r, err)
	}

	w = bundletest.New(t, 1, four[0])
	cert = w.Cert(w.Now.Add(time.Second))
	w.Log(cert, bundle.Precert)
	between = w.Now.Add(time.Millisecond)
	w.Log(cert, bundle.Final)
	w.Rule(between, w.Now.Add(time.Second), wire.CACompromise) // covers the certificate
	w.Tick()
	if r := verify(t, w, cert, w.Bundle(cert, false)); r.Status.State != wire.CertRevoked || r.Pre == nil || r.Final == nil {
		t.Errorf("%+v", r)
	}
	if r, err := bundle.Verify(w.Policy, cert, only(bundle.Precert), w.Now); !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("certificate's entry left out: %+v, %v", r, err)
	}
}

// TestAHiddenPrecertificateNeedsNoSCTOfThisLog: the CA completes a precertificate that a rule has revoked, or will, with SCTs of other logs
// or of none, and shows the certificate's own entry alone.
func TestAHiddenPrecertificateNeedsNoSCTOfThisLog(t *testing.T) {
	for _, ruleFirst := range []bool{true, false} {
		w := bundletest.New(t, 3, four...)
		earlier, from := w.Issue(), w.Now.Add(time.Millisecond)
		cert := w.Cert(w.Now.Add(-time.Hour), w.Now.Add(time.Hour))
		w.Log(cert, bundle.Precert)
		to := w.Now.Add(time.Millisecond)
		rule := func() { w.Rule(from, to, wire.KeyCompromise) }
		if ruleFirst {
			rule()
		}
		w.Log(cert, bundle.Final)
		if !ruleFirst {
			rule()
		}
		later := w.Issue()
		w.Tick()
		p := w.Parts(cert, true)
		if r := verify(t, w, cert, w.Make(p)); r.Status.State != wire.CertRevoked {
			t.Errorf("both entries: %+v", r)
		}
		p.Entries = p.Entries[:1]
		if r, err := bundle.Verify(w.Policy, cert, w.Make(p), w.Now); !errors.Is(err, bundle.ErrIncomplete) {
			t.Errorf("precertificate left out: %+v, %v", r, err)
		}
		// Without SCT list there is no precertificate, and no rule makes the certificate unprovable.
		for _, cert := range []*x509.Certificate{earlier, later} {
			if r := verify(t, w, cert, w.Bundle(cert, false)); r.Status.State != wire.CertValid {
				t.Errorf("issued directly: %+v", r)
			}
		}
		// With one it is proved as long as rules are only about what was logged later.
		direct := w.Cert(w.Now)
		w.Log(direct, bundle.Final)
		w.Tick()
		if r, err := bundle.Verify(w.Policy, direct, w.Bundle(direct, false), w.Now); !errors.Is(err, bundle.ErrIncomplete) {
			t.Errorf("SCTs, logged after the rule's interval: %+v, %v", r, err)
		}
	}
	w := bundletest.New(t, 3, four...)
	direct := w.Cert(w.Now)
	w.Log(direct, bundle.Final)
	w.Rule(w.Now.Add(time.Millisecond), w.Now.Add(time.Second), wire.KeyCompromise)
	w.Tick()
	if r := verify(t, w, direct, w.Bundle(direct, false)); r.Status.State != wire.CertValid {
		t.Errorf("SCTs, logged before the rule's interval: %+v", r)
	}
}

func TestAnOldViewIsNotBelieved(t *testing.T) {
	w := bundletest.New(t, 3, four...)
	cert := w.Issue()
	w.Tick()
	tick, data := w.Now, w.Bundle(cert, false)
	for _, c := range []struct {
		now  time.Time
		want error
	}{
		{tick, nil}, {tick.Add(45 * time.Second), nil}, {tick.Add(45*time.Second + time.Millisecond), bundle.ErrStale},
		{tick.Add(-bundle.Skew), nil}, {tick.Add(-bundle.Skew - time.Millisecond), bundle.ErrStale}, {tick.AddDate(300, 0, 0), bundle.ErrStale},
		{time.Time{}, bundle.ErrStale},
	} {
		if _, err := bundle.Verify(w.Policy, cert, data, c.now); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%v after the tick: %v, want %v", c.now.Sub(tick), err, c.want)
		}
	}
}

// TestLiesAreNamed: bundles put together from true parts that do not belong together, or that too few have signed.
func TestLiesAreNamed(t *testing.T) {
	w, other := bundletest.New(t, 3, four...), bundletest.New(t, 3, four...)
	cert, second := w.Issue(), w.Issue()
	foreign := other.Issue()
	never := w.Cert()
	third := w.Issue()
	w.Set(second, wire.CertRevoked, wire.KeyCompromise)
	w.Revoke(third, wire.KeyCompromise)
	w.Change(wire.StatusLeaf{Kind: wire.LeafRevocation, Serial: cctest.Serial(t, cert), Change: 1, Source: wire.SourceHolder, SPKIHash: make([]byte, 32)})
	for w.Map.Head().Size < w.Status.Head().Size { // so that a checkpoint of one has the other's size
		w.Tick()
	}
	for other.Map.Head().Size < w.Map.Head().Size {
		other.Tick()
	}
	twin, err := w.Prove(wire.HolderMapKey(w.CA.ID, cctest.Serial(t, cert), [32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(p *bundle.Parts, orgs ...*policytest.Org) {
		for _, l := range []*bundle.Log{&p.Issuance, &p.Map, &p.Status} {
			origin, _, _ := strings.Cut(string(l.Checkpoint), "\n")
			l.Checkpoint = policytest.Checkpoint(t, l.Log, origin, l.Head().Size, orgs...)
		}
	}
	for _, c := range []struct {
		what   string
		want   error
		cert   *x509.Certificate
		change func(p *bundle.Parts)
	}{
		{"nothing changed", nil, cert, func(*bundle.Parts) {}},
		{"two cosigners", bundle.ErrPolicy, cert, func(p *bundle.Parts) { sign(p, w.Orgs[:2]...) }},
		{"cosigners of another channel", bundle.ErrPolicy, cert, func(p *bundle.Parts) { p.Channel = "other" }},
		{"a stranger among them", bundle.ErrPolicy, cert, func(p *bundle.Parts) {
			sign(p, append(w.Orgs[:3:3], policytest.NewOrg(t, bundletest.Channel, "Org9MSP", "", time.Now))...)
		}},
		{"another certificate", bundle.ErrNotIssued, second, func(*bundle.Parts) {}},
		{"never logged", bundle.ErrNotIssued, never, func(*bundle.Parts) {}},
		{"of another CA", bundle.ErrNotIssued, foreign, func(*bundle.Parts) {}},
		{"another CA's key", bundle.ErrNotIssued, cert, func(p *bundle.Parts) { p.CAKey = other.CA.Cert.RawSubjectPublicKeyInfo }},
		{"another index", bundle.ErrNotIssued, cert, func(p *bundle.Parts) {
			p.Entries = []bundle.EntryRef{{Kind: bundle.Final, Index: 1, Time: p.Entries[0].Time}}
		}},
		{"another time", bundle.ErrNotIssued, cert, func(p *bundle.Parts) { p.Entries = []bundle.EntryRef{{Kind: bundle.Final, Index: 0, Time: 1}} }},
		{"precertificate for certificate", bundle.ErrNotIssued, cert, func(p *bundle.Parts) {
			p.Entries = []bundle.EntryRef{{Kind: bundle.Precert, Index: 0, Time: p.Entries[0].Time}}
		}},
		{"an old tick with the new map", bundle.ErrProof, cert, func(p *bundle.Parts) { p.TickIndex = 0 }},
		{"revoked one's proof", bundle.ErrProof, cert, func(p *bundle.Parts) { p.CertProof = w.Parts(second, false).CertProof }},
		{"revoked one's entry", bundle.ErrProof, cert, func(p *bundle.Parts) {
			q := w.Parts(second, false)
			p.Cert, p.CertProof = q.Cert, q.CertProof
		}},
		{"revoked one shown as absent", bundle.ErrProof, second, func(p *bundle.Parts) { p.Cert = nil }},
		{"revoked one's value changed", bundle.ErrProof, second, func(p *bundle.Parts) { p.Cert.State = wire.CertHeld }},
		{"revoked by its holder, shown as absent", bundle.ErrProof, third, func(p *bundle.Parts) { p.Holder = nil }},
		{"revoked by its holder, the proof another's", bundle.ErrProof, third, func(p *bundle.Parts) {
			q := w.Parts(cert, false)
			p.Holder, p.HolderProof = q.Holder, q.HolderProof
		}},
		{"another's holder", bundle.ErrProof, cert, func(p *bundle.Parts) {
			q := w.Parts(third, false)
			p.Holder, p.HolderProof = q.Holder, q.HolderProof
		}},
		{"the holder's reason changed", bundle.ErrProof, third, func(p *bundle.Parts) { p.Holder.Reason = wire.Superseded }},
		{"a twin's holder", bundle.ErrProof, cert, func(p *bundle.Parts) {
			p.Holder, p.HolderProof = &wire.MapHolder{V: 1, Change: 1, Time: wire.MillisOf(w.Now)}, twin
		}},
		{"the record's entry for the holder's", bundle.ErrProof, second, func(p *bundle.Parts) { p.HolderProof = p.CertProof }},
		{"the holder's entry for the record's", bundle.ErrProof, third, func(p *bundle.Parts) { p.CertProof = p.HolderProof }},
		{"the CA's state changed", bundle.ErrProof, cert, func(p *bundle.Parts) { p.CA = &wire.MapCA{V: 1, State: wire.CASuspended} }},
		{"an old status leaf as a newer one", bundle.ErrFormat, second, func(p *bundle.Parts) { p.Newer = []uint64{1} }},
		{"map log of another ledger", bundle.ErrProof, cert, func(p *bundle.Parts) { p.CA = other.Parts(foreign, false).CA; p.Map = other.Parts(foreign, false).Map }},
		{"status checkpoint for the map's", bundle.ErrProof, cert, func(p *bundle.Parts) { p.Map.Checkpoint = p.Status.Checkpoint }},
	} {
		of := cert
		if c.cert == third || c.cert == second && c.what != "another certificate" {
			of = c.cert
		}
		p := w.Parts(of, false)
		c.change(p)
		data, err := bundle.Make(p)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if r, err := bundle.Verify(w.Policy, c.cert, data, w.Now); !errors.Is(err, c.want) || c.want == nil && err != nil || err != nil && r != nil {
			t.Errorf("%s: %+v, %v; want %v", c.what, r, err, c.want)
		}
	}
	// The certificate's own TBSCertificate under another signature, by way of the precertificate's leaf, which has none.
	pre := w.Cert()
	w.Log(pre, bundle.Precert)
	w.Tick()
	data := w.Bundle(pre, false)
	verify(t, w, pre, data)
	resigned := *pre
	resigned.Signature = never.Signature
	if r, err := bundle.Verify(w.Policy, &resigned, data, w.Now); !errors.Is(err, bundle.ErrNotIssued) {
		t.Errorf("signed by nobody: %+v, %v", r, err)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := bundletest.New(b, 3, four...)
	cert := w.Issue()
	for range 300 {
		w.Set(w.Issue(), wire.CertRevoked, wire.Superseded)
	}
	w.Tick()
	w.Set(cert, wire.CertRevoked, wire.KeyCompromise)
	for name, newer := range map[string]bool{"good": false, "revoked by a newer leaf": true} {
		data := w.Bundle(cert, newer)
		b.Run(name, func(b *testing.B) {
			b.ReportMetric(float64(len(data)), "octets")
			for b.Loop() {
				if _, err := bundle.Verify(w.Policy, cert, data, w.Now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
