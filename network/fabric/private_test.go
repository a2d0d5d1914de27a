package fabric

import (
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// reendorsed makes an envelope of chaincode cc with other contents: change gets the proposal and the read-write set of cc.
func reendorsed(t *testing.T, l *Ledger, change func(*peer.ChaincodeActionPayload, *rwset.NsReadWriteSet)) []byte {
	t.Helper()
	envelope, _ := endorsed(t, l, "cc")
	var (
		payload  common.Payload
		tx       peer.Transaction
		action   peer.ChaincodeActionPayload
		response peer.ProposalResponsePayload
		outcome  peer.ChaincodeAction
		sets     rwset.TxReadWriteSet
	)
	decode := func(b []byte, into proto.Message) {
		t.Helper()
		if err := proto.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	decode(envelope.GetPayload(), &payload)
	decode(payload.GetData(), &tx)
	decode(tx.Actions[0].GetPayload(), &action)
	decode(action.Action.GetProposalResponsePayload(), &response)
	decode(response.GetExtension(), &outcome)
	decode(outcome.GetResults(), &sets)
	change(&action, sets.NsRwset[1])
	outcome.Results = marshal(t, &sets)
	response.Extension = marshal(t, &outcome)
	action.Action.ProposalResponsePayload = marshal(t, &response)
	tx.Actions[0].Payload = marshal(t, &action)
	payload.Data = marshal(t, &tx)
	return marshal(t, &common.Envelope{Payload: marshal(t, &payload)})
}

// TestParseBlockLeavesOutWhatOneOrganisationEndorsesAlone: a peer takes writes to an implicit collection for valid with its
// organisation's endorsement only, so everything else in such a transaction is made up.
func TestParseBlockLeavesOutWhatOneOrganisationEndorsesAlone(t *testing.T) {
	_, l := startPeer(t)
	public := func(set *kvrwset.KVRWSet) func(*rwset.NsReadWriteSet) {
		return func(ns *rwset.NsReadWriteSet) { ns.Rwset = marshal(t, set) }
	}
	private := func(set *kvrwset.HashedRWSet) func(*rwset.NsReadWriteSet) {
		return func(ns *rwset.NsReadWriteSet) {
			ns.CollectionHashedRwset = append(ns.CollectionHashedRwset, &rwset.CollectionHashedReadWriteSet{
				CollectionName: "_implicit_org_Org1MSP", HashedRwset: marshal(t, set),
			})
		}
	}
	write := public(&kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "k", Value: []byte("v")}}})
	metadata := public(&kvrwset.KVRWSet{MetadataWrites: []*kvrwset.KVMetadataWrite{{Key: "k"}}})
	read := public(&kvrwset.KVRWSet{Reads: []*kvrwset.KVRead{{Key: "k"}}})
	hashed := private(&kvrwset.HashedRWSet{HashedWrites: []*kvrwset.KVWriteHash{{KeyHash: make([]byte, 32)}}})
	hashedMetadata := private(&kvrwset.HashedRWSet{MetadataWrites: []*kvrwset.KVMetadataWriteHash{{KeyHash: make([]byte, 32)}}})
	hashedRead := private(&kvrwset.HashedRWSet{HashedReads: []*kvrwset.KVReadHash{{KeyHash: make([]byte, 32)}}})
	type changes []func(*rwset.NsReadWriteSet)
	for name, c := range map[string]struct {
		changes
		txs, writes int
	}{
		"nothing":                                      {nil, 1, 0},
		"reads":                                        {changes{read}, 1, 0},
		"a write to a collection":                      {changes{hashed}, 0, 0},
		"a write to a collection, and reads":           {changes{read, hashed}, 0, 0},
		"metadata of a collection":                     {changes{hashedMetadata}, 0, 0},
		"a read of one collection, a write to it":      {changes{hashedRead, hashed}, 0, 0},
		"a read of a collection":                       {changes{hashedRead}, 1, 0},
		"a public write":                               {changes{write}, 1, 1},
		"a public write, and one to a collection":      {changes{write, hashed}, 1, 1},
		"public metadata":                              {changes{metadata}, 1, 0},
		"public metadata, and a write to a collection": {changes{metadata, hashed}, 1, 0},
	} {
		envelope := reendorsed(t, l, func(_ *peer.ChaincodeActionPayload, ns *rwset.NsReadWriteSet) {
			for _, change := range c.changes {
				change(ns)
			}
		})
		b, err := parseBlock(newBlock(1, nil, [][]byte{envelope}, []byte{0}), "cc")
		if err != nil || len(b.Txs) != c.txs || c.txs > 0 && (len(b.Txs[0].Writes) != c.writes || b.Txs[0].Function != "Issue") {
			t.Errorf("%s: %+v, %v; want %d transactions with %d writes", name, b, err, c.txs, c.writes)
		}
	}
	// Peers do not read the proposal when they validate, so what one organisation endorsed alone need not be one.
	garbage := reendorsed(t, l, func(p *peer.ChaincodeActionPayload, ns *rwset.NsReadWriteSet) {
		p.ChaincodeProposalPayload = []byte("no proposal")
		hashed(ns)
	})
	if b, err := parseBlock(newBlock(1, nil, [][]byte{garbage}, []byte{0}), "cc"); err != nil || len(b.Txs) != 0 {
		t.Errorf("no proposal: %+v, %v", b, err)
	}
}
