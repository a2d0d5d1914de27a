// Package ctleaf builds the leaves of issuance logs: RFC 6962 MerkleTreeLeaf structures with the leaf_index extension of
// C2SP static-ct-api.
package ctleaf

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const (
	// MaxIndex is the largest leaf index that the 40-bit leaf_index extension can carry.
	MaxIndex = 1<<40 - 1

	maxCert = 1<<24 - 1 // opaque ASN.1Cert<1..2^24-1>, opaque TBSCertificate<1..2^24-1>

	x509Entry    = 0 // RFC 6962 section 3.1, LogEntryType
	precertEntry = 1
)

// X509 returns the MerkleTreeLeaf (RFC 6962 section 3.4) of a final certificate.
// Requires index <= MaxIndex, a time that is not negative and 1 to 2^24-1 octets of DER.
func X509(index uint64, t wire.Millis, der []byte) ([]byte, error) {
	return leaf(index, t, x509Entry, nil, der)
}

// Precert returns the MerkleTreeLeaf of a precertificate. issuerKeyHash is the SHA-256 of the issuer's SubjectPublicKeyInfo: the
// CAID. tbs is PrecertTBS of it. Requirements are X509's.
func Precert(index uint64, t wire.Millis, issuerKeyHash [sha256.Size]byte, tbs []byte) ([]byte, error) {
	return leaf(index, t, precertEntry, issuerKeyHash[:], tbs)
}

func leaf(index uint64, t wire.Millis, kind byte, prefix, content []byte) ([]byte, error) {
	if index > MaxIndex || t < 0 || len(content) == 0 || len(content) > maxCert {
		return nil, fmt.Errorf("ctleaf: index %d, time %d, %d octets of certificate: out of range", index, t, len(content))
	}
	b := make([]byte, 0, 2+8+2+len(prefix)+3+len(content)+2+8)
	b = append(b, 0, 0) // v1, timestamped_entry
	b = binary.BigEndian.AppendUint64(b, uint64(t))
	b = append(b, 0, kind)
	b = append(b, prefix...)
	b = append(b, byte(len(content)>>16), byte(len(content)>>8), byte(len(content)))
	b = append(b, content...)
	return append(b, Extensions(index)...), nil
}

// Extensions returns the CtExtensions of an entry, of a leaf and of its SCT alike, with the length before it: one leaf_index
// (C2SP static-ct-api). Requires index <= MaxIndex.
func Extensions(index uint64) []byte {
	return []byte{
		0, 8, // CtExtensions, one Extension
		0, 0, 5, // leaf_index, 5 octets
		byte(index >> 32), byte(index >> 24), byte(index >> 16), byte(index >> 8), byte(index),
	}
}

// Hash returns the leaf hash of X509's leaf (RFC 6962 section 2.1). Same requirements.
func Hash(index uint64, t wire.Millis, der []byte) (sum [sha256.Size]byte, err error) {
	l, err := X509(index, t, der)
	if err != nil {
		return sum, err
	}
	return HashLeaf(l), nil
}

// PrecertHash returns the leaf hash of Precert's leaf. Same requirements.
func PrecertHash(index uint64, t wire.Millis, issuerKeyHash [sha256.Size]byte, tbs []byte) (sum [sha256.Size]byte, err error) {
	l, err := Precert(index, t, issuerKeyHash, tbs)
	if err != nil {
		return sum, err
	}
	return HashLeaf(l), nil
}

// HashLeaf is RFC 6962 section 2.1's hash of a leaf.
func HashLeaf(l []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(l)
	h.Sum(sum[:0])
	return sum
}
