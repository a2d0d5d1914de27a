package verify_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// attacker submits envelopes that no gateway would make.
type attacker struct {
	t       testing.TB
	signer  *party
	gateway gateway.GatewayClient
	channel *client.Network
	seen    chan [sha256.Size]byte // hashes of payloads as they come in blocks
}

func (c *realChain) attacker(t *testing.T) *attacker {
	cfg := c.net.Connection(1, testnetwork.Operator)
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(cfg.TLSCA)
	must(t, err)
	roots.AppendCertsFromPEM(ca)
	host, _, err := net.SplitHostPort(cfg.Endpoint)
	must(t, err)
	if cfg.ServerName != "" {
		host = cfg.ServerName
	}
	conn, err := grpc.NewClient(cfg.Endpoint, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host})))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	signer := loadParty(t, cfg.MSPID, cfg.Cert, cfg.Key)
	id, err := identity.NewX509Identity(cfg.MSPID, signer.cert)
	must(t, err)
	sign, err := identity.NewPrivateKeySign(signer.key)
	must(t, err)
	gw, err := client.Connect(id, client.WithSign(sign), client.WithClientConnection(conn))
	must(t, err)
	t.Cleanup(func() { gw.Close() })
	a := &attacker{t: t, signer: signer, gateway: gateway.NewGatewayClient(conn), channel: gw.GetNetwork(testnetwork.Channel), seen: make(chan [sha256.Size]byte)}
	l := c.connect(t, 1, testnetwork.Auditor)
	height, err := l.Height(t.Context())
	must(t, err)
	go l.RawBlocks(t.Context(), height, func(b *common.Block) error {
		for _, raw := range b.GetData().GetData() {
			var e common.Envelope
			if err := proto.Unmarshal(raw, &e); err != nil {
				return err
			}
			select {
			case a.seen <- sha256.Sum256(e.GetPayload()):
			case <-t.Context().Done():
				return nil
			}
		}
		return nil
	})
	return a
}

// endorsed returns the payload of a transaction that honest organisations endorsed.
func (a *attacker) endorsed(chaincode, function string, args ...[]byte) *common.Payload {
	a.t.Helper()
	proposal, err := a.channel.GetContract(chaincode).NewProposal(function, client.WithBytesArguments(args...))
	must(a.t, err)
	tx, err := proposal.Endorse()
	must(a.t, err)
	encoded, err := tx.Bytes()
	must(a.t, err)
	prepared := unmarshal(a.t, encoded, &gateway.PreparedTransaction{})
	return unmarshal(a.t, prepared.GetEnvelope().GetPayload(), &common.Payload{})
}

// send signs and hands to the orderers.
func (a *attacker) send(p *common.Payload) [sha256.Size]byte {
	a.t.Helper()
	payload := marshal(a.t, p)
	_, err := a.gateway.Submit(a.t.Context(), &gateway.SubmitRequest{ChannelId: testnetwork.Channel, TransactionId: "x",
		PreparedTransaction: &common.Envelope{Payload: payload, Signature: a.signer.sign(a.t, payload)}})
	must(a.t, err)
	return sha256.Sum256(payload)
}

// submit is send that waits until the transaction is in a block; the hash of the payload it returns is enough to find it there.
func (a *attacker) submit(p *common.Payload) [sha256.Size]byte {
	a.t.Helper()
	sum := a.send(p)
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		select {
		case seen := <-a.seen:
			if seen == sum {
				return sum
			}
		case <-deadline.C:
			a.t.Fatal("waited a minute in vain for a transaction to come")
		}
	}
}

// edit changes the endorsed action of a payload.
func (a *attacker) edit(p *common.Payload, change func(*peer.ChaincodeActionPayload)) *common.Payload {
	tx := unmarshal(a.t, p.GetData(), &peer.Transaction{})
	action := unmarshal(a.t, tx.Actions[0].Payload, &peer.ChaincodeActionPayload{})
	change(action)
	tx.Actions[0].Payload = marshal(a.t, action)
	p = proto.Clone(p).(*common.Payload)
	p.Data = marshal(a.t, tx)
	return p
}

// misbehave submits what honest peers flag, and returns the code for each payload's hash.
func (c *realChain) misbehave(t *testing.T) map[[sha256.Size]byte]peer.TxValidationCode {
	a := c.attacker(t)
	want := map[[sha256.Size]byte]peer.TxValidationCode{}
	registered := func() *common.Payload { // endorsed anew each time, and each could be valid
		return a.endorsed(testnetwork.Chaincode, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey))
	}
	send := func(code peer.TxValidationCode, p *common.Payload) {
		t.Helper()
		want[a.submit(p)] = code
	}
	good := registered()
	send(peer.TxValidationCode_VALID, good)
	send(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, a.edit(registered(), func(p *peer.ChaincodeActionPayload) {
		p.Action.Endorsements = p.Action.Endorsements[:1]
	}))
	send(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, a.edit(registered(), func(p *peer.ChaincodeActionPayload) {
		e := p.Action.Endorsements[0]
		p.Action.Endorsements = []*peer.Endorsement{e, e, e, e}
	}))
	send(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, a.edit(registered(), func(p *peer.ChaincodeActionPayload) {
		r := unmarshal(t, p.Action.ProposalResponsePayload, &peer.ProposalResponsePayload{})
		action := unmarshal(t, r.Extension, &peer.ChaincodeAction{})
		action.Response.Payload = []byte("forged")
		r.Extension = marshal(t, action)
		p.Action.ProposalResponsePayload = marshal(t, r)
	}))
	send(peer.TxValidationCode_INVALID_ENDORSER_TRANSACTION, a.edit(registered(), func(p *peer.ChaincodeActionPayload) {
		p.ChaincodeProposalPayload = append(p.ChaincodeProposalPayload, 0x9a, 0x01, 0)
	}))
	send(peer.TxValidationCode_BAD_RESPONSE_PAYLOAD, a.edit(registered(), func(p *peer.ChaincodeActionPayload) {
		r := unmarshal(t, p.Action.ProposalResponsePayload, &peer.ProposalResponsePayload{})
		r.Extension = nil
		p.Action.ProposalResponsePayload = marshal(t, r)
	}))
	other := registered()
	h := unmarshal(t, other.GetHeader().GetChannelHeader(), &common.ChannelHeader{})
	h.TxId = "another"
	other.Header.ChannelHeader = marshal(t, h)
	send(peer.TxValidationCode_BAD_PROPOSAL_TXID, other)
	h.Epoch = 3
	late := registered()
	late.Header.ChannelHeader = marshal(t, h)
	send(peer.TxValidationCode_BAD_COMMON_HEADER, late)
	for _, colluding := range c.colluding(t, a.signer) {
		e := unmarshal(t, colluding.call.envelope(t), &common.Envelope{})
		send(colluding.want, unmarshal(t, e.GetPayload(), &common.Payload{}))
	}
	return want
}

type colluding struct {
	call call
	want peer.TxValidationCode
}

// colluding is what a hostile majority of endorsers could sign; the test has their keys.
func (c *realChain) colluding(t *testing.T, by *party) []colluding {
	answer, err := c.connect(t, 1, testnetwork.Auditor).Evaluate(t.Context(), wire.FnRead, cctest.ReadArg(wire.ConsortiumKey))
	must(t, err)
	var peers []*party
	for org := 1; org <= c.net.Orgs(); org++ {
		msp := filepath.Join(c.net.Dir(), "orgs", testnetwork.OrgName(org), "peer", "msp")
		peers = append(peers, loadParty(t, testnetwork.MSPID(org), filepath.Join(msp, "signcerts", "cert.pem"), filepath.Join(msp, "keystore", "key.pem")))
	}
	at := time.Now()
	make := func(want peer.TxValidationCode, edit func(*call)) colluding {
		c := call{channel: testnetwork.Channel, chaincode: testnetwork.Chaincode, by: by, endorsers: peers[:3], at: at, args: [][]byte{[]byte(wire.FnRead), cctest.ReadArg(wire.ConsortiumKey)}, action: func(a *peer.ChaincodeAction) { a.Response.Payload = answer }}
		edit(&c)
		return colluding{c, want}
	}
	sets := func(s ...*rwset.NsReadWriteSet) func(*call) { return func(c *call) { c.sets = s } }
	query := func(keys ...string) func(*call) {
		raw := &kvrwset.QueryReads{}
		for _, k := range keys {
			raw.KvReads = append(raw.KvReads, &kvrwset.KVRead{Key: k, Version: &kvrwset.Version{BlockNum: 1}})
		}
		return sets(set(t, testnetwork.Chaincode, &kvrwset.KVRWSet{RangeQueriesInfo: []*kvrwset.RangeQueryInfo{{
			StartKey: "none/", EndKey: "none0", ItrExhausted: true, ReadsInfo: &kvrwset.RangeQueryInfo_RawReads{RawReads: raw},
		}}}))
	}
	// What an organisation can do alone, with an implicit collection of its own; nobody else executed it.
	lone := func(want peer.TxValidationCode, endorser *party, hashed *kvrwset.HashedRWSet) colluding {
		return make(want, func(c *call) {
			c.endorsers, c.at, c.raw = []*party{endorser}, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), []byte("no proposal")
			c.sets = []*rwset.NsReadWriteSet{{Namespace: testnetwork.Chaincode, CollectionHashedRwset: []*rwset.CollectionHashedReadWriteSet{{
				CollectionName: "_implicit_org_" + testnetwork.MSPID(4), HashedRwset: marshal(t, hashed),
			}}}}
			c.action = func(a *peer.ChaincodeAction) { a.Response.Status = 500 }
		})
	}
	absent := func(hashed *kvrwset.HashedRWSet) *kvrwset.HashedRWSet {
		hashed.HashedReads = []*kvrwset.KVReadHash{{KeyHash: secret}}
		return hashed
	}
	nonce := []byte("seen on its way to the orderers")
	id := sha256.Sum256(append(slices.Clone(nonce), by.serialized(t)...))
	taken := hex.EncodeToString(id[:])
	return []colluding{
		make(ok, sets(write(t, testnetwork.Chaincode, "forged", "1"))),
		make(ok, sets(readWrite(t, testnetwork.Chaincode, "another", nil))),
		make(mvcc, sets(readWrite(t, testnetwork.Chaincode, "forged", nil))),
		make(mvcc, sets(readWrite(t, testnetwork.Chaincode, "nothing", &kvrwset.Version{}))),
		make(ok, sets(write(t, testnetwork.Chaincode, "forged", ""))), // gone again
		make(ok, sets(readWrite(t, testnetwork.Chaincode, "forged", nil))),
		make(ok, query()),
		make(peer.TxValidationCode_PHANTOM_READ_CONFLICT, query("none/1")),
		// An envelope that claims the ID of another one takes it, invalid as it is. Orderers refuse the same nonce twice, not this.
		make(peer.TxValidationCode_BAD_PROPOSAL_TXID, func(c *call) { c.header = func(h *common.ChannelHeader) { h.TxId = taken } }),
		make(duplicate, func(c *call) { c.nonce = nonce }),
		make(endorsement, func(c *call) { c.endorsers = peers[2:] }),
		make(endorsement, func(c *call) { c.endorsers = []*party{peers[0], peers[1], by} }),
		make(endorsement, func(c *call) { c.endorsers = []*party{peers[0], peers[1], c.by, c.by} }),
		make(ok, func(c *call) { c.endorsers = []*party{peers[3], by, peers[0], peers[0], peers[1]} }),
		make(peer.TxValidationCode_INVALID_CHAINCODE, func(c *call) { c.chaincode = "qscc" }),
		make(peer.TxValidationCode_INVALID_CHAINCODE, sets(write(t, "undefined", "k", "v"))),
		make(peer.TxValidationCode_INVALID_CHAINCODE, func(c *call) { c.action = func(a *peer.ChaincodeAction) { a.ChaincodeId.Version = "" } }),
		make(peer.TxValidationCode_INVALID_OTHER_REASON, func(c *call) { c.action = func(a *peer.ChaincodeAction) { a.ChaincodeId = nil } }),
		make(peer.TxValidationCode_INVALID_OTHER_REASON, func(c *call) {
			c.action = func(a *peer.ChaincodeAction) { a.Events = marshal(t, &peer.ChaincodeEvent{ChaincodeId: "other"}) }
		}),
		make(peer.TxValidationCode_ILLEGAL_WRITESET, sets(write(t, testnetwork.Chaincode, "a", "1"), write(t, testnetwork.Chaincode, "b", "1"))),
		make(peer.TxValidationCode_BAD_RWSET, func(c *call) { c.action = func(a *peer.ChaincodeAction) { a.Results = []byte("not a set") } }),
		make(endorsement, func(c *call) {
			c.chaincode, c.endorsers = "_lifecycle", peers[:2]
			c.sets = []*rwset.NsReadWriteSet{write(t, "_lifecycle", "namespaces/metadata/"+testnetwork.Chaincode, "x")}
		}),
		lone(endorsement, peers[0], puts(put)),
		lone(ok, peers[3], puts(put, put)), // no effect, see apply.go
		lone(ok, peers[3], absent(puts(put))),
		lone(mvcc, peers[3], absent(puts(put))),
		lone(ok, peers[3], keyPolicy(t, testnetwork.MSPID(2))),
		lone(endorsement, peers[3], puts(put)),
		lone(ok, peers[1], puts(put)),
		lone(ok, peers[1], puts(remove)),
		lone(ok, peers[3], absent(puts(put))),
		lone(ok, peers[3], puts(remove, remove)), // none either
		lone(mvcc, peers[3], absent(puts(put))),
	}
}

// reconfigure changes a setting of the orderers as their administrators would.
func (c *realChain) reconfigure(t *testing.T) {
	l := c.connect(t, 2, testnetwork.Auditor)
	block, err := l.ConfigBlock(t.Context())
	must(t, err)
	config := configIn(t, block.GetData().GetData()[0]).GetConfig()
	present := config.GetChannelGroup().GetGroups()["Orderer"]
	bare := func() *common.ConfigGroup {
		return &common.ConfigGroup{Version: config.GetChannelGroup().GetVersion(), Groups: map[string]*common.ConfigGroup{
			"Orderer": {Version: present.GetVersion(), Values: map[string]*common.ConfigValue{}},
		}}
	}
	read, written := bare(), bare()
	value := proto.Clone(present.GetValues()["BatchTimeout"]).(*common.ConfigValue)
	value.Version++
	value.Value = []byte("\n\x0411ms")
	written.Groups["Orderer"].Values["BatchTimeout"] = value
	u := &common.ConfigUpdateEnvelope{ConfigUpdate: marshal(t, &common.ConfigUpdate{ChannelId: testnetwork.Channel, ReadSet: read, WriteSet: written})}
	for org := 1; org <= 3; org++ {
		dir := filepath.Join(c.net.Dir(), "orgs", testnetwork.OrgName(org), "users", testnetwork.Admin)
		admin := loadParty(t, testnetwork.OrdererMSPID(org), filepath.Join(dir, "orderer-cert.pem"), filepath.Join(dir, "orderer-key.pem"))
		h := marshal(t, &common.SignatureHeader{Creator: admin.serialized(t), Nonce: []byte("once")})
		u.Signatures = append(u.Signatures, &common.ConfigSignature{SignatureHeader: h, Signature: admin.sign(t, h, u.ConfigUpdate)})
	}
	a := c.attacker(t)
	a.send(&common.Payload{Header: &common.Header{
		ChannelHeader:   marshal(t, &common.ChannelHeader{Type: int32(common.HeaderType_CONFIG_UPDATE), ChannelId: testnetwork.Channel}),
		SignatureHeader: marshal(t, &common.SignatureHeader{Creator: a.signer.serialized(t), Nonce: []byte("once more")}),
	}, Data: marshal(t, u)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		block, err := l.ConfigBlock(ctx)
		must(t, err)
		if block.GetHeader().GetNumber() > 0 {
			return
		}
		<-look.C
	}
}
