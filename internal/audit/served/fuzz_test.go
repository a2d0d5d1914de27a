package served

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const (
	fuzzOrigin = "log.example/logs/1"
	fuzzTime   = wire.Millis(1767225600123)
)

// fuzzHead is the one head that the key of the fuzz targets has signed.
var fuzzHead = sct.STH{Size: 7, Time: fuzzTime, Root: [32]byte{1, 2, 3}}

// fuzzKeys is the same key in every process: fuzzing has several.
func fuzzKeys(f *testing.F) (*sct.Key, *ctKeys) {
	f.Helper()
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	key, err := sct.New(private)
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := sct.NewVerifier(fuzzOrigin, key.Public())
	if err != nil {
		f.Fatal(err)
	}
	return key, &ctKeys{origin: fuzzOrigin, key: verifier}
}

// checkClaim: a bridge is held to what its key has signed and to nothing else.
func checkClaim(t *testing.T, body []byte, c *claim, kind string) {
	t.Helper()
	if c.kind != kind || c.size != fuzzHead.Size || c.root != fuzzHead.Root || len(c.times) != 1 || c.times[0].at != fuzzTime || c.times[0].by != fuzzOrigin {
		t.Fatalf("%q is believed as %+v", body, c)
	}
}

func FuzzParseSTH(f *testing.F) {
	key, keys := fuzzKeys(f)
	signature, err := key.SignSTH(fuzzHead)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(sth{Size: fuzzHead.Size, Time: int64(fuzzTime), Root: fuzzHead.Root[:], Signature: signature})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parseSTH(good, keys); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"tree_size":7`), []byte(`"tree_size":8`), 1))
	f.Add(bytes.Replace(good, []byte(`"timestamp":`), []byte(`"timestamp":-`), 1))
	f.Add([]byte(`{"tree_size":18446744073709551615,"timestamp":9223372036854775807,"sha256_root_hash":"AA==","tree_head_signature":""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, err := parseSTH(body, keys); err == nil {
			checkClaim(t, body, c, kindSTH)
		}
	})
}

func FuzzParseStatic(f *testing.F) {
	key, keys := fuzzKeys(f)
	cp := tlogproof.Checkpoint{Origin: fuzzOrigin, Size: fuzzHead.Size, Root: fuzzHead.Root}
	good, err := note.Sign(&note.Note{Text: cp.Text()}, key.CheckpointSigner(fuzzOrigin, fuzzTime))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parseStatic(good, keys); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("\n7\n"), []byte("\n8\n"), 1))
	f.Add([]byte(strings.Replace(string(good), "\u2014", "\u2014 somebody AAAAAAAA\n\u2014", 1)))
	f.Add([]byte(cp.Text()))
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, err := parseStatic(body, keys); err == nil {
			checkClaim(t, body, c, kindStatic)
		}
	})
}
