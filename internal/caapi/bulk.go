package caapi

// Paths of revocations of many certificates.
const (
	PathBulk = PathRevocations + "/bulk"
	// PathBulk + "/{id}" is one of them, PathBulk + "/{id}/results" what became of each certificate.
	PathResults = "/results"
)

// Limits of a BulkRequest.
const (
	MaxBulk     = 100_000  // certificates
	MaxBulkBody = 16 << 20 // bytes of a list
)

// Media types of lists: a header line or not, then serial, reason and invalidity_date; JSON objects, one in a line, with these fields.
const (
	TypeCSV       = "text/csv"
	TypeJSONLines = "application/x-ndjson"
)

// Operations on many certificates.
const (
	OperationRevoke  = "revoke"
	OperationHold    = "hold"
	OperationRelease = "release"
)

// BulkRequest changes the status of all certificates that a query finds, or that have a key (POST PathBulk). For a list the request's body
// is the list, and the other fields are in the URL's query.
type BulkRequest struct {
	Operation      string `json:"operation,omitempty"` // revoke (default), hold or release
	Reason         string `json:"reason,omitempty"`    // RFC 5280's name; of a list, for the lines that have none
	InvalidityDate string `json:"invalidity_date,omitempty"`
	Query          *Query `json:"query,omitempty"`
	SPKI           string `json:"spki,omitempty"` // SHA-256 of a SubjectPublicKeyInfo, hexadecimal
	Key            string `json:"key,omitempty"`  // or a certificate, request or public key with it, PEM
	DryRun         bool   `json:"dry_run,omitempty"`
}

// Query says which certificates are meant: those that match all of its fields, of which there must be one at least.
type Query struct {
	Profile     string `json:"profile,omitempty"`      // issued by this CA bridge with this profile
	Client      string `json:"client,omitempty"`       // and to this client
	Name        string `json:"name,omitempty"`         // common name or subject alternative name; *.example.org: all that end so
	Subject     string `json:"subject,omitempty"`      // RFC 4514; *,O=Example: all that end so
	IssuedFrom  string `json:"issued_from,omitempty"`  // RFC 3339, of the entry in the log
	IssuedTo    string `json:"issued_to,omitempty"`    // before it
	ExpiresFrom string `json:"expires_from,omitempty"` // RFC 3339, of notAfter
	ExpiresTo   string `json:"expires_to,omitempty"`   // before it
	State       string `json:"state,omitempty"`        // valid, held or revoked
}

// ListedCertificate is one line of a list.
type ListedCertificate struct {
	Serial         string `json:"serial"`
	Reason         string `json:"reason,omitempty"`
	InvalidityDate string `json:"invalidity_date,omitempty"`
}

// States of a Bulk.
const (
	BulkPlanned = "planned" // the list is fixed, and nothing is done before it is confirmed
	BulkRunning = "running"
	BulkDone    = "done"
)

// Bulk is a revocation, hold or release of many certificates. Its list is fixed before anything is done. It survives the CA's restart:
// one that is running goes on.
type Bulk struct {
	ID             string `json:"id"`
	State          string `json:"state"`
	Operation      string `json:"operation"`
	Reason         string `json:"reason,omitempty"`
	InvalidityDate string `json:"invalidity_date,omitempty"`
	Source         string `json:"source"` // list, query or key
	Query          *Query `json:"query,omitempty"`
	SPKI           string `json:"spki,omitempty"`
	KeyBlocked     bool   `json:"key_blocked,omitempty"` // nothing is issued for the key any more, and what is recorded with it later is revoked

	AsOf    uint64 `json:"as_of"`             // number of blocks that the list was made from: all that match in them are in it
	Unnamed int    `json:"unnamed,omitempty"` // of a query for names: certificates that the ledger has no names of, which are not in the list
	Digest  string `json:"digest"`            // SHA-256 of the list, hexadecimal: lines "serial operation reason invalidity_date", empty ones as "-"
	Total   int    `json:"total"`

	Changed int `json:"changed"` // since the list was fixed
	Already int `json:"already"` // were so before
	Failed  int `json:"failed"`  // their results say why

	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
	Started   string `json:"started,omitempty"`
	StartedBy string `json:"started_by,omitempty"`
	Finished  string `json:"finished,omitempty"`

	// Once it is done: the last block with a change, and who answers accordingly.
	Block        uint64      `json:"block,omitempty"`
	Acknowledged bool        `json:"acknowledged"` // by every responder
	Responders   []Responder `json:"responders,omitempty"`

	Detail string `json:"detail,omitempty"` // what it waits for, or which responder has not confirmed
}

// BulkStart confirms a planned Bulk (POST PathBulk/{id}).
type BulkStart struct {
	Digest string `json:"digest"` // the Bulk's: exactly this list
}

// BulkResult is what became of one certificate of a Bulk, or, while that is open, what would (GET PathBulk/{id}/results: JSON lines).
type BulkResult struct {
	Serial    string `json:"serial"`
	Operation string `json:"operation"`
	Outcome   string `json:"outcome"` // open, changed, already or failed

	State          string `json:"state,omitempty"` // of the certificate
	Reason         string `json:"reason,omitempty"`
	RevocationTime string `json:"revocation_time,omitempty"`
	Change         uint64 `json:"change,omitempty"`
	Block          uint64 `json:"block,omitempty"` // of the change
	TxID           string `json:"tx_id,omitempty"`

	StatusLog

	Subject string   `json:"subject,omitempty"` // as the ledger has it
	Names   []string `json:"names,omitempty"`

	Error *BulkError `json:"error,omitempty"`
}

// BulkError says which field breaks which rule.
type BulkError struct {
	Code  string `json:"code"`
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"`
	Rule  string `json:"rule"`
}

// StatusLog is where a change stands in the status log, which takes it within a second.
type StatusLog struct {
	StatusLogIndex *uint64 `json:"status_log_index,omitempty"`
	// StatusLogPending is where to ask for the index while there is none.
	StatusLogPending string `json:"status_log_pending,omitempty"`
}
