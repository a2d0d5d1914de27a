package caapi

// Paths of the API.
const (
	PathCertificates = "/v1/certificates"
	PathRevocations  = "/v1/revocations"
	PathReleases     = "/v1/releases"
	PathResponders   = "/v1/responders"
	PathCA           = "/v1/ca"
	PathHealth       = "/healthz"
	PathReady        = "/readyz"
	PathMetrics      = "/metrics"
)

// IdempotencyKey is the header that names an issuance: a repetition with the same key and the same request gets the same
// certificate, however the first attempt ended.
const IdempotencyKey = "Idempotency-Key"

// TimeFormat is RFC 3339 in UTC with milliseconds, the ledger's resolution.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// IssueRequest asks for a certificate (POST PathCertificates) or, without a profile, for that of a delegated OCSP responder
// (POST PathResponders).
type IssueRequest struct {
	CSR     string `json:"csr"` // PEM, PKCS#10
	Profile string `json:"profile,omitempty"`
	CAID    string `json:"ca_id,omitempty"` // POST PathResponders: which generation of the CA's key; default: the one that issues

	Supersedes string `json:"supersedes,omitempty"` // serial number of a certificate that is revoked, as superseded, once this one is issued
	Overlap    string `json:"overlap,omitempty"`    // and how long after that, such as 72h; default 0
}

// Certificate is an issued certificate and where it stands on the ledger.
type Certificate struct {
	Certificate string   `json:"certificate,omitempty"` // PEM; absent for one that another issued under this CA
	Chain       []string `json:"chain"`                 // PEM, issuer first
	CAID        string   `json:"ca_id"`
	Serial      string   `json:"serial"` // lower-case hexadecimal
	LogIndex    uint64   `json:"log_index"`
	Timestamp   string   `json:"timestamp"` // of the log entry

	// Precertificate is true while the ledger has the precertificate only (RFC 6962 section 3.1): the place in the log is then that one's.
	Precertificate bool `json:"precertificate,omitempty"`

	// Imported: it came to the ledger by Import. SerialOnly: and without its certificate, so it has no place in the log.
	Imported   bool `json:"imported,omitempty"`
	SerialOnly bool `json:"serial_only,omitempty"`

	// Block is one at which the ledger holds the certificate; after a crash it may be that of the repeated transaction.
	Block uint64 `json:"block"`
	TxID  string `json:"tx_id"`

	Supersedes *Superseded `json:"supersedes,omitempty"`

	Status *Status `json:"status,omitempty"` // GET only
}

// Superseded is a certificate that another one replaces.
type Superseded struct {
	Serial string `json:"serial"`
	At     string `json:"at"` // when it is revoked, or was to be
}

// Status is what the ledger says about a certificate now.
type Status struct {
	State          string `json:"state"`                     // valid, held or revoked; unknown: only the serial number was imported
	Reason         string `json:"reason,omitempty"`          // of a hold or revocation, RFC 5280's name
	Since          string `json:"since"`                     // when the state took effect on the ledger
	Asserted       string `json:"asserted,omitempty"`        // of a hold or revocation that was imported: since when, as the CA said
	InvalidityDate string `json:"invalidity_date,omitempty"` // RFC 5280 section 5.3.2
	Change         uint64 `json:"change"`                    // number of changes so far

	StatusLog // of the CA operator's newest change
}

// RevokeRequest revokes a certificate, or holds it if the reason is certificateHold (POST PathRevocations).
type RevokeRequest struct {
	Serial         string `json:"serial"`
	Reason         string `json:"reason"`
	InvalidityDate string `json:"invalidity_date,omitempty"` // RFC 3339
}

// ReleaseRequest ends a hold (POST PathReleases).
type ReleaseRequest struct {
	Serial string `json:"serial"`
}

// StatusChange is the answer to both. With status 200 every responder has applied the change; with 202 it is committed, and
// those with Applied false have not confirmed it.
type StatusChange struct {
	Serial         string `json:"serial"`
	State          string `json:"state"`
	Reason         string `json:"reason,omitempty"`
	RevocationTime string `json:"revocation_time,omitempty"` // since when it is held or revoked
	Change         uint64 `json:"change"`
	Changed        bool   `json:"changed"` // false: it was so already
	Block          uint64 `json:"block"`
	TxID           string `json:"tx_id"`
	StatusLog
	Responders []Responder `json:"responders"`
	Detail     string      `json:"detail,omitempty"` // with 202: who has not confirmed
}

// Responder tells whether one of the organisation's OCSP responders has applied a change.
type Responder struct {
	URL     string `json:"url"`
	Applied bool   `json:"applied"`
	Error   string `json:"error,omitempty"`
}

// CA describes the certificate authority (GET PathCA).
type CA struct {
	CAID        string    `json:"ca_id"`
	Certificate string    `json:"certificate"` // PEM
	Chain       []string  `json:"chain"`       // PEM, the CA's issuer first; empty for a root
	Profiles    []Profile `json:"profiles"`

	Generations []Generation `json:"generations"` // of its key, oldest first; the fields above are those of the one that issues
}

// Generation is a CA with one key among those that one CA has had.
type Generation struct {
	CAID        string   `json:"ca_id"`
	Certificate string   `json:"certificate"` // PEM
	Chain       []string `json:"chain"`       // PEM
	KeyState    string   `json:"key_state"`
	Since       string   `json:"since"`
	Issues      bool     `json:"issues"`
}

// Profile is what a certificate of one kind contains.
type Profile struct {
	Name    string   `json:"name"`
	Usages  []string `json:"usages"`
	Expiry  string   `json:"expiry"`
	OCSPURL string   `json:"ocsp_url,omitempty"`
	SCTs    int      `json:"scts,omitempty"` // that a certificate embeds; 0: none, it has no precertificate

	CRLURLs   []string `json:"crl_urls,omitempty"`   // with {ca} and {shard}; the first is the scope of a shard's CRL
	CRLShards int      `json:"crl_shards,omitempty"` // 0: the URLs are those of the complete CRL
}

// Ready is the answer of PathReady.
type Ready struct {
	Ready        bool   `json:"ready"`
	MSPID        string `json:"msp_id"`
	OperatingMSP string `json:"operating_msp,omitempty"` // as the ledger has it
	Registered   bool   `json:"registered"`
	Height       uint64 `json:"height"`
	Unresolved   int    `json:"unresolved"`       // certificates signed whose outcome on the ledger is not known yet
	Detail       string `json:"detail,omitempty"` // why it is not ready
}
