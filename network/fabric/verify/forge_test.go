package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/certanchor/certanchor/network/fabric"
)

// now is when what the tests forge happens.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	return b
}

func unmarshal[M proto.Message](t testing.TB, b []byte, into M) M {
	t.Helper()
	must(t, proto.Unmarshal(b, into))
	return into
}

// party is somebody who signs.
type party struct {
	msp  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p *party) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p *party) serialized(t testing.TB) []byte {
	return marshal(t, &msp.SerializedIdentity{Mspid: p.msp, IdBytes: p.pem()})
}

// sign makes a signature with low S, as Fabric wants it.
func (p *party) sign(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	digest := sha256.Sum256(bytes.Join(parts, nil))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, digest[:])
	must(t, err)
	if n := p.key.Params().N; s.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
		s.Sub(n, s)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	must(t, err)
	return der
}

// issue certifies a new key; nil certifies itself.
func issue(t testing.TB, mspID string, by *party, unit string, tweaks ...func(*x509.Certificate)) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	must(t, err)
	public, err := key.PublicKey.Bytes()
	must(t, err)
	ski := sha256.Sum256(public)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: unit + "." + mspID, OrganizationalUnit: []string{unit}},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), SubjectKeyId: ski[:20],
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	signer := &party{msp: mspID, cert: c, key: key}
	if by == nil {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	} else {
		signer = by
	}
	for _, tweak := range tweaks {
		tweak(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer.cert, &key.PublicKey, signer.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &party{msp: mspID, cert: cert, key: key}
}

// call is a transaction in the making.
type call struct {
	channel, chaincode string
	by                 *party
	proposer           *party // as whom endorsers executed it; nil: by
	endorsers          []*party
	at                 time.Time
	args               [][]byte
	raw                []byte // instead of a proposal
	sets               []*rwset.NsReadWriteSet

	header   func(*common.ChannelHeader)   // changes it before anything is derived from it
	action   func(*peer.ChaincodeAction)   // before it is endorsed
	payload  func(*common.Payload)         // before the envelope is signed
	nonce    []byte                        // given when two transactions are to have one ID
	response func(*peer.TransactionAction) // after it is endorsed
}

// envelope makes what would be submitted.
func (c call) envelope(t testing.TB) []byte {
	t.Helper()
	if c.nonce == nil {
		c.nonce = make([]byte, 24)
		rand.Read(c.nonce)
	}
	creator := c.by.serialized(t)
	id := sha256.Sum256(slices.Concat(c.nonce, creator))
	h := &common.ChannelHeader{
		Type: int32(common.HeaderType_ENDORSER_TRANSACTION), ChannelId: c.channel, TxId: hex.EncodeToString(id[:]),
		Timestamp: timestamppb.New(c.at), Extension: marshal(t, &peer.ChaincodeHeaderExtension{ChaincodeId: &peer.ChaincodeID{Name: c.chaincode}}),
	}
	if c.header != nil {
		c.header(h)
	}
	header := &common.Header{ChannelHeader: marshal(t, h), SignatureHeader: marshal(t, &common.SignatureHeader{Creator: creator, Nonce: c.nonce})}
	endorsedHeader := header.GetSignatureHeader()
	if c.proposer != nil {
		endorsedHeader = marshal(t, &common.SignatureHeader{Creator: c.proposer.serialized(t), Nonce: c.nonce})
	}
	proposal := marshal(t, &peer.ChaincodeProposalPayload{Input: marshal(t, &peer.ChaincodeInvocationSpec{ChaincodeSpec: &peer.ChaincodeSpec{
		ChaincodeId: &peer.ChaincodeID{Name: c.chaincode}, Input: &peer.ChaincodeInput{Args: c.args},
	}})})
	if c.raw != nil {
		proposal = c.raw
	}
	hash := sha256.Sum256(slices.Concat(header.GetChannelHeader(), endorsedHeader, proposal))
	action := &peer.ChaincodeAction{
		ChaincodeId: &peer.ChaincodeID{Name: c.chaincode, Version: "1"}, Response: &peer.Response{Status: 200, Payload: []byte("answer")},
		Results: marshal(t, &rwset.TxReadWriteSet{NsRwset: c.sets}),
	}
	if c.action != nil {
		c.action(action)
	}
	response := marshal(t, &peer.ProposalResponsePayload{ProposalHash: hash[:], Extension: marshal(t, action)})
	var endorsements []*peer.Endorsement
	for _, e := range c.endorsers {
		endorsements = append(endorsements, &peer.Endorsement{Endorser: e.serialized(t), Signature: e.sign(t, response, e.serialized(t))})
	}
	tx := &peer.TransactionAction{Header: endorsedHeader, Payload: marshal(t, &peer.ChaincodeActionPayload{
		ChaincodeProposalPayload: proposal, Action: &peer.ChaincodeEndorsedAction{ProposalResponsePayload: response, Endorsements: endorsements},
	})}
	if c.response != nil {
		c.response(tx)
	}
	p := &common.Payload{Header: header, Data: marshal(t, &peer.Transaction{Actions: []*peer.TransactionAction{tx}})}
	if c.payload != nil {
		c.payload(p)
	}
	return signedEnvelope(t, c.by, p)
}

func signedEnvelope(t testing.TB, by *party, p *common.Payload) []byte {
	payload := marshal(t, p)
	return marshal(t, &common.Envelope{Payload: payload, Signature: by.sign(t, payload)})
}

func set(t testing.TB, namespace string, kv *kvrwset.KVRWSet) *rwset.NsReadWriteSet {
	return &rwset.NsReadWriteSet{Namespace: namespace, Rwset: marshal(t, kv)}
}

// write and read are one-key sets; the version read is that of a block and transaction, or none.
func write(t testing.TB, namespace, key, value string) *rwset.NsReadWriteSet {
	return set(t, namespace, &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{{Key: key, Value: []byte(value), IsDelete: value == ""}}})
}

func readWrite(t testing.TB, namespace, key string, version *kvrwset.Version) *rwset.NsReadWriteSet {
	return set(t, namespace, &kvrwset.KVRWSet{
		Reads:  []*kvrwset.KVRead{{Key: key, Version: version}},
		Writes: []*kvrwset.KVWrite{{Key: key, Value: []byte("v")}},
	})
}

// seal makes a block of data as orderers do, with the flags that a peer adds. Signers are consenters by number.
func seal(t testing.TB, number uint64, previous []byte, data [][]byte, flags []peer.TxValidationCode, lastConfig uint64, signers map[uint32]*party) *common.Block {
	t.Helper()
	b := &common.Block{Header: &common.BlockHeader{Number: number, PreviousHash: previous}, Data: &common.BlockData{Data: data},
		Metadata: &common.BlockMetadata{Metadata: make([][]byte, len(common.BlockMetadataIndex_name))}}
	for _, f := range flags {
		b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = append(b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER], byte(f))
	}
	reseal(t, b, lastConfig, signers)
	return b
}

// reseal makes header and signatures fit a block's data.
func reseal(t testing.TB, b *common.Block, lastConfig uint64, signers map[uint32]*party) {
	t.Helper()
	sum := sha256.Sum256(bytes.Join(b.GetData().GetData(), nil))
	b.Header.DataHash = sum[:]
	value := marshal(t, &common.OrdererBlockMetadata{LastConfig: &common.LastConfig{Index: lastConfig}})
	m := &common.Metadata{Value: value}
	for _, number := range []uint32{1, 2, 3, 4, 5, 6, 7} {
		if p := signers[number]; p != nil {
			h := marshal(t, &common.IdentifierHeader{Identifier: number, Nonce: []byte{1}})
			m.Signatures = append(m.Signatures, &common.MetadataSignature{IdentifierHeader: h, Signature: p.sign(t, value, h, headerDER(t, b.GetHeader()))})
		}
	}
	b.Metadata.Metadata[common.BlockMetadataIndex_SIGNATURES] = marshal(t, m)
}

func headerDER(t testing.TB, h *common.BlockHeader) []byte {
	der, err := asn1.Marshal(struct {
		Number         *big.Int
		Previous, Data []byte
	}{new(big.Int).SetUint64(h.GetNumber()), h.GetPreviousHash(), h.GetDataHash()})
	must(t, err)
	return der
}

func hashOf(t testing.TB, b *common.Block) []byte {
	t.Helper()
	hash, err := fabric.HeaderHash(b.GetHeader())
	must(t, err)
	return hash
}

func clone(b *common.Block) *common.Block { return proto.Clone(b).(*common.Block) }
