package caapi

import (
	"context"
	"net/http"
)

// PathCRLs is where a CA tells of its CRLs.
const PathCRLs = "/v1/crls"

// CRLs is the answer of PathCRLs: which CRLs the CA has signed, and who serves them.
type CRLs struct {
	CAID     string       `json:"ca_id"`
	Made     bool         `json:"made"`               // false: this CA makes none
	Contents string       `json:"contents,omitempty"` // base URL of the OCSP bridge that says what must be in them
	Lists    []CRL        `json:"lists"`              // that about all certificates first
	Targets  []CRLTarget  `json:"targets"`
	Problems []CRLProblem `json:"problems"` // why those that are due are not made
}

// CRL is one that the CA has signed.
type CRL struct {
	Kind       string `json:"kind"`            // complete or delta
	Scope      string `json:"scope,omitempty"` // URL of the shard; empty: all certificates
	Number     uint64 `json:"number"`
	Base       uint64 `json:"base,omitempty"` // of a delta
	ThisUpdate string `json:"this_update"`    // RFC 3339
	NextUpdate string `json:"next_update"`
	Entries    int    `json:"entries"`
	Size       int    `json:"size"` // octets
	SHA256     string `json:"sha256"`
}

// States of a CRLTarget.
const (
	TargetCurrent = "current" // serves every CRL in its newest form
	TargetBehind  = "behind"  // one is on its way
	TargetFailing = "failing" // cannot be reached, or cannot take it now: it is asked again
	TargetRefuses = "refuses" // says that a CRL differs from the ledger: it is not asked again before there is a newer one
)

// CRLTarget is an OCSP bridge that is to serve the CRLs.
type CRLTarget struct {
	URL    string `json:"url"`
	State  string `json:"state"`
	Number uint64 `json:"number,omitempty"` // of the complete CRL about all certificates that it serves
	Delta  uint64 `json:"delta,omitempty"`  // of the delta CRL
	Behind int    `json:"behind"`           // CRLs that it does not serve in their newest form
	Detail string `json:"detail,omitempty"` // what it said last, unless it is current
	Since  string `json:"since,omitempty"`  // since when it is not current, RFC 3339
}

// CRLProblem is what keeps a CRL from being made.
type CRLProblem struct {
	Scope  string `json:"scope,omitempty"` // as of CRL
	Stage  string `json:"stage"`           // key, ledger, contents, number, sign, lint or store
	Detail string `json:"detail"`
	Since  string `json:"since"`
}

// CRLs returns the CRLs that the CA has signed, and who serves them.
func (c *Client) CRLs(ctx context.Context) (*CRLs, error) {
	var crls CRLs
	_, err := c.do(ctx, http.MethodGet, PathCRLs, nil, nil, &crls)
	return &crls, err
}
