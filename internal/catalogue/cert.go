package catalogue

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Key is SHA-256 of a certificate's SubjectPublicKeyInfo in DER.
type Key [sha256.Size]byte

// KeyOf is the Key of a DER SubjectPublicKeyInfo (crypto/x509's RawSubjectPublicKeyInfo).
func KeyOf(spki []byte) Key { return sha256.Sum256(spki) }

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// ParseKey reads 64 hexadecimal digits. Errors: InvalidArgument of the field spki.
func ParseKey(s string) (k Key, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, wire.Errorf(wire.InvalidArgument, "spki", s, "must be 64 hexadecimal digits, the SHA-256 of a SubjectPublicKeyInfo in DER")
	}
	copy(k[:], b)
	return k, nil
}

// Cert is what the ledger says about one certificate, as of the Store's height.
type Cert struct {
	Serial     wire.Serial    `cbor:"-"`
	Key        []byte         `cbor:"1,keyasint,omitempty"` // empty: recorded by its serial number only
	Recorded   wire.Millis    `cbor:"2,keyasint"`           // timestamp of its entry in the log, the precertificate's if that came first; 0: none
	NotAfter   wire.Millis    `cbor:"3,keyasint"`
	State      wire.CertState `cbor:"4,keyasint"` // of the record: rules and revocations by others are not in it
	Reason     wire.Reason    `cbor:"5,keyasint"`
	StatusTime wire.Millis    `cbor:"6,keyasint"`
	Change     uint64         `cbor:"7,keyasint"`            // number of status changes
	Block      uint64         `cbor:"8,keyasint"`            // of the newest change; of the recording while Change is 0
	TxID       string         `cbor:"9,keyasint"`            // of that transaction
	Position   *uint64        `cbor:"10,keyasint,omitempty"` // of the newest change in the status log; nil: not there yet, or Change is 0
	Subject    string         `cbor:"11,keyasint,omitempty"` // RFC 4514
	Names      []string       `cbor:"12,keyasint,omitempty"` // common name and alternative names, in lower case
	Named      bool           `cbor:"13,keyasint"`           // Subject and Names are known
}

// HasKey reports whether c has the key k.
func (c *Cert) HasKey(k Key) bool { return string(c.Key) == string(k[:]) }

func (c *Cert) name(cert *x509.Certificate) {
	c.Subject, c.Named, c.Names = cert.Subject.String(), true, nil
	add := func(s string) {
		if s = strings.ToLower(s); s != "" && !slices.Contains(c.Names, s) {
			c.Names = append(c.Names, s)
		}
	}
	for _, d := range cert.DNSNames {
		add(d)
	}
	for _, e := range cert.EmailAddresses {
		add(e)
	}
	for _, ip := range cert.IPAddresses {
		add(ip.String())
	}
	for _, u := range cert.URIs {
		add(u.String())
	}
	add(cert.Subject.CommonName)
}

func (c *Cert) set(rec *wire.CertRecord) {
	c.Key, c.NotAfter = rec.SPKIHash, rec.NotAfter
	c.State, c.Reason, c.StatusTime, c.Change = rec.State, rec.Reason, rec.StatusTime, rec.Change
	for _, at := range []*wire.LogEntry{rec.Pre, rec.Final} {
		if at != nil && (c.Recorded == 0 || at.Time < c.Recorded) {
			c.Recorded = at.Time
		}
	}
}

var enc, dec = modes()

func modes() (cbor.EncMode, cbor.DecMode) {
	e, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	d, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.DecMode()
	if err != nil {
		panic(err)
	}
	return e, d
}

func encode(v any) []byte {
	b, err := enc.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("catalogue: encode: %v", err)) // only types from this package
	}
	return b
}
