package ca

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
)

// TestKnownBadKeysAreNotCertified: package weakkey says what they are; here every way in goes past it.
func TestKnownBadKeysAreNotCertified(t *testing.T) {
	w := newWorld(t, nil)
	random := func(bits int) *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
		if err != nil {
			t.Fatal(err)
		}
		return n.SetBit(n.SetBit(n, 0, 1), bits-1, 1)
	}
	primorial := big.NewInt(1)
	for i := int64(2); i <= 701; i++ {
		if p := big.NewInt(i); p.ProbablyPrime(0) {
			primorial.Mul(primorial, p)
		}
	}
	// As ROCA's moduli it is a power of 65537 modulo each small prime: the zeroth.
	roca := random(2048)
	roca.Sub(roca, new(big.Int).Mod(roca, primorial)).Add(roca, big.NewInt(1))
	if roca.Bit(0) == 0 {
		roca.Add(roca, primorial)
	}
	// Two numbers with a distance of 2, without small factors.
	near, small := random(1024), new(big.Int).Mul(primorial, big.NewInt(709*719*727*733*739*743))
	near.SetBit(near, 1022, 1)
	closeBy := func() *big.Int { return new(big.Int).Mul(near, new(big.Int).Add(near, big.NewInt(2))) }
	for new(big.Int).GCD(nil, nil, closeBy(), small).Cmp(big.NewInt(1)) != 0 {
		near.Sub(near, big.NewInt(2))
	}
	good := rsaKey(t, 2048).Public().(*rsa.PublicKey).N
	tripled := new(big.Int).Lsh(big.NewInt(3), 2046) // and some more, to an odd multiple of three
	for tripled.Add(tripled, big.NewInt(3)); tripled.Bit(0) == 0; tripled.Add(tripled, big.NewInt(3)) {
	}
	refuses(t, w, []ruleCase{
		{"exponent 1", rsaCSR(t, good, 1), "csr.public_key", "RSA exponent 1", "65537"},
		{"exponent 3", rsaCSR(t, good, 3), "csr.public_key", "RSA exponent 3", "65537"},
		{"even exponent", rsaCSR(t, good, 65538), "csr.public_key", "RSA exponent 65538", "odd"},
		{"small factor", rsaCSR(t, tripled, 65537), "csr.public_key", "RSA modulus", "small prime factors"},
		{"ROCA", rsaCSR(t, roca, 65537), "csr.public_key", "RSA modulus", "CVE-2017-15361"},
		{"close primes", rsaCSR(t, closeBy(), 65537), "csr.public_key", "RSA modulus", "close together"},
		{"point off its curve", offCurve(t), "csr.public_key", "EC key", "P-256"},
	})
}

// rawCSR is a request for a key, with nobody's signature: the key is looked at first.
func rawCSR(t testing.TB, spki []byte) string {
	t.Helper()
	block, _ := pem.Decode([]byte(newCSR(t, nil)))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	type info struct {
		Version                  int
		Subject, Key, Attributes asn1.RawValue
	}
	der, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		info{0, asn1.RawValue{FullBytes: csr.RawSubject}, asn1.RawValue{FullBytes: spki}, asn1.RawValue{FullBytes: []byte{0xa0, 0}}},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: []byte{0}, BitLength: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE REQUEST", der)
}

func rsaCSR(t testing.TB, n *big.Int, e int) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: e})
	if err != nil {
		t.Fatal(err)
	}
	return rawCSR(t, spki)
}

func offCurve(t testing.TB) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(ecKey(t, elliptic.P256()).Public())
	if err != nil {
		t.Fatal(err)
	}
	spki = bytes.Clone(spki)
	spki[len(spki)-1] ^= 1
	return rawCSR(t, spki)
}
