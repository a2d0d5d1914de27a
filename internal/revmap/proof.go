package revmap

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Kind is what a proof shows, and its first octet.
type Kind byte

const (
	Inclusion   Kind = 1 // the path ends in the key's own leaf
	AbsentEmpty Kind = 2 // the path ends in an empty subtree
	AbsentOther Kind = 3 // the path ends in a subtree whose only entry is another key's
)

func (k Kind) String() string {
	switch k {
	case Inclusion:
		return "inclusion"
	case AbsentEmpty:
		return "absence, empty subtree"
	case AbsentOther:
		return "absence, other leaf"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

const proofHeader = 3 // kind, depth

// MaxProofSize bounds a marshalled proof, in octets. With a million entries, proofs have some 700.
const MaxProofSize = proofHeader + keyBits/8 + keyBits*sha256.Size + 2*sha256.Size

// Proof is an inclusion or absence proof for one key. Only Prove and ParseProof make usable ones; the zero Proof proves nothing.
// It is immutable.
type Proof struct {
	kind     Kind
	siblings []digest // from the root's children down; emptyHash where there is nothing
	other    Entry    // of AbsentOther
}

// Kind says what p claims to prove. Only VerifyInclusion or VerifyAbsence make it true.
func (p *Proof) Kind() Kind { return p.kind }

// Depth is the number of nodes above the end of the path.
func (p *Proof) Depth() int { return len(p.siblings) }

// Marshal encodes p as docs/revocation-map.md says.
func (p *Proof) Marshal() []byte {
	depth := len(p.siblings)
	bitmap := make([]byte, (depth+7)/8)
	var hashes []byte
	for i := range p.siblings {
		if p.siblings[i] != emptyHash {
			bitmap[i/8] |= 0x80 >> (i % 8)
			hashes = append(hashes, p.siblings[i][:]...)
		}
	}
	out := binary.BigEndian.AppendUint16([]byte{byte(p.kind)}, uint16(depth))
	out = append(append(out, bitmap...), hashes...)
	if p.kind == AbsentOther {
		out = append(append(out, p.other.Key[:]...), p.other.ValueHash[:]...)
	}
	return out
}

// ParseProof decodes a proof. It accepts only what Marshal gives: every proof has exactly one encoding.
func ParseProof(b []byte) (*Proof, error) {
	if len(b) < proofHeader || len(b) > MaxProofSize {
		return nil, fmt.Errorf("revmap: proof of %d octets: must be %d to %d", len(b), proofHeader, MaxProofSize)
	}
	p := &Proof{kind: Kind(b[0])}
	depth := int(binary.BigEndian.Uint16(b[1:]))
	if err := checkShape(p.kind, depth); err != nil {
		return nil, err
	}
	rest := b[proofHeader:]
	if len(rest) < (depth+7)/8 {
		return nil, fmt.Errorf("revmap: proof of %d octets: too short for the bitmap of depth %d", len(b), depth)
	}
	bitmap, rest := rest[:(depth+7)/8], rest[(depth+7)/8:]
	if n := depth % 8; n != 0 && bitmap[len(bitmap)-1]<<n != 0 {
		return nil, fmt.Errorf("revmap: proof: bitmap ends in %08b: bits after the first %d must be 0", bitmap[len(bitmap)-1], n)
	}
	p.siblings = make([]digest, depth)
	for i := range p.siblings {
		if bitmap[i/8]&(0x80>>(i%8)) == 0 {
			p.siblings[i] = emptyHash
			continue
		}
		if len(rest) < sha256.Size {
			return nil, fmt.Errorf("revmap: proof of %d octets: ends before sibling %d of %d", len(b), i+1, depth)
		}
		p.siblings[i], rest = digest(rest), rest[sha256.Size:]
		if p.siblings[i] == emptyHash {
			return nil, fmt.Errorf("revmap: proof: sibling %d of %d is the empty hash: must be a 0 in the bitmap", i+1, depth)
		}
	}
	if p.kind == AbsentOther {
		if len(rest) < 2*sha256.Size {
			return nil, fmt.Errorf("revmap: proof of %d octets: ends before the other leaf", len(b))
		}
		p.other.Key, p.other.ValueHash = digest(rest), digest(rest[sha256.Size:])
		rest = rest[2*sha256.Size:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("revmap: proof of %d octets: the last %d do not belong to it", len(b), len(rest))
	}
	if err := p.checkEnd(); err != nil {
		return nil, err
	}
	return p, nil
}

// checkShape bounds the depth. The key's own leaf may be below 256 nodes; an end that another key shares, or that has a
// sibling with two entries, cannot.
func checkShape(k Kind, depth int) error {
	limit := keyBits - 1
	switch k {
	case Inclusion:
		limit = keyBits
	case AbsentEmpty, AbsentOther:
	default:
		return fmt.Errorf("revmap: proof of kind %d: must be 1, 2 or 3", byte(k))
	}
	if depth > limit {
		return fmt.Errorf("revmap: proof (%v) of depth %d: must be at most %d", k, depth, limit)
	}
	return nil
}

// checkEnd refuses a proof deeper than needed: next to an empty subtree, a leaf would have risen to its parent's place, and two
// empty subtrees are one.
func (p *Proof) checkEnd() error {
	if d := len(p.siblings); d > 0 && p.siblings[d-1] == emptyHash {
		return fmt.Errorf("revmap: proof of depth %d: the last sibling is empty: the path must end above it", d)
	}
	return nil
}
