package client

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// logEntry is one entry of an issuance log as a data tile of C2SP static-ct-api has it.
type logEntry struct {
	leaf    []byte // MerkleTreeLeaf: what is hashed
	at      wire.Millis
	precert bool
	caID    wire.CAID // of a precertificate: issuer_key_hash
	tbs     []byte    // of a precertificate: what the leaf has of it
	der     []byte    // the certificate; of a precertificate not covered by the leaf's hash, and nil if it was not served
	ext     []byte    // CtExtensions with their length
}

// readTimestamped reads the TimestampedEntry at the start of data: RFC 6962 section 3.4.
func readTimestamped(data *cryptobyte.String) (*logEntry, error) {
	var (
		all       = *data
		at        uint64
		kind      uint16
		cert, ext cryptobyte.String
		e         = &logEntry{}
	)
	if !data.ReadUint64(&at) || at>>63 != 0 || !data.ReadUint16(&kind) || kind > 1 {
		return nil, unreadableEntry("timestamp and type")
	}
	e.at, e.precert = wire.Millis(at), kind == 1
	if e.precert && !data.CopyBytes(e.caID[:]) {
		return nil, unreadableEntry("issuer_key_hash")
	}
	if !data.ReadUint24LengthPrefixed(&cert) || len(cert) == 0 {
		return nil, unreadableEntry("certificate")
	}
	before := *data
	if !data.ReadUint16LengthPrefixed(&ext) {
		return nil, unreadableEntry("extensions")
	}
	e.ext = before[:len(before)-len(*data)]
	e.leaf = append([]byte{0, 0}, all[:len(all)-len(*data)]...) // v1, timestamped_entry
	if e.precert {
		e.tbs = cert
	} else {
		e.der = cert
	}
	return e, nil
}

func unreadableEntry(what string) error {
	return fmt.Errorf("%s cannot be read (RFC 6962 section 3.4, c2sp.org/static-ct-api)", what)
}

// readEntry reads the TileLeaf at the start of data.
func readEntry(data *cryptobyte.String) (*logEntry, error) {
	e, err := readTimestamped(data)
	if err != nil {
		return nil, err
	}
	var pre, chain cryptobyte.String
	if e.precert {
		if !data.ReadUint24LengthPrefixed(&pre) || len(pre) == 0 {
			return nil, unreadableEntry("pre_certificate")
		}
		e.der = pre
	}
	if !data.ReadUint16LengthPrefixed(&chain) || len(chain)%32 != 0 {
		return nil, unreadableEntry("certificate_chain")
	}
	return e, nil
}

// readLeaf reads a MerkleTreeLeaf, which has of a precertificate the TBSCertificate only.
func readLeaf(leaf []byte) (*logEntry, error) {
	data := cryptobyte.String(leaf)
	var version, kind uint8
	if !data.ReadUint8(&version) || !data.ReadUint8(&kind) || version != 0 || kind != 0 {
		return nil, unreadableEntry("version and leaf_type")
	}
	e, err := readTimestamped(&data)
	if err == nil && !data.Empty() {
		err = unreadableEntry("what follows the extensions")
	}
	return e, err
}

// readEntries reads a data tile of width entries.
func readEntries(tile []byte, width int) ([]*logEntry, error) {
	data := cryptobyte.String(tile)
	entries := make([]*logEntry, 0, width)
	for i := range width {
		e, err := readEntry(&data)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the tile: %w", i, err)
		}
		entries = append(entries, e)
	}
	if !data.Empty() {
		return nil, fmt.Errorf("%d octets after the last entry of the tile", len(data))
	}
	return entries, nil
}

// check compares an entry, whose leaf is in the log at index, with what a leaf of caID's log must be, and what comes with the leaf with it.
func (e *logEntry) check(index uint64, caID wire.CAID) error {
	if index > ctleaf.MaxIndex || !bytes.Equal(e.ext, ctleaf.Extensions(index)) {
		return fmt.Errorf("extensions %x: must be one leaf_index, %d", e.ext, index)
	}
	if !e.precert {
		return nil
	}
	if e.caID != caID {
		return fmt.Errorf("issuer_key_hash %s: must be the log's CA", e.caID)
	}
	if e.der == nil {
		return nil
	}
	// The hash is over the TBSCertificate: another precertificate could be put beside it.
	tbs, err := ctleaf.PrecertTBS(e.der)
	if err != nil {
		return fmt.Errorf("pre_certificate: %w", err)
	}
	if !bytes.Equal(tbs, e.tbs) {
		return fmt.Errorf("pre_certificate is not the one of the leaf")
	}
	return nil
}

// readBundle reads an entry bundle of C2SP tlog-tiles with width entries.
func readBundle(bundle []byte, width int) ([][]byte, error) {
	leaves := make([][]byte, 0, width)
	for i := range width {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return nil, fmt.Errorf("entry %d of the bundle is cut short (c2sp.org/tlog-tiles)", i)
		}
		n := int(binary.BigEndian.Uint16(bundle))
		leaves, bundle = append(leaves, bundle[2:2+n]), bundle[2+n:]
	}
	if len(bundle) > 0 {
		return nil, fmt.Errorf("%d octets after the last entry of the bundle", len(bundle))
	}
	return leaves, nil
}

// certificate returns what can be parsed as one: of a precertificate that was not served, its TBSCertificate under an empty signature.
func (e *logEntry) certificate() []byte {
	if e.der != nil {
		return e.der
	}
	// RFC 5280 section 4.1: version, serialNumber, signature; the last one is repeated after the TBSCertificate.
	var algorithm cryptobyte.String
	tbs := cryptobyte.String(e.tbs)
	version := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !tbs.ReadASN1(&tbs, cbasn1.SEQUENCE) || !tbs.SkipOptionalASN1(version) || !tbs.SkipASN1(cbasn1.INTEGER) ||
		!tbs.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) {
		return e.tbs // which does not parse either
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(e.tbs)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(e.tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(nil)
	})
	der, err := b.Bytes()
	if err != nil {
		return e.tbs
	}
	return der
}
