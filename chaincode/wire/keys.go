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
	RevokePrefix  = "revoke/"
	RulePrefix    = "rule/"
	PendingPrefix = "status/pending/"
	ClockPrefix   = "clock/"
)

// StatusHeadKey holds the StatusHead, absent until the first Integrate.
const StatusHeadKey = "status/head"

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

// RevokeKey is the revocation of one certificate by one source.
func RevokeKey(id CAID, s Serial, source string) string {
	return RevokePrefix + id.String() + "/" + s.String() + "/" + source
}

// Sources of a revocation, the last part of its key.
const sourceQuorum = "quorum"

// HolderSource is the source of a revocation by the holder of the key with the given SHA-256 of its SubjectPublicKeyInfo.
func HolderSource(spkiHash [sha256.Size]byte) string {
	return "holder-" + hex.EncodeToString(spkiHash[:])
}

// QuorumSource is the source of a revocation that a majority decided.
func QuorumSource() string { return sourceQuorum }

// ParseRevokeKey undoes RevokeKey.
func ParseRevokeKey(key string) (id CAID, s Serial, source string, err error) {
	parts := strings.Split(strings.TrimPrefix(key, RevokePrefix), "/")
	if len(parts) != 3 || !strings.HasPrefix(key, RevokePrefix) {
		return id, nil, "", fmt.Errorf("wire: %q is not a revocation key", key)
	}
	if id, s, err = ParseCertKey(CertPrefix + parts[0] + "/" + parts[1]); err != nil {
		return id, nil, "", err
	}
	hash, holder := strings.CutPrefix(parts[2], "holder-")
	if _, hashErr := ParseCAID(hash); parts[2] != sourceQuorum && (!holder || hashErr != nil) {
		return id, nil, "", fmt.Errorf("wire: %q is not a revocation key: its source is neither quorum nor a key", key)
	}
	return id, s, parts[2], nil
}

// RuleKey is the n-th rule about a CA, from 1.
func RuleKey(id CAID, n uint64) string {
	return RulePrefix + id.String() + "/" + strconv.FormatUint(n, 10)
}

// ParseRuleKey undoes RuleKey.
func ParseRuleKey(key string) (CAID, uint64, error) {
	id, number, ok := strings.Cut(strings.TrimPrefix(key, RulePrefix), "/")
	if !ok || !strings.HasPrefix(key, RulePrefix) {
		return CAID{}, 0, fmt.Errorf("wire: %q is not a rule key", key)
	}
	caID, err := ParseCAID(id)
	if err != nil {
		return CAID{}, 0, err
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || RuleKey(caID, n) != key || n == 0 {
		return CAID{}, 0, fmt.Errorf("wire: %q is not a rule key", key)
	}
	return caID, n, nil
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
