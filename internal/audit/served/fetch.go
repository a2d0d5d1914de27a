package served

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

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

// noAnswer is that nobody answered a request.
type noAnswer struct{ err error }

func (e *noAnswer) Error() string { return e.err.Error() }
func (e *noAnswer) Unwrap() error { return e.err }

// fetcher gets files of one bridge. When nobody answers any more, it stops asking: a bridge that is away is one finding, and not one for
// each file.
type fetcher struct {
	http *http.Client
	base string

	mu       sync.Mutex
	answered bool   // ever; guarded by mu
	inRow    int    // requests without an answer since the last one with; guarded by mu
	count    int    // of all without; guarded by mu
	first    error  // of them; guarded by mu
	path     string // that first was about; guarded by mu
}

// enough is after how many requests without an answer, one after the other, a bridge is not asked any more. One that has never answered is
// asked once.
const enough = 3

func (f *fetcher) gone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inRow >= enough || f.inRow > 0 && !f.answered
}

// outcome notes whether somebody answered. err is nil if so.
func (f *fetcher) outcome(path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.answered, f.inRow = true, 0
		return
	}
	if f.count == 0 {
		f.first, f.path = err, path
	}
	f.inRow++
	f.count++
}

// silence is the difference that all requests without an answer are together, nil if there were none.
func (f *fetcher) silence() *Difference {
	gone := f.gone()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return nil
	}
	what := fmt.Sprintf("%d requests without an answer, the first for %s", f.count, f.path)
	if f.count == 1 {
		what = "no answer to a request for " + f.path
	}
	if gone {
		what += "; it was not asked any more"
	}
	return &Difference{Kind: KindUnreachable, Where: f.base, What: what, Found: f.first.Error(), Blocks: "what is served there is to be compared"}
}

// get returns the body at a path. A connection that broke is tried once more; an answer is an answer. The error is then a *noAnswer.
func (f *fetcher) get(ctx context.Context, path string, limit int64) (body []byte, err error) {
	err = f.try(ctx, path, func() error {
		body, err = f.once(ctx, path, limit)
		return err
	}, func(err error) bool { return errors.As(err, new(*statusError)) })
	return body, err
}

// try makes a request, a second time if the connection broke. answer says whether an error is an answer.
func (f *fetcher) try(ctx context.Context, path string, do func() error, answer func(error) bool) error {
	if f.gone() {
		return &noAnswer{errors.New("the bridge has not answered before")}
	}
	err := do()
	var net *url.Error
	if err != nil && !answer(err) && ctx.Err() == nil && !(errors.As(err, &net) && net.Timeout()) {
		err = do()
	}
	switch {
	case err == nil || answer(err):
		f.outcome(path, nil)
		return err
	case ctx.Err() != nil:
		return err
	}
	f.outcome(path, err)
	return &noAnswer{err}
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
		err = &statusError{resp.StatusCode, fmt.Sprintf("and an answer longer than %d octets", limit)}
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
