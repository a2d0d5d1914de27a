package ca

import (
	"cmp"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateSettings bound what one client may ask for. A zero field takes its default.
type RateSettings struct {
	PerSecond         float64 `yaml:"per_second,omitempty"`          // requests of one client, in the long run; default 5000, negative: no limit
	Burst             int     `yaml:"burst,omitempty"`               // requests of one client at once; default 2 * per_second
	FailuresPerMinute int     `yaml:"failures_per_minute,omitempty"` // failed authentications from one address that are answered as such; default 60, negative: no limit
}

// Defaults of RateSettings.
const (
	defaultPerSecond = 5000
	defaultFailures  = 60
)

func (s RateSettings) validate() error {
	switch {
	case s.PerSecond > maxRate:
		return invalid("rate.per_second", "", "must be at most %g", float64(maxRate))
	case s.Burst < 0 || s.Burst > maxRate:
		return invalid("rate.burst", "", "must be 1 to %g", float64(maxRate))
	case s.FailuresPerMinute > maxRate:
		return invalid("rate.failures_per_minute", "", "must be at most %g", float64(maxRate))
	}
	return nil
}

// maxBuckets bounds the memory for clients and for addresses each; all beyond it share one bucket.
const maxBuckets = 1 << 14

// limits are token buckets, one for each client and one for each address that failed to authenticate.
type limits struct {
	now       func() time.Time
	perClient clientRate
	perFail   clientRate

	mu        sync.Mutex
	clients   buckets
	addresses buckets
}

// buckets are limiters by name.
type buckets struct {
	all    map[string]*rate.Limiter
	purged time.Time // when those that are as good as new were last thrown away
}

func newLimits(s RateSettings, now func() time.Time) *limits {
	l := &limits{now: now, clients: buckets{all: map[string]*rate.Limiter{}}, addresses: buckets{all: map[string]*rate.Limiter{}}}
	perSecond := cmp.Or(s.PerSecond, defaultPerSecond)
	l.perClient = clientRate{perSecond: rate.Limit(perSecond), burst: cmp.Or(s.Burst, max(1, int(2*perSecond)))}
	if perSecond < 0 {
		l.perClient.perSecond = rate.Inf
	}
	failures := cmp.Or(s.FailuresPerMinute, defaultFailures)
	l.perFail = clientRate{perSecond: rate.Limit(float64(failures) / 60), burst: max(1, failures)}
	if failures < 0 {
		l.perFail.perSecond = rate.Inf
	}
	return l
}

// take counts a request of c. It returns 0, or how long the client is to wait.
func (l *limits) take(c *client) time.Duration {
	want := l.perClient
	if c.rate != nil {
		want = *c.rate
	}
	return l.from(&l.clients, c.name, want)
}

// failed counts a failed authentication.
func (l *limits) failed(remote string) time.Duration {
	return l.from(&l.addresses, addressOf(remote), l.perFail)
}

func (l *limits) from(buckets *buckets, name string, want clientRate) time.Duration {
	if want.perSecond == rate.Inf {
		return 0
	}
	now := l.now()
	b := l.bucket(buckets, name, want, now)
	reserved := b.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait > 0 {
		reserved.CancelAt(now)
	}
	return wait
}

func (l *limits) bucket(buckets *buckets, name string, want clientRate, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := buckets.all[name]
	if b == nil && len(buckets.all) >= maxBuckets {
		buckets.purge(now)
		if len(buckets.all) >= maxBuckets {
			name = ""
			b = buckets.all[name]
		}
	}
	if b == nil {
		b = rate.NewLimiter(want.perSecond, want.burst)
		buckets.all[name] = b
	}
	if b.Limit() != want.perSecond || b.Burst() != want.burst { // the clients file has changed
		b.SetLimitAt(now, want.perSecond)
		b.SetBurstAt(now, want.burst)
	}
	return b
}

// purge throws full buckets away, which are as good as new ones; not often, it looks at all of them.
func (b *buckets) purge(now time.Time) {
	if since := now.Sub(b.purged); since >= 0 && since < time.Second {
		return
	}
	b.purged = now
	for name, l := range b.all {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(b.all, name)
		}
	}
}

// addressOf is what counts as one address: an IPv4 address, or the 64 bits of IPv6 that a network gives to one customer.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return host
	}
	return p.String()
}
