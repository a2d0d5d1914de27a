package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// rawLedger is a ledger whose blocks come as a peer sends them, for a verifier.
type rawLedger interface {
	RawBlocks(ctx context.Context, from uint64, fn func(*common.Block) error) error
}

var (
	_ rawLedger = (*fabric.Ledger)(nil)

	errOne = errors.New("one block is enough")
)

// hashOf returns the hash of a block that the ledger has.
func (s *session) hashOf(ctx context.Context, number uint64) (hash []byte, err error) {
	if raw, ok := s.Ledger.(rawLedger); ok {
		err = raw.RawBlocks(ctx, number, func(b *common.Block) error {
			var err error
			if hash, err = fabric.HeaderHash(b.GetHeader()); err != nil {
				return err
			}
			return errOne
		})
	} else {
		err = s.Ledger.Blocks(ctx, number, func(b *network.Block) error {
			hash = b.Hash
			return errOne
		})
	}
	if !errors.Is(err, errOne) {
		return nil, err
	}
	return hash, nil
}

// source gives the ledger's blocks with their validity: of Fabric as the verifier finds it, of an embedded ledger, which has nothing but
// valid transactions, along its chain of hashes.
func (s *session) source() audit.Source {
	raw, ok := s.Ledger.(rawLedger)
	if !ok {
		return s.Ledger.Blocks
	}
	s.result.Engine = Fabric
	return s.audit.Verified(raw.RawBlocks, s.verifier)
}

// verifier continues where its store ends.
func (s *session) verifier(store verify.Store) (*verify.Verifier, error) {
	genesis, err := hex.DecodeString(s.result.Genesis)
	if err != nil {
		return nil, err
	}
	return verify.New(verify.Config{Channel: s.Ledger.Channel(), Chaincode: s.Chaincode, GenesisHash: genesis, Store: store, LoneWrite: func(w verify.LoneWrite) {
		if !w.Approval && len(s.lone) < shownLone {
			s.lone = append(s.lone, w)
		}
	}})
}

// GenesisHash is the hash of a channel's first block, as peer channel fetch and configtxgen write it.
func GenesisHash(file []byte) ([]byte, error) {
	var b common.Block
	if err := proto.Unmarshal(file, &b); err != nil || b.GetHeader() == nil || len(b.GetData().GetData()) == 0 {
		return nil, fmt.Errorf("must be a block: %w", errors.Join(err, errors.New("header and data")))
	}
	if n := b.GetHeader().GetNumber(); n != 0 {
		return nil, fmt.Errorf("block %d: must be the channel's first, number 0", n)
	}
	return fabric.HeaderHash(b.GetHeader())
}

// loadPolicy finds the policy that signatures are judged by.
func (s *session) loadPolicy(ctx context.Context) error {
	pin := s.Fingerprint
	s.result.PolicyPinned = s.PolicyFile != nil
	if s.PolicyFile == nil {
		if len(s.Bridges) == 0 {
			return nil
		}
		file, from, err := served.FetchPolicy(ctx, s.HTTP, s.Bridges)
		if err != nil {
			s.note("NO POLICY IS KNOWN, so signatures of checkpoints and bundles were not checked (%v): give --policy and --policy-fingerprint", err)
			return ctx.Err()
		}
		s.PolicyFile, pin = file, s.seen.Policy
		if pin == "" {
			all, err := policy.ParseFile(file)
			if err != nil {
				return fmt.Errorf("%s/policy: %w", from, err)
			}
			pin = all[len(all)-1].Policy.Fingerprint()
			s.note("THE POLICY WAS TAKEN FROM %s (fingerprint %s), and is remembered in %s: trust on first use. "+
				"Compare the fingerprint with one from a source that you trust, and give it with --policy and --policy-fingerprint.", from, pin, s.Dir)
		}
	}
	p, err := policy.Load(s.PolicyFile, pin)
	if err != nil {
		return err
	}
	if p.Channel() != s.Ledger.Channel() {
		return fmt.Errorf("policy: is of channel %s: must be of the ledger's, %s", p.Channel(), s.Ledger.Channel())
	}
	s.policy, s.seen.Policy = p, pin
	s.result.Policy, s.result.PolicyVersion = p.Fingerprint(), p.Version()
	return nil
}
