package ocspwire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PreferredAlgorithm is one entry of a client's preferred signature algorithms (RFC 6960 section 4.4.7.1).
type PreferredAlgorithm struct {
	Signature x509.SignatureAlgorithm // UnknownSignatureAlgorithm: none that this package signs with
	Key       []byte                  // DER of pubKeyAlgIdentifier, which the responder's key is to have; nil: any
}

// PreferredAlgorithms returns what the client wants its response signed with, best first; nil if it does not say.
func (r *Request) PreferredAlgorithms() []PreferredAlgorithm {
	prefs, _ := readPreferred(r.Extensions) // ParseRequest refuses what cannot be read
	return prefs
}

// PreferredAlgorithmsExtension is the request extension of RFC 6960 section 4.4.7.1, best algorithm first. It fails without an
// algorithm and on one that this package cannot verify.
func PreferredAlgorithmsExtension(algs ...x509.SignatureAlgorithm) (pkix.Extension, error) {
	if len(algs) == 0 {
		return pkix.Extension{}, fmt.Errorf("ocsp: preferred signature algorithms are empty: must be at least one")
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, alg := range algs {
			a := algorithm(alg)
			if a == nil {
				b.SetError(fmt.Errorf("ocsp: preferred signature algorithm is %v: must be ECDSA, RSA or RSASSA-PSS with SHA-2, or Ed25519", alg))
				return
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(a.der) })
		}
	})
	der, err := b.Bytes()
	return pkix.Extension{Id: OIDPrefSigAlgs, Value: der}, err
}

// readPreferred reads PreferredSignatureAlgorithms ::= SEQUENCE OF SEQUENCE { sigIdentifier AlgorithmIdentifier,
// pubKeyAlgIdentifier SMIMECapability OPTIONAL }.
func readPreferred(exts []pkix.Extension) ([]PreferredAlgorithm, error) {
	const field = "preferredSignatureAlgorithms"
	ext, ok := findExtension(exts, OIDPrefSigAlgs)
	if !ok {
		return nil, nil
	}
	var (
		s     = cryptobyte.String(ext.Value)
		list  cryptobyte.String
		prefs []PreferredAlgorithm
	)
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, malformed(field, "", "must be a SEQUENCE OF PreferredSignatureAlgorithm (RFC 6960 section 4.4.7.1)")
	}
	for !list.Empty() {
		var body, sig, key cryptobyte.String
		if !list.ReadASN1(&body, cbasn1.SEQUENCE) || !readAlgorithm(&body, &sig) {
			return nil, malformed(field, "", "must hold SEQUENCEs that begin with an AlgorithmIdentifier (RFC 6960 section 4.4.7.1)")
		}
		// SMIMECapability has the form of an AlgorithmIdentifier (RFC 5751 section 2.5).
		if !body.Empty() && (!readAlgorithm(&body, &key) || !body.Empty()) {
			return nil, malformed(field+".pubKeyAlgIdentifier", "", "must be an SMIMECapability, with nothing after it (RFC 6960 section 4.4.7.1)")
		}
		prefs = append(prefs, PreferredAlgorithm{Signature: preferredAlg(sig), Key: key})
	}
	return prefs, nil
}

// preferredAlg is lenient where algOf is not: RFC 6960 section 4.4.7.1 lets a client leave parameters out when it says what it prefers.
func preferredAlg(der cryptobyte.String) x509.SignatureAlgorithm {
	if alg, err := algOf(der); err == nil {
		return alg
	}
	oid, params, _ := splitAlgorithm(der)
	for _, a := range signatureAlgs {
		if a.oid.Equal(oid) && params.Empty() {
			return a.alg
		}
	}
	return x509.UnknownSignatureAlgorithm
}

func splitAlgorithm(der cryptobyte.String) (oid asn1.ObjectIdentifier, params cryptobyte.String, ok bool) {
	ok = der.ReadASN1(&params, cbasn1.SEQUENCE) && params.ReadASN1ObjectIdentifier(&oid)
	return oid, params, ok
}

// allows tells whether a responder's key is of the kind that the client prefers.
func (p *PreferredAlgorithm) allows(pub crypto.PublicKey) bool {
	if p.Key == nil {
		return true
	}
	oid, params, ok := splitAlgorithm(p.Key)
	if !ok {
		return false
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if !oid.Equal(oidEC) {
			return false
		}
		var curve asn1.ObjectIdentifier
		if params.Empty() {
			return true
		}
		if !params.ReadASN1ObjectIdentifier(&curve) {
			return false
		}
		for _, c := range oidCurves {
			if c.curve == k.Curve {
				return c.oid.Equal(curve)
			}
		}
	case *rsa.PublicKey:
		return oid.Equal(oidRSA)
	case ed25519.PublicKey:
		return oid.Equal(oidEdDSA)
	}
	return false
}

// AcceptsBasic tells whether the client understands id-pkix-ocsp-basic, the only type of response there is here. A request
// without acceptable response types does (RFC 6960 section 4.4.3: only who lists types may leave it out).
func (r *Request) AcceptsBasic() bool {
	types, err := readAcceptable(r.Extensions)
	if err != nil || types == nil {
		return err == nil
	}
	for _, t := range types {
		if t.Equal(OIDBasic) {
			return true
		}
	}
	return false
}

// AcceptableResponsesExtension is the request extension of RFC 6960 section 4.4.3.
func AcceptableResponsesExtension(types ...asn1.ObjectIdentifier) (pkix.Extension, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, t := range types {
			b.AddASN1ObjectIdentifier(t)
		}
	})
	der, err := b.Bytes()
	return pkix.Extension{Id: OIDResponse, Value: der}, err
}

// readAcceptable reads AcceptableResponses ::= SEQUENCE OF OBJECT IDENTIFIER; nil only if the extension is absent.
func readAcceptable(exts []pkix.Extension) ([]asn1.ObjectIdentifier, error) {
	ext, ok := findExtension(exts, OIDResponse)
	if !ok {
		return nil, nil
	}
	var (
		s     = cryptobyte.String(ext.Value)
		list  cryptobyte.String
		types = []asn1.ObjectIdentifier{}
	)
	ok = s.ReadASN1(&list, cbasn1.SEQUENCE) && s.Empty()
	for ok && !list.Empty() {
		var oid asn1.ObjectIdentifier
		oid, ok = readOID(&list)
		types = append(types, oid)
	}
	if !ok {
		return nil, malformed("acceptableResponses", "", "must be a SEQUENCE OF OBJECT IDENTIFIER (RFC 6960 section 4.4.3)")
	}
	return types, nil
}
