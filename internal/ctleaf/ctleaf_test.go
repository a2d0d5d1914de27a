package ctleaf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestLeafLooksLikeThis(t *testing.T) {
	leaf, err := X509(0x0102030405, 0x1112131415161718, []byte{0xaa, 0xbb})
	if err != nil {
		t.Fatal(err)
	}
	const want = "00" + "00" + // v1, timestamped_entry
		"1112131415161718" + "0000" + // timestamp, x509_entry
		"000002aabb" + // certificate
		"0008" + "00" + "0005" + "0102030405" // leaf_index
	if got := hex.EncodeToString(leaf); got != want {
		t.Errorf("leaf is %s, want %s", got, want)
	}
}

func TestLimits(t *testing.T) {
	der := []byte{1}
	if _, err := X509(MaxIndex, 0, der); err != nil {
		t.Errorf("the largest index: %v", err)
	}
	for name, call := range map[string]func() ([]byte, error){
		"index":          func() ([]byte, error) { return X509(MaxIndex+1, 0, der) },
		"time":           func() ([]byte, error) { return X509(0, -1, der) },
		"no certificate": func() ([]byte, error) { return X509(0, 0, nil) },
		"too large":      func() ([]byte, error) { return X509(0, 0, make([]byte, maxCert+1)) },
	} {
		if leaf, err := call(); err == nil {
			t.Errorf("%s out of range makes a leaf of %d octets", name, len(leaf))
		}
	}
	if _, err := Hash(MaxIndex+1, 0, der); err == nil {
		t.Error("Hash of an index out of range succeeds")
	}
}

// FuzzX509 compares with certificate-transparency-go's encoder, and Hash with merkle's.
func FuzzX509(f *testing.F) {
	f.Add(uint64(0), int64(0), []byte{0x30, 0})
	f.Add(uint64(MaxIndex), int64(1767225600000), bytes.Repeat([]byte{1}, 70000))
	f.Fuzz(func(t *testing.T, index uint64, at int64, der []byte) {
		leaf, err := X509(index, wire.Millis(at), der)
		if err != nil {
			return
		}
		var extension bytes.Buffer
		extension.Write([]byte{0, 0, 5})
		extension.Write([]byte{byte(index >> 32), byte(index >> 24), byte(index >> 16), byte(index >> 8), byte(index)})
		want, err := tls.Marshal(ct.MerkleTreeLeaf{
			Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
			TimestampedEntry: &ct.TimestampedEntry{
				Timestamp: uint64(at), EntryType: ct.X509LogEntryType, X509Entry: &ct.ASN1Cert{Data: der}, Extensions: extension.Bytes(),
			},
		})
		if err != nil || !bytes.Equal(leaf, want) {
			t.Fatalf("leaf is\n%x, want\n%x, %v", leaf, want, err)
		}
		hash, err := Hash(index, wire.Millis(at), der)
		if err != nil || !bytes.Equal(hash[:], rfc6962.DefaultHasher.HashLeaf(leaf)) || hash == sha256.Sum256(leaf) {
			t.Fatalf("hash is %x, %v", hash, err)
		}
	})
}
