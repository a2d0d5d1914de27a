package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var p256 = elliptic.P256()

func named(cn string) pkix.Name { return pkix.Name{CommonName: cn} }

func TestEveryAlgorithmOfEveryKeyIsVerifiedHereAndByOpenSSL(t *testing.T) {
	used := map[x509.SignatureAlgorithm]bool{}
	for name, key := range keys(t) {
		p := newPKI(t, key, nil)
		algs, err := Algorithms(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		dir := p.write(t, nil)
		for _, alg := range algs {
			used[alg] = true
			der, err := p.response(t).SignWith(key, alg)
			if err != nil {
				t.Fatalf("%s, %v: %v", name, alg, err)
			}
			r := parse(t, der)
			if got, err := algOf(r.SignatureAlg); err != nil || got != alg {
				t.Errorf("%s, %v: reads as %v, %v", name, alg, got, err)
			}
			if _, _, err := r.Verify(p.options(t)); err != nil {
				t.Errorf("%s, %v: %v", name, alg, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "resp"), der, 0o600); err != nil {
				t.Fatal(err)
			}
			out := openssl(t, dir, "ocsp", "-respin", "resp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-CAfile", "ca.pem", "-no_nonce")
			if !strings.Contains(out, "Response verify OK") {
				t.Errorf("%s, %v: openssl says\n%s", name, alg, out)
			}
		}
	}
	if len(used) != len(signatureAlgs) {
		t.Errorf("%d of %d algorithms used", len(used), len(signatureAlgs))
	}
}

// RFC 4055 section 2.1: parameters of the hashes within RSASSA-PSS-params are NULL or absent, and readers take both.
func TestPSSWithoutNullParametersVerifies(t *testing.T) {
	p := newPKI(t, keys(t)["RSA-2048"], nil)
	der, err := p.response(t).SignWith(p.key, x509.SHA256WithRSAPSS)
	if err != nil {
		t.Fatal(err)
	}
	r := parse(t, der)
	r.SignatureAlg = algorithm(x509.SHA256WithRSAPSS).alternative
	if bytes.Contains(r.SignatureAlg, []byte{5, 0}) {
		t.Fatalf("%x has a NULL", r.SignatureAlg)
	}
	if _, _, err := r.Verify(p.options(t)); err != nil {
		t.Error(err)
	}
	r.SignatureAlg = algorithm(x509.SHA384WithRSAPSS).der
	if _, _, err := r.Verify(p.options(t)); err == nil {
		t.Error("verified with another hash")
	}
}

func TestPreferredAlgorithmIsChosenIfTheKeyHasIt(t *testing.T) {
	all := keys(t)
	ec, rsaKey := all["P-256"].Public(), all["RSA-2048"].Public()
	ecOn := func(curve asn1.ObjectIdentifier) []byte {
		der, err := asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: oidEC, Parameters: asn1.RawValue{FullBytes: oidDER(t, curve)}})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	type prefs = []PreferredAlgorithm
	for _, c := range []struct {
		what  string
		key   crypto.PublicKey
		prefs prefs
		want  x509.SignatureAlgorithm
	}{
		{"no preference", ec, nil, x509.ECDSAWithSHA256},
		{"first", rsaKey, prefs{{Signature: x509.SHA384WithRSAPSS}, {Signature: x509.SHA256WithRSA}}, x509.SHA384WithRSAPSS},
		{"second, the first is another key's", rsaKey, prefs{{Signature: x509.ECDSAWithSHA256}, {Signature: x509.SHA512WithRSA}}, x509.SHA512WithRSA},
		{"none that the key has", ec, prefs{{Signature: x509.PureEd25519}}, x509.ECDSAWithSHA256},
		{"one that nobody knows", ec, prefs{{}}, x509.ECDSAWithSHA256},
		{"on the key's curve", ec, prefs{{Signature: x509.ECDSAWithSHA384, Key: ecOn(oidCurves[0].oid)}}, x509.ECDSAWithSHA384},
		{"on another curve", ec, prefs{{Signature: x509.ECDSAWithSHA384, Key: ecOn(oidCurves[1].oid)}}, x509.ECDSAWithSHA256},
	} {
		if got, err := ChooseAlgorithm(c.key, c.prefs); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", c.what, got, err, c.want)
		}
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for what, key := range map[string]crypto.PublicKey{"RSA 1024": small.Public(), "P-224": ecKey(t, elliptic.P224()).Public(), "string": "key"} {
		if alg, err := ChooseAlgorithm(key, nil); err == nil {
			t.Errorf("%s: signs with %v", what, alg)
		}
	}
}

func oidDER(t testing.TB, oid asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(oid)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPreferredAlgorithmsComeBack(t *testing.T) {
	p := newPKI(t, nil, nil)
	want := []x509.SignatureAlgorithm{x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.PureEd25519, x509.ECDSAWithSHA512, x509.SHA256WithRSA}
	ext, err := PreferredAlgorithmsExtension(want...)
	if err != nil {
		t.Fatal(err)
	}
	req, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}, Extensions: []pkix.Extension{ext}}), 1)
	if err != nil {
		t.Fatal(err)
	}
	got := req.PreferredAlgorithms()
	if len(got) != len(want) {
		t.Fatalf("%d come back as %+v", len(want), got)
	}
	for i := range want {
		if got[i].Signature != want[i] || got[i].Key != nil {
			t.Errorf("%v comes back as %+v", want[i], got[i])
		}
	}
	for _, none := range [][]x509.SignatureAlgorithm{nil, {x509.MD5WithRSA}} {
		if _, err := PreferredAlgorithmsExtension(none...); err == nil {
			t.Errorf("%v is encoded", none)
		}
	}
}

// RFC 6960 section 4.4.7.1: "Parameters are absent for most common signature algorithms", and clients leave them out where RFC 4055 has them.
func TestPreferenceWithoutParametersIsUnderstood(t *testing.T) {
	bare := func(alg x509.SignatureAlgorithm) []byte { return wrap(0x30, wrap(0x30, oidDER(t, algorithm(alg).oid))) }
	exts := []pkix.Extension{{Id: OIDPrefSigAlgs, Value: wrap(0x30, bare(x509.SHA384WithRSA), bare(x509.SHA256WithRSAPSS), wrap(0x30, wrap(0x30, []byte{6, 3, 0x2a, 3, 4, 5, 0})))}}
	got, err := readPreferred(exts)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Signature != x509.SHA384WithRSA || got[1].Signature != x509.SHA256WithRSAPSS || got[2].Signature != x509.UnknownSignatureAlgorithm {
		t.Errorf("read as %+v", got)
	}
}

func TestOnlyAListWithoutBasicExcludesIt(t *testing.T) {
	p := newPKI(t, nil, nil)
	other := asn1.ObjectIdentifier{1, 2, 3}
	for _, c := range []struct {
		types []asn1.ObjectIdentifier
		want  bool
	}{{[]asn1.ObjectIdentifier{OIDBasic}, true}, {[]asn1.ObjectIdentifier{other, OIDBasic}, true}, {[]asn1.ObjectIdentifier{other}, false}, {nil, false}} {
		ext, err := AcceptableResponsesExtension(c.types...)
		if err != nil {
			t.Fatal(err)
		}
		req, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}, Extensions: []pkix.Extension{ext}}), 1)
		if err != nil {
			t.Fatal(err)
		}
		if req.AcceptsBasic() != c.want {
			t.Errorf("%v: accepts basic %v", c.types, req.AcceptsBasic())
		}
	}
	if !new(Request).AcceptsBasic() {
		t.Error("a request that says nothing does not accept basic")
	}
}

func TestExtensionsWithOtherContentsAreMalformed(t *testing.T) {
	p := newPKI(t, nil, nil)
	for what, exts := range map[string]RequestItem{
		"acceptable responses, no list":  {Extensions: []pkix.Extension{{Id: OIDResponse, Value: []byte{5, 0}}}},
		"acceptable responses, INTEGERs": {Extensions: []pkix.Extension{{Id: OIDResponse, Value: wrap(0x30, []byte{2, 1, 1})}}},
		"preferred, an identifier":       {Extensions: []pkix.Extension{{Id: OIDPrefSigAlgs, Value: wrap(0x30, wrap(0x30, []byte{6, 1, 42}))}}},
		"preferred, three parts":         {Extensions: []pkix.Extension{{Id: OIDPrefSigAlgs, Value: wrap(0x30, wrap(0x30, wrap(0x30, []byte{6, 1, 42}), wrap(0x30, []byte{6, 1, 42}), []byte{5, 0}))}}},
		"preferred, rest":                {Extensions: []pkix.Extension{{Id: OIDPrefSigAlgs, Value: []byte{0x30, 0, 0}}}},
	} {
		_, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}, Extensions: exts.Extensions}), 1)
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	for what, value := range map[string][]byte{"empty": nil, "no Name": wrap(0x30), "locator not a list": wrap(0x30, p.ca.RawSubject, []byte{5, 0}), "empty locator": wrap(0x30, p.ca.RawSubject, wrap(0x30))} {
		item := RequestItem{ID: p.id(t, crypto.SHA1), Extensions: []pkix.Extension{{Id: OIDServiceLocator, Value: value}}}
		if _, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{item}}), 1); err == nil {
			t.Errorf("service locator, %s: accepted", what)
		}
	}
}

func TestSingleExtensionsComeBack(t *testing.T) {
	p := newPKI(t, nil, nil)
	cut, since := p.now.AddDate(-1, 0, 0), p.now.Add(-time.Hour)
	r := p.response(t)
	r.Responses[0].Extensions = []pkix.Extension{ArchiveCutoff(cut), InvalidityDate(since)}
	never := NeverIssued(p.id(t, crypto.SHA512))
	never.ThisUpdate = p.now
	r.Responses = append(r.Responses, never)
	r.Extensions = []pkix.Extension{ExtendedRevoke()}
	got := parse(t, p.signed(t, r))
	if s := got.Responses[0]; !s.ArchiveCutoff().Equal(cut) || !s.InvalidityDate().Equal(since) {
		t.Errorf("archive cutoff %s, invalidity date %s", s.ArchiveCutoff(), s.InvalidityDate())
	}
	if s := got.Responses[1]; !got.ExtendedRevoke() || s.Status != Revoked || s.RevokedAt.Unix() != 0 || s.Reason != 6 || len(s.Extensions) != 0 || !s.ArchiveCutoff().IsZero() {
		t.Errorf("never issued comes back as %+v", s)
	}
	if _, _, err := got.Verify(p.options(t)); err != nil {
		t.Error(err)
	}
	out := openssl(t, p.write(t, map[string][]byte{"resp": p.signed(t, r)}), "ocsp", "-respin", "resp", "-resp_text", "-noverify")
	for _, want := range []string{"OCSP Archive Cutoff", "Invalidity Date", "Jan  1 00:00:00 1970 GMT", "certificateHold"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not say %q:\n%s", want, out)
		}
	}
	r.Extensions, r.Responses[0].Extensions = nil, []pkix.Extension{ExtendedRevoke()}
	if _, _, err := ParseResponse(p.signed(t, r)); err == nil {
		t.Error("extended revoke among single extensions is accepted")
	}
}

func TestServiceLocatorComesBack(t *testing.T) {
	p := newPKI(t, nil, nil)
	want := ServiceLocator{Issuer: p.ca.RawSubject, Locator: wrap(0x30, wrap(0x30, []byte{6, 3, 0x2a, 3, 4}, wrap(0x86, []byte("http://ocsp.test"))))}
	item := RequestItem{ID: p.id(t, crypto.SHA1), Extensions: []pkix.Extension{want.Extension()}}
	req, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{item, {ID: item.ID}}}), 2)
	if err != nil {
		t.Fatal(err)
	}
	got, err := req.Items[0].ServiceLocator()
	if err != nil || got == nil || !bytes.Equal(got.Issuer, want.Issuer) || !bytes.Equal(got.Locator, want.Locator) {
		t.Errorf("comes back as %+v, %v", got, err)
	}
	if got, err := req.Items[1].ServiceLocator(); got != nil || err != nil {
		t.Errorf("absent one is %+v, %v", got, err)
	}
}
