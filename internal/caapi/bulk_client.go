package caapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// BulkOf has a query or a key's certificates changed, or, with DryRun, listed. Under idempotencyKey the call may be repeated.
func (c *Client) BulkOf(ctx context.Context, r BulkRequest, idempotencyKey string) (*Bulk, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return c.bulk(ctx, PathBulk, "application/json", body, idempotencyKey)
}

// BulkList has a list changed, TypeCSV or TypeJSONLines as kind says. Of r it takes Operation, Reason, InvalidityDate and DryRun.
func (c *Client) BulkList(ctx context.Context, r BulkRequest, kind string, list []byte, idempotencyKey string) (*Bulk, error) {
	q := url.Values{}
	for name, v := range map[string]string{"operation": r.Operation, "reason": r.Reason, "invalidity_date": r.InvalidityDate} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if r.DryRun {
		q.Set("dry_run", "true")
	}
	path := PathBulk
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.bulk(ctx, path, kind, list, idempotencyKey)
}

// StartBulk confirms a planned bulk: exactly the list with its digest.
func (c *Client) StartBulk(ctx context.Context, b *Bulk) (*Bulk, error) {
	body, err := json.Marshal(BulkStart{Digest: b.Digest})
	if err != nil {
		return nil, err
	}
	return c.bulk(ctx, PathBulk+"/"+url.PathEscape(b.ID), "application/json", body, "")
}

func (c *Client) bulk(ctx context.Context, path, kind string, body []byte, key string) (*Bulk, error) {
	header := http.Header{"Content-Type": {kind}}
	if key != "" {
		header.Set(IdempotencyKey, key)
	}
	code, answer, err := c.send(ctx, http.MethodPost, path, header, body, maxAnswer)
	if err != nil {
		return nil, err
	}
	if code/100 != 2 {
		return nil, asProblem(http.MethodPost, c.base+path, code, answer)
	}
	if code == http.StatusAccepted {
		if op := pending(answer); op != nil {
			return nil, &PendingError{Operation: op}
		}
	}
	var b Bulk
	if err := json.Unmarshal(answer, &b); err != nil {
		return nil, fmt.Errorf("POST %s%s: the answer is not understood: %w", c.base, path, err)
	}
	return &b, nil
}

// Bulk tells how one stands, after waiting for its end for at most wait, of 30 s.
func (c *Client) Bulk(ctx context.Context, id string, wait time.Duration) (*Bulk, error) {
	var b Bulk
	_, err := c.do(ctx, http.MethodGet, PathBulk+"/"+url.PathEscape(id)+"?wait="+wait.String(), nil, nil, &b)
	return &b, err
}

// BulkResults calls fn with what became of each certificate, or only of those with an outcome, in the order of the list; of limit of them, unless that
// is 0.
func (c *Client) BulkResults(ctx context.Context, id, outcome string, limit int, fn func(*BulkResult) error) error {
	q := url.Values{}
	if outcome != "" {
		q.Set("outcome", outcome)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	path := PathBulk + "/" + url.PathEscape(id) + PathResults
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	code, body, err := c.send(ctx, http.MethodGet, path, nil, nil, maxContents)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return asProblem(http.MethodGet, c.base+path, code, body)
	}
	for dec := json.NewDecoder(bytes.NewReader(body)); ; {
		var r BulkResult
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("GET %s%s: the answer is not understood: %w", c.base, path, err)
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
}
