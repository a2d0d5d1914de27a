package caapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/internal/httpsig"
)

// PathBackup is where a running CA sends a backup of its directory, without keys (package cabackup), to an administrator. The answer is a
// whole backup only if its manifest is there.
const PathBackup = "/v1/backup"

// BackupType is the media type of a backup.
const BackupType = "application/vnd.certanchor.ca-backup"

// BackupRequest asks for a backup (POST PathBackup).
type BackupRequest struct {
	Keys string `json:"keys"` // "none", or "wrapped": who asks adds them to the file; for the operators' log
}

// Backup has the CA send a backup, and calls fn with it. There is no limit of time but ctx's.
func (c *Client) Backup(ctx context.Context, r BackupRequest, fn func(io.Reader) error) (err error) {
	payload, err := marshal(r)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+PathBackup, reader(payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	switch {
	case c.token != "":
		req.Header.Set("Authorization", "Bearer "+c.token)
	case len(c.hmac.Key) > 0:
		if err := httpsig.Sign(req, payload, c.hmac.Name, c.hmac.Key, time.Now()); err != nil {
			return err
		}
	}
	patient := *c.http
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return err
		}
		return asProblem(http.MethodPost, c.base+PathBackup, resp.StatusCode, body)
	}
	if got := resp.Header.Get("Content-Type"); got != BackupType {
		return fmt.Errorf("POST %s%s: the answer is %q, must be %s", c.base, PathBackup, got, BackupType)
	}
	return fn(resp.Body)
}
