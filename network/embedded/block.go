package embedded

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/network"
)

// record is a block as it is stored and as it crosses the socket.
type record struct {
	V        uint   `cbor:"0,keyasint"`
	Number   uint64 `cbor:"1,keyasint"`
	PrevHash []byte `cbor:"2,keyasint"` // hash of the block before; empty for block 0
	Data     []byte `cbor:"3,keyasint"` // encoded []txRecord
}

// header is what is hashed: an array, so that nothing about its encoding is left to choose.
type header struct {
	_        struct{} `cbor:",toarray"`
	V        uint
	Number   uint64
	PrevHash []byte
	DataHash []byte
}

// txRecord is one transaction of a block. A block holds only transactions that took effect.
type txRecord struct {
	ID       string        `cbor:"0,keyasint"`
	Time     int64         `cbor:"1,keyasint"` // nanoseconds since 1970 UTC
	MSPID    string        `cbor:"2,keyasint"`
	Role     string        `cbor:"3,keyasint"`
	Function string        `cbor:"4,keyasint"`
	Arg      []byte        `cbor:"5,keyasint"`
	Result   []byte        `cbor:"6,keyasint"`
	Writes   []writeRecord `cbor:"7,keyasint"` // in key order
}

// writeRecord is one key's new value; null is a deletion.
type writeRecord struct {
	_     struct{} `cbor:",toarray"`
	Key   string
	Value []byte
}

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options
	}
	return v
}

func encode(v any) []byte { return must(encMode.Marshal(v)) }

func (r *record) hash() []byte {
	data := sha256.Sum256(r.Data)
	sum := sha256.Sum256(encode(header{V: r.V, Number: r.Number, PrevHash: r.PrevHash, DataHash: data[:]}))
	return sum[:]
}

// decodeRecord reads the record of block number.
func decodeRecord(number uint64, encoded []byte) (*record, error) {
	var r record
	if err := decMode.Unmarshal(encoded, &r); err != nil {
		return nil, fmt.Errorf("block %d: %w", number, err)
	}
	if r.V != formatVersion {
		return nil, fmt.Errorf("block %d has format version %d, this program reads %d", number, r.V, formatVersion)
	}
	if r.Number != number {
		return nil, fmt.Errorf("block %d calls itself %d", number, r.Number)
	}
	return &r, nil
}

// follows checks that r continues the chain whose last block has the given hash; prev is nil when that is not known.
func (r *record) follows(prev []byte) error {
	if prev != nil && !bytes.Equal(r.PrevHash, prev) {
		return fmt.Errorf("block %d names %x as its predecessor, which has hash %x", r.Number, r.PrevHash, prev)
	}
	if r.Number == 0 && len(r.PrevHash) != 0 {
		return errors.New("block 0 names a predecessor")
	}
	return nil
}

func (r *record) block() (*network.Block, error) {
	var txs []txRecord
	if err := decMode.Unmarshal(r.Data, &txs); err != nil {
		return nil, fmt.Errorf("block %d: %w", r.Number, err)
	}
	b := &network.Block{Number: r.Number, Hash: r.hash(), PrevHash: r.PrevHash, Txs: make([]network.Tx, len(txs))}
	for i, t := range txs {
		b.Txs[i] = network.Tx{
			ID: t.ID, Index: i, Time: time.Unix(0, t.Time).UTC(), MSPID: t.MSPID, Role: t.Role, Valid: true, Code: "VALID",
			Function: t.Function, Arg: t.Arg, Result: t.Result, Writes: make([]network.Write, len(t.Writes)),
		}
		for j, w := range t.Writes {
			b.Txs[i].Writes[j] = network.Write{Key: w.Key, Value: w.Value}
		}
	}
	return b, nil
}
