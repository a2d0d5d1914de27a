package failover

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// gate lets through the channel's blocks and no others, whoever brings them: each block that is new to it is verified, each that it has let through before
// is compared with what it was. It is safe for concurrent use.
type gate struct {
	channel, chaincode string

	mu       sync.Mutex
	store    *store           // guarded by mu
	verifier *verify.Verifier // nil while the first block is not known; guarded by mu
}

// errNoAnchor: nothing can be verified before the channel's first block is known.
var errNoAnchor = errors.New("the channel's first block is not known: the own peer has never served it, and genesis_block names no file")

// openGate goes on where the store ends. genesis is the configured first block, nil if none is.
func openGate(s *store, channel, chaincode string, genesis *common.Block) (*gate, error) {
	g := &gate{channel: channel, chaincode: chaincode, store: s}
	if genesis == nil {
		kept, err := s.read([]byte(genesisKey))
		if err != nil || kept == nil {
			return g, err
		}
		genesis = &common.Block{}
		if err := proto.Unmarshal(kept, genesis); err != nil {
			return nil, fmt.Errorf("kept first block: %w", err)
		}
	}
	return g, g.begin(genesis)
}

// begin makes the verifier. g.mu is held, or nobody else has g.
func (g *gate) begin(genesis *common.Block) (err error) {
	// What the own peer takes is to be taken: it does not look at validity periods when a transaction commits.
	g.verifier, err = verify.New(verify.Config{Channel: g.channel, Chaincode: g.chaincode, Genesis: genesis, Store: g.store, AcceptExpired: true})
	return err
}

// anchor sets the first block that the own peer serves, if none is known yet.
func (g *gate) anchor(genesis *common.Block) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verifier != nil {
		return nil
	}
	encoded, err := proto.Marshal(genesis)
	if err != nil {
		return err
	}
	if err := g.begin(genesis); err != nil {
		return err
	}
	return g.store.db.Set([]byte(genesisKey), encoded, nil)
}

// height is how many blocks were let through; ok is false while there is no anchor.
func (g *gate) height() (n uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verifier == nil {
		return 0, false
	}
	return g.verifier.Height(), true
}

// admit verifies the block of height, or compares an earlier one with what was let through. A block that is not the channel's, or whose flags
// are not what they must be, gives a *verify.Error; other errors are the store's.
func (g *gate) admit(raw *common.Block) (*network.Block, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verifier == nil {
		return nil, errNoAnchor
	}
	number := raw.GetHeader().GetNumber()
	switch height := g.verifier.Height(); {
	case number > height:
		return nil, fmt.Errorf("block %d: %d is to be verified first", number, height)
	case number < height:
		if err := g.compare(raw); err != nil {
			return nil, err
		}
		block, err := fabric.ParseBlock(raw, g.chaincode)
		if err != nil {
			return nil, &verify.Error{Block: number, Tx: -1, Field: "data", Rule: fmt.Sprintf("must be readable: %v", err)}
		}
		return block, nil
	}
	is, err := digestOf(raw)
	if err != nil {
		return nil, &verify.Error{Block: number, Tx: -1, Field: "header", Rule: err.Error()}
	}
	g.store.beside = []verify.Change{{Key: knownKey(number), Value: is}}
	defer func() { g.store.beside = nil }()
	return g.verifier.Block(raw)
}

// agrees compares a block with what was let through under its number; without such a block it agrees.
func (g *gate) agrees(raw *common.Block) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verifier == nil || raw.GetHeader().GetNumber() >= g.verifier.Height() {
		return nil
	}
	return g.compare(raw)
}

// compare holds a block against what is known of it. g.mu is held.
func (g *gate) compare(raw *common.Block) error {
	number := raw.GetHeader().GetNumber()
	known, err := g.store.read(knownKey(number))
	if err != nil {
		return err
	}
	if len(known) < sha256.Size {
		return fmt.Errorf("verifier's state: block %d is missing; delete it to start again", number)
	}
	is, err := digestOf(raw)
	if err != nil {
		return &verify.Error{Block: number, Tx: -1, Field: "header", Rule: err.Error()}
	}
	if hash := known[:sha256.Size]; !bytes.Equal(is[:sha256.Size], hash) {
		return &verify.Error{Block: number, Tx: -1, Field: "header", Value: fmt.Sprintf("hash %x", is[:sha256.Size]),
			Rule: fmt.Sprintf("must have the hash %x of the block that was verified", hash)}
	}
	flags, want := is[sha256.Size:], known[sha256.Size:]
	if len(flags) != len(want) {
		return &verify.Error{Block: number, Tx: -1, Field: flagsField, Value: fmt.Sprintf("%d flags", len(flags)), Rule: fmt.Sprintf("must be %d", len(want))}
	}
	for i := range want {
		if flags[i] != want[i] {
			code := peer.TxValidationCode(raw.GetMetadata().GetMetadata()[common.BlockMetadataIndex_TRANSACTIONS_FILTER][i])
			rule := [2]string{"must not be VALID", "must be VALID"}[want[i]] + ", as it was found when the block was verified"
			return &verify.Error{Block: number, Tx: i, Field: flagsField, Value: code.String(), Rule: rule}
		}
	}
	return nil
}

const flagsField = "metadata.transactions_filter"

// digestOf is what is kept of a block: its hash, and an octet for each transaction, 1 if it is valid. Invalid ones have no effect, whatever
// the reason is, and honest peers may give different ones.
func digestOf(raw *common.Block) ([]byte, error) {
	if raw.GetHeader() == nil {
		return nil, errors.New("must be there")
	}
	hash, err := fabric.HeaderHash(raw.GetHeader())
	if err != nil {
		return nil, err
	}
	var flags []byte
	if m := raw.GetMetadata().GetMetadata(); len(m) > int(common.BlockMetadataIndex_TRANSACTIONS_FILTER) {
		flags = m[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
	}
	for _, f := range flags {
		valid := byte(0)
		if peer.TxValidationCode(f) == peer.TxValidationCode_VALID {
			valid = 1
		}
		hash = append(hash, valid)
	}
	return hash, nil
}

func knownKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{knownPrefix}, number)
}
