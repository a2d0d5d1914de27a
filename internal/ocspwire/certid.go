package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
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
	Content  []byte // of the serial's INTEGER: two's complement, as short as can be; a key for a map without allocating
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
	id := CertID{Hash: hash, NameHash: sum(hash, issuer.RawSubject), KeyHash: sum(hash, key)}
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
	der, err := b.Bytes()
	if err != nil {
		return CertID{}, err
	}
	s := cryptobyte.String(der)
	err = id.read(&s)
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

// read takes one CertID from s into id, and reuses id.Serial.
func (id *CertID) read(s *cryptobyte.String) error {
	var raw, body, alg, serial cryptobyte.String
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return malformed("", "", "must be a SEQUENCE (RFC 6960 section 4.1.1)")
	}
	inner, ok := raw, false
	if !inner.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&alg, cbasn1.SEQUENCE) {
		return malformed("hashAlgorithm", "", "must be an AlgorithmIdentifier")
	}
	if id.Hash, ok = readHashOID(&alg); !ok {
		return malformed("hashAlgorithm", "", "must begin with an OBJECT IDENTIFIER")
	}
	if err := readHashParams(alg, id.Hash); err != nil {
		return err
	}
	var name, key cryptobyte.String
	if !body.ReadASN1(&name, cbasn1.OCTET_STRING) || !body.ReadASN1(&key, cbasn1.OCTET_STRING) {
		return malformed("", "", "issuerNameHash and issuerKeyHash must be OCTET STRINGs (RFC 6960 section 4.1.1)")
	}
	if h := id.Hash; h != 0 && (len(name) != h.Size() || len(key) != h.Size()) {
		return malformed("", strconv.Itoa(len(name))+" and "+strconv.Itoa(len(key))+" octets of hash", "must have the hash algorithm's length, "+strconv.Itoa(h.Size()))
	}
	if !body.ReadASN1(&serial, cbasn1.INTEGER) || !body.Empty() || !minimal(serial) {
		return malformed("serialNumber", "", "must be a DER INTEGER, with nothing after it")
	}
	id.NameHash, id.KeyHash, id.Content, id.Raw = name, key, serial, raw
	if id.Serial == nil {
		id.Serial = new(big.Int)
	}
	id.Serial.SetBytes(serial)
	if serial[0]&0x80 != 0 { // two's complement
		id.Serial.Sub(id.Serial, new(big.Int).Lsh(big.NewInt(1), uint(8*len(serial))))
	}
	return nil
}

// minimal tells whether content is that of a DER INTEGER. X.690 section 8.3.2: the first nine bits are not all alike.
func minimal(content []byte) bool {
	if len(content) < 2 {
		return len(content) == 1
	}
	return !(content[0] == 0 && content[1]&0x80 == 0 || content[0] == 0xff && content[1]&0x80 != 0)
}

// readHashParams checks the parameters of a CertID's hash algorithm. RFC 5754 section 2: NULL or absent, and both must be
// accepted. Parameters of an unknown algorithm are its own business, but there is one at most.
func readHashParams(alg cryptobyte.String, h crypto.Hash) error {
	if alg.Empty() {
		return nil
	}
	var (
		param cryptobyte.String
		tag   cbasn1.Tag
	)
	if !alg.ReadAnyASN1(&param, &tag) || !alg.Empty() {
		return malformed("hashAlgorithm.parameters", "", "must be one DER element")
	}
	if h != 0 && (tag != cbasn1.NULL || !param.Empty()) {
		return malformed("hashAlgorithm.parameters", "", "must be NULL or absent (RFC 5754 section 2)")
	}
	return nil
}
