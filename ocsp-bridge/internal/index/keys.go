package index

import (
	"encoding/binary"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/transparency-dev/merkle/compact"
)

// Layout of the store. Keys begin with one letter; CAIDs and serials are in binary, integers big-endian.
//
//	M                           format, channel (never changes)
//	P                           position: CBOR of position
//	o                           consortium: wire.Consortium
//	a <caID>                    wire.CARecord
//	c <caID> <serial>           wire.CertRecord
//	h <caID>                    wire.LogHead
//	k <n>                       wire.Clock
//	n <caID> <level> <index>    hash of a complete subtree of the CA's log
//	x <caID> <index>            kind, time and serial of the log entry
const formatVersion = 1

var (
	metaKey       = []byte("M")
	positionKey   = []byte("P")
	consortiumKey = []byte("o")
)

const (
	caTag    = 'a'
	certTag  = 'c'
	headTag  = 'h'
	clockTag = 'k'
	nodeTag  = 'n'
	entryTag = 'x'
)

func caKey(tag byte, id wire.CAID) []byte {
	return append([]byte{tag}, id[:]...)
}

func certKey(id wire.CAID, s wire.Serial) []byte {
	return append(caKey(certTag, id), s...)
}

func clockKey(n byte) []byte { return []byte{clockTag, n} }

func nodeKey(id wire.CAID, node compact.NodeID) []byte {
	return binary.BigEndian.AppendUint64(append(caKey(nodeTag, id), byte(node.Level)), node.Index)
}

func entryKey(id wire.CAID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(caKey(entryTag, id), index)
}

// EntryKind tells what a log entry is.
type EntryKind byte

// Kinds of log entries, with RFC 6962's LogEntryType plus one.
const (
	FinalEntry EntryKind = 1
	PreEntry   EntryKind = 2
)

// Entry is one entry of an issuance log, without its certificate.
type Entry struct {
	Kind   EntryKind
	Time   wire.Millis // the leaf's timestamp
	Serial wire.Serial
}

func (e Entry) encode() []byte {
	b := append(make([]byte, 0, 9+len(e.Serial)), byte(e.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
	return append(b, e.Serial...)
}

func decodeEntry(b []byte) (Entry, error) {
	if len(b) < 10 {
		return Entry{}, fmt.Errorf("index: log entry of %d octets is damaged", len(b))
	}
	return Entry{
		Kind:   EntryKind(b[0]),
		Time:   wire.Millis(binary.BigEndian.Uint64(b[1:9])),
		Serial: wire.Serial(append([]byte(nil), b[9:]...)),
	}, nil
}
