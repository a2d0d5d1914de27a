package crl

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// openssl runs a command in dir and returns what it printed. The result tells whether it succeeded.
func openssl(t *testing.T, dir string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	return string(out), err == nil
}

func write(t *testing.T, dir, name string, blocks ...[]byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), bytes.Join(blocks, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// OpenSSL and zlint, which share no code with this package, read every kind of CRL, signed with every kind of key, and find nothing wrong.
func TestOthersReadEveryKind(t *testing.T) {
	for _, kind := range kinds {
		p := newIssuer(t, kind)
		dir := t.TempDir()
		write(t, dir, "ca.pem", pemOf("CERTIFICATE", p.cert.Raw))
		for name, c := range variants() {
			der := p.build(t, c)
			write(t, dir, "crl.pem", pemOf("X509 CRL", der))
			out, ok := openssl(t, dir, "crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-verify", "-noout", "-text")
			if !ok || !strings.Contains(out, "verify OK") {
				t.Errorf("%s %s: openssl crl says %s", kind, name, out)
			}
			for _, want := range opensslWants(c) {
				if !strings.Contains(out, want) {
					t.Errorf("%s %s: openssl crl does not say %q:\n%s", kind, name, want, out)
				}
			}
			lintIt(t, kind+" "+name, der)
		}
	}
}

func opensslWants(c *Contents) []string {
	wants := []string{"CRL Number: \n                9"}
	for _, e := range c.Entries {
		wants = append(wants, "Serial Number: "+strings.ToUpper(e.Serial.String())+"\n        Revocation Date: "+e.Time.Time().Format("Jan _2 15:04:05 2006 GMT"))
		switch {
		case e.Remove:
			wants = append(wants, "Remove From CRL")
		case e.Reason == wire.KeyCompromise:
			wants = append(wants, "Key Compromise", "Invalidity Date: \n                "+e.Invalidity.Time().Format("Jan _2 15:04:05 2006 GMT"))
		case e.Reason == wire.CertificateHold:
			wants = append(wants, "Certificate Hold")
		}
	}
	if c.Base != 0 {
		wants = append(wants, "X509v3 Delta CRL Indicator: critical\n                3")
	}
	if c.Scope != "" {
		wants = append(wants, "Issuing Distribution Point: critical", "URI:"+c.Scope)
	}
	return wants
}

func lintIt(t *testing.T, name string, der []byte) {
	t.Helper()
	list, err := zx509.ParseRevocationList(der)
	if err != nil {
		t.Errorf("%s: zcrypto: %v", name, err)
		return
	}
	results := zlint.LintRevocationList(list).Results
	if len(results) == 0 {
		t.Fatal("zlint has no lints of CRLs")
	}
	for lintName, r := range results {
		if r.Status > lint.Pass {
			t.Errorf("%s: zlint: %s: %s %s", name, lintName, r.Status, r.Details)
		}
	}
}

// verifies asks openssl whether a certificate is good by the CRLs given.
func verifies(t *testing.T, p *issuer, leaf *x509.Certificate, crls [][]byte, more ...string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "ca.pem", pemOf("CERTIFICATE", p.cert.Raw))
	write(t, dir, "leaf.pem", pemOf("CERTIFICATE", leaf.Raw))
	var blocks [][]byte
	for _, der := range crls {
		blocks = append(blocks, pemOf("X509 CRL", der))
	}
	write(t, dir, "crls.pem", blocks...)
	at := Seconds(someTime).Time().Add(time.Minute).Unix()
	args := append([]string{"verify", "-attime", big.NewInt(at).String(), "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crls.pem"}, more...)
	return openssl(t, dir, append(args, "leaf.pem")...)
}

// A relying party with OpenSSL learns of a revocation from the CRL that is for the certificate's distribution point, and from none other.
func TestOpenSSLFollowsShardsAndDeltas(t *testing.T) {
	p := newIssuer(t, "p256")
	leaf := p.leaf(t, "http://crl.example/1.crl")
	shard := someContents()
	shard.Scope = "http://crl.example/1.crl" // someContents revokes serial 2
	other := someContents()
	other.Scope = "http://crl.example/2.crl"
	clean := someContents()
	clean.Scope, clean.Number, clean.Entries = shard.Scope, 4, nil
	update := someContents()
	update.Scope, update.Base = shard.Scope, 4
	released := someContents()
	released.Scope, released.Base, released.Number = shard.Scope, 9, 10
	released.Entries = []Entry{{Serial: wire.Serial{2}, Time: someTime, Remove: true}}
	withDelta := func(c *Contents) []byte {
		c.CAID = p.id()
		f := p.form(c)
		f.DeltaURL = "http://crl.example/delta.crl" // without freshestCRL OpenSSL looks for no delta
		der, err := Build(c, f, p.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	const deltas = "-use_deltas"
	for name, tc := range map[string]struct {
		crls [][]byte
		more []string
		want string // "": good
	}{
		"revoked in its shard":      {[][]byte{p.build(t, shard)}, nil, "certificate revoked"},
		"only another shard":        {[][]byte{p.build(t, other)}, nil, "CRL scope"},
		"good":                      {[][]byte{p.build(t, clean)}, nil, ""},
		"revoked in the delta":      {[][]byte{withDelta(clean), p.build(t, update)}, []string{deltas, "-extended_crl"}, "certificate revoked"},
		"released by a later delta": {[][]byte{withDelta(shard), p.build(t, released)}, []string{deltas, "-extended_crl"}, ""},
	} {
		out, ok := verifies(t, p, leaf, tc.crls, tc.more...)
		if ok != (tc.want == "") || !strings.Contains(out, tc.want) {
			t.Errorf("%s: openssl verify says %q, want %q", name, out, tc.want)
		}
	}
}

// With -extended_crl OpenSSL takes an indirect CRL for a certificate whose distribution point names its issuer, if both are certified by the
// same root (RFC 5280 section 6.3.3 f); without, it does not.
func TestOpenSSLTakesIndirectCRLs(t *testing.T) {
	root, gone, org := newIssuerNamed(t, "p256", "Root"), newIssuerNamed(t, "p256", "Gone CA"), newIssuerNamed(t, "rsa", "Organisation's CRL issuer")
	gone.cert, org.cert = root.crossCertify(t, gone), root.crossCertify(t, org)
	points := marshal(t, []struct {
		CRLIssuer []asn1.RawValue `asn1:"optional,tag:2"`
	}{{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: org.cert.RawSubject}}}}, "")
	leafWith := func(serial int64) *x509.Certificate {
		return gone.issue(t, &x509.Certificate{SerialNumber: big.NewInt(serial), ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: points}}})
	}
	this := Seconds(someTime).Time()
	groups := append(indirectGroups(t), Group{Name: gone.cert.RawSubject, Entries: []Entry{{Serial: wire.Serial{7}, Time: someTime - 5, Reason: wire.CACompromise}}})
	der, err := BuildIndirect(7, this, groups, Form{Issuer: org.cert, NextUpdate: this.Add(time.Hour)}, org.key)
	if err != nil {
		t.Fatal(err)
	}
	lintIt(t, "indirect", der)
	dir := t.TempDir()
	write(t, dir, "others.pem", pemOf("CERTIFICATE", gone.cert.Raw), pemOf("CERTIFICATE", org.cert.Raw))
	for name, tc := range map[string]struct {
		serial int64
		more   []string
		want   string
	}{
		"revoked":          {7, []string{"-extended_crl"}, "certificate revoked"},
		"of another CA":    {2, []string{"-extended_crl"}, ""}, // the serial that the other groups revoke
		"without the flag": {7, nil, "unable to get certificate CRL"},
	} {
		more := append([]string{"-untrusted", filepath.Join(dir, "others.pem")}, tc.more...)
		out, ok := verifies(t, root, leafWith(tc.serial), [][]byte{der}, more...)
		if ok != (tc.want == "") || !strings.Contains(out, tc.want) {
			t.Errorf("%s: openssl verify says %q, want %q", name, out, tc.want)
		}
	}
}

// crossCertify returns a certificate of another issuer's key and name.
func (p *issuer) crossCertify(t *testing.T, other *issuer) *x509.Certificate {
	t.Helper()
	template := *other.cert
	template.SerialNumber, template.SignatureAlgorithm = big.NewInt(99), x509.UnknownSignatureAlgorithm
	der, err := x509.CreateCertificate(rand.Reader, &template, p.cert, other.key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
