package verify_test

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// Codes that the tables name often.
const (
	ok          = peer.TxValidationCode_VALID
	endorsement = peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE
	badCreator  = peer.TxValidationCode_BAD_CREATOR_SIGNATURE
	mvcc        = peer.TxValidationCode_MVCC_READ_CONFLICT
	duplicate   = peer.TxValidationCode_DUPLICATE_TXID
)

// refused checks that a block is refused for the right reason.
func refused(t *testing.T, err error, tx int, field string, says ...string) {
	t.Helper()
	var e *verify.Error
	if !errors.As(err, &e) || e.Tx != tx || e.Field != field {
		t.Fatalf("%v, want an error about %s of transaction %d", err, field, tx)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

const flagsField = "metadata.transactions_filter"

// TestValidityOfOneTransaction flags each transaction with the code it should have, which must be accepted, and then with a lie,
// which must be named.
func TestValidityOfOneTransaction(t *testing.T) {
	w := newWorld(t)
	first := w.call()
	first.sets = append(first.sets, write(t, ccName, "k", "v"))
	first.nonce = []byte("the nonce of the first one")
	w.add(ok, first.envelope(t))
	at := uint64(len(w.blocks) - 1)
	expired := func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) }
	by := func(p ...*party) func(*call) { return func(c *call) { c.endorsers = p } }
	reads := func(v *kvrwset.Version) func(*call) {
		return func(c *call) { c.sets = []*rwset.NsReadWriteSet{readWrite(t, ccName, "k", v)} }
	}
	for _, c := range []struct {
		name string
		edit func(*call)
		want peer.TxValidationCode
	}{
		{"as it should be", func(*call) {}, ok},
		{"endorsed by all", by(w.peers...), ok},
		{"endorsed by a single hostile organisation", by(w.peers[3]), endorsement},
		{"endorsed by two of four", by(w.peers[:2]...), endorsement},
		{"endorsed three times by one", by(w.peers[0], w.peers[0], w.peers[0]), endorsement},
		{"endorsed by three peers of two organisations", by(w.peers[0], w.peers[1], w.member(2, "peer")), endorsement},
		{"endorsed by nobody", by(), endorsement},
		{"endorsed by clients", by(w.clients...), endorsement},
		{"endorsed by a foreign identity that claims to be of an organisation", by(w.peers[0], w.peers[1], w.foreign("Org3MSP")), endorsement},
		{"endorsed by an identity of an organisation that is not there", by(w.peers[0], w.peers[1], w.foreign("Org9MSP")), endorsement},
		{"endorsed by an orderer", by(w.peers[0], w.peers[1], w.orderers[3]), endorsement},
		{"endorsed by one that is both peer and client", by(w.peers[0], w.peers[1], w.member(3, "peer", func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit = []string{"peer", "client"}
		})), endorsement},
		{"submitted by a foreigner", func(c *call) { c.by = w.foreign("Org1MSP") }, badCreator},
		{"submitted by a CA", func(c *call) { c.by = w.cas[0] }, badCreator},
		{"submitted by nobody in particular", func(c *call) { c.by = w.member(1, "guest") }, badCreator},
		{"for another channel", func(c *call) { c.header = func(h *common.ChannelHeader) { h.ChannelId = "other" } }, badCreator},
		{"of another transaction ID", func(c *call) { c.header = func(h *common.ChannelHeader) { h.TxId = strings.Repeat("0", 64) } }, peer.TxValidationCode_BAD_PROPOSAL_TXID},
		{"of an epoch", func(c *call) { c.header = func(h *common.ChannelHeader) { h.Epoch = 1 } }, peer.TxValidationCode_BAD_COMMON_HEADER},
		{"of an unknown type", func(c *call) { c.header = func(h *common.ChannelHeader) { h.Type = 77 } }, peer.TxValidationCode_BAD_COMMON_HEADER},
		{"of a type that peers do not take", func(c *call) {
			c.header = func(h *common.ChannelHeader) { h.Type = int32(common.HeaderType_CONFIG_UPDATE) }
		}, peer.TxValidationCode_UNSUPPORTED_TX_PAYLOAD},
		{"with arguments other than those endorsed", func(c *call) {
			c.response = func(a *peer.TransactionAction) {
				p := unmarshal(t, a.Payload, &peer.ChaincodeActionPayload{})
				p.ChaincodeProposalPayload = append(p.ChaincodeProposalPayload, 0x9a, 0x01, 0)
				a.Payload = marshal(t, p)
			}
		}, peer.TxValidationCode_INVALID_ENDORSER_TRANSACTION},
		{"with writes other than those endorsed", func(c *call) {
			c.response = func(a *peer.TransactionAction) {
				p := unmarshal(t, a.Payload, &peer.ChaincodeActionPayload{})
				r := unmarshal(t, p.Action.ProposalResponsePayload, &peer.ProposalResponsePayload{})
				action := unmarshal(t, r.Extension, &peer.ChaincodeAction{})
				action.Results = marshal(t, &rwset.TxReadWriteSet{NsRwset: []*rwset.NsReadWriteSet{write(t, ccName, "stolen", "1")}})
				r.Extension = marshal(t, action)
				p.Action.ProposalResponsePayload = marshal(t, r)
				a.Payload = marshal(t, p)
			}
		}, endorsement},
		{"of a chaincode that is not defined", func(c *call) { c.chaincode = "other" }, peer.TxValidationCode_INVALID_CHAINCODE},
		{"that writes to a chaincode that is not defined", func(c *call) { c.sets = append(c.sets, write(t, "other", "k", "v")) }, peer.TxValidationCode_INVALID_CHAINCODE},
		{"answered by another chaincode", func(c *call) {
			c.action = func(a *peer.ChaincodeAction) { a.ChaincodeId.Name = "other" }
		}, peer.TxValidationCode_INVALID_CHAINCODE},
		{"with a namespace twice", func(c *call) {
			c.sets = append(c.sets, write(t, ccName, "a", "v"), write(t, ccName, "b", "v"))
		}, peer.TxValidationCode_ILLEGAL_WRITESET},
		{"with the ID of an earlier one", func(c *call) { c.nonce = first.nonce }, duplicate},
		{"that read the present version", reads(&kvrwset.Version{BlockNum: at}), ok},
		{"that read an older version", reads(&kvrwset.Version{BlockNum: at - 1}), mvcc},
		{"that read nothing where there is something", reads(nil), mvcc},
		{"that read version 0,0 where there is nothing", func(c *call) {
			c.sets = []*rwset.NsReadWriteSet{readWrite(t, ccName, "nothing", &kvrwset.Version{})}
		}, mvcc},
		{"that changes a definition without a majority", func(c *call) {
			c.chaincode, c.endorsers = "_lifecycle", w.peers[:2]
			c.sets = append(c.sets, write(t, "_lifecycle", "namespaces/metadata/"+ccName, "x"))
		}, endorsement},
		{"endorsed by an expired identity beyond what is needed", by(w.peers[0], w.peers[1], w.peers[2], w.member(4, "peer", expired)), ok},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := w.call()
			c.edit(&call)
			data := call.envelope(t)
			v := w.verifier()
			lie := mvcc
			if c.want != ok {
				lie = ok
			}
			_, err := v.Block(w.next([]peer.TxValidationCode{lie}, data))
			refused(t, err, 0, flagsField, "must be "+c.want.String())
			b, err := v.Block(w.next([]peer.TxValidationCode{c.want}, data))
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Txs) > 0 && b.Txs[0].Valid != (c.want == ok) {
				t.Errorf("%+v", b.Txs[0])
			}
		})
	}
}

// TestStricterThanFabric: a peer accepts these.
func TestStricterThanFabric(t *testing.T) {
	w := newWorld(t)
	expired := func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) }
	for _, c := range []struct {
		name  string
		edit  func(*call)
		field string
	}{
		{"an expired endorser is needed", func(c *call) { c.endorsers = []*party{w.peers[0], w.peers[1], w.member(3, "peer", expired)} }, "endorsements"},
		{"the submitter has expired", func(c *call) { c.by = w.member(1, "client", expired) }, "creator"},
		{"the submitter is not yet valid", func(c *call) {
			c.by = w.member(1, "client", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })
		}, "creator"},
		{"a refusal that was endorsed", func(c *call) { c.action = func(a *peer.ChaincodeAction) { a.Response.Status = 500 } }, "response.status"},
		{"a definition that was refused", func(c *call) {
			c.chaincode, c.action = "_lifecycle", func(a *peer.ChaincodeAction) { a.Response.Status = 500 }
			c.sets = append(c.sets, write(t, "_lifecycle", "namespaces/metadata/other", "x"))
		}, "response.status"},
		{"endorsers saw somebody else", func(c *call) { c.proposer = w.admins[0] }, "creator"},
		{"a key twice", func(c *call) {
			c.sets = append(c.sets, set(t, ccName, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}}))
		}, "writes of certanchor"},
		{"a key-level endorsement policy", func(c *call) {
			c.sets = append(c.sets, set(t, ccName, &kvrwset.KVRWSet{MetadataWrites: []*kvrwset.KVMetadataWrite{{Key: "a"}}}))
		}, "metadata writes of certanchor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := w.call()
			c.edit(&call)
			b := w.next([]peer.TxValidationCode{ok}, call.envelope(t))
			_, err := w.verifier().Block(b)
			refused(t, err, 0, c.field)
			lenient, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0], AcceptExpired: true})
			must(t, err)
			for _, before := range w.blocks {
				_, err := lenient.Block(before)
				must(t, err)
			}
			if _, err = lenient.Block(b); strings.Contains(c.name, "expired") != (err == nil) && !strings.Contains(c.name, "not yet") {
				t.Errorf("accepting expired certificates: %v", err)
			}
		})
	}
}

func TestConflictsWithinABlock(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.call(), w.call(), w.call()
	a.sets = []*rwset.NsReadWriteSet{readWrite(t, ccName, "k", nil)}
	b.sets = a.sets
	c.sets = []*rwset.NsReadWriteSet{write(t, ccName, "k", "")}
	data := [][]byte{a.envelope(t), b.envelope(t), c.envelope(t)}
	data = append(data, data[0]) // a replayed envelope
	v := w.verifier()
	_, err := v.Block(w.next([]peer.TxValidationCode{ok, ok, ok, duplicate}, data...))
	refused(t, err, 1, flagsField, "must be MVCC_READ_CONFLICT", "earlier transaction of the block", a.chaincode+"/k")
	_, err = v.Block(w.next([]peer.TxValidationCode{ok, mvcc, mvcc, duplicate}, data...))
	refused(t, err, 2, flagsField, "must be VALID") // a hostile peer hides a deletion
	_, err = v.Block(w.next([]peer.TxValidationCode{ok, mvcc, ok, ok}, data...))
	refused(t, err, 3, flagsField, "must be DUPLICATE_TXID", "transaction 0")
	w.blocks = append(w.blocks, w.next([]peer.TxValidationCode{ok, mvcc, ok, duplicate}, data...))
	v = w.verifier()
	a.nonce = nil // the key is gone again
	_, err = v.Block(w.next([]peer.TxValidationCode{ok}, a.envelope(t)))
	must(t, err)
}

func TestIDsOfInvalidTransactionsAreTaken(t *testing.T) {
	w := newWorld(t)
	honest := w.call()
	honest.nonce = []byte("seen by somebody on its way")
	forged := honest
	forged.payload = func(p *common.Payload) { p.Data = []byte("nonsense") }
	w.add(peer.TxValidationCode_INVALID_ENDORSER_TRANSACTION, forged.envelope(t))
	_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, honest.envelope(t)))
	refused(t, err, 0, flagsField, "must be DUPLICATE_TXID") // as Fabric's index has it
}

func TestRangeQueries(t *testing.T) {
	w := newWorld(t)
	both := w.call()
	both.sets = []*rwset.NsReadWriteSet{set(t, ccName, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: "r/a", Value: []byte("1")}, {Key: "r/c", Value: []byte("1")}}})}
	w.add(ok, both.envelope(t))
	at := &kvrwset.Version{BlockNum: uint64(len(w.blocks) - 1)}
	query := func(start, end string, exhausted bool, keys ...string) call {
		raw := &kvrwset.QueryReads{}
		for _, k := range keys {
			raw.KvReads = append(raw.KvReads, &kvrwset.KVRead{Key: k, Version: at})
		}
		c := w.call()
		c.sets = []*rwset.NsReadWriteSet{set(t, ccName, &kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
			StartKey: start, EndKey: end, ItrExhausted: exhausted, ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: raw},
		}}})}
		return c
	}
	for _, c := range []struct {
		call call
		want peer.TxValidationCode
	}{
		{query("r/", "r0", true, "r/a", "r/c"), ok},
		{query("r/", "", true, "r/a", "r/c"), ok},
		{query("r/", "r/c", true, "r/a"), ok},
		{query("r/", "r/c", false, "r/a", "r/c"), ok},
		{query("r/", "r0", true, "r/a"), peer.TxValidationCode_PHANTOM_READ_CONFLICT},
		{query("r/", "r0", true), peer.TxValidationCode_PHANTOM_READ_CONFLICT},
		{query("r/b", "r/c", true), ok},
	} {
		data := c.call.envelope(t)
		v := w.verifier()
		if _, err := v.Block(w.next([]peer.TxValidationCode{c.want}, data)); err != nil {
			t.Error(err)
		}
	}
}

func TestRevokedIdentitiesDoNotCount(t *testing.T) {
	var revokedPeer *party
	w := newWorld(t, editMSP(3, func(w *world, c *msp.FabricMSPConfig) {
		revokedPeer = w.member(3, "peer")
		crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(1, 0, 0),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revokedPeer.cert.SerialNumber, RevocationTime: now}},
		}, w.cas[2].cert, w.cas[2].key)
		must(w.t, err)
		c.RevocationList = [][]byte{crl}
	}))
	for _, c := range []struct {
		name string
		edit func(*call)
		want peer.TxValidationCode
	}{
		{"endorser", func(c *call) { c.endorsers = []*party{w.peers[0], w.peers[1], revokedPeer} }, endorsement},
		{"submitter", func(c *call) { c.by = revokedPeer }, badCreator},
	} {
		call := w.call()
		c.edit(&call)
		data := call.envelope(t)
		_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, data))
		refused(t, err, 0, flagsField, "must be "+c.want.String(), "revoked")
	}
	call := w.call()
	call.endorsers = []*party{w.peers[0], w.peers[1], w.peers[2]}
	_, err := w.verifier().Block(w.next([]peer.TxValidationCode{ok}, call.envelope(t)))
	must(t, err)
}

// TestADefinitionsOwnPolicyCounts: the policy is read from the ledger, not assumed.
func TestADefinitionsOwnPolicyCounts(t *testing.T) {
	w := newWorld(t)
	w.define(&peer.ApplicationPolicy{Type: &peer.ApplicationPolicy_SignaturePolicy{SignaturePolicy: nOutOf(2,
		role(t, "Org1MSP", msp.MSPRole_PEER), role(t, "Org4MSP", msp.MSPRole_MEMBER))}})
	v := w.verifier()
	if says, found, err := v.EndorsementPolicy(); err != nil || !found || !strings.Contains(says, "2 of (Org1MSP.peer, Org4MSP.member)") {
		t.Errorf("%q, %v, %v", says, found, err)
	}
	for i, c := range []struct {
		by   []*party
		want peer.TxValidationCode
	}{
		{[]*party{w.peers[0], w.clients[3]}, ok},
		{[]*party{w.clients[0], w.clients[3]}, endorsement},
		{w.peers[:3], endorsement},
	} {
		call := w.call()
		call.endorsers = c.by
		if _, err := w.verifier().Block(w.next([]peer.TxValidationCode{c.want}, call.envelope(t))); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}
