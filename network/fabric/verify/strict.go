package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

// DefaultSkew is how far claimed times may be off when certificates' validity is looked at. It is what peers tolerate at most unless
// configured otherwise (peer.authentication.timewindow): nobody's clock or claim may make an honest majority look wrong.
const DefaultSkew = 15 * time.Minute

// concerns tells whether a valid transaction is one that a majority had to endorse: it met the policy of the chaincode that is wanted,
// or changes a chaincode's definition. All others only have to be what Fabric takes for valid: one organisation can write to the
// implicit collections that every chaincode has, _lifecycle too, and must not be able to stop a verifier with that.
func (v *Verifier) concerns(t *transaction) bool {
	if t.action.in(lifecycleNamespace).public() > 0 {
		return true
	}
	n := t.action.in(v.cfg.Chaincode)
	return n.public() > 0 || t.action.chaincode == v.cfg.Chaincode && n.private() == 0
}

// checkStrictly holds a transaction that a peer takes for valid, and that concerns this verifier, to what Fabric leaves open. A lone
// submitter cannot make an honest majority endorse something that fails here.
func (v *Verifier) checkStrictly(t *transaction) error {
	if !v.concerns(t) {
		return nil
	}
	if !sameIdentity(t.proposer, t.submitter) {
		return faultf("creator", fmt.Sprintf("%d bytes", len(t.submitter)), "must be the identity for which endorsers executed the transaction")
	}
	if err := t.creator.validAt(t.at, v.cfg.Skew); err != nil && !v.cfg.AcceptExpired {
		return faultf("creator", t.creator.String(), "must have a certificate valid at the transaction's time %s: %v", t.at.UTC().Format(time.RFC3339), err)
	}
	if s := t.action.status; s < 200 || s >= 400 {
		return faultf("response.status", fmt.Sprint(s), "must be 200 to 399: honest endorsers do not sign a refusal")
	}
	if err := v.checkExpired(t); err != nil {
		return err
	}
	for _, n := range t.action.namespaces {
		if err := n.supported(); err != nil {
			return err
		}
	}
	return nil
}

// sameIdentity compares what endorsers saw as the creator with who signed the envelope. Fabric compares neither, it relies on the
// transaction ID, which covers both but not where one field ends and the next begins.
func sameIdentity(a, b []byte) bool {
	var x, y msp.SerializedIdentity
	return proto.Unmarshal(a, &x) == nil && proto.Unmarshal(b, &y) == nil && x.GetMspid() == y.GetMspid() && bytes.Equal(x.GetIdBytes(), y.GetIdBytes())
}

// checkExpired evaluates the endorsement policies again without endorsers whose certificates were not valid at the time: a peer only
// warns about its own.
func (v *Verifier) checkExpired(t *transaction) error {
	var out []string
	current := slices.DeleteFunc(slices.Clone(t.action.signers), func(id *identity) bool {
		err := id.validAt(t.at, v.cfg.Skew)
		if err != nil {
			out = append(out, fmt.Sprintf("%s: %v", id, err))
		}
		return err != nil
	})
	if len(out) == 0 || v.cfg.AcceptExpired {
		return nil
	}
	for _, r := range t.action.needs {
		if !r.policy.satisfied(current) {
			return faultf("endorsements", strings.Join(out, "; "), "must be by certificates valid at the transaction's time %s; without those %s is not satisfied",
				t.at.UTC().Format(time.RFC3339), r.policy)
		}
	}
	return nil
}

// supported refuses what no honest endorser of the contract makes: a key-level policy would replace the chaincode's.
func (n *namespace) supported() error {
	written := map[string]bool{}
	for _, w := range n.set.GetWrites() {
		if written[w.GetKey()] {
			return faultf("writes of "+n.name, fmt.Sprintf("%q", w.GetKey()), "must name each key once")
		}
		written[w.GetKey()] = true
	}
	metadata := len(n.set.GetMetadataWrites())
	for _, c := range n.collections {
		metadata += len(c.set.GetMetadataWrites())
		hashed := map[string]bool{}
		for _, w := range c.set.GetHashedWrites() {
			if hashed[string(w.GetKeyHash())] {
				return faultf("writes of "+n.name+"/"+c.name, fmt.Sprintf("%x", w.GetKeyHash()), "must name each key once")
			}
			hashed[string(w.GetKeyHash())] = true
		}
	}
	if metadata > 0 {
		return faultf("metadata writes of "+n.name, fmt.Sprint(metadata), "are not supported: a key-level endorsement policy would replace the chaincode's")
	}
	return nil
}
