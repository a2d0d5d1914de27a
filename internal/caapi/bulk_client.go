package caapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	var b Bulk
	_, err := c.doBytes(ctx, http.MethodPost, path, header, body, &b)
	return &b, err
}

// Bulk tells how one stands, after waiting for its end for at most wait, of 30 s.
func (c *Client) Bulk(ctx context.Context, id string, wait time.Duration) (*Bulk, error) {
	var b Bulk
	_, err := c.do(ctx, http.MethodGet, PathBulk+"/"+url.PathEscape(id)+"?wait="+wait.String(), nil, nil, &b)
	return &b, err
}

// BulkResults calls fn with what became of each certificate, or only of those with an outcome, in the order of the list.
func (c *Client) BulkResults(ctx context.Context, id, outcome string, fn func(*BulkResult) error) error {
	path := PathBulk + "/" + url.PathEscape(id) + PathResults
	if outcome != "" {
		path += "?outcome=" + url.QueryEscape(outcome)
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return err
		}
		return asProblem(http.MethodGet, c.base+path, resp.StatusCode, body)
	}
	for dec := json.NewDecoder(bufio.NewReader(resp.Body)); ; {
		var r BulkResult
		if err := dec.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("GET %s%s: the answer is not understood: %w", c.base, path, err)
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
}

// doBytes is do for a body that is encoded already.
func (c *Client) doBytes(ctx context.Context, method, path string, header http.Header, body []byte, out any) (int, error) {
	resp, err := c.send(ctx, method, path, header, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, asProblem(method, c.base+path, resp.StatusCode, answer)
	}
	return resp.StatusCode, json.Unmarshal(answer, out)
}

func (c *Client) send(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.http.Do(req)
}
