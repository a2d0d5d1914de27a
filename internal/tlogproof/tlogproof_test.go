package tlogproof

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const origin = "channel/issuance/00"

func newKey(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestProofsComeBackAsTheyWere(t *testing.T) {
	signer, _ := newKey(t, "channel/Org1MSP")
	rapid.Check(t, func(r *rapid.T) {
		cp := Checkpoint{Origin: origin, Size: rapid.Uint64().Draw(r, "size")}
		signed, err := cp.Sign(signer)
		if err != nil {
			r.Fatal(err)
		}
		p := Proof{Index: rapid.Uint64().Draw(r, "index"), Time: wire.Millis(rapid.Int64Min(0).Draw(r, "time")), Checkpoint: signed}
		for _, seed := range rapid.SliceOfN(rapid.Byte(), 0, 63).Draw(r, "path") {
			p.Path = append(p.Path, sha256.Sum256([]byte{seed}))
		}
		got, err := Parse(p.Marshal())
		if err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(got.Marshal(), p.Marshal()) || got.Index != p.Index || got.Time != p.Time || len(got.Path) != len(p.Path) {
			r.Fatalf("%+v comes back as %+v", p, got)
		}
	})
}

func TestOnlyTheOneEncodingOfAProofIsRead(t *testing.T) {
	const good = "c2sp.org/tlog-proof@v1\nextra AAABi8/lZAA=\nindex 5\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\ncheckpoint\n"
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"leading zero":          strings.Replace(good, "index 5", "index 05", 1),
		"plus sign":             strings.Replace(good, "index 5", "index +5", 1),
		"carriage returns":      strings.ReplaceAll(good, "\n", "\r\n"),
		"no extra":              strings.Replace(good, "extra AAABi8/lZAA=\n", "", 1),
		"short extra":           strings.Replace(good, "AAABi8/lZAA=", "AAABi8/l", 1),
		"negative time":         strings.Replace(good, "AAABi8/lZAA=", "gAABi8/lZAA=", 1),
		"other base64":          strings.Replace(good, "LdQ=", "LdR=", 1), // bits that mean nothing are set
		"no end of line":        strings.TrimSuffix(good, "\n"),
		"short hash":            strings.Replace(good, "R1h4xuHB", "R1h4", 1),
		"other version":         strings.Replace(good, "@v1", "@v2", 1),
		"longer than the limit": good + strings.Repeat("x\n", MaxSize/2),
	} {
		if p, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", what, p)
		}
	}
}

func TestCheckpointsAreBelievedOnlyFromTheLogAndForTheOrigin(t *testing.T) {
	signer, verifier := newKey(t, "channel/Org1MSP")
	stranger, other := newKey(t, "channel/Org2MSP")
	impostor, _ := newKey(t, "channel/Org1MSP")
	sign := func(text string, by ...note.Signer) []byte {
		signed, err := note.Sign(&note.Note{Text: text}, by...)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	const body = origin + "\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n"
	cp, names, err := OpenCheckpoint(sign(body, stranger, signer), origin, verifier)
	if err != nil || cp.Size != 7 || len(names) != 1 || names[0] != "channel/Org1MSP" {
		t.Fatalf("checkpoint %+v by %v, %v", cp, names, err)
	}
	if _, names, err := OpenCheckpoint(sign(body, stranger, signer), origin, verifier, other); err != nil || len(names) != 2 {
		t.Errorf("signed by %v, %v; want both", names, err)
	}
	for what, signed := range map[string][]byte{
		"a stranger's":      sign(body, stranger),
		"an impostor's":     sign(body, impostor),
		"changed":           bytes.Replace(sign(body, signer), []byte("\n7\n"), []byte("\n8\n"), 1),
		"another origin":    sign("x"+body, signer),
		"an extension line": sign(body+"extension\n", signer),
		"a leading zero":    sign(strings.Replace(body, "\n7\n", "\n07\n", 1), signer),
		"a short root":      sign(origin+"\n7\nR1h4\n", signer),
		"not a checkpoint":  sign("hello\n", signer),
		"not a note":        []byte(body),
	} {
		if cp, _, err := OpenCheckpoint(signed, origin, verifier); err == nil {
			t.Errorf("%s: believed as %+v", what, cp)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AAABi8/lZAA=\nindex 5\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\ncheckpoint\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err == nil && !bytes.Equal(p.Marshal(), text) {
			t.Fatalf("%q has a second encoding, %q", text, p.Marshal())
		}
	})
}
