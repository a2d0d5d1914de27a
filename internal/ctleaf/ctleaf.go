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

	maxCert = 1<<24 - 1 // opaque ASN.1Cert<1..2^24-1>
)

// X509 returns the MerkleTreeLeaf (RFC 6962 section 3.4) of a final certificate.
// Requires index <= MaxIndex, a time that is not negative and 1 to 2^24-1 octets of DER.
func X509(index uint64, t wire.Millis, der []byte) ([]byte, error) {
	if index > MaxIndex || t < 0 || len(der) == 0 || len(der) > maxCert {
		return nil, fmt.Errorf("ctleaf: index %d, time %d, %d octets of certificate: out of range", index, t, len(der))
	}
	b := make([]byte, 0, 2+8+2+3+len(der)+2+8)
	b = append(b, 0, 0) // v1, timestamped_entry
	b = binary.BigEndian.AppendUint64(b, uint64(t))
	b = append(b, 0, 0) // x509_entry
	b = append(b, byte(len(der)>>16), byte(len(der)>>8), byte(len(der)))
	b = append(b, der...)
	b = append(b, 0, 8)    // CtExtensions, one Extension
	b = append(b, 0, 0, 5) // leaf_index, 5 octets
	return append(b, byte(index>>32), byte(index>>24), byte(index>>16), byte(index>>8), byte(index)), nil
}

// Hash returns the leaf hash of X509's leaf (RFC 6962 section 2.1). Same requirements.
func Hash(index uint64, t wire.Millis, der []byte) (sum [sha256.Size]byte, err error) {
	leaf, err := X509(index, t, der)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(leaf)
	h.Sum(sum[:0])
	return sum, nil
}
