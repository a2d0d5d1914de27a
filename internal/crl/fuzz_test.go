package crl

import (
	"bytes"
	"testing"
)

// FuzzReadContents: what is accepted has one encoding, and passes Check.
func FuzzReadContents(f *testing.F) {
	f.Fuzz(func(t *testing.T, enc []byte) {
		c, err := ReadContents(bytes.NewReader(enc))
		if err != nil {
			return
		}
		if got := encode(t, c); !bytes.Equal(got, enc) {
			t.Fatalf("accepted %x, which encodes as %x", enc, got)
		}
	})
}
