package caapi

import (
	"context"
	"net/http"
)

// PathStatus is where a CA tells how it is.
const PathStatus = "/v1/status"

// CAStatus is how a CA is (GET PathStatus). What could not be found out is absent, and Problems says why.
type CAStatus struct {
	CAID      string `json:"ca_id"`
	Subject   string `json:"subject"`
	NotBefore string `json:"not_before"`
	NotAfter  string `json:"not_after"`
	Profiles  int    `json:"profiles"`

	Ready  Ready     `json:"ready"`
	Ledger *OnLedger `json:"ledger,omitempty"` // absent: the CA is not on the trust list, or the ledger does not answer
	Key    KeyStatus `json:"key"`

	Journal     JournalCounts `json:"journal"`
	Last        *Anchored     `json:"last,omitempty"` // absent: this CA bridge has issued nothing yet
	Catalogue   Catalogue     `json:"catalogue"`
	BlockedKeys int           `json:"blocked_keys"` // keys that nothing is issued for
	Superseding int           `json:"superseding"`  // certificates that are revoked when their overlap ends
	Bulks       BulkCounts    `json:"bulks"`

	Responders []Responder `json:"responders"` // whether each has applied the newest block
	CRLs       *CRLs       `json:"crls"`

	Generations []GenerationStatus `json:"generations"` // of the CA's key, oldest first; what stands above is about the one that issues, profiles, blocked keys, superseding and bulks are of all

	Problems []string `json:"problems"`
}

// GenerationStatus is how the CA is with one of its keys.
type GenerationStatus struct {
	CAID     string        `json:"ca_id"`
	NotAfter string        `json:"not_after"`
	KeyState string        `json:"key_state"`
	Since    string        `json:"since"`
	Issues   bool          `json:"issues"`
	Journal  JournalCounts `json:"journal"`
	Last     *Anchored     `json:"last,omitempty"`
	Ledger   *OnLedger     `json:"ledger,omitempty"` // absent: it is not on the trust list, or the ledger does not answer
	CRLs     *CRLs         `json:"crls"`
}

// OnLedger is the trust list entry.
type OnLedger struct {
	State       string `json:"state"` // active or suspended
	Since       string `json:"since"`
	SuspendedBy string `json:"suspended_by,omitempty"` // the organisation that did so alone
	Registered  string `json:"registered"`
	Certs       int    `json:"certificates"` // of the CA itself: renewals and cross-certificates
	Rules       uint64 `json:"rules"`        // decisions that revoke everything from an interval
	LogSize     uint64 `json:"log_size"`     // entries of its issuance log
}

// KeyStatus is what the key that issues may do.
type KeyStatus struct {
	State  string `json:"state"` // generated, active, suspended, retired or destroyed
	Since  string `json:"since"`
	Usable bool   `json:"usable"`           // it signs certificates
	Detail string `json:"detail,omitempty"` // why not
}

// JournalCounts are the certificates that this CA bridge has signed.
type JournalCounts struct {
	Issued     int `json:"issued"`     // on the ledger
	Unresolved int `json:"unresolved"` // on their way, or of unknown outcome
	Refused    int `json:"refused"`    // by the ledger; never released
	Abandoned  int `json:"abandoned"`  // never submitted
}

// Anchored is the newest certificate on the ledger that this CA bridge has issued.
type Anchored struct {
	Serial   string `json:"serial"`
	LogIndex uint64 `json:"log_index"`
	Block    uint64 `json:"block"`
	Time     string `json:"time"`
}

// Catalogue is how far the CA has read the ledger, for queries.
type Catalogue struct {
	Height uint64 `json:"height"` // blocks
	Behind uint64 `json:"behind"`
}

// BulkCounts are bulk revocations that have not ended.
type BulkCounts struct {
	Planned int `json:"planned"`
	Running int `json:"running"`
}

// Status tells how the CA is.
func (c *Client) Status(ctx context.Context) (*CAStatus, error) {
	var st CAStatus
	_, err := c.do(ctx, http.MethodGet, PathStatus, nil, nil, &st)
	return &st, err
}
