package verify

import (
	"fmt"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer/lifecycle"
	"google.golang.org/protobuf/proto"
)

// lifecycleNamespace is where Fabric keeps chaincode definitions: namespaces/metadata/<name> says that there is one,
// namespaces/fields/<name>/<field> hold it. They are known from the blocks like everything else.
const (
	lifecycleNamespace = "_lifecycle"
	lifecyclePolicy    = "/Channel/Application/LifecycleEndorsement"
	implicitCollection = "_implicit_org_"
	builtinPlugin      = "vscc"
)

// definition is what a committed chaincode definition says about validating its transactions.
type definition struct {
	endorsement policy
	says        string // where the policy comes from
	collections []*peer.CollectionConfig
}

// definition returns chaincode's definition as of the blocks before this one, nil when there is none. Errors are failures of the
// store, or a definition that is not supported.
func (v *Verifier) definition(chaincode string) (*definition, error) {
	if chaincode == lifecycleNamespace {
		return v.lifecycleDefinition(), nil
	}
	metadata := &lifecycle.StateMetadata{}
	found, err := v.lifecycleState("namespaces/metadata/"+chaincode, metadata)
	if err != nil || !found {
		return nil, err
	}
	if metadata.GetDatatype() != "ChaincodeDefinition" {
		return nil, faultf("chaincode definition of "+chaincode, metadata.GetDatatype(), "is not supported, must be a ChaincodeDefinition")
	}
	var info lifecycle.ChaincodeValidationInfo
	if err := v.lifecycleField(chaincode, "ValidationInfo", &info); err != nil {
		return nil, err
	}
	if info.GetValidationPlugin() != builtinPlugin {
		return nil, faultf("validation plugin of chaincode "+chaincode, info.GetValidationPlugin(), "is not supported, must be %s", builtinPlugin)
	}
	var collections peer.CollectionConfigPackage
	if err := v.lifecycleField(chaincode, "Collections", &collections); err != nil {
		return nil, err
	}
	for _, c := range collections.GetConfig() {
		if s := c.GetStaticCollectionConfig(); s.GetBlockToLive() != 0 {
			return nil, faultf("collection "+s.GetName()+" of chaincode "+chaincode, fmt.Sprintf("kept for %d blocks", s.GetBlockToLive()),
				"is not supported: what has expired cannot be followed")
		}
	}
	d := &definition{collections: collections.GetConfig()}
	d.endorsement, d.says, err = v.channel.applicationPolicy(info.GetValidationParameter())
	return d, err
}

// lifecycleDefinition is Fabric's own chaincode for definitions.
func (v *Verifier) lifecycleDefinition() *definition {
	if p, ok := v.channel.policy(lifecyclePolicy); ok {
		return &definition{endorsement: p, says: lifecyclePolicy}
	}
	p := &implicitMeta{rule: "MAJORITY member", need: len(v.channel.orgs)/2 + 1}
	for id := range v.channel.orgs {
		p.of = append(p.of, memberOf(id))
	}
	return &definition{endorsement: p, says: "a majority of the organisations' members"}
}

func memberOf(mspID string) policy {
	return &signaturePolicy{
		rule:       &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: 0}},
		principals: []*principal{{role: &msp.MSPRole{MspIdentifier: mspID, Role: msp.MSPRole_MEMBER}}},
	}
}

// applicationPolicy reads the validation parameter of a definition. An unreadable one is a policy that nobody satisfies, as it is
// to a peer.
func (c *channel) applicationPolicy(encoded []byte) (p policy, says string, err error) {
	var a peer.ApplicationPolicy
	if err := proto.Unmarshal(encoded, &a); err != nil {
		return missing{}, "unreadable", nil
	}
	switch t := a.GetType().(type) {
	case *peer.ApplicationPolicy_ChannelConfigPolicyReference:
		says = t.ChannelConfigPolicyReference
		if p, ok := c.policy(says); ok {
			return p, says, nil
		}
	case *peer.ApplicationPolicy_SignaturePolicy:
		says = "its own signature policy"
		if p, err := newSignaturePolicy(t.SignaturePolicy); err == nil {
			return p, says, nil
		}
	}
	return missing{}, says, nil
}

// collectionPolicy returns what writes to a collection of private data need; ok is false when there is no such collection.
func (v *Verifier) collectionPolicy(d *definition, name string) (p policy, ok bool) {
	if id, implicit := strings.CutPrefix(name, implicitCollection); implicit {
		org, ok := v.channel.orgs[id]
		if !ok {
			return nil, false
		}
		if p, ok := v.channel.policy("/Channel/Application/" + org + "/Endorsement"); ok {
			return p, true
		}
		return memberOf(id), true
	}
	for _, c := range d.collections {
		s := c.GetStaticCollectionConfig()
		if s.GetName() != name {
			continue
		}
		if s.GetEndorsementPolicy() == nil {
			return d.endorsement, true
		}
		encoded, err := proto.Marshal(s.GetEndorsementPolicy())
		if err != nil {
			return missing{}, true
		}
		p, _, _ := v.channel.applicationPolicy(encoded)
		return p, true
	}
	return nil, false
}

func (v *Verifier) lifecycleField(chaincode, field string, into proto.Message) error {
	var data lifecycle.StateData
	if _, err := v.lifecycleState("namespaces/fields/"+chaincode+"/"+field, &data); err != nil {
		return err
	}
	if err := proto.Unmarshal(data.GetBytes(), into); err != nil {
		return fmt.Errorf("definition of chaincode %s: %s: %w", chaincode, field, err)
	}
	return nil
}

func (v *Verifier) lifecycleState(key string, into proto.Message) (found bool, err error) {
	encoded, err := v.store.Get(valueKey(key))
	if err != nil || encoded == nil {
		return false, err
	}
	if err := proto.Unmarshal(encoded, into); err != nil {
		return false, fmt.Errorf("%s: %s: %w", lifecycleNamespace, key, err)
	}
	return true, nil
}
