package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"google.golang.org/protobuf/proto"
)

// Policies and groups of a channel's configuration.
const (
	rootGroup       = "Channel"
	application     = "Application"
	ordering        = "Orderer"
	blockValidation = "/Channel/Orderer/BlockValidation"
)

// channel is one configuration of the channel.
type channel struct {
	id         string
	config     *common.Config
	root       *group
	identities *identities
	orgs       map[string]string // names of application organisations by MSP ID
	bft        bool
	consenters []*common.Consenter
	quorum     int // of consenters, if bft
}

// group is a group of the configuration with its policies.
type group struct {
	groups   map[string]*group
	policies map[string]policy
}

func newChannel(id string, config *common.Config) (*channel, error) {
	root := config.GetChannelGroup()
	if root == nil {
		return nil, errors.New("configuration without a channel group")
	}
	c := &channel{id: id, config: config, orgs: map[string]string{}}
	withEd25519, err := checkCapabilities(root)
	if err != nil {
		return nil, err
	}
	msps := map[string]*memberService{}
	configs := map[string][]byte{}
	for _, part := range []string{application, ordering} {
		for name, org := range root.GetGroups()[part].GetGroups() {
			m, err := orgMSP(org, configs, withEd25519)
			if err != nil {
				return nil, fmt.Errorf("organisation %s: %w", name, err)
			}
			msps[m.id] = m
			if part == application {
				c.orgs[m.id] = name
			}
		}
	}
	c.identities = newIdentities(msps)
	if c.root, err = newGroup(root); err != nil {
		return nil, err
	}
	return c, c.addOrderers(root.GetGroups()[ordering])
}

func orgMSP(org *common.ConfigGroup, seen map[string][]byte, withEd25519 bool) (*memberService, error) {
	var c msp.MSPConfig
	if err := proto.Unmarshal(org.GetValues()["MSP"].GetValue(), &c); err != nil {
		return nil, err
	}
	if c.GetType() != 0 {
		return nil, fmt.Errorf("MSP of type %d is not supported, must be 0 (X.509)", c.GetType())
	}
	m, err := newMemberService(c.GetConfig(), withEd25519)
	if err != nil {
		return nil, err
	}
	if other, ok := seen[m.id]; ok && !bytes.Equal(other, c.GetConfig()) {
		return nil, fmt.Errorf("MSP %s is defined twice and differently", m.id)
	}
	seen[m.id] = c.GetConfig()
	return m, nil
}

// checkCapabilities refuses channels whose rules are older than those of this package.
func checkCapabilities(root *common.ConfigGroup) (withEd25519 bool, err error) {
	has := func(of string, g *common.ConfigGroup, wanted ...string) (string, error) {
		var c common.Capabilities
		if err := proto.Unmarshal(g.GetValues()["Capabilities"].GetValue(), &c); err != nil {
			return "", err
		}
		for _, name := range wanted {
			if c.GetCapabilities()[name] != nil {
				return name, nil
			}
		}
		return "", fmt.Errorf("%s capabilities: none of %s, older rules are not supported", of, strings.Join(wanted, ", "))
	}
	level, err := has("channel", root, "V3_0", "V2_0", "V1_4_3")
	if err != nil {
		return false, err
	}
	_, err = has("application", root.GetGroups()[application], "V2_5", "V2_0")
	return level == "V3_0", err
}

// newGroup compiles the policies of a group and those below it.
func newGroup(g *common.ConfigGroup) (*group, error) {
	out := &group{groups: map[string]*group{}, policies: map[string]policy{}}
	for name, sub := range g.GetGroups() {
		compiled, err := newGroup(sub)
		if err != nil {
			return nil, fmt.Errorf("%s/%w", name, err)
		}
		out.groups[name] = compiled
	}
	for name, p := range g.GetPolicies() {
		compiled, err := out.compile(p.GetPolicy())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.policies[name] = compiled
	}
	return out, nil
}

func (g *group) compile(p *common.Policy) (policy, error) {
	switch common.Policy_PolicyType(p.GetType()) {
	case common.Policy_SIGNATURE:
		var e common.SignaturePolicyEnvelope
		if err := proto.Unmarshal(p.GetValue(), &e); err != nil {
			return nil, err
		}
		return newSignaturePolicy(&e)
	case common.Policy_IMPLICIT_META:
		var meta common.ImplicitMetaPolicy
		if err := proto.Unmarshal(p.GetValue(), &meta); err != nil {
			return nil, err
		}
		out := &implicitMeta{rule: fmt.Sprintf("%s %s", meta.GetRule(), meta.GetSubPolicy())}
		for _, sub := range g.groups {
			below, ok := sub.policies[meta.GetSubPolicy()]
			if !ok {
				below = missing{}
			}
			out.of = append(out.of, below)
		}
		switch n := len(out.of); {
		case n == 0: // Fabric: of nothing, nothing is enough
		case meta.GetRule() == common.ImplicitMetaPolicy_ANY:
			out.need = 1
		case meta.GetRule() == common.ImplicitMetaPolicy_ALL:
			out.need = n
		case meta.GetRule() == common.ImplicitMetaPolicy_MAJORITY:
			out.need = n/2 + 1
		}
		return out, nil
	default:
		return nil, fmt.Errorf("policy of type %d is not supported", p.GetType())
	}
}

// policy finds a policy by its path: absolute, as /Channel/Application/Endorsement, or relative to g.
func (g *group) policy(path string) (policy, bool) {
	parts := strings.Split(path, "/")
	for _, name := range parts[:len(parts)-1] {
		if g = g.groups[name]; g == nil {
			return nil, false
		}
	}
	p, ok := g.policies[parts[len(parts)-1]]
	return p, ok
}

func (c *channel) policy(path string) (policy, bool) {
	below, ok := strings.CutPrefix(path, "/"+rootGroup+"/")
	if !ok {
		return nil, false
	}
	return c.root.policy(below)
}

func (c *channel) addOrderers(g *common.ConfigGroup) error {
	var consensus orderer.ConsensusType
	if err := proto.Unmarshal(g.GetValues()["ConsensusType"].GetValue(), &consensus); err != nil {
		return fmt.Errorf("consensus type: %w", err)
	}
	if _, ok := c.policy(blockValidation); !ok {
		return fmt.Errorf("there is no policy %s", blockValidation)
	}
	if c.bft = consensus.GetType() == "BFT"; !c.bft {
		return nil
	}
	var orderers common.Orderers
	if err := proto.Unmarshal(g.GetValues()["Orderers"].GetValue(), &orderers); err != nil {
		return fmt.Errorf("consenters: %w", err)
	}
	c.consenters = orderers.GetConsenterMapping()
	n := len(c.consenters)
	if n == 0 {
		return errors.New("a BFT channel without consenters")
	}
	for i, a := range c.consenters {
		if slices.ContainsFunc(c.consenters[:i], func(b *common.Consenter) bool { return b.GetId() == a.GetId() }) {
			return fmt.Errorf("two consenters have number %d", a.GetId())
		}
	}
	c.quorum = bftQuorum(n)
	return nil
}

// bftQuorum is how many of n consenters sign a block: any two quorums share more than the f that may be hostile.
func bftQuorum(n int) int {
	f := (n - 1) / 3
	return (n + f + 2) / 2 // ceil((n+f+1)/2)
}

// consenter returns the serialized identity of a consenter, nil if there is none with that number.
func (c *channel) consenter(number uint32) []byte {
	for _, m := range c.consenters {
		if m.GetId() != number {
			continue
		}
		encoded, err := proto.Marshal(&msp.SerializedIdentity{Mspid: m.GetMspId(), IdBytes: m.GetIdentity()})
		if err != nil {
			return nil
		}
		return encoded
	}
	return nil
}
