package bundle_test

import (
	"bytes"
	"crypto/x509"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/bundle/bundletest"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/rapidtest"
)

// shape is a bundle that verifies, with what is needed for that.
type shape struct {
	name   string
	policy *policy.Policy
	cert   *x509.Certificate
	data   []byte
	now    time.Time
}

// shapes differ in what they have of everything that may be there or not.
func shapes(t testing.TB, quorum int, mspIDs ...string) (all []shape) {
	t.Helper()
	w := bundletest.New(t, quorum, mspIDs...)
	add := func(name string, cert *x509.Certificate, newer bool) {
		all = append(all, shape{name, w.Policy, cert, w.Bundle(cert, newer), w.Now})
	}
	good := w.Issue()
	add("alone in its log, before any other tick", good, false)
	w.Issue()
	both := w.Cert(w.Now)
	w.Log(both, bundle.Precert)
	w.Log(both, bundle.Final)
	precert := w.Cert()
	w.Log(precert, bundle.Precert)
	revoked := w.Issue()
	w.Set(revoked, wire.CertHeld, wire.CertificateHold)
	w.Tick()
	w.Set(revoked, wire.CertRevoked, wire.KeyCompromise)
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafRevocation, Serial: cctest.Serial(t, revoked), Change: 1, State: uint(wire.CertRevoked), Source: wire.SourceQuorum,
	})
	add("good", good, false)
	add("with a precertificate", both, false)
	add("held, then revoked by newer leaves", revoked, true)
	byHolder := w.Issue()
	w.Revoke(byHolder, wire.KeyCompromise)
	w.Tick()
	add("revoked by its holder", byHolder, false)
	w.Rule(bundletest.Start.Add(-2*time.Hour), bundletest.Start.Add(-time.Hour), wire.CACompromise)
	w.Rule(bundletest.Start.Add(-4*time.Hour), bundletest.Start.Add(-3*time.Hour), wire.Superseded)
	w.Tick()
	add("revoked, with rules", revoked, false)
	add("only a precertificate, with rules", precert, false)
	return all
}

func (s *shape) verifies(data []byte) bool {
	r, err := bundle.Verify(s.policy, s.cert, data, s.now)
	return err == nil && r != nil
}

// TestEveryChangeOfAByteFails goes through all positions: with one organisation for the many shapes, several values each, and with four for one shape,
// one value each, because that has more and dearer signatures. Under the race detector it is one value each for all.
func TestEveryChangeOfAByteFails(t *testing.T) {
	one := shapes(t, 1, "Org1MSP")
	four := shapes(t, 3, four...)[2:3]
	four[0].name += ", four organisations"
	for _, s := range append(one, four...) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if !s.verifies(s.data) {
				t.Fatal("does not verify unchanged")
			}
			random := rand.New(rand.NewPCG(1, 2))
			bad, n := bytes.Clone(s.data), 0
			for i, was := range s.data {
				// Any value, the lowest bit, and the one that changes case.
				values := []byte{was + 1 + byte(random.IntN(255)), was ^ 1, was ^ 0x20}
				if s.policy.Quorum() > 1 || rapidtest.Raced {
					values = values[i%3 : i%3+1]
				}
				for _, now := range values {
					n++
					if bad[i] = now; s.verifies(bad) {
						t.Errorf("byte %d of %d changed from %#x to %#x: verifies", i, len(bad), was, now)
					}
				}
				bad[i] = was
			}
			t.Logf("%d octets, %d changes that fail", len(bad), n)
		})
	}
}

func TestTruncatedAndExtendedBundlesFail(t *testing.T) {
	for _, s := range shapes(t, 1, "Org1MSP") {
		for n := range s.data {
			if s.verifies(s.data[:n]) || s.verifies(s.data[n+1:]) || s.verifies(slices.Concat(s.data[:n], s.data[n+1:])) {
				t.Errorf("%s: verifies without byte %d, or those before or after it", s.name, n)
			}
		}
		for b := range 256 {
			if s.verifies(append(bytes.Clone(s.data), byte(b))) || s.verifies(append([]byte{byte(b)}, s.data...)) {
				t.Errorf("%s: verifies with %#x added", s.name, b)
			}
		}
		if s.verifies(append(bytes.Clone(s.data), s.data...)) {
			t.Errorf("%s: verifies twice in a row", s.name)
		}
	}
}

// TestPermutedBundlesFail exchanges every two sections, and every two members of lists, of the same type.
func TestPermutedBundlesFail(t *testing.T) {
	for _, s := range shapes(t, 1, "Org1MSP") {
		n := 0
		try := func(what string, change func(b *bundle.Bundle)) {
			b, err := bundle.Parse(s.data)
			if err != nil {
				t.Fatal(err)
			}
			change(b)
			data, err := b.Marshal()
			if err != nil || bytes.Equal(data, s.data) {
				return // cannot even be written
			}
			if n++; s.verifies(data) {
				t.Errorf("%s: %s: verifies", s.name, what)
			}
		}
		sections := func(b *bundle.Bundle) (parts []*[]byte) {
			parts = []*[]byte{
				&b.CAKey, &b.Tick.Leaf, &b.Tick.Proof, &b.CA.Value, &b.CA.Proof, &b.Cert.Value, &b.Cert.Proof, &b.Holder.Value, &b.Holder.Proof,
			}
			for i := range b.Entries {
				parts = append(parts, &b.Entries[i].Proof)
			}
			for i := range b.Rules {
				parts = append(parts, &b.Rules[i])
			}
			for i := range b.Newer {
				parts = append(parts, &b.Newer[i].Leaf, &b.Newer[i].Proof)
			}
			return parts
		}
		b, err := bundle.Parse(s.data)
		if err != nil {
			t.Fatal(err)
		}
		total := len(sections(b))
		for i := range total {
			try("section empty", func(b *bundle.Bundle) { *sections(b)[i] = nil })
			for j := range i {
				try("sections exchanged", func(b *bundle.Bundle) { p := sections(b); *p[i], *p[j] = *p[j], *p[i] })
				try("section in another's place", func(b *bundle.Bundle) { p := sections(b); *p[i] = *p[j] })
			}
		}
		try("newer leaves reversed", func(b *bundle.Bundle) { slices.Reverse(b.Newer) })
		try("newer leaf twice", func(b *bundle.Bundle) { b.Newer = append(b.Newer, b.Newer...) })
		try("rules reversed", func(b *bundle.Bundle) { slices.Reverse(b.Rules) })
		try("rules twice", func(b *bundle.Bundle) { b.Rules = append(b.Rules, b.Rules...) })
		try("entries reversed", func(b *bundle.Bundle) { slices.Reverse(b.Entries) })
		try("entry twice", func(b *bundle.Bundle) { b.Entries = append(b.Entries, b.Entries[0]) })
		for i := range b.Entries {
			try("entry of the other kind", func(b *bundle.Bundle) { b.Entries[i].Kind = 3 - b.Entries[i].Kind })
		}
		if n < 20 {
			t.Errorf("%s: only %d permutations", s.name, n)
		}
	}
}

var update = flag.Bool("update", false, "write testdata again")

// testdata is a fixed shape, for fuzzing: seeds must go on verifying.
func testdata(t testing.TB) []shape {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	text := read("policy")
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var all []shape
	for _, name := range []string{"good", "revoked", "holder"} {
		cert, err := x509.ParseCertificate(read(name + ".der"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, shape{name, p, cert, read(name + bundle.Extension), bundletest.Start.Add(30 * time.Second)})
	}
	return all
}

// TestFixedBundlesVerify: bundles that were made once, and the format's stability with them. -update makes new ones.
func TestFixedBundlesVerify(t *testing.T) {
	if *update {
		fixed := shapes(t, 1, "Org1MSP")
		for name, data := range map[string][]byte{
			"policy": fixed[0].policy.Marshal(), "good.der": fixed[1].cert.Raw, "good" + bundle.Extension: fixed[1].data,
			"revoked.der": fixed[3].cert.Raw, "revoked" + bundle.Extension: fixed[3].data,
			"holder.der": fixed[4].cert.Raw, "holder" + bundle.Extension: fixed[4].data,
		} {
			if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range testdata(t) {
		r, err := bundle.Verify(s.policy, s.cert, s.data, s.now)
		if err != nil {
			t.Fatal(err)
		}
		if want := []wire.CertState{wire.CertValid, wire.CertRevoked, wire.CertRevoked}[i]; r.Status.State != want {
			t.Errorf("%s: %+v", s.name, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range testdata(f) {
		f.Add(s.data)
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := bundle.Parse(data)
		if err != nil {
			return
		}
		if again, err := b.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x has a second form, %x, %v", data, again, err)
		}
	})
}

// FuzzVerify: nothing but the bundles that were made verifies.
func FuzzVerify(f *testing.F) {
	all := testdata(f)
	for _, s := range all {
		f.Add(s.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range all {
			if s.verifies(data) && !bytes.Equal(data, s.data) {
				t.Fatalf("forged: %x", data)
			}
		}
	})
}
