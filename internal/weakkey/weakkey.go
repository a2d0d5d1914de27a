// Package weakkey finds public keys whose private keys others can find, or that are not keys at all: too small, of a bad exponent, with factors that are
// small or close together, with the structure that ROCA leaves (CVE-2017-15361), not on their curve, or on a list of known keys such
// as Debian's of 2008 (CVE-2008-0166).
//
// What it does not find may be weak all the same: no check of a public key alone shows that two primes are random.
package weakkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
)

// Bounds of RSA keys that are taken, in bits.
const (
	MinRSABits = 2048
	MaxRSABits = 8192
	minE       = 65537
)

// KeyRule says which kinds of keys are taken.
const KeyRule = "must be RSA of 2048 to 8192 bits or ECDSA on P-256 or P-384"

// Error says what is wrong with a key.
type Error struct {
	Key  string // what it is, for people
	Rule string
}

func (e *Error) Error() string { return e.Key + ": " + e.Rule }

func weak(key, rule string) error { return &Error{Key: key, Rule: rule} }

// Check refuses a key that is weak, or of a kind that is not taken: P-521 and Ed25519 are left out on purpose. Part of the software that relies
// on certificates (browsers among it) does not take them, and a certificate that works for some is worse than a refusal. Errors are *Error.
func Check(pub crypto.PublicKey) error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		return checkRSA(key)
	case *ecdsa.PublicKey:
		return checkEC(key)
	}
	return weak(fmt.Sprintf("%T", pub), KeyRule)
}

func checkRSA(key *rsa.PublicKey) error {
	if key.N == nil || key.N.Sign() <= 0 {
		return weak("RSA modulus", "must be positive")
	}
	// Whole octets and the exponent: SP 800-56B section 6.4.1, which CABF's requirements repeat.
	n := key.N.BitLen()
	switch {
	case n < MinRSABits || n > MaxRSABits || n%8 != 0:
		return weak(fmt.Sprintf("RSA %d", n), KeyRule)
	case key.E < minE || key.E%2 == 0:
		return weak(fmt.Sprintf("RSA exponent %d", key.E), "must be odd and at least 65537")
	case smallFactor(key.N):
		return weak("RSA modulus", "must not have small prime factors")
	case roca(key.N):
		return weak("RSA modulus", "must not have the structure of keys that can be factored (ROCA, CVE-2017-15361): make it with other hardware or software")
	case closePrimes(key.N):
		return weak("RSA modulus", "must not be the product of primes so close together that Fermat's method finds them")
	}
	return nil
}

func checkEC(key *ecdsa.PublicKey) error {
	if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
		name := "an unknown curve"
		if key.Curve != nil {
			name = key.Curve.Params().Name
		}
		return weak("ECDSA "+name, KeyRule)
	}
	if _, err := key.ECDH(); err != nil { // RFC 8422 section 5.11: the point must be on the curve
		return weak("ECDSA "+key.Curve.Params().Name, "must be a point on its curve, and not the one at infinity")
	}
	if point, err := key.Bytes(); err == nil && string(point[1:1+(key.Curve.Params().BitSize+7)/8]) == string(key.Curve.Params().Gx.FillBytes(make([]byte, (key.Curve.Params().BitSize+7)/8))) {
		return weak("ECDSA "+key.Curve.Params().Name, "must not be the curve's base point: its private key is 1")
	}
	return nil
}

// smallFactor finds a prime factor below 752, SP 800-89 section 5.3.3.
func smallFactor(n *big.Int) bool {
	return new(big.Int).GCD(nil, nil, n, smallPrimes).Cmp(big.NewInt(1)) != 0
}

// smallPrimes is the product of all primes below 752.
var smallPrimes = func() *big.Int {
	p := big.NewInt(1)
	for _, prime := range primesBelow(752) {
		p.Mul(p, new(big.Int).SetUint64(prime))
	}
	return p
}()

func primesBelow(n int64) (primes []uint64) {
	for i := int64(2); i < n; i++ {
		if big.NewInt(i).ProbablyPrime(0) { // exact below 2^64
			primes = append(primes, uint64(i))
		}
	}
	return primes
}

// rocaGroups has, of each prime p from 11 to 167, the residues that the powers of 65537 have modulo p, where these are not all of them. The primes
// of the keys concerned are k*M + (65537^a mod M) with M a primorial (Nemec et al., "The Return of Coppersmith's Attack", 2017, section 2.1), and
// so their products are powers of 65537 modulo each p too. Of random moduli one in 2^28 or so is.
var rocaGroups = func() (groups []rocaGroup) {
	for _, p := range primesBelow(168) {
		if p < 11 {
			continue
		}
		in := make([]bool, p)
		size := uint64(0)
		for x := uint64(1); !in[x]; x = x * 65537 % p {
			in[x] = true
			size++
		}
		if size < p-1 {
			groups = append(groups, rocaGroup{p, in})
		}
	}
	return groups
}()

type rocaGroup struct {
	prime uint64
	in    []bool
}

func roca(n *big.Int) bool {
	var r, p big.Int
	for _, g := range rocaGroups {
		if !g.in[r.Mod(n, p.SetUint64(g.prime)).Uint64()] {
			return false
		}
	}
	return true
}

// fermatRounds is how many differences of the primes are tried. Primes that were drawn independently differ in their first bits; those that need a
// round of this were made by searching from one for the other.
const fermatRounds = 100

// closePrimes is Fermat's method: n = a^2 - b^2 = (a-b)(a+b), for a from the root of n upwards.
func closePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return true
	}
	a.Add(a, big.NewInt(1))
	square := new(big.Int).Mul(a, a)
	square.Sub(square, n) // b^2, if this is the right a
	var step, root big.Int
	for range fermatRounds {
		if maySquare(square) {
			root.Sqrt(square)
			if root.Mul(&root, &root).Cmp(square) == 0 {
				return true
			}
		}
		// (a+1)^2 - n = a^2 - n + 2a + 1
		step.Lsh(a, 1)
		square.Add(square, step.Add(&step, one))
		a.Add(a, one)
	}
	return false
}

var one = big.NewInt(1)

// maySquare spares most numbers that are no squares the root: a square has one of 12 residues modulo 64, and of 16, 21 and 6 modulo 63, 65 and 11.
func maySquare(n *big.Int) bool {
	if !squares[0].in[n.Bit(0)|n.Bit(1)<<1|n.Bit(2)<<2|n.Bit(3)<<3|n.Bit(4)<<4|n.Bit(5)<<5] {
		return false
	}
	var r big.Int
	rest := r.Mod(n, squareModulus).Uint64()
	for _, s := range squares[1:] {
		if !s.in[rest%s.prime] {
			return false
		}
	}
	return true
}

var (
	squareModulus = big.NewInt(63 * 65 * 11)
	squares       = func() (all []rocaGroup) {
		for _, m := range []uint64{64, 63, 65, 11} {
			in := make([]bool, m)
			for x := range m {
				in[x*x%m] = true
			}
			all = append(all, rocaGroup{m, in})
		}
		return all
	}()
)
