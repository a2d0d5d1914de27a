package tiles

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/internal/merklelog"
)

// bundleEntry is one entry of tlog-tiles' entry bundles: a uint16 length and the leaf.
func bundleEntry(e merklelog.Entry) ([]byte, error) {
	if len(e.Leaf) > math.MaxUint16 {
		return nil, fmt.Errorf("leaf of %d octets: must be at most %d for an entry bundle (c2sp.org/tlog-tiles)", len(e.Leaf), math.MaxUint16)
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(e.Leaf)), uint16(len(e.Leaf))), e.Leaf...), nil
}

// leafPrefix is what a MerkleTreeLeaf has before its TimestampedEntry: version and leaf_type.
const leafPrefix = 2

// dataEntry is static-ct-api's TileLeaf. fingerprints is the SHA-256 of each certificate of the chain, issuer first.
func dataEntry(e merklelog.Entry, fingerprints []byte) ([]byte, error) {
	if len(e.Leaf) < leafPrefix || e.Kind != merklelog.X509 && e.Kind != merklelog.Precert {
		return nil, fmt.Errorf("leaf of %d octets and kind %d: must be a MerkleTreeLeaf of a certificate or precertificate", len(e.Leaf), e.Kind)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(e.Leaf)+len(e.DER)+len(fingerprints)+8))
	b.AddBytes(e.Leaf[leafPrefix:])
	if e.Kind == merklelog.Precert {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.DER) })
	}
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(fingerprints) })
	return b.Bytes()
}
