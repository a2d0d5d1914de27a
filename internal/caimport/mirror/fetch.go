package mirror

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// fetched is what a server, or a file, has.
type fetched struct {
	data               []byte // nil: what it had before
	etag, lastModified string
}

// checkURL refuses what fetch cannot read.
func checkURL(flag, raw string, schemes ...string) error {
	u, err := url.Parse(raw)
	if err == nil {
		for _, s := range schemes {
			if u.Scheme == s && (u.Host != "" || s == "file" && u.Path != "") {
				return nil
			}
		}
	}
	return fmt.Errorf("%s %q: must be a URL that begins with %s://", flag, raw, strings.Join(schemes, ":// or "))
}

// fetch reads the CRL, unless the server says that it is the one of before (RFC 9110 section 13.1).
func (m *Mirror) fetch(ctx context.Context) (*fetched, error) {
	u, err := url.Parse(m.cfg.CRL)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		f, err := os.Open(u.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err := bounded(f, m.cfg.MaxCRLBytes)
		return &fetched{data: data}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.cfg.CRL, nil)
	if err != nil {
		return nil, err
	}
	if m.state.ETag != "" {
		req.Header.Set("If-None-Match", m.state.ETag)
	}
	if m.state.LastModified != "" {
		req.Header.Set("If-Modified-Since", m.state.LastModified)
	}
	resp, err := m.cfg.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return &fetched{}, nil
	default:
		return nil, fmt.Errorf("%s: HTTP status %d: must be 200 or 304", m.cfg.CRL, resp.StatusCode)
	}
	data, err := bounded(resp.Body, m.cfg.MaxCRLBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.cfg.CRL, err)
	}
	return &fetched{data: data, etag: short(resp.Header.Get("ETag")), lastModified: short(resp.Header.Get("Last-Modified"))}, nil
}

// short drops a header value that nobody sends back in earnest.
func short(s string) string {
	if len(s) > 256 {
		return ""
	}
	return s
}

// bounded reads all of r, which has at most so many octets.
func bounded(r io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("is longer than %d octets", most)
	}
	return data, nil
}
