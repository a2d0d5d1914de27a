package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// definitions are the chaincode definitions in force for one block: those committed before it.
type definitions struct {
	verifier *Verifier

	mu    sync.Mutex // also keeps the store to one goroutine
	known map[string]*definition
	keyed map[string]bool // namespaces that are known to have, or not, keys with policies
}

func (d *definitions) of(chaincode string) (*definition, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if def, ok := d.known[chaincode]; ok {
		return def, nil
	}
	def, err := d.verifier.definition(chaincode)
	if err == nil {
		d.known[chaincode] = def
	}
	return def, err
}

// policyOf returns the policy that a key had of its own before the block, nil if it had none.
func (d *definitions) policyOf(k stateKey) (policy, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	encoded, err := keyPolicy(d.verifier.store, d.keyed, k)
	if err != nil || len(encoded) == 0 {
		return nil, err
	}
	var e common.SignaturePolicyEnvelope
	if err := proto.Unmarshal(encoded, &e); err != nil {
		return nil, faultf("endorsement policy of "+k.String(), fmt.Sprintf("%d bytes", len(encoded)), "must be readable, a peer stops at it: %v", err)
	}
	p, err := newSignaturePolicy(&e)
	if err != nil {
		return missing{}, nil
	}
	return p, nil
}

// required is a policy that a transaction's endorsers have to satisfy.
type required struct {
	policy policy
	of     string // whose policy it is
}

// checkEndorsements decides whether enough endorsers signed, for the chaincode called and for each that the transaction writes to
// (Fabric: plugindispatcher and the built-in validation of application capability V2_0). Which of several failures a peer
// reports is not determined; verdicts has all.
func (c *channel) checkEndorsements(t *transaction, defs *definitions) (verdicts []verdict, err error) {
	if v := t.readResults(); v != valid {
		return []verdict{v}, nil
	}
	set := make([]signed, len(t.action.by))
	for i, e := range t.action.by {
		set[i] = signed{e.GetEndorser(), bytes.Join([][]byte{t.action.payload, e.GetEndorser()}, nil), e.GetSignature()}
	}
	t.action.signers = c.identities.signers(set)
	for _, name := range t.action.toCheck() {
		def, err := defs.of(name)
		if err != nil {
			return nil, err
		}
		if def == nil {
			verdicts = append(verdicts, invalid(peer.TxValidationCode_INVALID_CHAINCODE, "chaincode %s is not defined", name))
			continue
		}
		needs, v, err := defs.required(def, name, t.action.in(name))
		if err != nil {
			return nil, err
		}
		for _, r := range needs {
			if v == valid && !r.policy.satisfied(t.action.signers) {
				v = invalid(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, "%d of %d endorsements verify (%s), %s needs %s",
					len(t.action.signers), len(set), names(t.action.signers), r.of, r.policy)
			}
		}
		if v != valid {
			verdicts = append(verdicts, v)
		}
		t.action.needs = append(t.action.needs, needs...)
	}
	if len(verdicts) == 0 {
		verdicts = []verdict{valid}
	}
	return verdicts, nil
}

// toCheck names the chaincode called and those written to.
func (e *endorsed) toCheck() []string {
	all := []string{e.chaincode}
	for _, n := range e.namespaces {
		if n.writes() && n.name != e.chaincode {
			all = append(all, n.name)
		}
	}
	slices.Sort(all)
	return all
}

func (e *endorsed) in(name string) *namespace {
	for _, n := range e.namespaces {
		if n.name == name {
			return n
		}
	}
	return &namespace{name: name}
}

// required lists the policies that what is written in a namespace has to satisfy: a key's own, where it has one, else its collection's,
// else the chaincode's; the chaincode's too when nothing is written (Fabric: statebased, baseEvaluator and policyCheckerV20).
func (d *definitions) required(def *definition, name string, n *namespace) (all []required, v verdict, err error) {
	own := required{def.endorsement, "chaincode " + name}
	rest := func(of required, keys []stateKey) error {
		needed := false
		for _, k := range keys {
			p, err := d.policyOf(k)
			if err != nil {
				return err
			}
			if p == nil {
				needed = true
				continue
			}
			all = append(all, required{p, "key " + k.String()})
		}
		if needed {
			all = append(all, of)
		}
		return nil
	}
	if err := rest(own, n.keys()); err != nil {
		return nil, valid, err
	}
	for _, c := range n.collections {
		keys := c.keys(n)
		if len(keys) == 0 {
			continue
		}
		p, ok := d.verifier.collectionPolicy(def, c.name)
		if !ok {
			return all, invalid(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, "chaincode %s has no collection %s", name, c.name), nil
		}
		if err := rest(required{p, fmt.Sprintf("collection %s of chaincode %s", c.name, name)}, keys); err != nil {
			return nil, valid, err
		}
	}
	if len(all) == 0 {
		all = append(all, own)
	}
	return all, valid, nil
}

// keys lists what is written, values and metadata.
func (n *namespace) keys() []stateKey {
	var all []stateKey
	for _, w := range n.set.GetWrites() {
		all = append(all, n.key(w.GetKey()))
	}
	return append(all, n.policied()...)
}

func (c *collection) keys(of *namespace) []stateKey {
	var all []stateKey
	for _, w := range c.set.GetHashedWrites() {
		all = append(all, c.key(of, w.GetKeyHash()))
	}
	return append(all, c.policied(of)...)
}

// policied lists the keys that are given metadata, and so maybe a policy.
func (n *namespace) policied() []stateKey {
	var all []stateKey
	for _, w := range n.set.GetMetadataWrites() {
		all = append(all, n.key(w.GetKey()))
	}
	return all
}

func (c *collection) policied(of *namespace) []stateKey {
	var all []stateKey
	for _, w := range c.set.GetMetadataWrites() {
		all = append(all, c.key(of, w.GetKeyHash()))
	}
	return all
}

// settlePolicies refuses a transaction that writes a key whose policy an earlier one of the block may change, which a peer finds out
// before it looks at versions (Fabric: ValidationParameterUpdatedError). changing has the keys of the earlier ones.
func (e *endorsed) settlePolicies(changing map[stateKey]bool) verdict {
	var mine []stateKey
	for _, n := range e.namespaces {
		keys := n.keys()
		mine = append(mine, n.policied()...)
		for _, c := range n.collections {
			keys = append(keys, c.keys(n)...)
			mine = append(mine, c.policied(n)...)
		}
		for _, k := range keys {
			if changing[k] {
				return invalid(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, "an earlier transaction of the block changes the policy of %s", k)
			}
		}
	}
	for _, k := range mine {
		changing[k] = true
	}
	return valid
}

func names(ids []*identity) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = id.String()
		if id.invalid != nil {
			all[i] = "not accepted: " + id.invalid.Error()
		}
	}
	return strings.Join(all, ", ")
}
