package cosign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

const (
	name = "channel/Org1MSP/cosigner"
	text = "channel/map\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n"
)

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newSigner(t testing.TB) (*Signer, []byte) {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(name, seed, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return s, seed
}

// TestAgreesWithTransparencyDevFormats: what this package signs verifies there, what is signed there verifies here.
func TestAgreesWithTransparencyDevFormats(t *testing.T) {
	ours, seed := newSigner(t)
	signed, err := note.Sign(&note.Note{Text: text}, ours)
	if err != nil {
		t.Fatal(err)
	}
	theirVerifier, err := formats.NewVerifierForCosignatureV1(ours.VKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(theirVerifier))
	if err != nil {
		t.Fatalf("they do not verify ours: %v", err)
	}
	theirTime, err := formats.CoSigV1Timestamp(n.Sigs[0])
	if err != nil || !theirTime.Equal(at) {
		t.Errorf("they read the time %v, %v; want %v", theirTime, err, at)
	}
	parts := strings.SplitN(ours.VKey(), "+", 3)
	skey := "PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{Algorithm}, seed...))
	theirs, err := formats.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = note.Sign(&note.Note{Text: text}, theirs); err != nil {
		t.Fatal(err)
	}
	ourVerifier, err := NewVerifier(ours.VKey())
	if err != nil {
		t.Fatal(err)
	}
	if n, err = note.Open(signed, note.VerifierList(ourVerifier)); err != nil {
		t.Fatalf("ours does not verify theirs: %v", err)
	}
	want, err := formats.CoSigV1Timestamp(n.Sigs[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Time(n.Sigs[0]); err != nil || !got.Equal(want) {
		t.Errorf("time is %v, %v; they read %v", got, err, want)
	}
}

func TestEveryByteOfACosignatureCounts(t *testing.T) {
	s, _ := newSigner(t)
	sig, err := s.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v := s.Verifier()
	if !v.Verify([]byte(text), sig) {
		t.Fatal("does not verify")
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 0x80
		if v.Verify([]byte(text), bad) {
			t.Errorf("verifies with byte %d changed", i)
		}
	}
	if v.Verify([]byte(text+"\n"), sig) || v.Verify([]byte(text), sig[1:]) || v.Verify([]byte(text), append(sig, 0)) || v.Verify([]byte(text), nil) {
		t.Error("verifies for another text or length")
	}
	// An Ed25519 signature of the same key over the bare text is no cosignature.
	if v.Verify([]byte(text), append(make([]byte, timestampSize), ed25519.Sign(s.key, []byte(text))...)) {
		t.Error("a plain signature passes for a cosignature")
	}
}

func TestOnlyTheOneEncodingOfAKeyIsRead(t *testing.T) {
	s, seed := newSigner(t)
	good := s.VKey()
	if _, err := NewVerifier(good); err != nil {
		t.Fatal(err)
	}
	plain, err := note.NewEd25519VerifierKey(name, public(s.key))
	if err != nil {
		t.Fatal(err)
	}
	for what, vk := range map[string]string{
		"empty": "", "another name": "x" + good, "a plain key": plain, "a space": strings.Replace(good, "channel", "chan nel", 1),
		"a line end": good + "\n", "cut": good[:len(good)-4], "upper case": strings.ToUpper(good[:len(name)+9]) + good[len(name)+9:],
	} {
		if _, err := NewVerifier(vk); err == nil {
			t.Errorf("%s: read", what)
		}
	}
	if _, err := NewSigner(name, seed[1:], time.Now); err == nil {
		t.Error("a short seed is accepted")
	}
	if _, err := NewSigner("a+b", seed, time.Now); err == nil {
		t.Error("a name with a plus sign is accepted")
	}
	early, err := NewSigner(name, seed, func() time.Time { return time.Unix(-1, 0) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := early.Sign([]byte(text)); err == nil {
		t.Error("a time before 1970 is signed")
	}
}
