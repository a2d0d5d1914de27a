package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"
)

// headerDER is what a block's hash and its signatures cover (Fabric: protoutil.BlockHeaderBytes).
func headerDER(h *common.BlockHeader) ([]byte, error) {
	return asn1.Marshal(struct {
		Number                 *big.Int
		PreviousHash, DataHash []byte
	}{new(big.Int).SetUint64(h.GetNumber()), h.GetPreviousHash(), h.GetDataHash()})
}

// checkHeader checks a block's place in the chain and that its header covers its data; it returns the header's encoding.
func checkHeader(b *common.Block, number uint64, previous []byte) ([]byte, error) {
	h := b.GetHeader()
	if h.GetNumber() != number {
		return nil, faultf("header.number", fmt.Sprint(h.GetNumber()), "must be %d, the next of the chain", number)
	}
	if !bytes.Equal(h.GetPreviousHash(), previous) {
		return nil, faultf("header.previous_hash", fmt.Sprintf("%x", h.GetPreviousHash()), "must be %x, the hash of the block before", previous)
	}
	if sum := sha256.Sum256(bytes.Join(b.GetData().GetData(), nil)); !bytes.Equal(h.GetDataHash(), sum[:]) {
		return nil, faultf("header.data_hash", fmt.Sprintf("%x", h.GetDataHash()), "must be %x, the hash of the block's data", sum)
	}
	return headerDER(h)
}

// checkWellFormed is what orderers and peers require of every envelope: the data hash is over their concatenation, so each must
// have exactly one encoding, or one string of octets could be cut into envelopes in two ways.
func checkWellFormed(data [][]byte) error {
	if len(data) == 0 {
		return faultf("data", "empty", "must hold a transaction")
	}
	for i, raw := range data {
		field := fmt.Sprintf("data[%d]", i)
		var e common.Envelope
		if err := proto.Unmarshal(raw, &e); err != nil {
			return faultf(field, fmt.Sprintf("%d bytes", len(raw)), "must be an envelope: %v", err)
		}
		if len(e.GetPayload()) == 0 || len(e.GetSignature()) == 0 {
			return faultf(field, fmt.Sprintf("%d bytes", len(raw)), "must have a payload and a signature")
		}
		again, err := proto.Marshal(&e)
		if err != nil || !bytes.Equal(again, raw) {
			return faultf(field, fmt.Sprintf("%d bytes", len(raw)), "must be in an envelope's one encoding")
		}
	}
	return nil
}
