package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509/pkix"
	"encoding/hex"
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
		if req.Signature == nil {
			again := *req
			again.Nonce = nil // it is among the extensions, in its place
			if got, err := again.Marshal(); err != nil || !bytes.Equal(got, der) {
				t.Fatalf("accepted %x, which encodes as %x, %v", der, got, err)
			}
		}
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
	name, err := hex.DecodeString("820378797a")
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range Hashes() {
		item := RequestItem{ID: p.id(t, h)}
		writeSeed(t, "FuzzParseRequest", fmt.Sprintf("plain-%d", i), marshal(t, &Request{Items: []RequestItem{item}}))
		writeSeed(t, "FuzzParseRequest", fmt.Sprintf("full-%d", i), marshal(t, &Request{
			RequestorName: name, Nonce: []byte("0123456789abcdef"), Extensions: []pkix.Extension{{Id: OIDResponse, Critical: true, Value: []byte{0x30, 0}}},
			Items: []RequestItem{item, {ID: item.ID, Extensions: []pkix.Extension{{Id: OIDServiceLocator, Value: []byte{0x30, 0}}}}},
		}))
	}
	for name, key := range keys(t) {
		signer := newPKI(t, key, nil)
		r := signer.response(t)
		writeSeed(t, "FuzzParseResponse", "good-"+name, signer.signed(t, r))
		r.Nonce = []byte("0123456789abcdef")
		r.Responses[0].Status, r.Responses[0].RevokedAt, r.Responses[0].Reason = Revoked, p.now, ocsp.KeyCompromise
		r.Responses = append(r.Responses, SingleResponse{ID: p.id(t, crypto.SHA512), Status: Unknown, ThisUpdate: p.now})
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
