package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
)

// Config says which channel a Verifier trusts. Of Genesis and GenesisHash one must be set.
type Config struct {
	Channel     string        // the channel's name
	Chaincode   string        // whose transactions are wanted
	Genesis     *common.Block // the channel's first block, from a source that is trusted
	GenesisHash []byte        // or its hash: SHA-256 over the DER of its header, as the next block names it
	Store       Store         // nil: in memory
	Skew        time.Duration // tolerance for claimed times, at least the peers' timewindow; 0 means DefaultSkew
	// AcceptExpired does as Fabric does, which does not look at validity periods when a transaction commits. It is for going on with a
	// chain on which an organisation was late to renew its peer's certificate.
	AcceptExpired bool
	// LoneWrite, if set, is called for each, in order, after its block has been verified and before Block returns. It must not call the Verifier.
	LoneWrite func(LoneWrite)
}

// Verifier checks a channel's blocks one after the other. It is for one goroutine; it uses all processors.
type Verifier struct {
	cfg   Config
	store Store
	position
	channel *channel // nil before block 0
}

// position is how far a verifier has come.
type position struct {
	height     uint64
	last       []byte // hash of the block before height; empty for height 0
	lastConfig uint64 // number of the block with the configuration in force
	genesis    []byte // hash of block 0; what it must be, before
}

// New returns a verifier that continues where its store ends: at block 0 when the store is empty. Errors name the setting.
func New(cfg Config) (*Verifier, error) {
	if cfg.Channel == "" || cfg.Chaincode == "" {
		return nil, fmt.Errorf("verify: channel %q, chaincode %q: must both be set", cfg.Channel, cfg.Chaincode)
	}
	if cfg.Store == nil {
		cfg.Store = NewMemory()
	}
	if cfg.Skew == 0 {
		cfg.Skew = DefaultSkew
	}
	v := &Verifier{cfg: cfg, store: cfg.Store}
	genesis, err := cfg.genesis()
	if err != nil {
		return nil, fmt.Errorf("verify: genesis: %w", err)
	}
	v.position.genesis = genesis
	if err := v.resume(); err != nil {
		return nil, fmt.Errorf("verify: stored position: %w", err)
	}
	return v, nil
}

// genesis returns the hash of block 0.
func (c *Config) genesis() ([]byte, error) {
	if c.Genesis == nil {
		if len(c.GenesisHash) != sha256.Size {
			return nil, fmt.Errorf("hash of %d octets, must be %d: without it nothing can be trusted", len(c.GenesisHash), sha256.Size)
		}
		return c.GenesisHash, nil
	}
	if n := c.Genesis.GetHeader().GetNumber(); n != 0 {
		return nil, fmt.Errorf("block %d, must be the channel's first: the state begins there", n)
	}
	if _, err := checkHeader(c.Genesis, 0, nil); err != nil {
		return nil, err
	}
	hash, err := fabric.HeaderHash(c.Genesis.GetHeader())
	if err == nil && c.GenesisHash != nil && !bytes.Equal(hash, c.GenesisHash) {
		err = fmt.Errorf("the block given has hash %x, the hash given is %x", hash, c.GenesisHash)
	}
	return hash, err
}

// formatVersion is of what is stored.
const formatVersion = 3

func (p *position) encode() []byte {
	b := []byte{formatVersion}
	b = binary.BigEndian.AppendUint64(b, p.height)
	b = binary.BigEndian.AppendUint64(b, p.lastConfig)
	return append(append(b, p.last...), p.genesis...)
}

func (v *Verifier) resume() error {
	b, err := v.store.Get([]byte{positionPrefix})
	if err != nil || b == nil {
		return err
	}
	if len(b) != 17+2*sha256.Size || b[0] != formatVersion {
		return errors.New("is not of this version of the program; delete it to start again")
	}
	if genesis := b[17+sha256.Size:]; !bytes.Equal(genesis, v.genesis) {
		return fmt.Errorf("is of the channel with genesis %x, must be %x", genesis, v.genesis)
	}
	v.height, v.lastConfig, v.last = binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), bytes.Clone(b[17:17+sha256.Size])
	encoded, err := v.store.Get([]byte{configPrefix})
	if err != nil {
		return err
	}
	var config common.Config
	if err := proto.Unmarshal(encoded, &config); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	v.channel, err = newChannel(v.cfg.Channel, &config)
	return err
}

// Height is the number of the block that is wanted next.
func (v *Verifier) Height() uint64 { return v.height }

// Hash is the hash of the last block, empty at height 0.
func (v *Verifier) Hash() []byte { return bytes.Clone(v.last) }

// EndorsementPolicy says which policy the transactions of the chaincode must satisfy from the next block on, by the chaincode's
// definition on the ledger; found is false while there is none.
func (v *Verifier) EndorsementPolicy() (says string, found bool, err error) {
	if v.channel == nil {
		return "", false, nil
	}
	d, err := v.definition(v.cfg.Chaincode)
	if err != nil || d == nil {
		return "", false, err
	}
	return fmt.Sprintf("%s: %s", d.says, d.endorsement), true, nil
}

// Blocks makes a stream of verified blocks, in the form of network.Ledger.Blocks, of one of raw blocks, which may come from anybody
// (fabric.Ledger.RawBlocks). It begins at Height and nowhere else.
func (v *Verifier) Blocks(raw func(ctx context.Context, from uint64, fn func(*common.Block) error) error) func(context.Context, uint64, func(*network.Block) error) error {
	return func(ctx context.Context, from uint64, fn func(*network.Block) error) error {
		if from != v.height {
			return fmt.Errorf("verified blocks from %d on: this verifier stands at %d", from, v.height)
		}
		return raw(ctx, from, func(b *common.Block) error {
			block, err := v.Block(b)
			if err != nil {
				return err
			}
			return fn(block)
		})
	}
}

// Block checks the next block and returns it with the validity that the rules give its transactions, which is what its flags say.
// A block that breaks a rule gives an *Error; other errors are the store's. After an error the verifier stands where it stood.
func (v *Verifier) Block(b *common.Block) (*network.Block, error) {
	header, err := v.checkBlock(b)
	if err != nil {
		return nil, v.errorAt(nil, err)
	}
	up := newUpdates(v.store)
	next := v.position
	hash := sha256.Sum256(header)
	next.height, next.last = v.height+1, hash[:]
	channel := v.channel
	if isConfig(b) {
		channel, err = v.applyConfig(b, up)
		next.lastConfig = v.height
	} else {
		err = v.checkTransactions(b, up)
	}
	if err != nil {
		return nil, v.errorAt(nil, err)
	}
	block, err := fabric.ParseBlock(b, v.cfg.Chaincode)
	if err != nil {
		return nil, v.errorAt(nil, faultf("data", "", "must be readable: %v", err))
	}
	up.changed[string([]byte{positionPrefix})] = next.encode()
	if err := v.countLone(up); err != nil {
		return nil, err
	}
	if err := v.store.Commit(up.changes()); err != nil {
		return nil, fmt.Errorf("verify block %d: %w", v.height, err)
	}
	v.position, v.channel = next, channel
	if v.cfg.LoneWrite != nil {
		for _, w := range up.lone {
			v.cfg.LoneWrite(w)
		}
	}
	return block, nil
}

// errorAt places an error. What is not about the block is the store's.
func (v *Verifier) errorAt(t *transaction, err error) error {
	var f *fault
	if !errors.As(err, &f) {
		var placed *Error
		if errors.As(err, &placed) {
			return err
		}
		return fmt.Errorf("verify block %d: %w", v.height, err)
	}
	if t == nil {
		return f.at(v.height, -1, "")
	}
	return f.at(v.height, t.index, t.id)
}

// checkBlock checks everything but the transactions and returns the header's encoding.
func (v *Verifier) checkBlock(b *common.Block) ([]byte, error) {
	header, err := checkHeader(b, v.height, v.last)
	if err != nil {
		return nil, err
	}
	if !isConfig(b) {
		if err := checkWellFormed(b.GetData().GetData()); err != nil {
			return nil, err
		}
	}
	if flags, n := flagsOf(b), len(b.GetData().GetData()); len(flags) != n {
		return nil, faultf(flagsField, fmt.Sprintf("%d flags", len(flags)), "must be one for each of %d transactions", n)
	}
	if v.height == 0 {
		if hash := sha256.Sum256(header); !bytes.Equal(hash[:], v.genesis) {
			return nil, faultf("header", fmt.Sprintf("hash %x", hash), "must have the hash %x that is trusted", v.genesis)
		}
		if !isConfig(b) {
			return nil, faultf("data", "", "must be the channel's configuration")
		}
		return header, nil
	}
	said, err := v.channel.checkOrderers(b, header)
	if err != nil {
		return nil, err
	}
	want := v.lastConfig
	if isConfig(b) {
		want = v.height
	}
	if got := said.GetLastConfig().GetIndex(); got != want {
		return nil, faultf("metadata.last_config", fmt.Sprint(got), "must be %d, the last block with a configuration", want)
	}
	return header, nil
}

const flagsField = "metadata.transactions_filter"

func flagsOf(b *common.Block) []byte {
	metadata := b.GetMetadata().GetMetadata()
	if len(metadata) <= int(common.BlockMetadataIndex_TRANSACTIONS_FILTER) {
		return nil
	}
	return metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
}
