package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/internal/ctleaf"
)

// draft is what the CA's key is about to sign: a TBSCertificate that a throwaway key has signed first, for those who look at whole
// certificates. The CA's key signs these very octets.
type draft struct {
	tbs  []byte
	algo []byte // AlgorithmIdentifier of the signature, DER; the TBSCertificate has the same
	hash crypto.Hash
}

var errBadDraft = errors.New("not a DER certificate (RFC 5280 section 4.1)")

// draftOf takes a certificate apart.
func draftOf(der []byte) (*draft, error) {
	input := cryptobyte.String(der)
	var cert, tbs, algo, signature cryptobyte.String
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !input.Empty() || !cert.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!cert.ReadASN1Element(&algo, cbasn1.SEQUENCE) || !cert.ReadASN1(&signature, cbasn1.BIT_STRING) || !cert.Empty() {
		return nil, errBadDraft
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	hash, ok := signatureHash[parsed.SignatureAlgorithm]
	if !ok {
		return nil, fmt.Errorf("signature algorithm %s: certificates are not signed with it here", parsed.SignatureAlgorithm)
	}
	return &draft{tbs: tbs, algo: algo, hash: hash}, nil
}

// signatureHash has the algorithms that crypto/x509 chooses for the keys that a CA may have; 0: the message itself is signed.
var signatureHash = map[x509.SignatureAlgorithm]crypto.Hash{
	x509.SHA256WithRSA: crypto.SHA256, x509.SHA384WithRSA: crypto.SHA384, x509.SHA512WithRSA: crypto.SHA512,
	x509.ECDSAWithSHA256: crypto.SHA256, x509.ECDSAWithSHA384: crypto.SHA384, x509.ECDSAWithSHA512: crypto.SHA512,
	x509.PureEd25519: 0,
}

// sign makes a certificate of the draft.
func (d *draft) sign(key crypto.Signer) ([]byte, error) {
	message := d.tbs
	if d.hash != 0 {
		h := d.hash.New()
		h.Write(d.tbs)
		message = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, message, d.hash)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(d.tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(d.tbs)
		b.AddBytes(d.algo)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// completed is the draft of the certificate of a precertificate: its poison gives way to an SCT list (RFC 6962 sections 3.2 and 3.3), a
// SignedCertificateTimestampList; all else is kept octet for octet.
func completed(precert, list []byte) (*draft, error) {
	d, err := draftOf(precert)
	if err != nil {
		return nil, err
	}
	bare, err := ctleaf.PrecertTBS(precert)
	if err != nil {
		return nil, err
	}
	extensions := cbasn1.Tag(3).ContextSpecific().Constructed()
	input := cryptobyte.String(bare)
	var body, fixed, field cryptobyte.String
	if !input.ReadASN1(&body, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, errBadDraft
	}
	fixed = body
	for !body.Empty() && !body.PeekASN1Tag(extensions) {
		var tag cbasn1.Tag
		if !body.ReadAnyASN1Element(&field, &tag) {
			return nil, errBadDraft
		}
	}
	fixed = fixed[:len(fixed)-len(body)]
	var wrapped, kept cryptobyte.String
	if !body.Empty() && (!body.ReadASN1(&wrapped, extensions) || !body.Empty() || !wrapped.ReadASN1(&kept, cbasn1.SEQUENCE) || !wrapped.Empty()) {
		return nil, errBadDraft
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(bare)+len(list)+32))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(fixed)
		b.AddASN1(extensions, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(kept)
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(ctleaf.OIDSCTList)
					b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(list) })
				})
			})
		})
	})
	d.tbs, err = b.Bytes()
	return d, err
}

// isCertificateOf says whether final is the certificate of precert: the same octets without poison and SCT list.
func isCertificateOf(final, precert []byte) error {
	want, err := ctleaf.PrecertTBS(precert)
	if err != nil {
		return err
	}
	got, err := ctleaf.FinalTBS(final)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the certificate differs from its precertificate in more than poison and SCT list (RFC 6962 section 3.2)")
	}
	return nil
}

// throwaway makes a key whose signatures have the algorithm that the CA's have. Of an RSA key the size does not show in what is signed.
func throwaway(ca crypto.PublicKey) (crypto.Signer, error) {
	switch k := ca.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	case *rsa.PublicKey:
		return rsa.GenerateKey(rand.Reader, 2048)
	case ed25519.PublicKey:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("the CA's key is a %T: must be ECDSA on %s, RSA or Ed25519", ca, elliptic.P256().Params().Name)
}
