package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

// policy is satisfied by certain sets of distinct identities.
type policy interface {
	satisfied(by []*identity) bool
	String() string
}

// implicitMeta is satisfied when enough of the policies of one name in the groups below are.
type implicitMeta struct {
	rule string
	need int
	of   []policy
}

func (p *implicitMeta) satisfied(by []*identity) bool {
	got := 0
	for _, sub := range p.of {
		if sub.satisfied(by) {
			got++
		}
	}
	return got >= p.need
}

func (p *implicitMeta) String() string {
	return fmt.Sprintf("%s (%d of %d)", p.rule, p.need, len(p.of))
}

// missing is a policy that a group does not have.
type missing struct{}

func (missing) satisfied([]*identity) bool { return false }
func (missing) String() string             { return "no such policy" }

// signaturePolicy counts principals among the signers.
type signaturePolicy struct {
	rule       *common.SignaturePolicy
	principals []*principal
}

func newSignaturePolicy(e *common.SignaturePolicyEnvelope) (policy, error) {
	if e.GetVersion() != 0 {
		return nil, fmt.Errorf("signature policy of version %d", e.GetVersion())
	}
	p := &signaturePolicy{rule: e.GetRule()}
	for _, encoded := range e.GetIdentities() {
		pr, err := newPrincipal(encoded)
		if err != nil {
			return nil, err
		}
		p.principals = append(p.principals, pr)
	}
	return p, p.check(p.rule)
}

func (p *signaturePolicy) check(rule *common.SignaturePolicy) error {
	switch r := rule.GetType().(type) {
	case *common.SignaturePolicy_SignedBy:
		if r.SignedBy < 0 || int(r.SignedBy) >= len(p.principals) {
			return fmt.Errorf("signature policy names principal %d of %d", r.SignedBy, len(p.principals))
		}
		return nil
	case *common.SignaturePolicy_NOutOf_:
		for _, sub := range r.NOutOf.GetRules() {
			if err := p.check(sub); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("signature policy with a rule of type %T", r)
	}
}

func (p *signaturePolicy) satisfied(by []*identity) bool {
	return p.evaluate(p.rule, by, make([]bool, len(by)))
}

// evaluate follows Fabric's order (common/cauthdsl): the first unused signer that fits is used up, and a failed rule uses none.
func (p *signaturePolicy) evaluate(rule *common.SignaturePolicy, by []*identity, used []bool) bool {
	if r, ok := rule.GetType().(*common.SignaturePolicy_SignedBy); ok {
		for i, id := range by {
			if !used[i] && p.principals[r.SignedBy].fits(id) {
				used[i] = true
				return true
			}
		}
		return false
	}
	got := int32(0)
	for _, sub := range rule.GetNOutOf().GetRules() {
		trial := slices.Clone(used)
		if p.evaluate(sub, by, trial) {
			copy(used, trial)
			got++
		}
	}
	return got >= rule.GetNOutOf().GetN()
}

func (p *signaturePolicy) String() string { return p.describe(p.rule) }

func (p *signaturePolicy) describe(rule *common.SignaturePolicy) string {
	if r, ok := rule.GetType().(*common.SignaturePolicy_SignedBy); ok {
		return p.principals[r.SignedBy].String()
	}
	var of []string
	for _, sub := range rule.GetNOutOf().GetRules() {
		of = append(of, p.describe(sub))
	}
	return fmt.Sprintf("%d of (%s)", rule.GetNOutOf().GetN(), strings.Join(of, ", "))
}

// principal is a condition on one identity: the conjunction of what is set.
type principal struct {
	role     *msp.MSPRole
	identity *msp.SerializedIdentity
	raw      []byte // certificate of identity
	unit     *msp.OrganizationUnit
	all      []*principal
	nobody   bool
}

func newPrincipal(encoded *msp.MSPPrincipal) (*principal, error) {
	p, content := &principal{}, encoded.GetPrincipal()
	switch c := encoded.GetPrincipalClassification(); c {
	case msp.MSPPrincipal_ROLE:
		p.role = &msp.MSPRole{}
		return p, proto.Unmarshal(content, p.role)
	case msp.MSPPrincipal_IDENTITY:
		p.identity = &msp.SerializedIdentity{}
		if err := proto.Unmarshal(content, p.identity); err != nil {
			return nil, err
		}
		cert, err := parsePEM(p.identity.GetIdBytes())
		if err != nil {
			return nil, fmt.Errorf("identity in a policy: %w", err)
		}
		p.raw = cert.Raw
		return p, nil
	case msp.MSPPrincipal_ORGANIZATION_UNIT:
		p.unit = &msp.OrganizationUnit{}
		return p, proto.Unmarshal(content, p.unit)
	case msp.MSPPrincipal_ANONYMITY:
		var a msp.MSPIdentityAnonymity
		if err := proto.Unmarshal(content, &a); err != nil {
			return nil, err
		}
		p.nobody = a.GetAnonymityType() != msp.MSPIdentityAnonymity_NOMINAL
		return p, nil
	case msp.MSPPrincipal_COMBINED:
		var combined msp.CombinedPrincipal
		if err := proto.Unmarshal(content, &combined); err != nil {
			return nil, err
		}
		if len(combined.GetPrincipals()) == 0 {
			return nil, errors.New("combined principal of nothing")
		}
		for _, part := range combined.GetPrincipals() {
			sub, err := newPrincipal(part)
			if err != nil {
				return nil, err
			}
			p.all = append(p.all, sub)
		}
		return p, nil
	default:
		return nil, fmt.Errorf("principal of class %v", c)
	}
}

func (p *principal) fits(id *identity) bool {
	switch {
	case p.role != nil:
		return p.role.GetMspIdentifier() == id.msp.id && hasRole(id, p.role.GetRole())
	case p.identity != nil:
		return p.identity.GetMspid() == id.msp.id && id.invalid == nil && bytes.Equal(p.raw, id.cert.Raw)
	case p.unit != nil:
		return p.unit.GetMspIdentifier() == id.msp.id && id.invalid == nil &&
			slices.Contains(id.cert.Subject.OrganizationalUnit, p.unit.GetOrganizationalUnitIdentifier()) &&
			bytes.Equal(certifierOf(id.chain[1:]), p.unit.GetCertifiersIdentifier())
	default:
		return !p.nobody && !slices.ContainsFunc(p.all, func(sub *principal) bool { return !sub.fits(id) })
	}
}

func hasRole(id *identity, role msp.MSPRole_MSPRoleType) bool {
	switch role {
	case msp.MSPRole_MEMBER:
		return id.invalid == nil
	case msp.MSPRole_ADMIN:
		named := slices.ContainsFunc(id.msp.admins, func(raw []byte) bool { return bytes.Equal(raw, id.cert.Raw) })
		return named || id.invalid == nil && id.msp.has(id, role)
	default:
		return id.invalid == nil && id.msp.has(id, role)
	}
}

func (p *principal) String() string {
	switch {
	case p.role != nil:
		return p.role.GetMspIdentifier() + "." + strings.ToLower(p.role.GetRole().String())
	case p.identity != nil:
		return "an identity of " + p.identity.GetMspid()
	case p.unit != nil:
		return p.unit.GetMspIdentifier() + "/" + p.unit.GetOrganizationalUnitIdentifier()
	default:
		return fmt.Sprint(p.all)
	}
}
