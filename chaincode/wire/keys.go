package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// ConsortiumKey holds the Consortium record, written once by Init.
const ConsortiumKey = "consortium"

// Prefixes of the state's key families.
const (
	CAPrefix      = "ca/"
	CertPrefix    = "cert/"
	LogPrefix     = "log/"
	PendingPrefix = "status/pending/"
	ClockPrefix   = "clock/"
)

// ClockKeys is the number of rotating clock keys.
const ClockKeys = 3

// CAID names a CA by its key: the SHA-256 of its DER SubjectPublicKeyInfo.
type CAID [sha256.Size]byte

// CAIDOf returns the CAID of a DER SubjectPublicKeyInfo (crypto/x509's RawSubjectPublicKeyInfo).
func CAIDOf(spki []byte) CAID { return sha256.Sum256(spki) }

// ParseCAID reads 64 lower-case hexadecimal digits.
func ParseCAID(s string) (CAID, error) {
	var id CAID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || s != strings.ToLower(s) {
		return id, &Error{Code: InvalidArgument, Field: "ca_id", Value: clip(s), Rule: "must be 64 lower-case hexadecimal digits, the SHA-256 of the CA's SubjectPublicKeyInfo"}
	}
	copy(id[:], b)
	return id, nil
}

func (id CAID) String() string { return hex.EncodeToString(id[:]) }

// Serial is a certificate serial number as minimal big-endian octets: 1 to MaxSerial of them, positive, no leading zero.
type Serial []byte

// SerialOf converts from crypto/x509's form. The certificate must have a positive serial of at most MaxSerial octets.
func SerialOf(n *big.Int) (Serial, error) {
	if n == nil || n.Sign() <= 0 || len(n.Bytes()) > MaxSerial {
		v := "none"
		if n != nil {
			v = n.Text(16)
		}
		return nil, &Error{Code: InvalidArgument, Field: "serial", Value: clip(v), Rule: "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)"}
	}
	return n.Bytes(), nil
}

// ParseSerial reads a hexadecimal serial number; colons, a leading 0x, upper case and leading zeros are accepted.
func ParseSerial(s string) (Serial, error) {
	t := strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(s), "0x"), ":", "")
	if len(t) > 1024 {
		t = "" // reading a number takes time quadratic in its length
	}
	n, ok := new(big.Int).SetString(t, 16)
	if !ok || strings.ContainsAny(t, "+-_") {
		return nil, &Error{Code: InvalidArgument, Field: "serial", Value: clip(s), Rule: "must be a hexadecimal number"}
	}
	return SerialOf(n)
}

// Check tells whether s is in the one form that keys use.
func (s Serial) Check() error {
	if len(s) == 0 || len(s) > MaxSerial || s[0] == 0 {
		return &Error{Code: InvalidArgument, Field: "serial", Value: clip(hex.EncodeToString(s)), Rule: "must be 1 to 20 octets without a leading zero (RFC 5280 section 4.1.2.2)"}
	}
	return nil
}

func (s Serial) String() string { return hex.EncodeToString(s) }

// Int converts to crypto/x509's form.
func (s Serial) Int() *big.Int { return new(big.Int).SetBytes(s) }

// CAKey is the trust list entry of a CA.
func CAKey(id CAID) string { return CAPrefix + id.String() }

// CertKey is the record of one certificate.
func CertKey(id CAID, s Serial) string { return CertPrefix + id.String() + "/" + s.String() }

// ParseCertKey undoes CertKey.
func ParseCertKey(key string) (CAID, Serial, error) {
	id, serial, ok := strings.Cut(strings.TrimPrefix(key, CertPrefix), "/")
	if !ok || !strings.HasPrefix(key, CertPrefix) {
		return CAID{}, nil, fmt.Errorf("wire: %q is not a certificate key", key)
	}
	caID, err := ParseCAID(id)
	if err != nil {
		return CAID{}, nil, err
	}
	s, err := hex.DecodeString(serial)
	if err != nil {
		return CAID{}, nil, fmt.Errorf("wire: %q is not a certificate key: %w", key, err)
	}
	if CertKey(caID, s) != key { // hexadecimal digits in upper case
		return CAID{}, nil, fmt.Errorf("wire: %q is not a certificate key", key)
	}
	return caID, s, Serial(s).Check()
}

// LogHeadKey is the head of a CA's issuance log.
func LogHeadKey(id CAID) string { return LogPrefix + id.String() + "/head" }

// ParseLogHeadKey undoes LogHeadKey.
func ParseLogHeadKey(key string) (CAID, error) {
	s, ok := strings.CutSuffix(strings.TrimPrefix(key, LogPrefix), "/head")
	if !ok || !strings.HasPrefix(key, LogPrefix) {
		return CAID{}, fmt.Errorf("wire: %q is not a log head key", key)
	}
	return ParseCAID(s)
}

// PendingKey is a status change that is not yet in the status log.
func PendingKey(leafHash [sha256.Size]byte) string {
	return PendingPrefix + hex.EncodeToString(leafHash[:])
}

// ClockKey is the clock key of an epoch.
func ClockKey(epoch int64) string { return ClockPrefix + strconv.FormatInt(epoch%ClockKeys, 10) }

// ProposalKey holds the bytes under decision, VoteKey one organisation's assent to them.
func ProposalKey(digest [sha256.Size]byte) string { return "proposal/" + hex.EncodeToString(digest[:]) }

// VoteKey: see ProposalKey.
func VoteKey(digest [sha256.Size]byte, mspID string) string {
	return "vote/" + hex.EncodeToString(digest[:]) + "/" + mspID
}
