package client

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// ServedLogKeys asks LogURL which keys it signs the checkpoints of issuer's log with, as signed-note verifier keys. A key that
// comes from the server it is to check shows only that the server agrees with itself: to trust an organisation, get its key from
// the organisation. Errors: ErrTransport, ErrUnavailable, ErrNotLogged when it does not serve that log.
func (c *Client) ServedLogKeys(ctx context.Context, issuer *x509.Certificate) ([]string, error) {
	address := strings.TrimRight(c.LogURL, "/") + "/logs"
	code, header, body, err := c.exchange(ctx, http.MethodGet, address, nil, "", maxAnswer)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, c.refused(address, code, header, body)
	}
	var logs []struct {
		CAID string `json:"ca_id"`
		VKey string `json:"vkey"`
	}
	if err := json.Unmarshal(body, &logs); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTransport, address, err)
	}
	var keys []string
	for _, l := range logs {
		if l.CAID == CAID(issuer) {
			keys = append(keys, l.VKey)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: %s lists no log of CA %s", ErrNotLogged, address, CAID(issuer))
	}
	return keys, nil
}
