package verify_test

import (
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer/lifecycle"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

const (
	channelName = "pki"
	ccName      = "certanchor"
)

// world is a channel of four organisations whose keys the test has: all that it takes to be any hostile majority.
type world struct {
	t        testing.TB
	cas      []*party // of each organisation's members
	peers    []*party
	clients  []*party
	admins   []*party
	orderers map[uint32]*party
	config   *common.Config
	blocks   []*common.Block
	last     uint64 // number of the last block with a configuration
}

// worldOption changes the configuration before the first block is made of it.
type worldOption func(*world, *common.ConfigGroup)

func newWorld(t testing.TB, options ...worldOption) *world {
	t.Helper()
	w := &world{t: t, orderers: map[uint32]*party{}}
	app, ord := newGroup(), newGroup()
	var mapping []*common.Consenter
	for i := 1; i <= 4; i++ {
		id := fmt.Sprintf("Org%dMSP", i)
		ca := issue(t, id, nil, "ca")
		w.cas = append(w.cas, ca)
		w.peers = append(w.peers, issue(t, id, ca, "peer"))
		w.clients = append(w.clients, issue(t, id, ca, "client"))
		w.admins = append(w.admins, issue(t, id, ca, "admin"))
		app.Groups[id] = w.org(ca, map[string]*common.ConfigPolicy{
			"Endorsement": signature(t, 1, role(t, id, msp.MSPRole_PEER)), "Admins": signature(t, 1, role(t, id, msp.MSPRole_ADMIN)),
			"Writers": signature(t, 1, role(t, id, msp.MSPRole_MEMBER)),
		})
		oid := fmt.Sprintf("Org%dOrdererMSP", i)
		oca := issue(t, oid, nil, "ca")
		w.orderers[uint32(i)] = issue(t, oid, oca, "orderer")
		ord.Groups[oid] = w.org(oca, map[string]*common.ConfigPolicy{"Writers": signature(t, 1, role(t, oid, msp.MSPRole_MEMBER))})
		mapping = append(mapping, &common.Consenter{Id: uint32(i), MspId: oid, Identity: w.orderers[uint32(i)].pem()})
	}
	app.Policies["Endorsement"] = meta(t, common.ImplicitMetaPolicy_MAJORITY, "Endorsement")
	app.Policies["LifecycleEndorsement"] = meta(t, common.ImplicitMetaPolicy_MAJORITY, "Endorsement")
	app.Policies["Admins"] = meta(t, common.ImplicitMetaPolicy_MAJORITY, "Admins")
	app.Values["Capabilities"] = capabilities(t, "V2_5")
	app.Values["Any"] = &common.ConfigValue{Value: []byte("one"), ModPolicy: "Admins"}
	var consenters []*msp.MSPPrincipal
	for _, m := range mapping {
		consenters = append(consenters, &msp.MSPPrincipal{PrincipalClassification: msp.MSPPrincipal_IDENTITY,
			Principal: marshal(t, &msp.SerializedIdentity{Mspid: m.GetMspId(), IdBytes: m.GetIdentity()})})
	}
	ord.Policies["BlockValidation"] = signature(t, 3, consenters...)
	ord.Values["ConsensusType"] = &common.ConfigValue{Value: marshal(t, &orderer.ConsensusType{Type: "BFT"}), ModPolicy: "Admins"}
	ord.Values["Orderers"] = &common.ConfigValue{Value: marshal(t, &common.Orderers{ConsenterMapping: mapping}), ModPolicy: "Admins"}
	ord.Values["Capabilities"] = capabilities(t, "V2_0")
	root := newGroup()
	root.Groups["Application"], root.Groups["Orderer"] = app, ord
	root.Values["Capabilities"] = capabilities(t, "V3_0")
	root.Policies["Admins"] = meta(t, common.ImplicitMetaPolicy_MAJORITY, "Admins")
	for _, o := range options {
		o(w, root)
	}
	w.config = &common.Config{ChannelGroup: root}
	w.addConfig(&common.ConfigEnvelope{Config: w.config})
	w.define(&peer.ApplicationPolicy{Type: &peer.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: "/Channel/Application/Endorsement"}})
	return w
}

func newGroup() *common.ConfigGroup {
	return &common.ConfigGroup{Groups: map[string]*common.ConfigGroup{}, Values: map[string]*common.ConfigValue{},
		Policies: map[string]*common.ConfigPolicy{}, ModPolicy: "Admins"}
}

// org is an organisation's group: an MSP with NodeOUs, as test-network makes it.
func (w *world) org(ca *party, policies map[string]*common.ConfigPolicy) *common.ConfigGroup {
	ou := func(name string) *msp.FabricOUIdentifier {
		return &msp.FabricOUIdentifier{OrganizationalUnitIdentifier: name}
	}
	g := newGroup()
	g.Policies = policies
	setMSP(w.t, g, &msp.FabricMSPConfig{Name: ca.msp, RootCerts: [][]byte{ca.pem()}, FabricNodeOus: &msp.FabricNodeOUs{
		Enable: true, ClientOuIdentifier: ou("client"), PeerOuIdentifier: ou("peer"), AdminOuIdentifier: ou("admin"), OrdererOuIdentifier: ou("orderer"),
	}})
	return g
}

func setMSP(t testing.TB, g *common.ConfigGroup, c *msp.FabricMSPConfig) {
	g.Values["MSP"] = &common.ConfigValue{Value: marshal(t, &msp.MSPConfig{Config: marshal(t, c)}), ModPolicy: "Admins"}
}

// editMSP changes the MSP of an application organisation, numbered from 1.
func editMSP(org int, edit func(*world, *msp.FabricMSPConfig)) worldOption {
	return func(w *world, root *common.ConfigGroup) {
		g := root.Groups["Application"].Groups[fmt.Sprintf("Org%dMSP", org)]
		c := unmarshal(w.t, unmarshal(w.t, g.Values["MSP"].Value, &msp.MSPConfig{}).Config, &msp.FabricMSPConfig{})
		edit(w, c)
		setMSP(w.t, g, c)
	}
}

func role(t testing.TB, id string, r msp.MSPRole_MSPRoleType) *msp.MSPPrincipal {
	return &msp.MSPPrincipal{PrincipalClassification: msp.MSPPrincipal_ROLE, Principal: marshal(t, &msp.MSPRole{MspIdentifier: id, Role: r})}
}

func nOutOf(n int32, of ...*msp.MSPPrincipal) *common.SignaturePolicyEnvelope {
	rule := &common.SignaturePolicy_NOutOf{N: n}
	for i := range of {
		rule.Rules = append(rule.Rules, &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	return &common.SignaturePolicyEnvelope{Rule: &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{NOutOf: rule}}, Identities: of}
}

func signature(t testing.TB, n int32, of ...*msp.MSPPrincipal) *common.ConfigPolicy {
	return &common.ConfigPolicy{ModPolicy: "Admins", Policy: &common.Policy{Type: int32(common.Policy_SIGNATURE), Value: marshal(t, nOutOf(n, of...))}}
}

func meta(t testing.TB, rule common.ImplicitMetaPolicy_Rule, sub string) *common.ConfigPolicy {
	return &common.ConfigPolicy{ModPolicy: "Admins", Policy: &common.Policy{
		Type: int32(common.Policy_IMPLICIT_META), Value: marshal(t, &common.ImplicitMetaPolicy{Rule: rule, SubPolicy: sub}),
	}}
}

func capabilities(t testing.TB, name string) *common.ConfigValue {
	return &common.ConfigValue{ModPolicy: "Admins", Value: marshal(t, &common.Capabilities{Capabilities: map[string]*common.Capability{name: {}}})}
}

func (w *world) previous() []byte {
	if len(w.blocks) == 0 {
		return nil
	}
	return hashOf(w.t, w.blocks[len(w.blocks)-1])
}

// addConfig makes a block with a configuration, wrapped as the orderer does.
func (w *world) addConfig(e *common.ConfigEnvelope) *common.Block {
	number := uint64(len(w.blocks))
	by := w.orderers[1]
	data := signedEnvelope(w.t, by, &common.Payload{
		Header: &common.Header{
			ChannelHeader:   marshal(w.t, &common.ChannelHeader{Type: int32(common.HeaderType_CONFIG), ChannelId: channelName}),
			SignatureHeader: marshal(w.t, &common.SignatureHeader{Creator: by.serialized(w.t), Nonce: []byte{byte(number), 1}}),
		},
		Data: marshal(w.t, e),
	})
	w.last = number
	b := seal(w.t, number, w.previous(), [][]byte{data}, []peer.TxValidationCode{0}, number, w.orderers)
	w.blocks = append(w.blocks, b)
	return b
}

// next makes the block that would follow, without adding it.
func (w *world) next(flags []peer.TxValidationCode, data ...[]byte) *common.Block {
	return seal(w.t, uint64(len(w.blocks)), w.previous(), data, flags, w.last, w.orderers)
}

// add makes a block whose transactions all have one flag.
func (w *world) add(flag peer.TxValidationCode, data ...[]byte) *common.Block {
	flags := make([]peer.TxValidationCode, len(data))
	for i := range flags {
		flags[i] = flag
	}
	b := w.next(flags, data...)
	w.blocks = append(w.blocks, b)
	return b
}

// define commits a definition of the chaincode.
func (w *world) define(policy *peer.ApplicationPolicy) {
	t := w.t
	field := func(name string, m proto.Message) *kvrwset.KVWrite {
		return &kvrwset.KVWrite{Key: "namespaces/fields/" + ccName + "/" + name, Value: marshal(t, &lifecycle.StateData{Type: &lifecycle.StateData_Bytes{Bytes: marshal(t, m)}})}
	}
	c := w.call()
	c.chaincode = "_lifecycle"
	c.sets = append(c.sets, set(t, "_lifecycle", &kvrwset.KVRWSet{Writes: []*kvrwset.KVWrite{
		{Key: "namespaces/metadata/" + ccName, Value: marshal(t, &lifecycle.StateMetadata{Datatype: "ChaincodeDefinition", Fields: []string{"ValidationInfo", "Collections"}})},
		field("ValidationInfo", &lifecycle.ChaincodeValidationInfo{ValidationPlugin: "vscc", ValidationParameter: marshal(t, policy)}),
		field("Collections", &peer.CollectionConfigPackage{}),
	}}))
	w.add(peer.TxValidationCode_VALID, c.envelope(t))
}

// call is a transaction of the first organisation's client that three peers endorse.
func (w *world) call() call {
	return call{channel: channelName, chaincode: ccName, by: w.clients[0], endorsers: w.peers[:3], at: now, args: [][]byte{[]byte("Tick"), []byte("arg")}}
}

// verifier has taken all blocks so far.
func (w *world) verifier() *verify.Verifier {
	w.t.Helper()
	v, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0]})
	must(w.t, err)
	for _, b := range w.blocks {
		if _, err := v.Block(b); err != nil {
			w.t.Fatal(err)
		}
	}
	return v
}

// foreign is a peer of an organisation that is not in the channel but says it is.
func (w *world) foreign(id string) *party {
	return issue(w.t, id, issue(w.t, id, nil, "ca"), "peer")
}

// member issues another certificate of an organisation, numbered from 1.
func (w *world) member(org int, unit string, tweaks ...func(*x509.Certificate)) *party {
	return issue(w.t, fmt.Sprintf("Org%dMSP", org), w.cas[org-1], unit, tweaks...)
}
