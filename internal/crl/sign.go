package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // of the signature algorithms below
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// algorithm is a signature algorithm as a CRL names it.
type algorithm struct {
	id   x509.SignatureAlgorithm
	hash crypto.Hash // 0: Ed25519, which signs the message itself
	der  []byte      // AlgorithmIdentifier, the one encoding that is accepted
}

// algorithms are those that are accepted; Build uses those without PSS. SHA-1 is not among them.
var algorithms = []algorithm{
	{x509.ECDSAWithSHA256, crypto.SHA256, unhex("300a06082a8648ce3d040302")}, // RFC 5758 section 3.2: no parameters
	{x509.ECDSAWithSHA384, crypto.SHA384, unhex("300a06082a8648ce3d040303")},
	{x509.ECDSAWithSHA512, crypto.SHA512, unhex("300a06082a8648ce3d040304")},
	{x509.SHA256WithRSA, crypto.SHA256, unhex("300d06092a864886f70d01010b0500")}, // RFC 4055 section 5: parameters are NULL
	{x509.SHA384WithRSA, crypto.SHA384, unhex("300d06092a864886f70d01010c0500")},
	{x509.SHA512WithRSA, crypto.SHA512, unhex("300d06092a864886f70d01010d0500")},
	{x509.PureEd25519, 0, unhex("300506032b6570")}, // RFC 8410 section 3: no parameters
	{x509.SHA256WithRSAPSS, crypto.SHA256, pss("01", "20")},
	{x509.SHA384WithRSAPSS, crypto.SHA384, pss("02", "30")},
	{x509.SHA512WithRSAPSS, crypto.SHA512, pss("03", "40")},
}

// pss is RSASSA-PSS with one hash for message and mask, and a salt of its length (RFC 4055 section 3.1).
func pss(hash, salt string) []byte {
	const oidHash = "06096086480165030402"
	return unhex("304106092a864886f70d01010a3034" + "a00f300d" + oidHash + hash + "0500" +
		"a11c301a06092a864886f70d010108300d" + oidHash + hash + "0500" + "a2030201" + salt)
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// algorithmFor chooses how key signs.
func algorithmFor(key crypto.Signer) (*algorithm, error) {
	id := x509.UnknownSignatureAlgorithm
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		id = x509.SHA256WithRSA
	case ed25519.PublicKey:
		id = x509.PureEd25519
	case *ecdsa.PublicKey:
		id = map[int]x509.SignatureAlgorithm{256: x509.ECDSAWithSHA256, 384: x509.ECDSAWithSHA384, 521: x509.ECDSAWithSHA512}[pub.Params().BitSize]
	}
	for i := range algorithms {
		if id != x509.UnknownSignatureAlgorithm && algorithms[i].id == id {
			return &algorithms[i], nil
		}
	}
	return nil, fmt.Errorf("crl: key: must be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519; is %T", key.Public())
}

func algorithmOf(der []byte) *algorithm {
	for i := range algorithms {
		if bytes.Equal(algorithms[i].der, der) {
			return &algorithms[i]
		}
	}
	return nil
}

func (a *algorithm) sign(key crypto.Signer, tbs []byte) ([]byte, error) {
	if a.hash == 0 {
		return key.Sign(rand.Reader, tbs, crypto.Hash(0))
	}
	h := a.hash.New()
	h.Write(tbs) // a hash never fails
	return key.Sign(rand.Reader, h.Sum(nil), a.hash)
}
