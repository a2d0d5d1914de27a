package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/crypto/ocsp"
)

// FuzzParseRequest: what is accepted has one encoding, and means to x/crypto/ocsp what it means here.
func FuzzParseRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, der []byte) {
		req, err := ParseRequest(der, manyItems)
		if err != nil {
			return
		}
		again := *req
		again.Nonce = nil // it is among the extensions, in its place
		if got, err := again.Marshal(); err != nil || !bytes.Equal(got, der) {
			t.Fatalf("accepted %x, which encodes as %x, %v", der, got, err)
		}
		if _, err := req.Verify(RequestorOptions{}); err == nil && !bytes.Contains(der, req.Signature.TBS) {
			t.Fatalf("%x: verified what was not sent", der)
		}
		reread(t, der, req)
		first := req.Items[0].ID
		if first.Hash == 0 || req.RequestorName != nil { // x/crypto knows no other hashes, and names only as RDNSequence
			return
		}
		theirs, err := ocsp.ParseRequest(der)
		if err != nil {
			t.Fatalf("accepted %x, x/crypto says %v", der, err)
		}
		if theirs.HashAlgorithm != first.Hash || !bytes.Equal(theirs.IssuerNameHash, first.NameHash) ||
			!bytes.Equal(theirs.IssuerKeyHash, first.KeyHash) || theirs.SerialNumber.Cmp(first.Serial) != 0 {
			t.Fatalf("%x: read %+v, x/crypto %+v", der, first, theirs)
		}
	})
}

// dirty is what every input of this process was read into: nothing of one may be seen in the next.
var dirty Request

func reread(t *testing.T, der []byte, want *Request) {
	if err := dirty.Unmarshal(der, manyItems); err != nil {
		t.Fatalf("%x: refused the second time: %v", der, err)
	}
	if a, b := fmt.Sprintf("%+v", summary(&dirty)), fmt.Sprintf("%+v", summary(want)); a != b {
		t.Fatalf("%x: read into used memory %s, into new memory %s", der, a, b)
	}
}

// summary is all of a request, without pointers.
func summary(r *Request) (out []any) {
	out = append(out, r.Extensions, r.Nonce, r.RequestorName.marshal(), r.AcceptsBasic(), r.PreferredAlgorithms())
	for _, it := range r.Items {
		out = append(out, it.ID.Hash, it.ID.NameHash, it.ID.KeyHash, it.ID.Content, it.ID.Serial.String(), it.ID.Raw, len(it.Extensions))
		for _, e := range it.Extensions {
			out = append(out, e)
		}
	}
	if s := r.Signature; s != nil {
		out = append(out, *s)
	}
	return out
}

func (n *GeneralName) marshal() []byte {
	if n == nil {
		return nil
	}
	der, err := n.Marshal()
	if err != nil {
		panic(err)
	}
	return der
}

// FuzzParseResponse: what is accepted has one encoding, and means to x/crypto/ocsp what it means here.
func FuzzParseResponse(f *testing.F) {
	f.Fuzz(func(t *testing.T, der []byte) {
		status, r, err := ParseResponse(der)
		if err != nil || status != Successful {
			return
		}
		again := *r
		again.Nonce = nil
		if got, err := again.marshalTBS(); err != nil || !bytes.Equal(got, r.TBS) {
			t.Fatalf("accepted %x, which encodes as %x, %v", r.TBS, got, err)
		}
		theirs, err := ocsp.ParseResponse(der, nil)
		if err != nil || len(r.Responses) != 1 {
			return // it refuses more than it documents: several statuses, unknown algorithms, a certificate that does not verify
		}
		ours := r.Responses[0]
		if map[int]CertStatus{ocsp.Good: Good, ocsp.Revoked: Revoked, ocsp.Unknown: Unknown}[theirs.Status] != ours.Status ||
			theirs.SerialNumber.Cmp(ours.ID.Serial) != 0 || !theirs.ThisUpdate.Equal(ours.ThisUpdate) || !theirs.NextUpdate.Equal(ours.NextUpdate) {
			t.Fatalf("%x: read %+v, x/crypto %+v", der, ours, theirs)
		}
		if ours.Status == Revoked && (!theirs.RevokedAt.Equal(ours.RevokedAt) || theirs.RevocationReason != max(ours.Reason, 0)) {
			t.Fatalf("%x: revoked %s for %d, x/crypto %s for %d", der, ours.RevokedAt, ours.Reason, theirs.RevokedAt, theirs.RevocationReason)
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
		"FuzzParseRequest":  func(b []byte) error { _, err := ParseRequest(b, manyItems); return err },
		"FuzzParseResponse": func(b []byte) error { _, _, err := ParseResponse(b); return err },
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

func writeSeeds(t *testing.T) {
	p := newPKI(t, nil, nil)
	prefer, err := PreferredAlgorithmsExtension(x509.SHA384WithRSAPSS, x509.PureEd25519, x509.ECDSAWithSHA512)
	if err != nil {
		t.Fatal(err)
	}
	accept, err := AcceptableResponsesExtension(asn1.ObjectIdentifier{1, 2, 3}, OIDBasic)
	if err != nil {
		t.Fatal(err)
	}
	accept.Critical = true
	locator := ServiceLocator{Issuer: p.ca.RawSubject, Locator: wrap(0x30, wrap(0x30, []byte{6, 3, 0x2a, 3, 4}, wrap(0x86, []byte("http://ocsp.test"))))}
	for i, h := range Hashes() {
		item := RequestItem{ID: p.id(t, h)}
		writeSeed(t, "FuzzParseRequest", fmt.Sprintf("plain-%d", i), marshal(t, &Request{Items: []RequestItem{item}}))
		writeSeed(t, "FuzzParseRequest", fmt.Sprintf("full-%d", i), marshal(t, &Request{
			RequestorName: &GeneralName{Choice: DNSName, Text: "xyz"}, Nonce: []byte("0123456789abcdef"),
			Extensions: []pkix.Extension{accept, prefer},
			Items:      []RequestItem{item, {ID: item.ID, Extensions: []pkix.Extension{locator.Extension()}}},
		}))
	}
	for name, n := range generalNames(t, p) {
		writeSeed(t, "FuzzParseRequest", "by-"+name, marshal(t, &Request{RequestorName: n, Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}}))
	}
	for name, key := range keys(t) {
		signer := newPKI(t, key, nil)
		der, err := (&Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA256)}}}).Sign(key, signer.delegate)
		if err != nil {
			t.Fatal(err)
		}
		writeSeed(t, "FuzzParseRequest", "signed-"+name, der)
	}
	for name, key := range keys(t) {
		signer := newPKI(t, key, nil)
		r := signer.response(t)
		writeSeed(t, "FuzzParseResponse", "good-"+name, signer.signed(t, r))
		r.Nonce = []byte("0123456789abcdef")
		r.Responses[0].Status, r.Responses[0].RevokedAt, r.Responses[0].Reason = Revoked, p.now, ocsp.KeyCompromise
		r.Responses[0].Extensions = []pkix.Extension{InvalidityDate(p.now), ArchiveCutoff(p.now)}
		r.Responses = append(r.Responses, SingleResponse{ID: p.id(t, crypto.SHA512), Status: Unknown, ThisUpdate: p.now}, NeverIssued(p.id(t, crypto.SHA384)))
		r.Responses[2].ThisUpdate, r.Extensions = p.now, []pkix.Extension{ExtendedRevoke()}
		writeSeed(t, "FuzzParseResponse", "several-"+name, signer.signed(t, r))
		r.Responses, r.Certs = r.Responses[:1], nil
		writeSeed(t, "FuzzParseResponse", "revoked-"+name, signer.signed(t, r))
	}
	writeSeed(t, "FuzzParseResponse", "tryLater", ErrorResponse(TryLater))
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
