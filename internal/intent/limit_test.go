package intent

import (
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

func newLimiter(now *time.Time) *limiter {
	return &limiter{rate: 10, burst: 20, now: func() time.Time { return *now }, buckets: map[string]bucket{}}
}

// count is how many of n requests of a source pass.
func (l *limiter) count(source string, n int) (passed int) {
	for range n {
		if l.allow(source) {
			passed++
		}
	}
	return passed
}

func TestLimiterRefills(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(&now)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 20}, {0, 0}, {time.Second, 10}, {50 * time.Millisecond, 0}, {50 * time.Millisecond, 1}, {-time.Hour, 0}, {time.Hour, 20}} {
		now = now.Add(step.after)
		if got := l.count("a", 50); got != step.want {
			t.Errorf("%v later: %d pass, want %d", step.after, got, step.want)
		}
	}
	if got := l.count("b", 50); got != 20 {
		t.Errorf("another source: %d pass", got)
	}
}

// TestLimiterIsBounded: many sources cost no more than a table, and shut nobody else out.
func TestLimiterIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(&now)
	for i := range 2 * maxSources {
		if !l.allow(strconv.Itoa(i)) {
			t.Fatalf("source %d is shut out", i)
		}
	}
	if len(l.buckets) != maxSources {
		t.Errorf("%d sources are remembered", len(l.buckets))
	}
	now = now.Add(3 * time.Second) // all buckets are full again, and forgotten
	if got := l.count("new", 50); got != 20 || len(l.buckets) != 1 {
		t.Errorf("later: %d pass, %d sources", got, len(l.buckets))
	}
}

func TestSourcesAreNetworks(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1000":            "192.0.2.7",
		"[::ffff:192.0.2.7]:1000":   "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:99":         "fe80::/64",
		"@":                         "@", // a Unix socket
	} {
		r := httptest.NewRequest("POST", Path, nil)
		r.RemoteAddr = remote
		if got := sourceOf(r); got != want {
			t.Errorf("%s: %q, want %q", remote, got, want)
		}
	}
}
