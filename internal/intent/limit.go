package intent

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// maxSources bounds the table of a limiter.
const maxSources = 8192

// limiter has a token bucket for each source.
type limiter struct {
	rate, burst float64 // tokens a second, and at most
	now         func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time // when it had them
}

func (l *limiter) allow(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[source]
	if !ok {
		b = bucket{tokens: l.burst, at: now}
		if len(l.buckets) >= maxSources && !l.sweep(now) {
			return true // a limit shared with those who fill the table would be theirs to use up; junk still does not get past the trust list
		}
	}
	b.tokens, b.at = l.refilled(b, now), now
	ok = b.tokens >= 1
	if ok {
		b.tokens--
	}
	l.buckets[source] = b
	return ok
}

func (l *limiter) refilled(b bucket, now time.Time) float64 {
	return min(l.burst, b.tokens+max(now.Sub(b.at).Seconds(), 0)*l.rate)
}

// sweep forgets sources whose buckets are full, and reports whether there is room then. It looks no more often than buckets fill.
func (l *limiter) sweep(now time.Time) bool {
	if since := now.Sub(l.swept).Seconds(); since >= 0 && since < l.burst/l.rate {
		return false
	}
	l.swept = now
	for source, b := range l.buckets {
		if l.refilled(b, now) >= l.burst {
			delete(l.buckets, source)
		}
	}
	return len(l.buckets) < maxSources
}

// sourceOf is the network that a request is from: an IPv4 address, or the /64 that an IPv6 client has to itself.
func sourceOf(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
	return addr.String()
}
