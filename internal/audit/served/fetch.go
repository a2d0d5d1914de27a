package served

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/certanchor/certanchor/internal/policy"
)

// Limits of answers, in octets.
const (
	maxNote = 64 << 10
	maxJSON = 16 << 20
	maxTile = 256 * (3 << 16) // entries of at most 2^16 octets each, certificate and precertificate
)

// statusError is an HTTP answer other than 200.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", e.code, e.text))
}

func notFound(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == http.StatusNotFound
}

// fetcher gets files of one bridge.
type fetcher struct {
	http *http.Client
	base string
}

// get returns the body at a path. A connection that broke is tried once more; an answer is an answer.
func (f *fetcher) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	body, err := f.once(ctx, path, limit)
	var answer *statusError
	if err != nil && !errors.As(err, &answer) && ctx.Err() == nil {
		body, err = f.once(ctx, path, limit)
	}
	return body, err
}

func (f *fetcher) once(ctx context.Context, path string, limit int64) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 500))
		return nil, errors.Join(&statusError{resp.StatusCode, strings.Join(strings.Fields(string(text)), " ")}, err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s: answer is longer than %d octets", path, limit)
	}
	return body, err
}

func (f *fetcher) json(ctx context.Context, path string, v any) error {
	body, err := f.get(ctx, path, maxJSON)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	return err
}

// FetchPolicy returns the first policy file that a bridge serves, and the bridge.
func FetchPolicy(ctx context.Context, h *http.Client, bridges []string) (file []byte, from string, err error) {
	if h == nil {
		h = http.DefaultClient
	}
	for _, u := range bridges {
		f := &fetcher{http: h, base: strings.TrimRight(u, "/")}
		file, e := f.get(ctx, "/policy", policy.MaxFile)
		if e == nil {
			return file, f.base, nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", f.base, e))
	}
	return nil, "", err
}
