package chaincode

import (
	"crypto/sha256"
	"fmt"

	"github.com/transparency-dev/merkle/proof"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maxProof is the longest RFC 6962 section 2.1.2 proof between sizes of 64 bits.
const maxProof = 65

// anchorOperators records the head of an operators' log of a CA. A suspended CA goes on: what its operators do must not stay out of sight.
func anchorOperators(t *transaction, arg []byte) ([]byte, error) {
	var a wire.AnchorOperatorsArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkAnchor(&a); err != nil {
		return nil, err
	}
	key := wire.OperatorsKey(a.CAID, a.Name)
	values, err := t.admit(operators, wire.CAKey(a.CAID), key)
	if err != nil {
		return nil, err
	}
	if _, err := t.operatedCA(a.CAID, values[0]); err != nil {
		return nil, err
	}
	rec := &wire.OperatorsRecord{V: wire.Version, Head: a.Head, Time: t.now, Lost: a.Lost}
	if values[1] == nil {
		if err := checkFirstAnchor(&a); err != nil {
			return nil, err
		}
	} else {
		var old wire.OperatorsRecord
		if err := wire.Decode(values[1], &old); err != nil {
			return nil, corrupt(key, err)
		}
		if a.Head.Equal(old.Head) {
			return wire.Encode(&wire.AnchorOperatorsResult{V: wire.Version, Head: old.Head, Time: old.Time}), nil
		}
		if err := checkContinues(&a, &old.Head); err != nil {
			return nil, err
		}
		rec.Time = max(rec.Time, old.Time)
		if a.Lost == nil {
			rec.Lost = old.Lost
		}
	}
	t.put(key, wire.Encode(rec))
	return wire.Encode(&wire.AnchorOperatorsResult{V: wire.Version, Head: rec.Head, Time: rec.Time, Changed: true}), nil
}

// checkAnchor checks what can be checked without state.
func checkAnchor(a *wire.AnchorOperatorsArg) error {
	if err := wire.CheckOperatorsName(a.Name); err != nil {
		return invalid("name", fmt.Sprintf("%.64q", a.Name), "%v", err)
	}
	if err := checkOperatorsHead("head", &a.Head); err != nil {
		return err
	}
	if len(a.Proof) > maxProof {
		return invalid("proof", fmt.Sprintf("%d hashes", len(a.Proof)), "must have at most %d", maxProof)
	}
	for i, h := range a.Proof {
		if len(h) != sha256.Size {
			return invalid(fmt.Sprintf("proof[%d]", i), hexPrefix(h), "must be the %d octets of a hash", sha256.Size)
		}
	}
	if a.Lost == nil {
		return nil
	}
	if len(a.Proof) > 0 {
		return invalid("proof", fmt.Sprintf("%d hashes", len(a.Proof)), "must be empty for the first head of a generation, which continues no other")
	}
	return checkOperatorsHead("lost", a.Lost)
}

func checkOperatorsHead(field string, h *wire.OperatorsHead) error {
	if h.Size == 0 {
		return invalid(field+".size", "0", "must be at least 1: a log begins with a record")
	}
	if len(h.Root) != sha256.Size {
		return invalid(field+".root", hexPrefix(h.Root), "must be the %d octets of a hash", sha256.Size)
	}
	return nil
}

// checkFirstAnchor: on a ledger that has no head yet there is nothing to continue, and nothing to have lost.
func checkFirstAnchor(a *wire.AnchorOperatorsArg) error {
	if a.Lost != nil {
		return wire.Errorf(wire.FailedPrecondition, "lost", a.Lost.String(), "must not be set: no head of this log is anchored")
	}
	if len(a.Proof) > 0 {
		return wire.Errorf(wire.FailedPrecondition, "proof", fmt.Sprintf("%d hashes", len(a.Proof)), "must be empty: no head of this log is anchored")
	}
	return nil
}

// checkContinues: a log grows, and a generation begins only where the last one ended.
func checkContinues(a *wire.AnchorOperatorsArg, old *wire.OperatorsHead) error {
	if a.Lost != nil {
		if !a.Lost.Equal(*old) {
			return wire.Errorf(wire.FailedPrecondition, "lost", a.Lost.String(), "must be the newest anchored head, %s", old)
		}
		if old.Generation+1 == 0 || a.Head.Generation != old.Generation+1 {
			return wire.Errorf(wire.FailedPrecondition, "head.generation", fmt.Sprint(a.Head.Generation), "must be the one after %d", old.Generation)
		}
		return nil
	}
	if a.Head.Generation != old.Generation {
		return wire.Errorf(wire.FailedPrecondition, "head.generation", fmt.Sprint(a.Head.Generation),
			"must be that of the newest anchored head, %d; a new generation must name that head", old.Generation)
	}
	if a.Head.Size <= old.Size {
		return wire.Errorf(wire.FailedPrecondition, "head.size", fmt.Sprint(a.Head.Size), "must be more than that of the newest anchored head, %d: the log only grows", old.Size)
	}
	// RFC 6962 2.1.2
	if err := proof.VerifyConsistency(hasher, old.Size, a.Head.Size, a.Proof, old.Root, a.Head.Root); err != nil {
		return wire.Errorf(wire.FailedPrecondition, "proof", fmt.Sprintf("%d hashes", len(a.Proof)),
			"must show that the log contains the newest anchored head, %s: %v", old, err)
	}
	return nil
}
