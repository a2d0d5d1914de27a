package tlogproof

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const fuzzBody = origin + "\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n"

// A checkpoint's text has one form.
func FuzzParseText(f *testing.F) {
	f.Add(fuzzBody)
	f.Add(origin + "\n07\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n")
	f.Add(origin + "\n18446744073709551615\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdR=\nextension\n")
	f.Add("\n0\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		cp, err := ParseText(text)
		if err == nil && cp.Text() != text {
			t.Fatalf("%q has a second form, %q", text, cp.Text())
		}
	})
}

// The key has signed one checkpoint, so no other is ever believed, whatever else the note has.
func FuzzOpenCheckpoint(f *testing.F) {
	// The same key in every process: fuzzing has several.
	const name = "channel/Org1MSP"
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	vkey, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, verifier.KeyHash(),
		base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...))))
	if err != nil {
		f.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: fuzzBody}, signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(append(bytes.Clone(signed), "\u2014 somebody AAAAAAAA\n"...))
	f.Add(bytes.Replace(signed, []byte("\n7\n"), []byte("\n8\n"), 1))
	f.Add([]byte(fuzzBody))
	f.Fuzz(func(t *testing.T, data []byte) {
		read, n, readErr := ReadUnverified(data)
		cp, names, err := OpenCheckpoint(data, origin, verifier)
		if err != nil {
			return
		}
		if cp.Text() != fuzzBody || len(names) != 1 || names[0] != signer.Name() {
			t.Fatalf("%q is believed as %+v, signed by %q", data, cp, names)
		}
		if readErr != nil || *read != *cp || n.Text != fuzzBody {
			t.Fatalf("%q: unverified it reads as %+v, %v", data, read, readErr)
		}
	})
}
