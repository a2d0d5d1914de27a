package wire

import (
	"crypto/sha256"
	"time"
)

// Millis is a time in milliseconds since 1970-01-01 UTC.
type Millis int64

// MillisOf truncates t to milliseconds.
func MillisOf(t time.Time) Millis { return Millis(t.UnixMilli()) }

// Time returns m in UTC.
func (m Millis) Time() time.Time { return time.UnixMilli(int64(m)).UTC() }

// Consortium is who shares the ledger, at ConsortiumKey.
type Consortium struct {
	V            uint     `cbor:"0,keyasint"`
	MSPs         []string `cbor:"1,keyasint"` // MSP IDs, sorted, unique
	TickInterval int64    `cbor:"2,keyasint"` // milliseconds; the length of an epoch
}

// Majority is the least number of organisations that is more than half.
func (c *Consortium) Majority() int { return len(c.MSPs)/2 + 1 }

// CAState is a trust list entry's state.
type CAState uint

// States of a CA.
const (
	CAActive    CAState = 1
	CASuspended CAState = 2 // no new certificates; existing ones keep their status
)

// CARecord is a trust list entry, at CAKey.
type CARecord struct {
	V            uint     `cbor:"0,keyasint"`
	Certs        [][]byte `cbor:"1,keyasint"` // DER, all with the CA's key; the first is the one it was registered with
	Chain        [][]byte `cbor:"2,keyasint"` // DER, from the issuer of Certs[0] up to its root; empty for a root
	OperatingMSP string   `cbor:"3,keyasint"` // the organisation that may issue and revoke
	State        CAState  `cbor:"4,keyasint"`
	Registered   Millis   `cbor:"5,keyasint"`
	Change       uint64   `cbor:"6,keyasint"` // number of decisions about this CA, the registration included
}

// CertState is a certificate's own state, before anything that others recorded about it.
type CertState uint

// States of a certificate.
const (
	CertValid   CertState = 1
	CertHeld    CertState = 2 // RFC 5280 certificateHold: may be released or become revoked
	CertRevoked CertState = 3 // final
)

// Reason is a CRLReason (RFC 5280 section 5.3.1).
type Reason uint

// Reasons a revocation may carry. removeFromCRL (8) is not one: a release removes a hold.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "keyCompromise", CACompromise: "cACompromise",
	AffiliationChanged: "affiliationChanged", Superseded: "superseded", CessationOfOperation: "cessationOfOperation",
	CertificateHold: "certificateHold", PrivilegeWithdrawn: "privilegeWithdrawn", AACompromise: "aACompromise",
}

// Known reports whether r is one of the reasons above.
func (r Reason) Known() bool { return reasonNames[r] != "" }

func (r Reason) String() string {
	if n := reasonNames[r]; n != "" {
		return n
	}
	return "unknown"
}

// ParseReason reads RFC 5280's name of a reason. Errors: InvalidArgument for any other word.
func ParseReason(s string) (Reason, error) {
	for r := Unspecified; r <= AACompromise; r++ {
		if s != "" && reasonNames[r] == s {
			return r, nil
		}
	}
	return 0, &Error{Code: InvalidArgument, Field: "reason", Value: clip(s), Rule: "must be an RFC 5280 section 5.3.1 reason: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold, privilegeWithdrawn or aACompromise"}
}

// LogEntry is where a certificate stands in its CA's log.
type LogEntry struct {
	Index    uint64 `cbor:"0,keyasint"`
	Time     Millis `cbor:"1,keyasint"` // the leaf's timestamp
	LeafHash []byte `cbor:"2,keyasint"` // RFC 6962 section 2.1, SHA-256
}

// CertRecord is one certificate, at CertKey. It holds no DER: that is in the transaction's argument.
type CertRecord struct {
	V          uint      `cbor:"0,keyasint"`
	State      CertState `cbor:"1,keyasint"`
	Reason     Reason    `cbor:"2,keyasint"`           // of the hold or revocation; Unspecified while valid
	StatusTime Millis    `cbor:"3,keyasint"`           // when State took effect; for CertRevoked the revocation date, never moved (of a hold that became one, the hold's)
	Invalidity Millis    `cbor:"4,keyasint,omitempty"` // RFC 5280 section 5.3.2 invalidityDate; 0: none given
	Change     uint64    `cbor:"5,keyasint"`           // number of status changes; 0 since issuance
	Final      *LogEntry `cbor:"6,keyasint,omitempty"` // the certificate
	Pre        *LogEntry `cbor:"7,keyasint,omitempty"` // its precertificate
	SPKIHash   []byte    `cbor:"8,keyasint"`           // SHA-256 of the subject's SubjectPublicKeyInfo
	NotAfter   Millis    `cbor:"9,keyasint"`
}

// LogHead is the head of a CA's issuance log, at LogHeadKey.
type LogHead struct {
	V     uint     `cbor:"0,keyasint"`
	Size  uint64   `cbor:"1,keyasint"`
	Root  []byte   `cbor:"2,keyasint"` // RFC 6962 section 2.1
	Time  Millis   `cbor:"3,keyasint"` // timestamp of the newest leaf; of an empty log, when the CA was registered
	Range [][]byte `cbor:"4,keyasint"` // compact range [0, Size): roots of its perfect subtrees, largest first
}

// Clock is one of the rotating clock keys, at ClockKey.
type Clock struct {
	V     uint   `cbor:"0,keyasint"`
	Epoch int64  `cbor:"1,keyasint"` // epoch of the Tick that wrote it
	Time  Millis `cbor:"2,keyasint"` // that Tick's time
}

// Proposal is what organisations vote on, at ProposalKey. It is deleted, with its votes, when it takes effect.
type Proposal struct {
	V        uint   `cbor:"0,keyasint"`
	Function string `cbor:"1,keyasint"`
	Arg      []byte `cbor:"2,keyasint"`
	Opened   Millis `cbor:"3,keyasint"`
}

// Vote is one organisation's assent, at VoteKey.
type Vote struct {
	V    uint   `cbor:"0,keyasint"`
	Time Millis `cbor:"1,keyasint"`
}

// LeafKind tells what a StatusLeaf is about.
type LeafKind uint

// Kinds of status leaves.
const (
	LeafCert LeafKind = 1
	LeafCA   LeafKind = 2
)

// StatusLeaf is one change of status, at PendingKey until the status log takes it. Its encoding is the log entry.
type StatusLeaf struct {
	V          uint     `cbor:"0,keyasint"`
	Kind       LeafKind `cbor:"1,keyasint"`
	CAID       CAID     `cbor:"2,keyasint"`
	Serial     Serial   `cbor:"3,keyasint,omitempty"` // absent for LeafCA
	Change     uint64   `cbor:"4,keyasint"`           // the record's change number after it
	State      uint     `cbor:"5,keyasint"`           // CertState or CAState
	Reason     Reason   `cbor:"6,keyasint"`
	Time       Millis   `cbor:"7,keyasint"`
	Invalidity Millis   `cbor:"8,keyasint,omitempty"`
}

// Hash is the leaf's RFC 6962 hash.
func (l *StatusLeaf) Hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte{0}, Encode(l)...))
}

func (c *Consortium) version() uint { return c.V }
func (c *CARecord) version() uint   { return c.V }
func (c *CertRecord) version() uint { return c.V }
func (h *LogHead) version() uint    { return h.V }
func (c *Clock) version() uint      { return c.V }
func (p *Proposal) version() uint   { return p.V }
func (v *Vote) version() uint       { return v.V }
func (l *StatusLeaf) version() uint { return l.V }
