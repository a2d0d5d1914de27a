package caapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Paths of dual control.
const (
	PathOperations  = "/v1/operations" // GET: Operations
	PathProfiles    = "/v1/profiles"
	PathDualControl = "/v1/dual-control"

	// Below the path of one operation.
	PathContents   = "/contents"   // GET: what it is about, octets
	PathApprovals  = "/approvals"  // POST: OperatorSignature
	PathRejections = "/rejections" // POST: OperatorSignature
)

// Operation is a deed that needs the signatures of several operators, and what became of it.
type Operation struct {
	ID        string            `json:"id"`
	Kind      string            `json:"kind"` // revoke, key-resume, profiles, export or policy
	State     string            `json:"state"`
	Text      string            `json:"text"` // what operators read and sign
	Params    map[string]string `json:"params"`
	Created   string            `json:"created"` // RFC 3339
	Expires   string            `json:"expires"`
	Client    string            `json:"client"`    // who asked for it
	Need      int               `json:"need"`      // operators who must sign
	Operators map[string]string `json:"operators"` // who may sign, with the SHA-256 of their public keys

	Approvals []OperatorDecision `json:"approvals"`
	Rejection *OperatorDecision  `json:"rejection,omitempty"`
	Finished  string             `json:"finished,omitempty"` // when it was done, failed, was rejected or expired
	Result    json.RawMessage    `json:"result,omitempty"`
	Error     string             `json:"error,omitempty"`
}

// OperatorDecision says who signed, and when it was received.
type OperatorDecision struct {
	Operator string `json:"operator"`
	Time     string `json:"time"`
}

// Operations is the answer of PathOperations, the newest first: those that wait, and the newest 128 of those that ended. Results are told of one
// operation only.
type Operations struct {
	Operations []Operation `json:"operations"`
}

// OperatorSignature is an operator's approval or rejection: a signature on the operation's text, in base64.
type OperatorSignature struct {
	Operator  string `json:"operator"`
	Signature string `json:"signature"`
}

// Pending is the answer, with status 202, to a request that needs approvals. Nothing has been done.
type Pending struct {
	Operation *Operation `json:"operation"`
}

// PendingError is what a method of Client returns when the CA answers with Pending.
type PendingError struct{ Operation *Operation }

func (e *PendingError) Error() string {
	return fmt.Sprintf("nothing is done yet: %d operators must sign the operation %s until %s (certanchor ca approve)", e.Operation.Need, e.Operation.ID, e.Operation.Expires)
}

// Applied is the answer to a change of the profiles or of the dual-control policy that is in place.
type Applied struct {
	SHA256  string `json:"sha256"`
	InForce string `json:"in_force"` // now, or from the next start on
}

// DualControl is the answer of GET PathDualControl.
type DualControl struct {
	Configured bool              `json:"configured"`
	SHA256     string            `json:"sha256,omitempty"` // of the policy in force
	Need       int               `json:"need,omitempty"`
	Rules      string            `json:"rules,omitempty"`
	Operators  map[string]string `json:"operators,omitempty"` // with the SHA-256 of their public keys
}

// Operations lists operations under dual control.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var all Operations
	code, body, err := c.send(ctx, http.MethodGet, PathOperations, nil, nil, maxList)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, asProblem(http.MethodGet, c.base+PathOperations, code, body)
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("GET %s%s: the answer is not understood: %w", c.base, PathOperations, err)
	}
	return all.Operations, nil
}

// Operation returns one operation.
func (c *Client) Operation(ctx context.Context, id string) (*Operation, error) {
	var op Operation
	_, err := c.do(ctx, http.MethodGet, operationPath(id), nil, nil, &op)
	return &op, err
}

// Contents returns what an operation is about, up to 64 MiB.
func (c *Client) Contents(ctx context.Context, id string) ([]byte, error) {
	code, body, err := c.send(ctx, http.MethodGet, operationPath(id)+PathContents, nil, nil, maxContents)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, asProblem(http.MethodGet, c.base+operationPath(id)+PathContents, code, body)
	}
	return body, nil
}

const (
	maxContents = 64 << 20
	maxList     = 64 << 20 // octets
)

// Approve hands in an operator's signature. The operation that comes back is done, failed or still under way if it was the last that it needed.
func (c *Client) Approve(ctx context.Context, id string, s OperatorSignature) (*Operation, error) {
	var op Operation
	_, err := c.do(ctx, http.MethodPost, operationPath(id)+PathApprovals, nil, s, &op)
	return &op, err
}

// Reject hands in an operator's signature on the rejection, which ends the operation.
func (c *Client) Reject(ctx context.Context, id string, s OperatorSignature) (*Operation, error) {
	var op Operation
	_, err := c.do(ctx, http.MethodPost, operationPath(id)+PathRejections, nil, s, &op)
	return &op, err
}

// ReplaceProfiles asks for new profiles. Errors: *PendingError.
func (c *Client) ReplaceProfiles(ctx context.Context, profiles []byte) (*Applied, error) {
	return c.replace(ctx, PathProfiles, profiles)
}

// ReplacePolicy asks for another dual-control policy. Errors: *PendingError.
func (c *Client) ReplacePolicy(ctx context.Context, policy []byte) (*Applied, error) {
	return c.replace(ctx, PathDualControl, policy)
}

func (c *Client) replace(ctx context.Context, path string, contents []byte) (*Applied, error) {
	var a Applied
	_, err := c.do(ctx, http.MethodPost, path, nil, json.RawMessage(contents), &a)
	return &a, err
}

// DualControl says what the dual-control policy is.
func (c *Client) DualControl(ctx context.Context) (*DualControl, error) {
	var d DualControl
	_, err := c.do(ctx, http.MethodGet, PathDualControl, nil, nil, &d)
	return &d, err
}

func operationPath(id string) string { return PathOperations + "/" + url.PathEscape(id) }

// pending finds a Pending in an answer with status 202, which other answers have too.
func pending(body []byte) *Operation {
	var p Pending
	if json.Unmarshal(body, &p) != nil || p.Operation == nil || p.Operation.ID == "" {
		return nil
	}
	return p.Operation
}

// marshal keeps raw JSON as it is, to the octet: its digest is what operators sign.
func marshal(in any) ([]byte, error) {
	switch v := in.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		return v, nil
	}
	return json.Marshal(in)
}

func reader(payload []byte) io.Reader {
	if payload == nil {
		return nil
	}
	return bytes.NewReader(payload)
}
