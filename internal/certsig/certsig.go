// Package certsig verifies certificates' signatures, each one once.
//
// A signature by a CA takes a tenth of a millisecond to verify, more than all else that is done for a certificate, and the same
// one is asked about several times: by whoever takes a submission, by the contract when it runs in the same process, and by the contract
// again when a transaction is endorsed anew. What verified is remembered by digest; what did not is not.
package certsig

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
)

// generation is how many signatures each of two generations of the memory has: the older one is dropped when the younger is full.
const generation = 8192

// verified is the memory. It changes nothing but how long Check takes.
var verified struct {
	mu           sync.Mutex
	young, older map[[sha256.Size]byte]struct{} // guarded by mu
}

// Check is x509.Certificate.CheckSignatureFrom.
func Check(child, issuer *x509.Certificate) error {
	key := digest(child.Raw, issuer.Raw)
	if known(key) {
		return nil
	}
	if err := child.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	remember(key)
	return nil
}

// digest binds both certificates, octet for octet.
func digest(child, issuer []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(child)))
	h.Write(length[:])
	h.Write(child)
	h.Write(issuer)
	h.Sum(sum[:0])
	return sum
}

func known(key [sha256.Size]byte) bool {
	v := &verified
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.young[key]; ok {
		return true
	}
	_, ok := v.older[key]
	return ok
}

func remember(key [sha256.Size]byte) {
	v := &verified
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.young == nil || len(v.young) >= generation {
		v.older, v.young = v.young, make(map[[sha256.Size]byte]struct{}, generation)
	}
	v.young[key] = struct{}{}
}
