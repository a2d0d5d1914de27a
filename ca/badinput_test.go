package ca

import (
	"bytes"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 it is there to be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
)

// badCSRs are requests that must be refused, with the field that the refusal names and a part of its rule.
func badCSRs(t testing.TB) []struct{ name, csr, field, rule string } {
	t.Helper()
	newDir(t) // for the CA's key
	good := newCSR(t, nil)
	block, _ := pem.Decode([]byte(good))
	with := func(o csrOption) string { return newCSR(t, nil, o) }
	rdn := func(o func(*pkix.Name)) string {
		return with(func(r *x509.CertificateRequest) { o(&r.Subject) })
	}
	dns := func(names ...string) string {
		return with(func(r *x509.CertificateRequest) { r.DNSNames = names })
	}
	ext := func(id asn1.ObjectIdentifier, value []byte) string {
		return with(func(r *x509.CertificateRequest) {
			r.DNSNames = nil
			r.ExtraExtensions = []pkix.Extension{{Id: id, Value: value}}
		})
	}
	many := make([]string, maxNames+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d.example.org", i)
	}
	return []struct{ name, csr, field, rule string }{
		{"missing", "", "csr", "must be given"},
		{"not PEM", "hello", "csr", "one PEM block"},
		{"no block", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA", "csr", "one PEM block"},
		{"wrong block", pemOf("CERTIFICATE", block.Bytes), "csr", "one PEM block"},
		{"text before", "Certificate Request:\n" + good, "csr", "nothing else"},
		{"two blocks", good + good, "csr", "nothing else"},
		{"text after", good + "more", "csr", "nothing else"},
		{"headers", strings.Replace(good, "REQUEST-----\n", "REQUEST-----\nA: b\n\n", 1), "csr", "one PEM block"},
		{"trailing data in DER", pemOf("CERTIFICATE REQUEST", append(bytes.Clone(block.Bytes), 0)), "csr", "nothing else"},
		{"cut DER", pemOf("CERTIFICATE REQUEST", block.Bytes[:len(block.Bytes)-1]), "csr", "PKCS#10"},
		{"empty DER", pemOf("CERTIFICATE REQUEST", nil), "csr", "PKCS#10"},
		{"over 64 KiB", good + strings.Repeat("\n", maxCSR), "csr", "65536 bytes"},
		{"bad self-signature", pemOf("CERTIFICATE REQUEST", flipLast(block.Bytes)), "csr.signature", "own public key"},
		{"SHA-1", sha1CSR(t), "csr.signature", "SHA-256"},
		{"RSA-1024", newCSR(t, rsaKey(t, 1024)), "csr.public_key", "2048"},
		{"RSA-2047", newCSR(t, rsaKey(t, 2047)), "csr.public_key", "2048"},
		{"P-224", newCSR(t, ecKey(t, elliptic.P224())), "csr.public_key", "P-256"},
		{"P-521", newCSR(t, ecKey(t, elliptic.P521())), "csr.public_key", "P-256"},
		{"secp256k1", openssl(t, "", "req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "csr.public_key", "P-256"},
		{"Ed25519", newCSR(t, edKey(t)), "csr.public_key", "P-256"},
		{"DSA", dsaCSR(t), "csr.public_key", "P-256"},
		{"empty subject and SAN", with(func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = pkix.Name{}, nil }), "csr.subject", "both be empty"},
		{"CA", ext(oidBasicConstraints, []byte{0x30, 3, 1, 1, 0xff}), "csr.basic_constraints", "CA certificates"},
		{"broken basicConstraints", ext(oidBasicConstraints, []byte{0x30, 9}), "csr.basic_constraints", "4.2.1.9"},
		{"other kind of name", ext(oidSubjectAltName, []byte{0x30, 6, 0xa4, 4, 0x30, 2, 0x31, 0}), "csr.subject_alt_name", "rfc822Name"},
		{"too many names", dns(many...), "csr.subject_alt_name", "100"},
		{"NUL in DNS name", dns("good.example.org\x00.evil.example"), "csr.dns_names[0]", "host name"},
		{"space in DNS name", dns("ok.example.org", "a b"), "csr.dns_names[1]", "host name"},
		{"wildcard inside", dns("a.*.example.org"), "csr.dns_names[0]", "wildcard"},
		{"wildcard of a top level", dns("*.org"), "csr.dns_names[0]", "wildcard"},
		{"long label", dns(strings.Repeat("a", 64) + ".example.org"), "csr.dns_names[0]", "host name"},
		{"trailing dot", dns("example.org."), "csr.dns_names[0]", "host name"},
		{"mail address without domain", with(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"root"} }), "csr.email_addresses[0]", "mailbox"},
		{"relative URI", with(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Path: "/x"}} }), "csr.uris[0]", "absolute"},
		{"common name too long", rdn(func(n *pkix.Name) { n.CommonName = strings.Repeat("x", 65) }), "csr.subject.CN", "64"},
		{"control character in subject", rdn(func(n *pkix.Name) { n.Organization = []string{"a\nb"} }), "csr.subject.O", "control"},
		{"country", rdn(func(n *pkix.Name) { n.Country = []string{"Germany"} }), "csr.subject.C", "two upper-case"},
		{"the CA's name", with(func(r *x509.CertificateRequest) { r.Subject, r.DNSNames = testSubject, nil }), "csr.subject", "CA's own"},
		{"the CA's key", newCSR(t, prepared.key, func(r *x509.CertificateRequest) { r.DNSNames = nil }), "csr.public_key", "requester's own"},
		{"emailAddress in subject", rdn(func(n *pkix.Name) {
			n.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidEmailAddress, Value: "a@example.org"}}
		}), "csr.subject.emailAddress", "alternative name"},
		{"domain component", rdn(func(n *pkix.Name) {
			n.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidDomainComponent, Value: "org"}}
		}), "csr.subject.DC", "domain components"},
		{"too many attributes", rdn(func(n *pkix.Name) { n.OrganizationalUnit = many[:maxAttributes] }), "csr.subject", "at most 32"},
	}
}

func TestBadCSRsAreRefusedAndChangeNothing(t *testing.T) {
	w := newWorld(t, nil)
	before := w.fingerprint()
	for _, tc := range badCSRs(t) {
		for _, path := range []string{caapi.PathCertificates, caapi.PathResponders} {
			req := caapi.IssueRequest{CSR: tc.csr}
			if path == caapi.PathCertificates {
				req.Profile = "server"
			}
			code, h, b := w.call("POST", path, body(t, req), nil)
			p := asProblem(t, b)
			if code != 400 || p.Code != "invalid_argument" || p.Field != tc.field || !strings.Contains(p.Rule, tc.rule) || h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s; want %s, %q", tc.name, code, b, tc.field, tc.rule)
			}
		}
	}
	if after := w.fingerprint(); after != before {
		t.Fatalf("%s, then %s", before, after)
	}
}

func TestBadRequestsAreRefusedAndChangeNothing(t *testing.T) {
	w := newWorld(t, nil)
	csr := newCSR(t, nil)
	issued, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	serial := issued.Serial
	issue := func(s string) string { return strings.ReplaceAll(s, "CSR", strings.ReplaceAll(csr, "\n", `\n`)) }
	before := w.fingerprint()
	for _, tc := range []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		field, rule              string
	}{
		{"unknown profile", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"root"}`), nil, 400, "profile", "one of the CA's profiles"},
		{"default profile", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"default"}`), nil, 400, "profile", "one of the CA's profiles"},
		{"responder profile", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"ocsp-responder"}`), nil, 400, "profile", caapi.PathResponders},
		{"names for a responder", "POST", caapi.PathResponders, issue(`{"csr":"CSR"}`), nil, 400, "csr.dns_names", "ocsp-responder"},
		{"profile for a responder", "POST", caapi.PathResponders, issue(`{"csr":"CSR","profile":"server"}`), nil, 400, "profile", "not a field"},
		{"profile missing", "POST", caapi.PathCertificates, issue(`{"csr":"CSR"}`), nil, 400, "profile", "must be given"},
		{"unknown field", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server","days":"9999"}`), nil, 400, "days", "not a field"},
		{"other spelling", "POST", caapi.PathCertificates, issue(`{"CSR":"CSR","profile":"server"}`), nil, 400, "", "not a field"},
		{"field twice", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server","profile":"client"}`), nil, 400, "profile", "twice"},
		{"wrong type", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":1}`), nil, 400, "profile", "string"},
		{"null", "POST", caapi.PathCertificates, `{"csr":null,"profile":"server"}`, nil, 400, "csr", "string"},
		{"object", "POST", caapi.PathCertificates, `{"csr":{"a":"b"},"profile":"server"}`, nil, 400, "csr", "string"},
		{"array", "POST", caapi.PathCertificates, `["csr"]`, nil, 400, "body", "JSON object"},
		{"not JSON", "POST", caapi.PathCertificates, `csr=x`, nil, 400, "body", "JSON object"},
		{"empty", "POST", caapi.PathCertificates, ``, map[string]string{"Content-Type": "application/json"}, 400, "body", "JSON object"},
		{"cut", "POST", caapi.PathCertificates, `{"csr":"x"`, nil, 400, "body", "JSON object"},
		{"two values", "POST", caapi.PathCertificates, `{"csr":"x","profile":"server"}{}`, nil, 400, "body", "follows"},
		{"not UTF-8", "POST", caapi.PathCertificates, "{\"csr\":\"\xff\",\"profile\":\"server\"}", nil, 400, "body", "UTF-8"},
		{"too large", "POST", caapi.PathCertificates, `{"csr":"` + strings.Repeat("x", maxBody) + `"}`, nil, 413, "body", "at most"},
		{"content type", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), map[string]string{"Content-Type": "text/plain"}, 415, "Content-Type", "application/json"},
		{"charset", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), map[string]string{"Content-Type": "application/json; charset=utf-16"}, 415, "Content-Type", "application/json"},
		{"idempotency key", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), map[string]string{caapi.IdempotencyKey: strings.Repeat("k", 256)}, 400, caapi.IdempotencyKey, "255"},

		{"unknown serial", "POST", caapi.PathRevocations, `{"serial":"0123456789","reason":"keyCompromise"}`, nil, 404, "serial", "on the ledger"},
		{"serial not hexadecimal", "POST", caapi.PathRevocations, `{"serial":"xyz","reason":"keyCompromise"}`, nil, 400, "serial", "hexadecimal"},
		{"serial too long", "POST", caapi.PathRevocations, `{"serial":"` + strings.Repeat("1f", 21) + `","reason":"keyCompromise"}`, nil, 400, "serial", "20 octets"},
		{"serial zero", "POST", caapi.PathRevocations, `{"serial":"00","reason":"keyCompromise"}`, nil, 400, "serial", "positive"},
		{"unknown reason", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"bored"}`, nil, 400, "reason", "5.3.1"},
		{"reason in capitals", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"KEYCOMPROMISE"}`, nil, 400, "reason", "5.3.1"},
		{"removeFromCRL", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"removeFromCRL"}`, nil, 400, "reason", "5.3.1"},
		{"reason missing", "POST", caapi.PathRevocations, `{"serial":"` + serial + `"}`, nil, 400, "reason", "must be given"},
		{"invalidity date", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"keyCompromise","invalidity_date":"yesterday"}`, nil, 400, "invalidity_date", "RFC 3339"},
		{"invalidity date in the future", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"keyCompromise","invalidity_date":"2999-01-01T00:00:00Z"}`, nil, 400, "invalidity_date", "future"},
		{"hold with invalidity date", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"certificateHold","invalidity_date":"2020-01-01T00:00:00Z"}`, nil, 400, "invalidity_date", "hold"},
		{"release of what is not held", "POST", caapi.PathReleases, `{"serial":"` + serial + `"}`, nil, 409, "op", "not on hold"},
		{"release of an unknown serial", "POST", caapi.PathReleases, `{"serial":"0123456789"}`, nil, 404, "serial", "on the ledger"},

		{"get unknown serial", "GET", caapi.PathCertificates + "/0123456789", "", nil, 404, "serial", "issued"},
		{"get no serial", "GET", caapi.PathCertificates + "/xyz", "", nil, 400, "serial", "hexadecimal"},
		{"unknown path", "GET", "/v1/secrets", "", nil, 404, "path", "not a resource"},
		{"method", "DELETE", caapi.PathCertificates + "/" + serial, "", nil, 405, "method", "GET"},
		{"method", "GET", caapi.PathRevocations, "", nil, 405, "method", "POST"},

		{"no token", "GET", caapi.PathCA, "", map[string]string{"Authorization": ""}, 401, "Authorization", "Bearer"},
		{"other scheme", "GET", caapi.PathCA, "", map[string]string{"Authorization": "Basic b3BlcmF0b3I6eA=="}, 401, "Authorization", "Bearer"},
		{"unknown token", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), map[string]string{"Authorization": "Bearer " + strings.Repeat("A", 43)}, 401, "Authorization", "not one of"},
		{"empty token", "GET", caapi.PathCA, "", map[string]string{"Authorization": "Bearer "}, 401, "Authorization", "Bearer"},
		{"requester revokes", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"keyCompromise"}`, as(w, "requester"), 403, "role", "change the status"},
		{"requester releases", "POST", caapi.PathReleases, `{"serial":"` + serial + `"}`, as(w, "requester"), 403, "role", "change the status"},
		{"requester enrols", "POST", caapi.PathResponders, issue(`{"csr":"CSR"}`), as(w, "requester"), 403, "role", "enrol"},
		{"responder issues", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), as(w, "responder"), 403, "role", "issue"},
		{"responder reads", "GET", caapi.PathCertificates + "/" + serial, "", as(w, "responder"), 403, "role", "read"},
		{"auditor issues", "POST", caapi.PathCertificates, issue(`{"csr":"CSR","profile":"server"}`), as(w, "auditor"), 403, "role", "issue"},
		{"auditor revokes", "POST", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"keyCompromise"}`, as(w, "auditor"), 403, "role", "change the status"},
	} {
		code, h, b := w.call(tc.method, tc.path, tc.body, tc.header)
		p := asProblem(t, b)
		if code != tc.status || p.Status != code || tc.field != "" && p.Field != tc.field || !strings.Contains(p.Rule, tc.rule) {
			t.Errorf("%s: %d %s; want %d %s %q", tc.name, code, b, tc.status, tc.field, tc.rule)
		}
		if (code == 401) != (h.Get("WWW-Authenticate") != "") || (code == 405) != (h.Get("Allow") != "") {
			t.Errorf("%s: headers %v", tc.name, h)
		}
	}
	if after := w.fingerprint(); after != before {
		t.Fatalf("%s, then %s", before, after)
	}
}

func as(w *world, client string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + w.token(client)}
}

func flipLast(der []byte) []byte {
	b := bytes.Clone(der)
	b[len(b)-1] ^= 1
	return b
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sha1CSR(t testing.TB) string {
	return openssl(t, "", "req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-newkey", "rsa:2048", "-sha1")
}

// dsaCSR has a DSA key and nobody's signature: the key is looked at first.
func dsaCSR(t testing.TB) string {
	t.Helper()
	block, _ := pem.Decode([]byte(newCSR(t, nil)))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	params, err := asn1.Marshal(dsa.Parameters{P: big.NewInt(23), Q: big.NewInt(11), G: big.NewInt(4)})
	if err != nil {
		t.Fatal(err)
	}
	y, err := asn1.Marshal(big.NewInt(8))
	if err != nil {
		t.Fatal(err)
	}
	type spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	type info struct {
		Version    int
		Subject    asn1.RawValue
		Key        spki
		Attributes asn1.RawValue
	}
	der, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		info{0, asn1.RawValue{FullBytes: csr.RawSubject}, spki{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, Parameters: asn1.RawValue{FullBytes: params}}, asn1.BitString{Bytes: y, BitLength: 8 * len(y)}}, asn1.RawValue{FullBytes: []byte{0xa0, 0}}},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 2}},
		asn1.BitString{Bytes: []byte{0}, BitLength: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE REQUEST", der)
}

// FuzzParseCSR has its seeds in testdata: badCSRs as they were once made.
func FuzzParseCSR(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if csr, err := parseCSR(text); err == nil && csr.CheckSignature() != nil {
			t.Fatal("a request without proof of possession was taken")
		}
	})
}

func FuzzParseFields(f *testing.F) {
	for _, s := range []string{`{"serial":"1","reason":"x"}`, `{"serial":"1","serial":"2","reason":"x"}`, `{"serial":1}`, `{}`, `[]`, `{"a":{"b":[1]}}`, "\xff", `{"serial":"\ud800","reason":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var serial, reason, date string
		if parseFields(data, map[string]*string{"serial": &serial, "reason": &reason, "date?": &date}) != nil {
			return
		}
		checkAgainstEncodingJSON(t, data, serial, reason, date)
	})
}
