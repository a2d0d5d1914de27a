package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlg is one way to sign.
type signatureAlg struct {
	alg  x509.SignatureAlgorithm
	oid  asn1.ObjectIdentifier
	hash crypto.Hash // 0: the message itself is signed
	kind algKind
	der  []byte // AlgorithmIdentifier, as it is written
	// alternative is another encoding that RFC 4055 has readers accept; nil if there is none.
	alternative []byte
}

type algKind int

const (
	ecdsaAlg algKind = iota
	pkcs1Alg
	pssAlg
	ed25519Alg
)

var (
	oidPSS    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidRSA    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEdDSA  = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidCurves = []struct {
		curve elliptic.Curve
		oid   asn1.ObjectIdentifier
	}{
		{elliptic.P256(), asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}},
		{elliptic.P384(), asn1.ObjectIdentifier{1, 3, 132, 0, 34}},
		{elliptic.P521(), asn1.ObjectIdentifier{1, 3, 132, 0, 35}},
	}
)

// signatureAlgs is in the order in which an RSA key prefers them; keyAlgs has that of ECDSA keys.
var signatureAlgs = func() []signatureAlg {
	algs := []signatureAlg{
		{alg: x509.ECDSAWithSHA256, oid: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, hash: crypto.SHA256, kind: ecdsaAlg},
		{alg: x509.ECDSAWithSHA384, oid: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, hash: crypto.SHA384, kind: ecdsaAlg},
		{alg: x509.ECDSAWithSHA512, oid: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, hash: crypto.SHA512, kind: ecdsaAlg},
		{alg: x509.SHA256WithRSA, oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, hash: crypto.SHA256, kind: pkcs1Alg},
		{alg: x509.SHA384WithRSA, oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, hash: crypto.SHA384, kind: pkcs1Alg},
		{alg: x509.SHA512WithRSA, oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, hash: crypto.SHA512, kind: pkcs1Alg},
		{alg: x509.SHA256WithRSAPSS, oid: oidPSS, hash: crypto.SHA256, kind: pssAlg},
		{alg: x509.SHA384WithRSAPSS, oid: oidPSS, hash: crypto.SHA384, kind: pssAlg},
		{alg: x509.SHA512WithRSAPSS, oid: oidPSS, hash: crypto.SHA512, kind: pssAlg},
		{alg: x509.PureEd25519, oid: oidEdDSA, kind: ed25519Alg},
	}
	for i := range algs {
		a := &algs[i]
		a.der = a.identifier(true)
		if a.kind == pssAlg {
			a.alternative = a.identifier(false)
		}
	}
	return algs
}()

// identifier is the AlgorithmIdentifier. RFC 5758 section 3.2 and RFC 8410 section 3: ECDSA and Ed25519 have no parameters; RFC
// 4055 section 5: RSA has NULL; section 3.1: RSASSA-PSS has RSASSA-PSS-params, whose hashes have NULL or (hashNull false) none.
func (a *signatureAlg) identifier(hashNull bool) []byte {
	hash := func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidOf(a.hash))
			if hashNull {
				addNull(b)
			}
		})
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		switch a.kind {
		case pkcs1Alg:
			addNull(b)
		case pssAlg:
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(explicit0, hash)
				b.AddASN1(explicit1, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidMGF1)
						hash(b)
					})
				})
				b.AddASN1(explicit2, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(a.hash.Size())) })
			})
		}
	})
	return b.BytesOrPanic()
}

var (
	p256Algs = []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}
	p384Algs = []x509.SignatureAlgorithm{x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.ECDSAWithSHA256}
	p521Algs = []x509.SignatureAlgorithm{x509.ECDSAWithSHA512, x509.ECDSAWithSHA384, x509.ECDSAWithSHA256}
	rsaAlgs  = []x509.SignatureAlgorithm{
		x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	}
	edAlgs = []x509.SignatureAlgorithm{x509.PureEd25519}
)

// keyAlgs are the algorithms that a key signs with, its default first; nil for a key that is not signed with here.
func keyAlgs(pub crypto.PublicKey) []x509.SignatureAlgorithm {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return p256Algs
		case elliptic.P384():
			return p384Algs
		case elliptic.P521():
			return p521Algs
		}
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return rsaAlgs
		}
	case ed25519.PublicKey:
		return edAlgs
	}
	return nil
}

// Algorithms returns what a key can sign with, its default first. Errors: as CheckSigner.
func Algorithms(pub crypto.PublicKey) ([]x509.SignatureAlgorithm, error) {
	if algs := keyAlgs(pub); algs != nil {
		return slices.Clone(algs), nil
	}
	return nil, CheckSigner(pub)
}

// CheckSigner tells whether messages can be signed with this kind of key: ECDSA P-256, P-384 or P-521, RSA of 2048 bits or
// more, or Ed25519.
func CheckSigner(pub crypto.PublicKey) error {
	if keyAlgs(pub) != nil {
		return nil
	}
	what := fmt.Sprintf("%T", pub)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		what = "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		what = fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return fmt.Errorf("ocsp: signing key is %s: must be ECDSA P-256, P-384 or P-521, RSA of at least 2048 bits, or Ed25519", what)
}

// ChooseAlgorithm returns the first of a client's preferences that key can satisfy, or else key's default (RFC 6960 section
// 4.4.7.2). It does not allocate when there are no preferences. Errors: as CheckSigner.
func ChooseAlgorithm(key crypto.PublicKey, prefs []PreferredAlgorithm) (x509.SignatureAlgorithm, error) {
	algs := keyAlgs(key)
	if algs == nil {
		return 0, CheckSigner(key)
	}
	for _, p := range prefs {
		if slices.Contains(algs, p.Signature) && p.allows(key) {
			return p.Signature, nil
		}
	}
	return algs[0], nil
}

func algorithm(alg x509.SignatureAlgorithm) *signatureAlg {
	for i := range signatureAlgs {
		if signatureAlgs[i].alg == alg {
			return &signatureAlgs[i]
		}
	}
	return nil
}

// signWith signs msg by key with one of the key's algorithms.
func signWith(key crypto.Signer, alg x509.SignatureAlgorithm, msg []byte) (*signatureAlg, []byte, error) {
	algs := keyAlgs(key.Public())
	if algs == nil {
		return nil, nil, CheckSigner(key.Public())
	}
	if !slices.Contains(algs, alg) {
		return nil, nil, fmt.Errorf("ocsp: signature algorithm is %v: must be one of the key's, %v", alg, algs)
	}
	a := algorithm(alg)
	if a.hash != 0 {
		msg = sum(a.hash, msg)
	}
	opts := crypto.SignerOpts(a.hash)
	if a.kind == pssAlg {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	sig, err := key.Sign(rand.Reader, msg, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("ocsp: sign with %v: %w", alg, err)
	}
	return a, sig, nil
}

// algOf reads a signature's AlgorithmIdentifier. Parameters must be exactly as the algorithm's RFC has them.
func algOf(der []byte) (x509.SignatureAlgorithm, error) {
	for i := range signatureAlgs {
		if a := &signatureAlgs[i]; bytes.Equal(a.der, der) || a.alternative != nil && bytes.Equal(a.alternative, der) {
			return a.alg, nil
		}
	}
	var (
		s    = cryptobyte.String(der)
		body cryptobyte.String
		oid  asn1.ObjectIdentifier
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1ObjectIdentifier(&oid) {
		return 0, malformed("signatureAlgorithm", "", "must be an AlgorithmIdentifier")
	}
	for _, a := range signatureAlgs {
		if a.oid.Equal(oid) {
			return 0, malformed("signatureAlgorithm.parameters", "", "must be NULL for RSA PKCS #1 v1.5, absent for ECDSA and Ed25519, "+
				"and for RSASSA-PSS one SHA-2 hash throughout and a salt of its length")
		}
	}
	return 0, malformed("signatureAlgorithm", oid.String(), "must be ECDSA, RSA PKCS #1 v1.5 or RSASSA-PSS, with SHA-2, or Ed25519")
}
