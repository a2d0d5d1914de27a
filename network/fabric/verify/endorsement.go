package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

// definitions are the chaincode definitions in force for one block: those committed before it.
type definitions struct {
	verifier *Verifier

	mu    sync.Mutex // also keeps the store to one goroutine
	known map[string]*definition
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
		needs, v := defs.verifier.required(def, name, t.action.in(name))
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

// required lists the policies that what is written in a namespace has to satisfy: a collection's own, where it has one, and the
// chaincode's for the rest; the chaincode's too when nothing is written.
func (v *Verifier) required(d *definition, name string, n *namespace) ([]required, verdict) {
	own := required{d.endorsement, "chaincode " + name}
	var all []required
	if len(n.set.GetWrites()) > 0 || len(n.set.GetMetadataWrites()) > 0 {
		all = append(all, own)
	}
	for _, c := range n.collections {
		if len(c.set.GetHashedWrites()) == 0 && len(c.set.GetMetadataWrites()) == 0 {
			continue
		}
		p, ok := v.collectionPolicy(d, c.name)
		if !ok {
			return all, invalid(peer.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, "chaincode %s has no collection %s", name, c.name)
		}
		all = append(all, required{p, fmt.Sprintf("collection %s of chaincode %s", c.name, name)})
	}
	if len(all) == 0 {
		all = append(all, own)
	}
	return all, valid
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
