package ocspbridge

import (
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// What is answered about a certificate that was never issued.
const (
	NotIssuedUnauthorized = "unauthorized" // RFC 5019 section 2.2.3: no record, no answer
	NotIssuedUnknown      = "unknown"      // RFC 6960 section 2.2: a signed "unknown"
)

// Settings are what an operator may tune.
type Settings struct {
	// Validity is nextUpdate - thisUpdate. 0: the larger of 5 minutes and twice the staleness plus MaxAge.
	Validity time.Duration `yaml:"validity"`
	// Staleness is the age of the view past which nothing is answered. 0: three of the ledger's tick intervals.
	Staleness time.Duration `yaml:"staleness"`
	// MaxAge is for how long an HTTP cache may keep an answer without a nonce. A revocation is late by that much behind one.
	MaxAge time.Duration `yaml:"max_age"`
	// NotIssued is NotIssuedUnauthorized or NotIssuedUnknown.
	NotIssued string `yaml:"not_issued"`
	// MaxCertIDs is how many certificates one request may ask about.
	MaxCertIDs int `yaml:"max_cert_ids"`
	// MaxRequestBytes bounds a request.
	MaxRequestBytes int64 `yaml:"max_request_bytes"`
	// ClockTolerance is how far the local clock may be behind the ledger's. It must be more than the peers' timewindow plus what clocks differ by:
	// whoever dates its transactions as far ahead as peers let it would else silence every bridge whose clock is a little slow.
	ClockTolerance time.Duration `yaml:"clock_tolerance"`
	// RevocationRate is how many requests a second one address may make for revocation by a key's holder, and twice as many at once.
	RevocationRate int `yaml:"revocation_rate"`
	// EventSubscribers is how many clients may follow GET /v1/events at a time.
	EventSubscribers int `yaml:"event_subscribers"`
}

// DefaultSettings returns the settings of an operator who has not tuned anything.
func DefaultSettings() Settings {
	return Settings{
		MaxAge:           5 * time.Second,
		NotIssued:        NotIssuedUnauthorized,
		MaxCertIDs:       16,
		MaxRequestBytes:  16 << 10,
		ClockTolerance:   20 * time.Second,
		RevocationRate:   10,
		EventSubscribers: 1000,
	}
}

const (
	leastValidity   = 5 * time.Minute
	longestValidity = 7 * 24 * time.Hour
	ticksUntilStale = 3
)

// Validate refuses settings that are wrong by themselves; each error names key, value and rule.
func (s Settings) Validate() error {
	var errs []error
	check := func(ok bool, key string, value any, rule string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %v: %s", key, value, rule))
		}
	}
	check(s.Validity >= 0 && s.Validity <= longestValidity, "validity", s.Validity, "must be at most 168h, or 0 for the default")
	check(s.Validity%time.Second == 0, "validity", s.Validity, "must be whole seconds: OCSP has no finer times")
	check(s.Staleness >= 0, "staleness", s.Staleness, "must not be negative; 0 is three tick intervals")
	check(s.MaxAge >= 0 && s.MaxAge <= time.Hour, "max_age", s.MaxAge, "must be 0 to 1h: caches hide revocations for so long")
	check(s.NotIssued == NotIssuedUnauthorized || s.NotIssued == NotIssuedUnknown, "not_issued", s.NotIssued, `must be "unauthorized" or "unknown"`)
	check(s.MaxCertIDs >= 1 && s.MaxCertIDs <= 1000, "max_cert_ids", s.MaxCertIDs, "must be 1 to 1000")
	check(s.MaxRequestBytes >= 512 && s.MaxRequestBytes <= 1<<20, "max_request_bytes", s.MaxRequestBytes, "must be 512 to 1048576")
	check(s.ClockTolerance >= 0 && s.ClockTolerance <= time.Minute, "clock_tolerance", s.ClockTolerance, "must be 0 to 1m")
	check(s.RevocationRate >= 1 && s.RevocationRate <= 100_000, "revocation_rate", s.RevocationRate, "must be 1 to 100000 a second")
	check(s.EventSubscribers >= 0 && s.EventSubscribers <= 100_000, "event_subscribers", s.EventSubscribers, "must be 0 to 100000")
	if s.Validity != 0 && s.Staleness != 0 {
		check(s.Validity >= s.Staleness+s.MaxAge, "validity", s.Validity, fmt.Sprintf("must be at least staleness + max_age, %s: an answer must outlive the view it may come from", s.Staleness+s.MaxAge))
	}
	return errors.Join(errs...)
}

// limits are the settings with the ledger's tick interval worked in.
type limits struct {
	validity, staleness time.Duration
}

// limits works out the times that depend on the ledger, and refuses settings that do not go with it.
func (s Settings) limits(c *wire.Consortium) (limits, error) {
	tick := time.Duration(c.TickInterval) * time.Millisecond
	l := limits{validity: s.Validity, staleness: s.Staleness}
	if l.staleness == 0 {
		l.staleness = ticksUntilStale * tick
	}
	if l.staleness < 2*tick {
		return l, fmt.Errorf("staleness: %s: must be at least two of the ledger's tick intervals, %s: one late tick would silence the responder", l.staleness, 2*tick)
	}
	if l.validity == 0 {
		l.validity = max(leastValidity, (2*l.staleness + s.MaxAge + time.Second - 1).Truncate(time.Second))
	}
	if l.validity < l.staleness+s.MaxAge {
		return l, fmt.Errorf("validity: %s: must be at least staleness + max_age, %s: an answer must outlive the view it may come from", l.validity, l.staleness+s.MaxAge)
	}
	return l, nil
}
