package sct

import (
	"bytes"
	"strings"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const at = wire.Millis(1767225600123)

func leaves(t testing.TB) [][]byte {
	t.Helper()
	cert, err := ctleaf.X509(5, at, []byte{0x30, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	pre, err := ctleaf.Precert(ctleaf.MaxIndex, at, [32]byte{7}, []byte{0x30, 2, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{cert, pre}
}

// Certificate-transparency-go verifies, and reads the SCT back from its bytes.
func TestOthersVerifySCTs(t *testing.T) {
	k := newKey(t)
	verifier, err := ct.NewSignatureVerifier(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range leaves(t) {
		stamp, err := k.SignSCT(leaf)
		if err != nil {
			t.Fatal(err)
		}
		var parsed ct.SignedCertificateTimestamp
		if rest, err := tls.Unmarshal(stamp.Marshal(), &parsed); err != nil || len(rest) > 0 {
			t.Fatalf("SCT does not parse: %v, %d octets left", err, len(rest))
		}
		var entry ct.LogEntry
		if rest, err := tls.Unmarshal(leaf, &entry.Leaf); err != nil || len(rest) > 0 {
			t.Fatalf("leaf does not parse: %v, %d octets left", err, len(rest))
		}
		if err := verifier.VerifySCTSignature(parsed, entry); err != nil {
			t.Error(err)
		}
		if parsed.LogID.KeyID != k.ID() || parsed.Timestamp != uint64(at) || len(parsed.Extensions) != 8 {
			t.Errorf("SCT is %+v", parsed)
		}
	}
}

func TestSCTIsSignedForWholeLeavesOnly(t *testing.T) {
	k := newKey(t)
	for _, leaf := range leaves(t) {
		for n := range leaf {
			if _, err := k.SignSCT(leaf[:n]); err == nil {
				t.Errorf("a leaf cut to %d of %d octets is signed", n, len(leaf))
			}
		}
		if _, err := k.SignSCT(append(bytes.Clone(leaf), 0)); err == nil {
			t.Error("a leaf with an octet after it is signed")
		}
		for i, b := range map[int]byte{0: 1, 1: 1, 2: 0x80, 10: 1, 11: 2} { // version, leaf_type, timestamp, entry_type
			bad := bytes.Clone(leaf)
			bad[i] = b
			if _, err := k.SignSCT(bad); err == nil {
				t.Errorf("a leaf with octet %d set to %d is signed", i, b)
			}
		}
	}
}

func TestOneHeadHasOneSignature(t *testing.T) {
	k := newKey(t)
	verifier, err := ct.NewSignatureVerifier(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	head := STH{Size: 70000, Time: at, Root: [32]byte{1, 2, 3}}
	first, err := k.SignSTH(head)
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.SignSTH(head)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same head is signed differently: %v", err)
	}
	var signed tls.DigitallySigned
	if rest, err := tls.Unmarshal(first, &signed); err != nil || len(rest) > 0 {
		t.Fatal(err, len(rest))
	}
	if err := verifier.VerifySTHSignature(ct.SignedTreeHead{
		Version: ct.V1, TreeSize: head.Size, Timestamp: uint64(head.Time), SHA256RootHash: ct.SHA256Hash(head.Root), TreeHeadSignature: ct.DigitallySigned(signed),
	}); err != nil {
		t.Error(err)
	}
	if _, err := k.SignSTH(STH{Time: -1}); err == nil {
		t.Error("a negative time is signed")
	}
}

func TestCheckpointSignatureCarriesItsTime(t *testing.T) {
	const origin = "log.example/logs/aa"
	k := newKey(t)
	body := tlogproof.Checkpoint{Origin: origin, Size: 7, Root: [32]byte{9}}
	signed, err := body.Sign(k.CheckpointSigner(origin, at))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := NewVerifier(origin, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := tlogproof.OpenCheckpoint(signed, origin, verifier)
	if err != nil || *got != body {
		t.Fatalf("checkpoint opens as %+v, %v", got, err)
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if when, err := SignatureTime(n.Sigs[0]); err != nil || when != at {
		t.Errorf("time is %d, %v", when, err)
	}
	other, err := NewVerifier(origin, newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tlogproof.OpenCheckpoint(signed, origin, other); err == nil {
		t.Error("another key opens it")
	}
}

// Every octet of text and signature counts, the time's among them.
func TestChangedCheckpointIsRefused(t *testing.T) {
	const origin = "log.example/logs/aa"
	k := newKey(t)
	body := tlogproof.Checkpoint{Origin: origin, Size: 7, Root: [32]byte{9}}
	signed, err := body.Sign(k.CheckpointSigner(origin, at))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := NewVerifier(origin, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	padding := bytes.IndexByte(signed[bytes.LastIndexByte(signed, ' '):], '=')
	for i := range signed {
		if i == bytes.LastIndexByte(signed, ' ')+padding-1 {
			continue // package note ignores the spare bits of base64's last digit
		}
		bad := bytes.Clone(signed)
		bad[i] ^= 1
		if _, err := note.Open(bad, note.VerifierList(verifier)); err == nil {
			t.Errorf("octet %d changed: %q is accepted", i, bad)
		}
	}
	for _, text := range []string{
		"another.example\n7\nCQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
		origin + "\n7\nCQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nextension\n",
		origin + "\n07\nCQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
		origin + "\n7\nCQ==\n",
		"", strings.Repeat("\n", 3),
	} {
		if _, err := k.CheckpointSigner(origin, at).Sign([]byte(text)); err == nil {
			t.Errorf("%q is signed", text)
		}
	}
	if _, err := SignatureTime(note.Signature{Name: origin, Base64: "AAAA"}); err == nil {
		t.Error("a short signature has a time")
	}
}
