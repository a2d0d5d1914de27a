package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// verdict is a validation code and why.
type verdict struct {
	code peer.TxValidationCode
	why  string
}

func invalid(code peer.TxValidationCode, why string, args ...any) verdict {
	return verdict{code, fmt.Sprintf(why, args...)}
}

var valid = verdict{code: peer.TxValidationCode_VALID}

// transaction is what is known about an envelope of a block.
type transaction struct {
	index   int
	id      string // that Fabric's index has, of every envelope; "" when there is none
	verdict verdict

	header    common.ChannelHeader
	at        time.Time
	creator   *identity
	proposer  []byte // serialized identity that endorsers saw as the creator
	submitter []byte // serialized identity that signed the envelope
	action    *endorsed
}

// endorsed is what endorsers signed, and the signatures.
type endorsed struct {
	payload    []byte // peer.ProposalResponsePayload
	by         []*peer.Endorsement
	chaincode  string
	status     int32
	namespaces []*namespace
	signers    []*identity // distinct, whose signatures verify
	needs      []required  // of them
}

// namespace is what a transaction read and wrote in one chaincode's part of the state.
type namespace struct {
	name        string
	set         kvrwset.KVRWSet
	collections []*collection
}

type collection struct {
	name string
	set  kvrwset.HashedRWSet
}

// public and private tell how much a namespace's part writes: keys of its own, and hashed ones of its collections.
func (n *namespace) public() int { return len(n.set.GetWrites()) + len(n.set.GetMetadataWrites()) }

func (n *namespace) private() (sum int) {
	for _, c := range n.collections {
		sum += len(c.set.GetHashedWrites()) + len(c.set.GetMetadataWrites())
	}
	return sum
}

// writes tells whether the namespace's endorsement policy, or that of a collection, has to be satisfied.
func (n *namespace) writes() bool { return n.public()+n.private() > 0 }

func (n *namespace) key(key string) stateKey { return stateKey{namespace: n.name, key: key} }

func (c *collection) key(of *namespace, hash []byte) stateKey {
	return stateKey{namespace: of.name, private: true, collection: c.name, key: string(hash)}
}

// readTransaction checks what does not depend on other transactions, endorsements apart, in the order in which a peer does (Fabric:
// core/common/validation, ValidateTransaction): the verdict is the first failure.
func (c *channel) readTransaction(index int, raw []byte) *transaction {
	t := &transaction{index: index, verdict: valid}
	var e common.Envelope
	var p common.Payload
	if err := proto.Unmarshal(raw, &e); err != nil {
		t.verdict = invalid(peer.TxValidationCode_INVALID_OTHER_REASON, "envelope: %v", err)
		return t
	}
	if err := proto.Unmarshal(e.GetPayload(), &p); err != nil {
		t.verdict = invalid(peer.TxValidationCode_BAD_PAYLOAD, "payload: %v", err)
		return t
	}
	var signer common.SignatureHeader
	if err := t.readHeader(p.GetHeader(), &signer); err != nil {
		t.verdict = invalid(peer.TxValidationCode_BAD_COMMON_HEADER, "%v", err)
		return t
	}
	t.submitter = signer.GetCreator()
	if err := c.checkCreator(t, &e); err != nil {
		t.verdict = invalid(peer.TxValidationCode_BAD_CREATOR_SIGNATURE, "%v", err)
		return t
	}
	switch common.HeaderType(t.header.GetType()) {
	case common.HeaderType_ENDORSER_TRANSACTION:
	case common.HeaderType_CONFIG:
		return t
	default:
		t.verdict = invalid(peer.TxValidationCode_UNSUPPORTED_TX_PAYLOAD, "an envelope of type %v", common.HeaderType(t.header.GetType()))
		return t
	}
	if want := txID(&signer); t.header.GetTxId() != want {
		t.verdict = invalid(peer.TxValidationCode_BAD_PROPOSAL_TXID, "its transaction ID is %q, nonce and creator make %s", t.header.GetTxId(), want)
		return t
	}
	if err := t.readProposal(&p); err != nil {
		t.verdict = invalid(peer.TxValidationCode_INVALID_ENDORSER_TRANSACTION, "%v", err)
	}
	return t
}

// readHeader also finds the ID under which Fabric's index has the envelope, valid or not.
func (t *transaction) readHeader(h *common.Header, signer *common.SignatureHeader) error {
	if h == nil {
		return errors.New("no header")
	}
	if err := proto.Unmarshal(h.GetChannelHeader(), &t.header); err != nil {
		return fmt.Errorf("channel header: %w", err)
	}
	t.id = t.header.GetTxId()
	if err := proto.Unmarshal(h.GetSignatureHeader(), signer); err != nil {
		return fmt.Errorf("signature header: %w", err)
	}
	if t.id == "" {
		t.id = txID(signer)
	}
	t.at = t.header.GetTimestamp().AsTime()
	switch kind := common.HeaderType(t.header.GetType()); kind {
	case common.HeaderType_ENDORSER_TRANSACTION, common.HeaderType_CONFIG, common.HeaderType_CONFIG_UPDATE:
	default:
		return fmt.Errorf("an envelope of type %v", kind)
	}
	switch {
	case t.header.GetEpoch() != 0:
		return fmt.Errorf("epoch %d, must be 0", t.header.GetEpoch())
	case len(signer.GetNonce()) == 0:
		return errors.New("no nonce")
	case len(signer.GetCreator()) == 0:
		return errors.New("no creator")
	}
	return nil
}

func txID(h *common.SignatureHeader) string {
	sum := sha256.Sum256(bytes.Join([][]byte{h.GetNonce(), h.GetCreator()}, nil))
	return hex.EncodeToString(sum[:])
}

func (c *channel) checkCreator(t *transaction, e *common.Envelope) error {
	// A peer looks for the creator in the MSPs of the channel that the envelope names, so one for another channel fails there.
	if id := t.header.GetChannelId(); id != c.id {
		return fmt.Errorf("it is for channel %q", id)
	}
	id, err := c.identities.resolve(t.submitter)
	if err != nil {
		return err
	}
	if id.invalid != nil {
		return id.invalid
	}
	t.creator = id
	return id.verify(e.GetPayload(), e.GetSignature())
}

// readProposal checks that what was endorsed answers this very proposal.
func (t *transaction) readProposal(p *common.Payload) error {
	var tx peer.Transaction
	if err := proto.Unmarshal(p.GetData(), &tx); err != nil {
		return err
	}
	if n := len(tx.GetActions()); n != 1 {
		return fmt.Errorf("%d actions, must be 1", n)
	}
	action := tx.GetActions()[0]
	var signer common.SignatureHeader
	if err := proto.Unmarshal(action.GetHeader(), &signer); err != nil {
		return fmt.Errorf("header of the action: %w", err)
	}
	if len(signer.GetNonce()) == 0 || len(signer.GetCreator()) == 0 {
		return errors.New("header of the action without nonce or creator")
	}
	t.proposer = signer.GetCreator()
	var payload peer.ChaincodeActionPayload
	if err := proto.Unmarshal(action.GetPayload(), &payload); err != nil {
		return fmt.Errorf("payload of the action: %w", err)
	}
	t.action = &endorsed{payload: payload.GetAction().GetProposalResponsePayload(), by: payload.GetAction().GetEndorsements()}
	var response peer.ProposalResponsePayload
	if err := proto.Unmarshal(t.action.payload, &response); err != nil {
		return fmt.Errorf("endorsed response: %w", err)
	}
	if payload.GetChaincodeProposalPayload() == nil {
		return errors.New("no proposal")
	}
	proposal := sha256.Sum256(bytes.Join([][]byte{p.GetHeader().GetChannelHeader(), action.GetHeader(), payload.GetChaincodeProposalPayload()}, nil))
	if !bytes.Equal(proposal[:], response.GetProposalHash()) {
		return fmt.Errorf("the proposal has hash %x, endorsed is %x", proposal, response.GetProposalHash())
	}
	return nil
}

// readResults reads what was endorsed (Fabric: plugindispatcher, Dispatch, up to the endorsement policy).
func (t *transaction) readResults() verdict {
	var extension peer.ChaincodeHeaderExtension
	if err := proto.Unmarshal(t.header.GetExtension(), &extension); err != nil {
		return invalid(peer.TxValidationCode_BAD_HEADER_EXTENSION, "header extension: %v", err)
	}
	var response peer.ProposalResponsePayload
	var outcome peer.ChaincodeAction
	if t.action.payload == nil || proto.Unmarshal(t.action.payload, &response) != nil || response.GetExtension() == nil {
		return invalid(peer.TxValidationCode_BAD_RESPONSE_PAYLOAD, "the endorsed response is incomplete")
	}
	if err := proto.Unmarshal(response.GetExtension(), &outcome); err != nil {
		return invalid(peer.TxValidationCode_BAD_RESPONSE_PAYLOAD, "endorsed action: %v", err)
	}
	if err := t.action.readSets(outcome.GetResults()); err != nil {
		return invalid(peer.TxValidationCode_BAD_RWSET, "read-write set: %v", err)
	}
	t.action.status = outcome.GetResponse().GetStatus()
	called, answered := extension.GetChaincodeId(), outcome.GetChaincodeId()
	if called == nil || answered == nil {
		return invalid(peer.TxValidationCode_INVALID_OTHER_REASON, "no chaincode named")
	}
	if called.GetName() == "" || called.GetName() != answered.GetName() || answered.GetVersion() == "" {
		return invalid(peer.TxValidationCode_INVALID_CHAINCODE, "calls %q, version %q of %q answered", called.GetName(), answered.GetVersion(), answered.GetName())
	}
	t.action.chaincode = called.GetName()
	if outcome.GetEvents() != nil {
		var event peer.ChaincodeEvent
		if err := proto.Unmarshal(outcome.GetEvents(), &event); err != nil || event.GetChaincodeId() != called.GetName() {
			return invalid(peer.TxValidationCode_INVALID_OTHER_REASON, "its event is not of chaincode %s", called.GetName())
		}
	}
	seen := map[string]bool{}
	for _, n := range t.action.namespaces {
		if seen[n.name] {
			return invalid(peer.TxValidationCode_ILLEGAL_WRITESET, "namespace %s is there twice", n.name)
		}
		seen[n.name] = true
	}
	return valid
}

func (e *endorsed) readSets(results []byte) error {
	var all rwset.TxReadWriteSet
	if err := proto.Unmarshal(results, &all); err != nil {
		return err
	}
	for _, encoded := range all.GetNsRwset() {
		n := &namespace{name: encoded.GetNamespace()}
		if err := proto.Unmarshal(encoded.GetRwset(), &n.set); err != nil {
			return err
		}
		for _, hashed := range encoded.GetCollectionHashedRwset() {
			c := &collection{name: hashed.GetCollectionName()}
			if err := proto.Unmarshal(hashed.GetHashedRwset(), &c.set); err != nil {
				return err
			}
			n.collections = append(n.collections, c)
		}
		e.namespaces = append(e.namespaces, n)
	}
	return nil
}
