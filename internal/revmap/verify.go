package revmap

import (
	"errors"
	"fmt"
)

// VerifyInclusion returns nil if p proves that the tree with this root has key, with a value whose SHA-256 is valueHash. The root
// must come from a source that the caller trusts.
func VerifyInclusion(root, key, valueHash [32]byte, p *Proof) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.kind != Inclusion {
		return fmt.Errorf("revmap: proof (%v): must be an inclusion proof", p.kind)
	}
	return p.leadsTo(&root, &key, leafHash(&Entry{key, valueHash}))
}

// VerifyAbsence returns nil if p proves that the tree with this root does not have key. The root must come from a source that the
// caller trusts.
func VerifyAbsence(root, key [32]byte, p *Proof) error {
	if err := p.check(); err != nil {
		return err
	}
	switch p.kind {
	case AbsentEmpty:
		return p.leadsTo(&root, &key, emptyHash)
	case AbsentOther:
		if p.other.Key == key {
			return fmt.Errorf("revmap: absence proof of key %x: its other leaf is that key's own", key[:])
		}
		// The climb puts the other leaf in key's place; by the rules it stands there only if it shares the place, the first Depth bits.
		if n := sharedBits(&p.other.Key, &key); n < len(p.siblings) {
			return fmt.Errorf("revmap: absence proof of key %x: key %x shares %d bits with it: must be at least %d", key[:], p.other.Key[:], n, len(p.siblings))
		}
		return p.leadsTo(&root, &key, leafHash(&p.other))
	}
	return fmt.Errorf("revmap: proof (%v): must be an absence proof", p.kind)
}

// check holds for every proof of ParseProof and Prove; the zero Proof and nil fail it.
func (p *Proof) check() error {
	if p == nil {
		return errors.New("revmap: no proof")
	}
	if err := checkShape(p.kind, len(p.siblings)); err != nil {
		return err
	}
	return p.checkEnd()
}

// leadsTo climbs from end, which stands where key's first Depth bits lead, and compares the result with root.
func (p *Proof) leadsTo(root, key *digest, end digest) error {
	h := end
	for i := len(p.siblings) - 1; i >= 0; i-- {
		if bit(key, i) == 0 {
			h = nodeHash(&h, &p.siblings[i])
		} else {
			h = nodeHash(&p.siblings[i], &h)
		}
	}
	if h != *root {
		return fmt.Errorf("revmap: proof (%v) of key %x leads to root %x: must be %x", p.kind, key[:], h[:], root[:])
	}
	return nil
}
