package wire

// Function names of the contract. Read changes nothing; the others are transactions.
const (
	FnInit       = "Init"
	FnRegisterCA = "RegisterCA"
	FnIssue      = "Issue"
	FnSetStatus  = "SetStatus"
	FnTick       = "Tick"
	FnRevoke     = "Revoke"
	FnDecide     = "Decide"
	FnIntegrate  = "Integrate"
	FnRead       = "Read"
)

// Roles, the value of the identity attribute RoleAttribute.
const (
	RoleAttribute     = "certanchor.role"
	RoleOperator      = "operator"
	RoleAuditor       = "auditor"
	RoleAdministrator = "administrator"
)

// InitArg founds the ledger. Every endorser compares it with its own configuration, so it commits only when enough
// organisations' administrators have configured the same consortium. Repeating it with the same bytes succeeds. The answer is
// the Consortium record.
type InitArg struct {
	V            uint     `cbor:"0,keyasint"`
	MSPs         []string `cbor:"1,keyasint"` // sorted, unique
	TickInterval int64    `cbor:"2,keyasint"` // milliseconds
}

// RegisterCAArg asks for a CA to be put on the trust list. It takes effect when a majority of organisations has submitted
// identical bytes.
type RegisterCAArg struct {
	V            uint     `cbor:"0,keyasint"`
	Cert         []byte   `cbor:"1,keyasint"` // DER
	Chain        [][]byte `cbor:"2,keyasint"` // DER, issuer first, up to a self-signed root; empty if Cert is self-signed
	OperatingMSP string   `cbor:"3,keyasint"`
}

// RegisterCAResult tells how the decision stands.
type RegisterCAResult struct {
	V          uint     `cbor:"0,keyasint"`
	CAID       CAID     `cbor:"1,keyasint"`
	Registered bool     `cbor:"2,keyasint"` // true once the CA is on the trust list with these bytes
	Votes      []string `cbor:"3,keyasint"` // MSP IDs that have assented, sorted; empty once registered
	Needed     int      `cbor:"4,keyasint"` // the majority
}

// IssueArg records certificates and precertificates (RFC 6962 section 3.1) of one CA, in order. All are recorded or none.
type IssueArg struct {
	V      uint   `cbor:"0,keyasint"`
	CAID   CAID   `cbor:"1,keyasint"`
	Packed []byte `cbor:"2,keyasint"` // PackCerts of 1 to MaxBatch DER certificates
}

// NewIssueArg packs certs.
func NewIssueArg(id CAID, certs [][]byte) *IssueArg {
	return &IssueArg{V: Version, CAID: id, Packed: PackCerts(certs)}
}

// Certs returns the certificates, in order. Errors are those of UnpackCerts.
func (a *IssueArg) Certs() ([][]byte, error) { return UnpackCerts(a.Packed) }

// IssueResult has one entry for each certificate of the argument, in its order.
type IssueResult struct {
	V       uint       `cbor:"0,keyasint"`
	Entries []LogEntry `cbor:"1,keyasint"`
}

// StatusOp is what a StatusChange does.
type StatusOp uint

// Operations on a certificate's status.
const (
	OpRevoke  StatusOp = 1
	OpHold    StatusOp = 2
	OpRelease StatusOp = 3
)

// StatusChange is one change of one certificate's status.
type StatusChange struct {
	Serial     Serial   `cbor:"0,keyasint"`
	Op         StatusOp `cbor:"1,keyasint"`
	Reason     Reason   `cbor:"2,keyasint"`           // OpRevoke: any but CertificateHold; OpHold: CertificateHold; OpRelease: Unspecified
	Invalidity Millis   `cbor:"3,keyasint,omitempty"` // OpRevoke only: when the key or certificate became bad, not in the future; 0: not given
}

// SetStatusArg changes the status of certificates of one CA. All changes are made or none; a serial occurs once.
type SetStatusArg struct {
	V       uint           `cbor:"0,keyasint"`
	CAID    CAID           `cbor:"1,keyasint"`
	Changes []StatusChange `cbor:"2,keyasint"` // 1 to MaxBatch
}

// StatusResult is the status of one certificate after a SetStatus.
type StatusResult struct {
	State   CertState `cbor:"0,keyasint"`
	Reason  Reason    `cbor:"1,keyasint"`
	Time    Millis    `cbor:"2,keyasint"`
	Change  uint64    `cbor:"3,keyasint"`
	Changed bool      `cbor:"4,keyasint"` // false: it was so already
}

// SetStatusResult has one entry for each change of the argument, in its order.
type SetStatusResult struct {
	V       uint           `cbor:"0,keyasint"`
	Results []StatusResult `cbor:"1,keyasint"`
}

// RevokeIntent is what the holder of a certificate's key signs to have it revoked (IntentBytes of its encoding). It is good on
// one ledger, for one certificate, until it expires; whoever has it may submit it, and nobody can change it.
type RevokeIntent struct {
	V          uint   `cbor:"0,keyasint"`
	Channel    string `cbor:"1,keyasint"` // the ledger's name
	CAID       CAID   `cbor:"2,keyasint"`
	Serial     Serial `cbor:"3,keyasint"`
	Reason     Reason `cbor:"4,keyasint"`           // any but CertificateHold
	Invalidity Millis `cbor:"5,keyasint,omitempty"` // RFC 5280 section 5.3.2 invalidityDate; 0: not given
	Expires    Millis `cbor:"6,keyasint"`           // refused in transactions of a later time
	Nonce      []byte `cbor:"7,keyasint"`           // 16 octets
}

// intentContext keeps a signature over an intent from being one over anything else.
const intentContext = "certanchor/revoke-intent/v1\x00"

// NonceBytes is the length of a RevokeIntent's nonce.
const NonceBytes = 16

// IntentBytes returns what is signed for an encoded RevokeIntent.
func IntentBytes(intent []byte) []byte { return append([]byte(intentContext), intent...) }

// RevokeArg revokes a certificate by the signature of its own key. ECDSA with the hash of the curve's size, RSA PKCS #1 v1.5 with
// SHA-256, or Ed25519, as the key is.
type RevokeArg struct {
	V         uint   `cbor:"0,keyasint"`
	Cert      []byte `cbor:"1,keyasint"` // DER of the certificate, or of its precertificate
	Intent    []byte `cbor:"2,keyasint"` // encoded RevokeIntent
	Signature []byte `cbor:"3,keyasint"` // over IntentBytes(Intent), as X.509 encodes signatures
}

// RevokeResult tells what stands at the revocation's key afterwards.
type RevokeResult struct {
	V       uint   `cbor:"0,keyasint"`
	Reason  Reason `cbor:"1,keyasint"`
	Time    Millis `cbor:"2,keyasint"`
	Change  uint64 `cbor:"3,keyasint"`
	Changed bool   `cbor:"4,keyasint"` // false: it was so already
}

// DecisionKind is what a DecideArg decides.
type DecisionKind uint

// Decisions about a CA.
const (
	DecideSuspend DecisionKind = 1 // no new certificates, no releases; its operating organisation may do so alone
	DecideResume  DecisionKind = 2 // ends a suspension; alone: only the organisation that suspended alone
	DecideRule    DecisionKind = 3 // revokes everything the CA logged in an interval, what it imported then included
	DecideRevoke  DecisionKind = 4 // revokes one certificate
)

// DecideArg is a decision of the consortium's administrators. It takes effect when a majority of organisations has submitted
// identical bytes; a suspension and its end also when the one organisation that may do so alone has. A suspension by one
// organisation becomes one by a majority as soon as that has submitted the bytes too, its own vote included.
//
// DecideResume is refused unless Change is CARecord.Change; DecideSuspend and DecideRule, unless it is from CARecord.Settled to
// CARecord.Change, so that what one organisation does alone in the meantime cannot undo votes.
type DecideArg struct {
	V          uint         `cbor:"0,keyasint"`
	Kind       DecisionKind `cbor:"1,keyasint"`
	CAID       CAID         `cbor:"2,keyasint"`
	Change     uint64       `cbor:"3,keyasint"`           // CARecord.Change as the voters saw it; DecideRevoke: 0
	Serial     Serial       `cbor:"4,keyasint,omitempty"` // DecideRevoke
	Reason     Reason       `cbor:"5,keyasint"`           // DecideRule, DecideRevoke: any but CertificateHold; otherwise Unspecified
	Invalidity Millis       `cbor:"6,keyasint,omitempty"` // DecideRule, DecideRevoke
	From       Millis       `cbor:"7,keyasint,omitempty"` // DecideRule: leaves with From <= timestamp < To
	To         Millis       `cbor:"8,keyasint,omitempty"` // DecideRule; may be in the future only up to the transaction's time
}

// DecideResult tells how the decision stands.
type DecideResult struct {
	V       uint     `cbor:"0,keyasint"`
	Decided bool     `cbor:"1,keyasint"` // true once it has taken effect, be it by the caller's organisation alone
	Votes   []string `cbor:"2,keyasint"` // MSP IDs that have assented, sorted; empty once decided
	Needed  int      `cbor:"3,keyasint"`
}

// IntegrateArg moves pending changes into the status log. Unlike other transactions it is not repeated with the same bytes: whoever
// lost reads what is left.
type IntegrateArg struct {
	V      uint     `cbor:"0,keyasint"`
	Size   uint64   `cbor:"1,keyasint"` // of the status log, as the caller knows it
	Leaves [][]byte `cbor:"2,keyasint"` // leaf hashes of pending changes, in the order they get; 1 to MaxBatch, unique
}

// IntegrateResult is the status log's head afterwards.
type IntegrateResult struct {
	V    uint   `cbor:"0,keyasint"`
	Size uint64 `cbor:"1,keyasint"`
	Root []byte `cbor:"2,keyasint"`
}

// TickArg moves the ledger's clock. It is refused while the epoch of its time already has one.
type TickArg struct {
	V uint `cbor:"0,keyasint"`
}

// TickResult tells where the clock stands.
type TickResult struct {
	V     uint   `cbor:"0,keyasint"`
	Epoch int64  `cbor:"1,keyasint"`
	Time  Millis `cbor:"2,keyasint"`
}

// ReadArg asks for the values of keys, 1 to MaxBatch.
type ReadArg struct {
	V    uint     `cbor:"0,keyasint"`
	Keys []string `cbor:"1,keyasint"`
	Pad  []byte   `cbor:"2,keyasint,omitempty"` // ignored: as a transaction, a baseline of as many bytes as another one has
}

// ReadResult has a value for each key of the argument, in its order; null for a key that is not there.
type ReadResult struct {
	V      uint     `cbor:"0,keyasint"`
	Values [][]byte `cbor:"1,keyasint"`
}

func (a *InitArg) version() uint          { return a.V }
func (a *RegisterCAArg) version() uint    { return a.V }
func (r *RegisterCAResult) version() uint { return r.V }
func (a *IssueArg) version() uint         { return a.V }
func (r *IssueResult) version() uint      { return r.V }
func (a *SetStatusArg) version() uint     { return a.V }
func (r *SetStatusResult) version() uint  { return r.V }
func (i *RevokeIntent) version() uint     { return i.V }
func (a *RevokeArg) version() uint        { return a.V }
func (r *RevokeResult) version() uint     { return r.V }
func (a *DecideArg) version() uint        { return a.V }
func (r *DecideResult) version() uint     { return r.V }
func (a *IntegrateArg) version() uint     { return a.V }
func (r *IntegrateResult) version() uint  { return r.V }
func (a *TickArg) version() uint          { return a.V }
func (r *TickResult) version() uint       { return r.V }
func (a *ReadArg) version() uint          { return a.V }
func (r *ReadResult) version() uint       { return r.V }
