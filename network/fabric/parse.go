package fabric

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
)

// parseBlock reads a block as a peer delivers it, with the validity flags in its metadata. Transactions of other kinds, of other
// chaincodes that write nothing in this chaincode's namespace, and those that this chaincode's endorsement policy did not have to
// allow (parseWrites) are left out.
//
// Orderers accept anything that is signed, so a block may hold envelopes that are no transaction at all. The peer has
// flagged them invalid: they are left out, but one that it flagged valid and that does not parse is an error.
func parseBlock(b *common.Block, chaincode string) (*network.Block, error) {
	header, data := b.GetHeader(), b.GetData().GetData()
	if header == nil {
		return nil, errors.New("block without a header")
	}
	number := header.GetNumber()
	if sum := sha256.Sum256(bytes.Join(data, nil)); !bytes.Equal(sum[:], header.GetDataHash()) {
		return nil, fmt.Errorf("block %d: its data has hash %x, its header says %x", number, sum, header.GetDataHash())
	}
	flags, err := validityFlags(b, len(data))
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", number, err)
	}
	hash, err := headerHash(header)
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", number, err)
	}
	block := &network.Block{Number: number, Hash: hash, PrevHash: header.GetPreviousHash()}
	for i, envelope := range data {
		code := peer.TxValidationCode(flags[i])
		tx, err := parseTx(envelope, chaincode)
		if err != nil && code == peer.TxValidationCode_VALID {
			return nil, fmt.Errorf("block %d, transaction %d: %w", number, i, err)
		}
		if err != nil || tx == nil {
			continue
		}
		tx.Index, tx.Code, tx.Valid = i, code.String(), code == peer.TxValidationCode_VALID
		block.Txs = append(block.Txs, *tx)
	}
	return block, nil
}

func validityFlags(b *common.Block, txs int) ([]byte, error) {
	metadata := b.GetMetadata().GetMetadata()
	if len(metadata) <= int(common.BlockMetadataIndex_TRANSACTIONS_FILTER) {
		return nil, errors.New("no validity flags")
	}
	flags := metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
	if len(flags) != txs {
		return nil, fmt.Errorf("%d validity flags for %d transactions", len(flags), txs)
	}
	return flags, nil
}

// headerHash is how Fabric chains blocks: SHA-256 over the DER encoding of the header (protoutil.BlockHeaderHash).
func headerHash(h *common.BlockHeader) ([]byte, error) {
	der, err := asn1.Marshal(struct {
		Number                 *big.Int
		PreviousHash, DataHash []byte
	}{new(big.Int).SetUint64(h.GetNumber()), h.GetPreviousHash(), h.GetDataHash()})
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// parseTx returns nil for what is none of the contract's transactions.
func parseTx(envelope []byte, chaincode string) (*network.Tx, error) {
	var (
		env    common.Envelope
		pay    common.Payload
		header common.ChannelHeader
	)
	if err := unmarshal("envelope", envelope, &env); err != nil {
		return nil, err
	}
	if err := unmarshal("payload", env.GetPayload(), &pay); err != nil {
		return nil, err
	}
	if err := unmarshal("channel header", pay.GetHeader().GetChannelHeader(), &header); err != nil {
		return nil, err
	}
	if common.HeaderType(header.GetType()) != common.HeaderType_ENDORSER_TRANSACTION {
		return nil, nil
	}
	var (
		extension peer.ChaincodeHeaderExtension
		signer    common.SignatureHeader
		creator   msp.SerializedIdentity
	)
	if err := unmarshal("chaincode header", header.GetExtension(), &extension); err != nil {
		return nil, err
	}
	if err := unmarshal("signature header", pay.GetHeader().GetSignatureHeader(), &signer); err != nil {
		return nil, err
	}
	if err := unmarshal("creator", signer.GetCreator(), &creator); err != nil {
		return nil, err
	}
	tx := &network.Tx{ID: header.GetTxId(), Time: header.GetTimestamp().AsTime(), MSPID: creator.GetMspid(), Role: roleOf(creator.GetIdBytes())}
	called := extension.GetChaincodeId().GetName() == chaincode
	ours, err := parseAction(tx, pay.GetData(), chaincode, called)
	if err != nil || !ours {
		return nil, err
	}
	return tx, nil
}

// parseAction fills in what was asked, answered and written. called tells whether the transaction called this chaincode
// itself: if another chaincode did, the arguments and the answer are that one's and are left out. ours is false for a transaction
// that is none of the contract's: nothing else in it is looked at then, because nobody honest may have.
func parseAction(tx *network.Tx, data []byte, chaincode string, called bool) (ours bool, err error) {
	var (
		t        peer.Transaction
		action   peer.ChaincodeActionPayload
		response peer.ProposalResponsePayload
		outcome  peer.ChaincodeAction
	)
	if err := unmarshal("transaction", data, &t); err != nil {
		return false, err
	}
	if n := len(t.GetActions()); n != 1 {
		return false, fmt.Errorf("%d actions, must be 1", n)
	}
	if err := unmarshal("action", t.GetActions()[0].GetPayload(), &action); err != nil {
		return false, err
	}
	if err := unmarshal("endorsed response", action.GetAction().GetProposalResponsePayload(), &response); err != nil {
		return false, err
	}
	if err := unmarshal("chaincode action", response.GetExtension(), &outcome); err != nil {
		return false, err
	}
	writes, covered, err := parseWrites(outcome.GetResults(), chaincode)
	if err != nil || !covered || !called && len(writes) == 0 {
		return false, err
	}
	tx.Writes = writes
	if called {
		if err := parseInvocation(tx, action.GetChaincodeProposalPayload()); err != nil {
			return false, err
		}
		tx.Result = outcome.GetResponse().GetPayload()
	}
	return true, nil
}

func parseInvocation(tx *network.Tx, payload []byte) error {
	var (
		proposal peer.ChaincodeProposalPayload
		call     peer.ChaincodeInvocationSpec
	)
	if err := unmarshal("proposal", payload, &proposal); err != nil {
		return err
	}
	if err := unmarshal("invocation", proposal.GetInput(), &call); err != nil {
		return err
	}
	args := call.GetChaincodeSpec().GetInput().GetArgs()
	if len(args) > 0 {
		tx.Function = string(args[0])
	}
	if len(args) > 1 {
		tx.Arg = args[1]
	}
	return nil
}

// parseWrites returns what is written in the namespace, and whether a valid transaction that does so met the chaincode's own
// endorsement policy.
//
// Fabric asks for that policy for public writes, public metadata and for a call that writes nothing. Writes to a collection of private
// data need the collection's policy only, and nothing else is asked for then: every chaincode has implicit collections, to which one
// organisation may write alone (core/common/validation/statebased: once CheckCCEPIfNotChecked has evaluated a collection's policy,
// CheckCCEPIfNoEPChecked evaluates nothing). What such a transaction says it called, was answered, and when, one organisation made up.
// The contract has no private data.
func parseWrites(results []byte, namespace string) (writes []network.Write, covered bool, err error) {
	var sets rwset.TxReadWriteSet
	if err := unmarshal("read-write set", results, &sets); err != nil {
		return nil, false, err
	}
	public, private := 0, 0
	for _, ns := range sets.GetNsRwset() {
		if ns.GetNamespace() != namespace {
			continue
		}
		var set kvrwset.KVRWSet
		if err := unmarshal("read-write set", ns.GetRwset(), &set); err != nil {
			return nil, false, err
		}
		public += len(set.GetWrites()) + len(set.GetMetadataWrites())
		for _, w := range set.GetWrites() {
			write := network.Write{Key: w.GetKey()}
			if !w.GetIsDelete() {
				write.Value = w.GetValue()
			}
			writes = append(writes, write)
		}
		for _, c := range ns.GetCollectionHashedRwset() {
			var hashed kvrwset.HashedRWSet
			if err := unmarshal("read-write set of collection "+c.GetCollectionName(), c.GetHashedRwset(), &hashed); err != nil {
				return nil, false, err
			}
			private += len(hashed.GetHashedWrites()) + len(hashed.GetMetadataWrites())
		}
	}
	slices.SortStableFunc(writes, func(a, b network.Write) int { return cmp.Compare(a.Key, b.Key) })
	return writes, public > 0 || private == 0, nil
}

func unmarshal(what string, data []byte, into proto.Message) error {
	if err := proto.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
