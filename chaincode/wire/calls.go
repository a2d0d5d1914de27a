package wire

// Function names of the contract. Read changes nothing; the others are transactions.
const (
	FnInit       = "Init"
	FnRegisterCA = "RegisterCA"
	FnIssue      = "Issue"
	FnSetStatus  = "SetStatus"
	FnTick       = "Tick"
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

// IssueArg records certificates of one CA, in order. All are recorded or none.
type IssueArg struct {
	V     uint     `cbor:"0,keyasint"`
	CAID  CAID     `cbor:"1,keyasint"`
	Certs [][]byte `cbor:"2,keyasint"` // DER; 1 to MaxBatch
}

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
func (a *TickArg) version() uint          { return a.V }
func (r *TickResult) version() uint       { return r.V }
func (a *ReadArg) version() uint          { return a.V }
func (r *ReadResult) version() uint       { return r.V }
