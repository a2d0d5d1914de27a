package client

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

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
	der     []byte    // the certificate; of a precertificate not covered by the leaf's hash
	ext     []byte    // CtExtensions with their length
}

// readEntry reads the TileLeaf at the start of data.
func readEntry(data *cryptobyte.String) (*logEntry, error) {
	var (
		all              = *data
		at               uint64
		kind             uint16
		cert, ext, chain cryptobyte.String
		e                = &logEntry{}
	)
	bad := func(what string) (*logEntry, error) {
		return nil, fmt.Errorf("%s cannot be read (c2sp.org/static-ct-api, TileLeaf)", what)
	}
	if !data.ReadUint64(&at) || at>>63 != 0 || !data.ReadUint16(&kind) {
		return bad("timestamp and type")
	}
	e.at = wire.Millis(at)
	switch kind {
	case 0: // x509_entry
	case 1: // precert_entry
		e.precert = true
		if !data.CopyBytes(e.caID[:]) {
			return bad("issuer_key_hash")
		}
	default:
		return bad(fmt.Sprintf("entry of type %d", kind))
	}
	if !data.ReadUint24LengthPrefixed(&cert) || len(cert) == 0 {
		return bad("certificate")
	}
	before := *data
	if !data.ReadUint16LengthPrefixed(&ext) {
		return bad("extensions")
	}
	e.ext = before[:len(before)-len(*data)]
	e.leaf = append([]byte{0, 0}, all[:len(all)-len(*data)]...) // v1, timestamped_entry
	e.der = cert
	if e.precert {
		e.tbs = cert
		if !data.ReadUint24LengthPrefixed(&cert) || len(cert) == 0 {
			return bad("pre_certificate")
		}
		e.der = cert
	}
	if !data.ReadUint16LengthPrefixed(&chain) || len(chain)%32 != 0 {
		return bad("certificate_chain")
	}
	return e, nil
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
