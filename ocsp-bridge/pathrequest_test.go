package ocspbridge

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"testing"
)

// FuzzRequestInPath: whatever clients do to a request on its way into a path, it comes out of it, and nothing that is larger than is allowed.
func FuzzRequestInPath(f *testing.F) {
	const limit = 300
	f.Add("MEIwQDA%2BMDwwOjAJBgUrDgMCGgUABBQ%3D", []byte{0x30, 0x03, 0x02, 0x01, 0x00})
	f.Add("//MEIwQDA-MDwwOjAJBgUrDgMCGgUABBQ", []byte{0x30, 0xfb, 0xff, 0xfe})
	f.Add("MEIwQDA MDww%0a", bytes.Repeat([]byte{0x30}, limit))
	f.Add("%zz", []byte{0x30})
	f.Fuzz(func(t *testing.T, rest string, der []byte) {
		if out, err := decodePath(rest, limit, new(buffer)); err == nil && len(out) > limit {
			t.Fatalf("%q: %d octets, the limit is %d", rest, len(out), limit)
		}
		if len(der) == 0 || len(der) > limit || der[0] != 0x30 {
			return // no request
		}
		std := base64.StdEncoding.EncodeToString(der)
		for _, path := range []string{url.PathEscape(std), "/" + std, base64.RawURLEncoding.EncodeToString(der), base64.URLEncoding.EncodeToString(der)} {
			if out, err := decodePath(path, limit, new(buffer)); err != nil || !bytes.Equal(out, der) {
				t.Fatalf("%q: %x, %v; it was %x", path, out, err, der)
			}
		}
	})
}
