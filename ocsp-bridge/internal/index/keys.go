package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/transparency-dev/merkle/compact"
)

// Layout of the store. Keys begin with one letter; CAIDs, logs, serials and hashes are in binary, integers big-endian.
//
//	M                                  format, channel (never changes)
//	P                                  position: CBOR of position
//	o                                  consortium: wire.Consortium
//	k <n>                              wire.Clock
//	a <caID>                           wire.CARecord
//	c <caID> <serial>                  wire.CertRecord
//	v <caID> <length of serial> <serial> <source> <SPKI hash>    wire.Revocation, by others (of the majority, without hash)
//	r <caID> <n>                       wire.Rule, as decided
//	h <log>                            CBOR of Log: the head
//	n <log> <level> <index>            hash of a complete subtree
//	x <log> <index>                    an entry: see stored
//	f <log> <6 octets of leaf hash> <5 octets of index>
//	s <caID> <length of serial> <serial> <inverted index>    status log entries about a certificate, or about a CA (length 0)
//	u <caID> <length of serial> <serial> <SPKI hash> <inverted index>    status log entries of the revocation by that key's holder
//	p <leaf hash>                      a pending change: its q key without the letter, its time, wire.StatusLeaf
//	q <block> <number in it>           leaf hash of a pending change
//	m <...>                            revocation map: nodes, see package revmap
//	y <map key>                        revocation map: values
//	g <caID> <n>                       wire.Rule, as the revocation map has it
//	e <block> <number in it, from 1>   a change of status: CBOR of storedChange, sealed
//	l <caID>                           position of the CA's newest change: the end of its e key, sealed
//	d <caID> <serial>                  a certificate that its record or others have put on hold or revoked: changedCert, sealed
//
// A serial number may have any number of keys that were revoked by their holders: a CA can sign many certificates with it. In v, u and y
// each has keys of its own, so that nobody who asks about one certificate reads what is about the others.
//
// Sealed values end with a hash of themselves: see seal. The hash in f is cut short because ten million of them would cost as much as the nodes; readers compare the whole one.
const formatVersion = 6

var (
	metaKey       = []byte("M")
	positionKey   = []byte("P")
	consortiumKey = []byte("o")
)

const (
	caTag         = 'a'
	certTag       = 'c'
	changedTag    = 'd'
	changeTag     = 'e'
	findTag       = 'f'
	mapRuleTag    = 'g'
	headTag       = 'h'
	clockTag      = 'k'
	lastChangeTag = 'l'
	mapNodeTag    = 'm'
	nodeTag       = 'n'
	pendingTag    = 'p'
	queueTag      = 'q'
	ruleTag       = 'r'
	statusAtTag   = 's'
	holderAtTag   = 'u'
	revokedTag    = 'v'
	entryTag      = 'x'
	mapValueTag   = 'y'
	findHashLen   = 6
	findIndexLen  = 5 // ctleaf.MaxIndex
	queueKeyLen   = 12
	posLen        = 12
)

// logID names one Merkle tree: an issuance log by its CAID, the other two by what no key has as its hash.
type logID [sha256.Size]byte

var (
	statusLog = logID{sha256.Size - 1: 1}
	mapLog    = logID{sha256.Size - 1: 2}
)

func (l logID) String() string {
	switch l {
	case statusLog:
		return "status"
	case mapLog:
		return "map"
	}
	return wire.CAID(l).String()
}

func key32(tag byte, id [sha256.Size]byte) []byte {
	return append(append(make([]byte, 0, 64), tag), id[:]...)
}

func certKey(tag byte, id wire.CAID, s wire.Serial) []byte { return append(key32(tag, id), s...) }

func ruleKey(tag byte, id wire.CAID, n uint64) []byte {
	return binary.BigEndian.AppendUint64(key32(tag, id), n)
}

func clockKey(n byte) []byte { return []byte{clockTag, n} }

func nodeKey(l logID, node compact.NodeID) []byte {
	return binary.BigEndian.AppendUint64(append(key32(nodeTag, l), byte(node.Level)), node.Index)
}

func entryKey(l logID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(key32(entryTag, l), index)
}

func findPrefix(l logID, hash [sha256.Size]byte) []byte {
	return append(key32(findTag, l), hash[:findHashLen]...)
}

func findKey(l logID, hash [sha256.Size]byte, index uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], index)
	return append(findPrefix(l, hash), b[8-findIndexLen:]...)
}

// foundIndex is the index at the end of a find key.
func foundIndex(key []byte) uint64 {
	var b [8]byte
	copy(b[8-findIndexLen:], key[len(key)-findIndexLen:])
	return binary.BigEndian.Uint64(b[:])
}

// serialKey: the length keeps one serial from being the beginning of another.
func serialKey(tag byte, id wire.CAID, s wire.Serial) []byte {
	return append(append(key32(tag, id), byte(len(s))), s...)
}

// revokedKey is where the revocation of a certificate by one source is. spkiHash is the holder's, nil for the majority.
func revokedKey(id wire.CAID, s wire.Serial, source wire.Source, spkiHash []byte) []byte {
	return append(append(serialKey(revokedTag, id, s), byte(source)), spkiHash...)
}

func statusAtPrefix(id wire.CAID, s wire.Serial) []byte { return serialKey(statusAtTag, id, s) }

func holderAtPrefix(id wire.CAID, s wire.Serial, spkiHash []byte) []byte {
	return append(serialKey(holderAtTag, id, s), spkiHash...)
}

// statusAtKey is where the status log's entry at index is found by what it is about. It inverts the index so that the newest comes first.
func statusAtKey(leaf *wire.StatusLeaf, index uint64) []byte {
	prefix := statusAtPrefix(leaf.CAID, leaf.Serial)
	if leaf.Kind == wire.LeafRevocation && leaf.Source == wire.SourceHolder {
		prefix = holderAtPrefix(leaf.CAID, leaf.Serial, leaf.SPKIHash)
	}
	return binary.BigEndian.AppendUint64(prefix, ^index)
}

func queueKey(block uint64, n uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{queueTag}, block)
	return binary.BigEndian.AppendUint32(b, n)
}

func changeKey(p Pos) []byte { return appendPos([]byte{changeTag}, p) }

// after is the least key that is greater than every key with this prefix, which must not be all 0xff.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}

// caOf is the CAID or log at the beginning of a key.
func caOf(key []byte) (id [sha256.Size]byte, rest []byte, err error) {
	if len(key) < 1+len(id) {
		return id, nil, fmt.Errorf("key %x is damaged", key)
	}
	copy(id[:], key[1:])
	return id, key[1+len(id):], nil
}
