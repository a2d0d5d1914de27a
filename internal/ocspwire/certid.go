package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CertID names a certificate by hashes of its issuer and its serial number (RFC 6960 section 4.1.1).
type CertID struct {
	Hash     crypto.Hash // 0: an algorithm this package does not know; NameHash and KeyHash then have any length
	NameHash []byte      // of the issuer's DER subject name
	KeyHash  []byte      // of the issuer's public key, without tag, length and unused bits
	Serial   *big.Int
	Raw      []byte // the DER, as it was read or built; a response repeats it octet by octet
}

// NewCertID builds the CertID of serial under issuer. The hash must be one of Hashes.
func NewCertID(hash crypto.Hash, issuer *x509.Certificate, serial *big.Int) (CertID, error) {
	if oidOf(hash) == nil {
		return CertID{}, fmt.Errorf("ocsp: CertID hash is %v: must be SHA-1, SHA-256, SHA-384 or SHA-512", hash)
	}
	if serial == nil {
		return CertID{}, fmt.Errorf("ocsp: CertID without a serial number")
	}
	key, err := PublicKeyBits(issuer.RawSubjectPublicKeyInfo)
	if err != nil {
		return CertID{}, err
	}
	id := CertID{Hash: hash, NameHash: sum(hash, issuer.RawSubject), KeyHash: sum(hash, key), Serial: serial}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidOf(hash))
			addNull(b)
		})
		b.AddASN1OctetString(id.NameHash)
		b.AddASN1OctetString(id.KeyHash)
		b.AddASN1BigInt(serial)
	})
	id.Raw, err = b.Bytes()
	return id, err
}

// Same reports whether two CertIDs have the same algorithm, hashes and serial number. Encodings may differ: parameters of the
// algorithm are NULL or absent.
func (id CertID) Same(other CertID) bool {
	return id.Hash != 0 && id.Hash == other.Hash && bytes.Equal(id.NameHash, other.NameHash) &&
		bytes.Equal(id.KeyHash, other.KeyHash) && id.Serial.Cmp(other.Serial) == 0
}

// PublicKeyBits returns the BIT STRING content of a DER SubjectPublicKeyInfo: what issuerKeyHash and byKey hash.
func PublicKeyBits(spki []byte) ([]byte, error) {
	var (
		s    = cryptobyte.String(spki)
		body cryptobyte.String
		bits []byte
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadASN1BitStringAsBytes(&bits) || !body.Empty() {
		return nil, malformed("subjectPublicKeyInfo", "", "must be an algorithm and a BIT STRING of whole octets (RFC 5280 section 4.1)")
	}
	return bits, nil
}

func sum(h crypto.Hash, data []byte) []byte {
	d := h.New()
	d.Write(data) // a hash never fails
	return d.Sum(nil)
}

// readCertID reads one CertID from s.
func readCertID(s *cryptobyte.String, field string) (CertID, error) {
	var (
		id        CertID
		raw, body cryptobyte.String
		alg       cryptobyte.String
		oid       asn1.ObjectIdentifier
	)
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return id, malformed(field, "", "must be a SEQUENCE (RFC 6960 section 4.1.1)")
	}
	id.Raw = raw
	if inner := raw; !inner.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) {
		return id, malformed(field+".hashAlgorithm", "", "must be an AlgorithmIdentifier")
	}
	id.Hash = hashOf(oid)
	if err := readHashParams(&alg, id.Hash, field); err != nil {
		return id, err
	}
	var name, key cryptobyte.String
	if !body.ReadASN1(&name, cbasn1.OCTET_STRING) || !body.ReadASN1(&key, cbasn1.OCTET_STRING) {
		return id, malformed(field, "", "issuerNameHash and issuerKeyHash must be OCTET STRINGs (RFC 6960 section 4.1.1)")
	}
	id.NameHash, id.KeyHash = name, key
	if h := id.Hash; h != 0 && (len(name) != h.Size() || len(key) != h.Size()) {
		return id, malformed(field, strconv.Itoa(len(name))+" and "+strconv.Itoa(len(key))+" octets of hash", "must have the hash algorithm's length, "+strconv.Itoa(h.Size()))
	}
	id.Serial = new(big.Int)
	if !body.ReadASN1Integer(id.Serial) || !body.Empty() {
		return id, malformed(field+".serialNumber", "", "must be a DER INTEGER, with nothing after it")
	}
	return id, nil
}

// readHashParams checks the parameters of a CertID's hash algorithm. RFC 5754 section 2: NULL or absent, and both must be
// accepted. Parameters of an unknown algorithm are its own business.
func readHashParams(alg *cryptobyte.String, h crypto.Hash, field string) error {
	if h == 0 || alg.Empty() {
		return nil
	}
	var null cryptobyte.String
	if !alg.ReadASN1(&null, cbasn1.NULL) || !null.Empty() || !alg.Empty() {
		return malformed(field+".hashAlgorithm.parameters", "", "must be NULL or absent (RFC 5754 section 2)")
	}
	return nil
}
