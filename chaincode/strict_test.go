package chaincode_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// The tests of this file build certificates that x509.CreateCertificate would not.

// elements splits the contents of a SEQUENCE.
func elements(t testing.TB, sequence []byte) [][]byte {
	t.Helper()
	input := cryptobyte.String(sequence)
	var inner cryptobyte.String
	if !input.ReadASN1(&inner, cbasn1.SEQUENCE) {
		t.Fatal("not a SEQUENCE")
	}
	var out [][]byte
	for !inner.Empty() {
		var e cryptobyte.String
		if !inner.ReadAnyASN1Element(&e, new(cbasn1.Tag)) {
			t.Fatal("malformed SEQUENCE")
		}
		out = append(out, e)
	}
	return out
}

func sequence(elements ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(elements, nil)) })
	return b.BytesOrPanic()
}

// resign returns cert with other fields in its TBSCertificate, signed again with a P-256 or Ed25519 key.
func resign(t testing.TB, key crypto.Signer, cert []byte, change func([][]byte) [][]byte) []byte {
	t.Helper()
	parts := elements(t, cert)
	tbs := sequence(change(elements(t, parts[0]))...)
	message, hash := tbs, crypto.Hash(0)
	if _, ok := key.(ed25519.PrivateKey); !ok {
		digest := sha256.Sum256(tbs)
		message, hash = digest[:], crypto.SHA256
	}
	signature, err := key.Sign(rand.Reader, message, hash)
	if err != nil {
		t.Fatal(err)
	}
	var bits cryptobyte.Builder
	bits.AddASN1BitString(signature)
	return sequence(tbs, parts[1], bits.BytesOrPanic())
}

var null = []byte{5, 0}

// junkAfterExtensions adds data behind the list of extensions, inside the [3] around it, where crypto/x509 does not look.
func junkAfterExtensions(t testing.TB) func([][]byte) [][]byte {
	return func(tbs [][]byte) [][]byte {
		last := len(tbs) - 1
		list := elements(t, append([]byte{0x30}, tbs[last][1:]...))
		tbs[last] = append([]byte{0xa3}, sequence(append(list, null)...)[1:]...)
		return tbs
	}
}

func TestIssueRefusesDataThatParsersSkip(t *testing.T) {
	l, ca := withCA(t)
	plain, _ := ca.Issue(t)
	parts := elements(t, plain)
	same := resign(t, ca.Key, plain, func(tbs [][]byte) [][]byte { return tbs })
	for _, c := range []struct {
		name, field, word string
		der               []byte
	}{
		{"after the extensions", "certs[0]", "and no more", resign(t, ca.Key, plain, func(tbs [][]byte) [][]byte { return append(tbs, null) })},
		{"after the list of extensions", "certs[0]", "and no more", resign(t, ca.Key, plain, junkAfterExtensions(t))},
		{"after the signature", "certs[0]", "and no more", sequence(append(parts, null)...)},
		{"unused bits in the signature", "certs[0]", "and no more", sequence(parts[0], parts[1], []byte{3, 3, 1, 0x30, 0})},
		{"version 1", "certs[0].version", "must be 3", resign(t, ca.Key, plain, func(tbs [][]byte) [][]byte { return tbs[1 : len(tbs)-1] })},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := x509.ParseCertificate(c.der); err != nil {
				t.Fatalf("crypto/x509 refuses it by now: %v", err)
			}
			refused(t, l, op1, wire.FnIssue, ca.IssueArg(c.der), wire.InvalidArgument, c.field, c.word)
		})
	}
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(same))
}

// One TBSCertificate with two signatures is two certificates.
func TestSecondSignatureIsAnotherCertificate(t *testing.T) {
	l, ca := withCA(t)
	plain, _ := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(plain))
	again := resign(t, ca.Key, plain, func(tbs [][]byte) [][]byte { return tbs })
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(again), wire.AlreadyExists, "certs[0].serial", "another certificate")
}

func TestRegisterCARefusesOddCertificates(t *testing.T) {
	ca := cctest.NewCA(t)
	// id-Ed448 in place of id-ecPublicKey: a key that crypto/x509 does not know.
	ed448 := resign(t, ca.Key, ca.DER, func(tbs [][]byte) [][]byte {
		var algorithm cryptobyte.Builder
		algorithm.AddASN1ObjectIdentifier([]int{1, 3, 101, 113})
		tbs[6] = sequence(sequence(algorithm.BytesOrPanic()), elements(t, tbs[6])[1])
		return tbs
	})
	// The same key in other octets, which crypto/x509 reads all the same: it would be another CA on the ledger.
	withJunk := func(inside func(algorithm, key []byte) []byte) []byte {
		return resign(t, ca.Key, ca.DER, func(tbs [][]byte) [][]byte {
			spki := elements(t, tbs[6])
			tbs[6] = inside(spki[0], spki[1])
			return tbs
		})
	}
	afterKey := withJunk(func(algorithm, key []byte) []byte { return sequence(algorithm, key, null) })
	afterAlgorithm := withJunk(func(algorithm, key []byte) []byte {
		return sequence(sequence(append(elements(t, algorithm), null)...), key)
	})
	long := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 160) }))
	zero := resign(t, ca.Key, ca.DER, func(tbs [][]byte) [][]byte { tbs[1] = []byte{2, 1, 0}; return tbs })
	spoiled := resign(t, cctest.NewKey(t), ca.DER, func(tbs [][]byte) [][]byte { return tbs })
	for _, c := range []struct {
		name, field, word string
		der               []byte
	}{
		{"unknown kind of key", "cert.public_key", "P-256", ed448},
		{"data after the key", "cert.public_key", "nothing added", afterKey},
		{"data after the key's algorithm", "cert.public_key", "nothing added", afterAlgorithm},
		{"serial of 21 octets", "cert.serial", "20 octets", long.DER},
		{"serial 0", "cert.serial", "positive", zero},
		{"self-signature of another key", "cert", "self-signed", spoiled},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := x509.ParseCertificate(c.der); err != nil {
				t.Fatalf("crypto/x509 refuses it by now: %v", err)
			}
			refused(t, founded(t), admin1, wire.FnRegisterCA, registration("Org1MSP", c.der), wire.InvalidArgument, c.field, c.word)
		})
	}
}
