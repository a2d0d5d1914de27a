package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	requestAttempts = 3                // of one request within a round; the next round is the next attempt
	firstBackoff    = time.Second      // doubled each time
	longestInline   = 30 * time.Second // a server that asks for more is left alone until another round
	longestAsked    = time.Hour        // no server can silence a monitor for longer
)

// httpError is an answer other than 200. errors.Is ErrTransport.
type httpError struct {
	address string
	status  int
	detail  string
	after   time.Duration // that the server asks to wait; 0: none
}

func (e *httpError) Error() string {
	return fmt.Sprintf("%v: %s: HTTP status %d: %s", ErrTransport, e.address, e.status, e.detail)
}

func (e *httpError) Unwrap() error { return ErrTransport }

// retry reports whether the same request may succeed later, with nothing changed but time.
func (e *httpError) retry() bool {
	return e.status >= 500 || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
}

// get returns a body of at most limit octets, or of limit+1 if it is longer: the caller knows what that means. Failures that may pass
// are tried again, a few times. anew asks caches for another copy. Errors: ErrTransport, or of ctx.
func (m *Monitor) get(ctx context.Context, path string, limit int, anew bool) ([]byte, error) {
	address := m.base + path
	for attempt := 1; ; attempt++ {
		body, err := m.getOnce(ctx, address, limit, anew)
		if err == nil || ctx.Err() != nil {
			return body, errors.Join(err, ctx.Err())
		}
		wait := firstBackoff << (attempt - 1)
		var answer *httpError
		if errors.As(err, &answer) {
			m.asked(answer.after)
			wait = max(wait, answer.after)
			if !answer.retry() {
				return nil, err
			}
		}
		if attempt == requestAttempts || wait > longestInline {
			return nil, err
		}
		if err := m.cfg.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (m *Monitor) getOnce(ctx context.Context, address string, limit int, anew bool) ([]byte, error) {
	// The whole answer counts: a server that sends an octet a minute is as good as none.
	limited, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	if anew {
		req.Header.Set("Cache-Control", "no-cache")
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	if resp.StatusCode != http.StatusOK {
		limit = maxAnswer
	}
	// The limit is on what comes out of decompression.
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTransport, address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &httpError{address: address, status: resp.StatusCode, detail: detail(body), after: retryAfter(resp.Header, m.cfg.Now())}
	}
	return body, nil
}

// retryAfter reads RFC 9110 section 10.2.3: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestAsked)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), longestAsked)
	}
	return 0
}

// noRedirects is c, which stays where it was sent: endless redirects end here, and so does one to a server that nobody named.
func noRedirects(c *http.Client) *http.Client {
	own := http.Client{}
	if c != nil {
		own = *c
	}
	if own.CheckRedirect == nil {
		own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return &own
}

// each calls do for 0 to n-1, at most limit of them at a time, and returns the first error by index. Which calls are left out after an
// error is not determined.
func each(n, limit int, do func(i int) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		next   int // guarded by mu
		failed bool
		errs   = make([]error, n)
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n && !failed
	}
	for range min(n, limit) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if errs[i] = do(i); errs[i] != nil {
					mu.Lock()
					failed = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sleep is the default of MonitorConfig.Sleep.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
