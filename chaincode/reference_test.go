package chaincode_test

import (
	"crypto/sha256"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// What follows is written from the specifications alone, without the packages that the contract uses.

// referenceRoot is MTH of RFC 6962 section 2.1, by its recursion, over leaf hashes.
func referenceRoot(hashes [][]byte) []byte {
	switch len(hashes) {
	case 0:
		h := sha256.Sum256(nil)
		return h[:]
	case 1:
		return hashes[0]
	}
	k := 1
	for 2*k < len(hashes) {
		k *= 2
	}
	h := sha256.New()
	h.Write([]byte{1})
	h.Write(referenceRoot(hashes[:k]))
	h.Write(referenceRoot(hashes[k:]))
	return h.Sum(nil)
}

// referenceLeafHash is the hash of RFC 6962 section 3.4's MerkleTreeLeaf with static-ct-api's leaf_index extension.
func referenceLeafHash(index uint64, t wire.Millis, der []byte) []byte {
	return referenceEntryHash(index, t, 0, nil, der)
}

// referencePrecertHash is the same of a precertificate whose certificate has tbs, apart from an SCT list.
func referencePrecertHash(index uint64, t wire.Millis, issuerKeyHash [32]byte, tbs []byte) []byte {
	return referenceEntryHash(index, t, 1, issuerKeyHash[:], tbs)
}

func referenceEntryHash(index uint64, t wire.Millis, entryType uint16, issuerKeyHash, certificate []byte) []byte {
	b := cryptobyte.NewBuilder([]byte{0})
	b.AddUint8(0)          // version v1
	b.AddUint8(0)          // timestamped_entry
	b.AddUint64(uint64(t)) // timestamp
	b.AddUint16(entryType)
	b.AddBytes(issuerKeyHash)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(certificate) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { // extensions
		b.AddUint8(0) // leaf_index
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(uint8(index >> 32))
			b.AddUint32(uint32(index))
		})
	})
	h := sha256.Sum256(b.BytesOrPanic())
	return h[:]
}

// tlogRoot computes the root with the Go checksum database's implementation.
func tlogRoot(t cctest.TB, hashes [][]byte) []byte {
	t.Helper()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i, h := range hashes {
		more, err := tlog.StoredHashesForRecordHash(int64(i), tlog.Hash(h), reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(hashes)), reader)
	if err != nil {
		t.Fatal(err)
	}
	if len(hashes) == 0 { // tlog has another convention for it
		root = sha256.Sum256(nil)
	}
	return root[:]
}
