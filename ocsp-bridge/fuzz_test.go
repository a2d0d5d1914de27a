package ocspbridge_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// requests are some of each kind.
func requests(t testing.TB) (all [][]byte) {
	ca := cctest.NewCA(t)
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA512} {
		for _, serial := range []*big.Int{big.NewInt(1), new(big.Int).Lsh(big.NewInt(0xfb), 150)} {
			id, err := ocspwire.NewCertID(h, ca.Cert, serial)
			if err != nil {
				t.Fatal(err)
			}
			for _, req := range []*ocspwire.Request{
				{Items: []ocspwire.RequestItem{{ID: id}}},
				{Items: []ocspwire.RequestItem{{ID: id}, {ID: id}}},
				{Items: []ocspwire.RequestItem{{ID: id}}, Nonce: []byte("nonce")},
				{Items: []ocspwire.RequestItem{{ID: id}}, RequestorName: ocspwire.DirectoryNameOf(ca.Cert.RawSubject)},
			} {
				der, err := req.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, der)
			}
		}
	}
	return all
}

// What plainCertID finds is the CertID that the parser finds, in a request that has nothing else; and it finds that of every such request.
func FuzzPlainCertID(f *testing.F) {
	for _, der := range requests(f) {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key := ocspbridge.PlainCertID(der)
		req, err := ocspwire.ParseRequest(der, 4)
		if err != nil {
			return // what is found there is never kept: only parsed CertIDs are
		}
		plain := len(req.Items) == 1 && len(req.Extensions) == 0 && len(req.Items[0].Extensions) == 0 && req.RequestorName == nil && req.Signature == nil
		if (key != nil) != (plain && len(der) <= 0xff+3) {
			t.Fatalf("plain: %v, found: %x", plain, key)
		}
		if key != nil && !bytes.Equal(key, req.Items[0].ID.Raw) {
			t.Fatalf("found %x, the request has %x", key, req.Items[0].ID.Raw)
		}
	})
}

// Octets after the CertID are not part of it: answers for a wish of algorithm are kept under the CertID and one octet more.
func TestOctetsAfterTheCertIDAreNoPlainRequest(t *testing.T) {
	der, found := []byte(nil), false
	for _, der = range requests(t) {
		if ocspbridge.PlainCertID(der) == nil || len(der) > 100 {
			continue
		}
		found = true
		longer := append(bytes.Clone(der), 0x0b)
		for _, at := range []int{1, 3, 5, 7} {
			longer[at]++
		}
		if got := ocspbridge.PlainCertID(longer); got != nil {
			t.Errorf("%x: found %x", longer, got)
		}
	}
	if !found {
		t.Error("no plain request to begin with")
	}
}

// The decoder agrees with the standard library's, after what clients do to base64 is undone in the slow way.
func FuzzPathAgainstStandardBase64(f *testing.F) {
	for _, der := range requests(f) {
		std := base64.StdEncoding.EncodeToString(der)
		f.Add("/" + std)
		f.Add("//" + strings.TrimRight(base64.URLEncoding.EncodeToString(der), "="))
		f.Add("/" + strings.ReplaceAll(std, "+", " "))
	}
	for _, s := range []string{"", "/", "/M", "/MF%0AEw", "/MF\nEw", "/MFEx", "/MFF=", "/MF==", "/%4dF", "/%zz"} {
		f.Add(s)
	}
	const limit = 512
	f.Fuzz(func(t *testing.T, path string) {
		got, err := ocspbridge.DecodePath(path, limit)
		if strings.Contains(path, "%") {
			return // undone by net/url
		}
		text := strings.TrimRight(strings.TrimLeft(path, "/"), "=")
		want, wantErr := base64.RawStdEncoding.Strict().DecodeString(strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(text))
		if strings.ContainsAny(text, "\r\n") || len(want) > limit {
			wantErr = base64.CorruptInputError(0)
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%x, %v; want %x, %v", got, err, want, wantErr)
		}
	})
}
