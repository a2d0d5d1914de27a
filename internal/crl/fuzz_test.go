package crl

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// FuzzReadContents: what is accepted has one encoding, and passes Check.
func FuzzReadContents(f *testing.F) {
	f.Fuzz(func(t *testing.T, enc []byte) {
		c, err := ReadContents(bytes.NewReader(enc))
		if err != nil {
			return
		}
		if got := encode(t, c); !bytes.Equal(got, enc) {
			t.Fatalf("accepted %x, which encodes as %x", enc, got)
		}
	})
}

// FuzzParse: what is accepted means the same to crypto/x509, and the same contents written again have the same octets, but for the order of
// entries and extensions.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := Parse(der)
		if err != nil {
			return
		}
		theirs, err := x509.ParseRevocationList(der)
		if err != nil && strings.Contains(err.Error(), "RDNSequence") {
			return // a name that is none is no subject of a CA's certificate either: Verify compares octets
		}
		if err != nil {
			t.Fatalf("accepted %x, crypto/x509 says %v", der, err)
		}
		var all []Entry
		for _, g := range l.Groups {
			all = append(all, g.Entries...)
		}
		if !bytes.Equal(theirs.RawIssuer, l.Issuer) || !bytes.Equal(theirs.AuthorityKeyId, l.AuthorityKeyID) || theirs.Number.Cmp(new(big.Int).SetUint64(l.Number)) != 0 ||
			!theirs.ThisUpdate.Equal(l.ThisUpdate) || !theirs.NextUpdate.Equal(l.NextUpdate) || !bytes.Equal(theirs.RawTBSRevocationList, l.TBS) ||
			!bytes.Equal(theirs.Signature, l.Signature) || theirs.SignatureAlgorithm != l.Algorithm || len(theirs.RevokedCertificateEntries) != len(all) {
			t.Fatalf("%x: read %+v, crypto/x509 %+v", der, l, theirs)
		}
		for _, e := range theirs.RevokedCertificateEntries {
			i := slices.IndexFunc(all, func(a Entry) bool {
				reason := int(a.Reason)
				if a.Remove {
					reason = removeFromCRL
				}
				return a.Serial.Int().Cmp(e.SerialNumber) == 0 && a.Time.Time().Equal(e.RevocationTime) && reason == e.ReasonCode
			})
			if i < 0 {
				t.Fatalf("%x: crypto/x509 has %+v, which is not among %v", der, e, all)
			}
		}
		if c, err := l.Contents(wire.CAID{}); err == nil {
			checkRewritten(t, l, c)
		}
	})
}

// checkRewritten: sorted octets are a summary that does not depend on order; with the length, any other difference shows.
func checkRewritten(t *testing.T, l *List, c *Contents) {
	alg := algorithms[slices.IndexFunc(algorithms, func(a algorithm) bool { return a.id == l.Algorithm })]
	p := plan{form: Form{Issuer: &x509.Certificate{RawSubject: l.Issuer}, NextUpdate: l.NextUpdate}, thisUpdate: l.ThisUpdate, groups: []Group{{Entries: c.Entries}}}
	p.extensions = func(b *cryptobyte.Builder) {
		addAuthorityKeyID(b, l.AuthorityKeyID)
		addNumber(b, idNumber, false, c.Number)
		if c.Base != 0 {
			addNumber(b, idDelta, true, c.Base)
		}
		if c.Scope != "" {
			addIssuingPoint(b, c.Scope, false)
		}
		if l.DeltaURL != "" {
			addFreshest(b, l.DeltaURL)
		}
	}
	before, err := p.before(&alg)
	if err != nil {
		t.Fatal(err)
	}
	after, err := p.after()
	if err != nil {
		t.Fatal(err)
	}
	if n := groupSize(p.groups[0]); n > 0 {
		before = appendTag(before, tagSequence, n)
	}
	inner := append(appendGroup(before, p.groups[0]), after...)
	got, want := append(appendTag(nil, tagSequence, len(inner)), inner...), bytes.Clone(l.TBS)
	slices.Sort(got)
	slices.Sort(want)
	if !bytes.Equal(got, want) {
		t.Fatalf("accepted %x, which written again has other octets", l.TBS)
	}
}

// FuzzPoints: of what crypto/x509 accepts as a certificate the URLs are the same.
func FuzzPoints(f *testing.F) {
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := Points(der)
		cert, theirErr := x509.ParseCertificate(der)
		if theirErr != nil {
			return
		}
		if err != nil {
			t.Fatalf("crypto/x509 accepts %x, here %v", der, err)
		}
		if !slices.Equal(got, cert.CRLDistributionPoints) {
			t.Fatalf("%x: %q, crypto/x509 has %q", der, got, cert.CRLDistributionPoints)
		}
	})
}

var updateSeeds = flag.Bool("update-seeds", false, "write the fuzz seeds under testdata/fuzz again")

// TestFuzzSeedsAreCurrent keeps the seeds useful: each must be accepted by today's code. With -update-seeds it writes them.
func TestFuzzSeedsAreCurrent(t *testing.T) {
	if *updateSeeds {
		writeSeeds(t)
	}
	for target, accepted := range map[string]func([]byte) error{
		"FuzzReadContents": func(b []byte) error { _, err := ReadContents(bytes.NewReader(b)); return err },
		"FuzzParse":        func(b []byte) error { _, err := Parse(b); return err },
		"FuzzPoints":       func(b []byte) error { _, err := Points(b); return err },
	} {
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "seed-*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no seeds: %v", target, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Split(text, []byte("\n"))
			quoted := bytes.TrimSuffix(bytes.TrimPrefix(lines[1], []byte("[]byte(")), []byte(")"))
			der, err := strconv.Unquote(string(quoted))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := accepted([]byte(der)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// variants are one CRL's contents of each kind.
func variants() map[string]*Contents {
	empty, sharded, delta, late := someContents(), someContents(), someContents(), someContents()
	empty.Entries = nil
	sharded.Scope = "http://crl.example/1.crl"
	delta.Base = 3
	delta.Entries = append(delta.Entries, Entry{Serial: wire.Serial{9}, Time: someTime, Remove: true})
	late.ThisUpdate, late.Entries[0].Time = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), firstGeneralized
	return map[string]*Contents{"complete": someContents(), "empty": empty, "sharded": sharded, "delta": delta, "late": late}
}

func writeSeeds(t *testing.T) {
	for name, c := range variants() {
		writeSeed(t, "FuzzReadContents", name, encode(t, c))
		for _, kind := range []string{"p256", "ed25519"} {
			writeSeed(t, "FuzzParse", name+"-"+kind, newIssuer(t, kind).build(t, c))
		}
	}
	p := newIssuer(t, "p256")
	this := Seconds(someTime).Time()
	indirect, err := BuildIndirect(7, this, indirectGroups(t), Form{Issuer: p.cert, NextUpdate: this.Add(time.Hour)}, p.key)
	if err != nil {
		t.Fatal(err)
	}
	writeSeed(t, "FuzzParse", "indirect", indirect)
	writeSeed(t, "FuzzPoints", "none", p.cert.Raw)
	writeSeed(t, "FuzzPoints", "two", p.leaf(t, "http://a/1.crl", "ldap://b/x").Raw)
}

func writeSeed(t *testing.T, target, name string, der []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", der)
	if err := os.WriteFile(filepath.Join(dir, "seed-"+name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// leaf is a certificate of the issuer's with distribution points.
func (p *issuer) leaf(t testing.TB, urls ...string) *x509.Certificate {
	t.Helper()
	return p.issue(t, &x509.Certificate{SerialNumber: big.NewInt(2), CRLDistributionPoints: urls})
}

func (p *issuer) issue(t testing.TB, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = p.cert.NotBefore, p.cert.NotAfter
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, p.key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
