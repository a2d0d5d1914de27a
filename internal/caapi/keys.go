package caapi

import (
	"context"
	"net/http"
	"net/url"
)

// PathKey is the state of the CA's key: GET shows it, POST changes it.
const PathKey = "/v1/key"

// KeyRequest asks for a change of state (POST PathKey).
type KeyRequest struct {
	To      string `json:"to"`                // active (which resumes a suspended key), suspended, retired or destroyed
	Why     string `json:"why"`               // 1 to 500 octets
	CAID    string `json:"ca_id,omitempty"`   // of the key, where a CA has several generations; default: the one that issues
	Confirm string `json:"confirm,omitempty"` // to destroy: the CA ID once more
	Force   string `json:"force,omitempty"`   // to destroy: "true" although certificates may still need CRLs
}

// Key is a key of the CA and its history.
type Key struct {
	CAID    string      `json:"ca_id"`
	State   string      `json:"state"`
	Since   string      `json:"since"` // RFC 3339
	By      string      `json:"by"`
	How     string      `json:"how"` // how it is known who it was
	Why     string      `json:"why"`
	Signs   []string    `json:"signs"` // what it signs in this state
	Issues  bool        `json:"issues"`
	Token   string      `json:"token,omitempty"` // why the key's token cannot sign now
	Needed  string      `json:"needed"`          // until when certificates may need its CRLs, RFC 3339
	History []KeyChange `json:"history"`         // oldest first
}

// KeyChange is one change of a key's state.
type KeyChange struct {
	From string `json:"from,omitempty"`
	To   string `json:"to"`
	Time string `json:"time"`
	By   string `json:"by"`
	How  string `json:"how"`
	Why  string `json:"why"`
}

// Key shows a key; caID may be empty where there is one, or for the one that issues.
func (c *Client) Key(ctx context.Context, caID string) (*Key, error) {
	path := PathKey
	if caID != "" {
		path += "?" + url.Values{"ca_id": {caID}}.Encode()
	}
	var k Key
	_, err := c.do(ctx, http.MethodGet, path, nil, nil, &k)
	return &k, err
}

// ChangeKey changes a key's state. When it returns without an error, no signature is made any more that the new state does not allow.
func (c *Client) ChangeKey(ctx context.Context, r KeyRequest) (*Key, error) {
	var k Key
	_, err := c.do(ctx, http.MethodPost, PathKey, nil, r, &k)
	return &k, err
}
