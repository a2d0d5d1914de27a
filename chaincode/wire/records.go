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
	Change       uint64   `cbor:"6,keyasint"`           // number of decisions about this CA, the registration included
	StateTime    Millis   `cbor:"7,keyasint"`           // since when State holds
	SuspendedBy  string   `cbor:"8,keyasint,omitempty"` // the organisation that suspended it alone; empty: a majority did, or nobody
	Rules        uint64   `cbor:"9,keyasint"`           // number of rules about it, at most MaxRules
	Settled      uint64   `cbor:"10,keyasint"`          // Change after the last decision of a majority, the registration included
}

// MaxRules is how many rules a CA may have: each is looked at for every certificate of the CA.
const MaxRules = 64

// RestAlone is how long an organisation that has suspended its CA alone waits before it may resume it alone. Every such change makes
// transactions lose that have read the trust list entry, those of others too.
const RestAlone = time.Minute

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
	Reason     Reason    `cbor:"2,keyasint"`            // of the hold or revocation; Unspecified while valid
	StatusTime Millis    `cbor:"3,keyasint"`            // when State took effect; for CertRevoked the revocation date, never moved (of a hold that became one, the hold's)
	Invalidity Millis    `cbor:"4,keyasint,omitempty"`  // RFC 5280 section 5.3.2 invalidityDate; 0: none given
	Change     uint64    `cbor:"5,keyasint"`            // number of status changes; 0 since issuance
	Final      *LogEntry `cbor:"6,keyasint,omitempty"`  // the certificate
	Pre        *LogEntry `cbor:"7,keyasint,omitempty"`  // its precertificate
	SPKIHash   []byte    `cbor:"8,keyasint,omitempty"`  // SHA-256 of the subject's SubjectPublicKeyInfo; empty while SerialOnly
	NotAfter   Millis    `cbor:"9,keyasint,omitempty"`  // 0: not known, while SerialOnly
	Window     Millis    `cbor:"10,keyasint,omitempty"` // when the minute began in which Flaps are counted
	Flaps      uint      `cbor:"11,keyasint,omitempty"` // holds and releases in that minute, at most MaxFlaps
	Imported   bool      `cbor:"12,keyasint,omitempty"` // an Import made the record
	Asserted   Millis    `cbor:"13,keyasint,omitempty"` // when the CA says that the hold or revocation began, which an Import brought; of a hold that was released, when it had begun
	Antedated  bool      `cbor:"14,keyasint,omitempty"` // Asserted counts, if earlier than StatusTime: the hold or revocation came with the Import that made the record, or that gave SerialOnly its first status
}

// SerialOnly reports whether the ledger knows no more of the certificate than its serial number: nobody has shown it.
func (c *CertRecord) SerialOnly() bool { return c.Final == nil && c.Pre == nil }

// Leaf is the status leaf of the record's newest change.
func (c *CertRecord) Leaf(id CAID, s Serial) *StatusLeaf {
	l := &StatusLeaf{
		V: Version, Kind: LeafCert, CAID: id, Serial: s, Change: c.Change, State: uint(c.State), Reason: c.Reason,
		Time: c.StatusTime, Invalidity: c.Invalidity, Imported: c.Imported,
	}
	if c.State != CertValid {
		l.Asserted, l.Antedated = c.Asserted, c.Antedated
	}
	return l
}

// MaxFlaps is how often one certificate may go on hold or be released within a minute.
const MaxFlaps = 10

// Source tells who revoked, beside the CA's operator.
type Source uint

// Sources of a Revocation.
const (
	SourceHolder Source = 1 // the holder of the certificate's key
	SourceQuorum Source = 2 // a majority of the organisations
)

// Revocation is a final revocation of one certificate by somebody other than its CA's operator, at RevokeKey. The first one
// of a source stays, and its date; only its reason may become keyCompromise.
type Revocation struct {
	V          uint   `cbor:"0,keyasint"`
	Source     Source `cbor:"1,keyasint"`
	SPKIHash   []byte `cbor:"2,keyasint,omitempty"` // SourceHolder: of the signing key; it counts for a record with the same hash
	Reason     Reason `cbor:"3,keyasint"`
	Time       Millis `cbor:"4,keyasint"`
	Invalidity Millis `cbor:"5,keyasint,omitempty"`
	Change     uint64 `cbor:"6,keyasint"` // 1; 2 once the reason was changed
}

// Rule revokes every certificate of a CA with a leaf timestamp in [From, To), at RuleKey. A certificate with a precertificate has
// two timestamps: either counts. An imported certificate's is that of the import; a serial number without its certificate has none.
type Rule struct {
	V          uint   `cbor:"0,keyasint"`
	N          uint64 `cbor:"1,keyasint"` // from 1
	From       Millis `cbor:"2,keyasint"`
	To         Millis `cbor:"3,keyasint"`
	Reason     Reason `cbor:"4,keyasint"`
	Time       Millis `cbor:"5,keyasint"` // when it took effect
	Invalidity Millis `cbor:"6,keyasint,omitempty"`
}

// StatusHead is the head of the status log, at StatusHeadKey.
type StatusHead struct {
	V     uint     `cbor:"0,keyasint"`
	Size  uint64   `cbor:"1,keyasint"`
	Root  []byte   `cbor:"2,keyasint"` // RFC 6962 section 2.1
	Time  Millis   `cbor:"3,keyasint"` // of the Integrate that wrote it; never goes back
	Range [][]byte `cbor:"4,keyasint"` // compact range [0, Size)
	MSP   string   `cbor:"5,keyasint"` // the organisation that integrated last
}

// StepBack is how long the organisation that integrated last leaves the status log to the others, if there are others. Any of them needs
// less, so nobody can keep a change out by being quick.
const StepBack = 500 * time.Millisecond

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

// Proposal is what organisations vote on, at ProposalKey. A RegisterCA is deleted, with its votes, when it takes effect;
// a Decide loses its votes.
type Proposal struct {
	V        uint   `cbor:"0,keyasint"`
	Function string `cbor:"1,keyasint"`
	Arg      []byte `cbor:"2,keyasint"`
	Opened   Millis `cbor:"3,keyasint"`
	Decided  Millis `cbor:"4,keyasint,omitempty"` // of a Decide: when it took effect; the proposal then stays, as the answer to late votes
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
	LeafCert       LeafKind = 1
	LeafCA         LeafKind = 2
	LeafRevocation LeafKind = 3 // of a Revocation
	LeafRule       LeafKind = 4
)

// StatusLeaf is one change of status, at PendingKey until the status log takes it. Its encoding is the log entry.
type StatusLeaf struct {
	V          uint     `cbor:"0,keyasint"`
	Kind       LeafKind `cbor:"1,keyasint"`
	CAID       CAID     `cbor:"2,keyasint"`
	Serial     Serial   `cbor:"3,keyasint,omitempty"` // of LeafCert and LeafRevocation
	Change     uint64   `cbor:"4,keyasint"`           // the record's change number after it; of a rule, its N
	State      uint     `cbor:"5,keyasint"`           // CertState or CAState; of LeafRevocation and LeafRule, CertRevoked
	Reason     Reason   `cbor:"6,keyasint"`
	Time       Millis   `cbor:"7,keyasint"`
	Invalidity Millis   `cbor:"8,keyasint,omitempty"`
	Source     Source   `cbor:"9,keyasint,omitempty"`  // of LeafRevocation
	SPKIHash   []byte   `cbor:"10,keyasint,omitempty"` // of LeafRevocation by the holder
	From       Millis   `cbor:"11,keyasint,omitempty"` // of LeafRule
	To         Millis   `cbor:"12,keyasint,omitempty"` // of LeafRule
	Imported   bool     `cbor:"13,keyasint,omitempty"` // of LeafCert: an Import made the record
	Asserted   Millis   `cbor:"14,keyasint,omitempty"` // of LeafCert: when the CA says that the state began; 0: since Time
	Antedated  bool     `cbor:"15,keyasint,omitempty"` // of LeafCert: Asserted counts, as in CertRecord
}

// Hash is the leaf's RFC 6962 hash.
func (l *StatusLeaf) Hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte{0}, Encode(l)...))
}

// MapCert is what the revocation map holds about a serial number whose record or majority ever changed its status, at CertMapKey. What
// holders of keys have revoked is not in it: a serial number may have any number of keys, and each has an entry of its own, a MapHolder.
type MapCert struct {
	V          uint       `cbor:"0,keyasint"`
	Change     uint64     `cbor:"1,keyasint"` // of the record; 0: only a majority changed its status
	State      CertState  `cbor:"2,keyasint"` // of the record
	Reason     Reason     `cbor:"3,keyasint"`
	Time       Millis     `cbor:"4,keyasint"` // 0 while Change is 0
	Invalidity Millis     `cbor:"5,keyasint,omitempty"`
	Quorum     *MapQuorum `cbor:"6,keyasint,omitempty"` // nil: no majority has revoked it
	Imported   bool       `cbor:"7,keyasint,omitempty"` // as in the record's newest leaf
	Asserted   Millis     `cbor:"8,keyasint,omitempty"` // as in the record's newest leaf
	Antedated  bool       `cbor:"9,keyasint,omitempty"` // as in the record's newest leaf
}

// MapQuorum is a majority's Revocation within a MapCert.
type MapQuorum struct {
	Reason     Reason `cbor:"0,keyasint"`
	Time       Millis `cbor:"1,keyasint"`
	Invalidity Millis `cbor:"2,keyasint,omitempty"`
	Change     uint64 `cbor:"3,keyasint"`
}

// MapHolder is what the revocation map holds about the Revocation of one certificate by the holder of its key, at HolderMapKey.
type MapHolder struct {
	V          uint   `cbor:"0,keyasint"`
	Reason     Reason `cbor:"1,keyasint"`
	Time       Millis `cbor:"2,keyasint"`
	Invalidity Millis `cbor:"3,keyasint,omitempty"`
	Change     uint64 `cbor:"4,keyasint"`
}

// Revocation is m as the record that it is of.
func (m *MapQuorum) Revocation() Revocation {
	return Revocation{V: Version, Source: SourceQuorum, Reason: m.Reason, Time: m.Time, Invalidity: m.Invalidity, Change: m.Change}
}

// Revocation is m as the record that it is of. spkiHash is SHA-256 of the certificate's SubjectPublicKeyInfo, which m's key was made with.
func (m *MapHolder) Revocation(spkiHash []byte) Revocation {
	return Revocation{
		V: Version, Source: SourceHolder, SPKIHash: spkiHash, Reason: m.Reason, Time: m.Time, Invalidity: m.Invalidity, Change: m.Change,
	}
}

// MapCA is what the revocation map holds about a CA on the trust list, at CAMapKey.
type MapCA struct {
	V         uint    `cbor:"0,keyasint"`
	Change    uint64  `cbor:"1,keyasint"`
	State     CAState `cbor:"2,keyasint"`
	Time      Millis  `cbor:"3,keyasint"`
	Rules     uint64  `cbor:"4,keyasint"` // how many are in the status log
	RulesHash []byte  `cbor:"5,keyasint"` // RulesHash of them
}

// MapLeaf is an entry of the map log: one for each Tick. Its encoding is the log entry.
type MapLeaf struct {
	V          uint   `cbor:"0,keyasint"`
	Epoch      int64  `cbor:"1,keyasint"` // of the Tick
	Time       Millis `cbor:"2,keyasint"` // of the Tick
	StatusSize uint64 `cbor:"3,keyasint"` // leaves of the status log that the map covers: all before the Tick
	StatusRoot []byte `cbor:"4,keyasint"` // root of the status log at that size
	MapRoot    []byte `cbor:"5,keyasint"`
}

// Hash is the leaf's RFC 6962 hash.
func (l *MapLeaf) Hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte{0}, Encode(l)...))
}

// CertMapKey is where the revocation map has a certificate's record and what a majority decided about it.
func CertMapKey(id CAID, s Serial) [sha256.Size]byte { return sha256.Sum256([]byte(CertKey(id, s))) }

// HolderMapKey is where the revocation map has the revocation of a certificate by the holder of its key, with spkiHash the SHA-256 of the
// SubjectPublicKeyInfo. State keys begin with the name of their family and have a fixed form, so no two map keys are of one input.
func HolderMapKey(id CAID, s Serial, spkiHash [sha256.Size]byte) [sha256.Size]byte {
	return sha256.Sum256([]byte(RevokeKey(id, s, HolderSource(spkiHash))))
}

// CAMapKey is where the revocation map has a CA.
func CAMapKey(id CAID) [sha256.Size]byte { return sha256.Sum256([]byte(CAKey(id))) }

// RulesHash is SHA-256 over the encodings of rules one after the other, sorted by N: each is self-delimiting.
func RulesHash(rules []Rule) []byte {
	h := sha256.New()
	for i := range rules {
		h.Write(Encode(&rules[i]))
	}
	return h.Sum(nil)
}

func (r *Revocation) version() uint { return r.V }
func (r *Rule) version() uint       { return r.V }
func (h *StatusHead) version() uint { return h.V }
func (m *MapCert) version() uint    { return m.V }
func (m *MapHolder) version() uint  { return m.V }
func (m *MapCA) version() uint      { return m.V }
func (l *MapLeaf) version() uint    { return l.V }
func (c *Consortium) version() uint { return c.V }
func (c *CARecord) version() uint   { return c.V }
func (c *CertRecord) version() uint { return c.V }
func (h *LogHead) version() uint    { return h.V }
func (c *Clock) version() uint      { return c.V }
func (p *Proposal) version() uint   { return p.V }
func (v *Vote) version() uint       { return v.V }
func (l *StatusLeaf) version() uint { return l.V }
