package sct

import (
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// SCT is a signed certificate timestamp, version 1.
type SCT struct {
	LogID      LogID
	Time       wire.Millis
	Extensions []byte // CtExtensions without the length before it: what base64 has in an add-chain answer
	Signature  []byte // digitally-signed: algorithms, length, signature
}

// RFC 6962 section 3.1, LogEntryType.
const (
	x509Entry    = 0
	precertEntry = 1
)

var errLeaf = errors.New("sct: leaf must be a MerkleTreeLeaf of an x509_entry or precert_entry (RFC 6962 section 3.4)")

// SignSCT signs a leaf of the log, as package ctleaf makes it. Errors: leaf is not one.
//
// RFC 6962 section 3.2 signs version, signature_type, and from timestamp on what the leaf has. Version v1 and certificate_timestamp are the
// octets that a leaf has for v1 and timestamped_entry: the leaf itself is the message.
func (k *Key) SignSCT(leaf []byte) (*SCT, error) {
	at, extensions, err := parseLeaf(leaf)
	if err != nil {
		return nil, err
	}
	signature, err := k.signEntry(leaf)
	if err != nil {
		return nil, err
	}
	return &SCT{LogID: k.id, Time: at, Extensions: extensions, Signature: signature}, nil
}

func parseLeaf(leaf []byte) (wire.Millis, []byte, error) {
	var (
		version, leafType         uint8
		at                        uint64
		entryType                 uint16
		issuerKeyHash             []byte
		certificate, ctExtensions cryptobyte.String
	)
	s := cryptobyte.String(leaf)
	if !s.ReadUint8(&version) || !s.ReadUint8(&leafType) || version != 0 || leafType != 0 ||
		!s.ReadUint64(&at) || at>>63 != 0 || !s.ReadUint16(&entryType) || entryType != x509Entry && entryType != precertEntry ||
		entryType == precertEntry && !s.ReadBytes(&issuerKeyHash, len(LogID{})) ||
		!s.ReadUint24LengthPrefixed(&certificate) || len(certificate) == 0 ||
		!s.ReadUint16LengthPrefixed(&ctExtensions) || !s.Empty() {
		return 0, nil, errLeaf
	}
	return wire.Millis(at), append([]byte(nil), ctExtensions...), nil
}

// Marshal returns the SignedCertificateTimestamp (RFC 6962 section 3.2), as lists of SCTs in certificates have it.
func (s *SCT) Marshal() []byte {
	b := make([]byte, 0, 1+len(s.LogID)+8+2+len(s.Extensions)+len(s.Signature))
	b = append(b, 0) // v1
	b = append(b, s.LogID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Time))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Extensions)))
	b = append(b, s.Extensions...)
	return append(b, s.Signature...)
}
