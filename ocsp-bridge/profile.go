package ocspbridge

import (
	"cmp"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Validity profiles.
const (
	// ProfileRealtime: answers hold for minutes, so that one that was kept by somebody is soon worth nothing.
	ProfileRealtime = "realtime"
	// ProfileWebPKI: answers have the times of the CA/Browser Forum's Baseline Requirements, section 4.9.10.
	ProfileWebPKI = "webpki"
)

const (
	leastValidity   = 5 * time.Minute
	longestValidity = 7 * 24 * time.Hour
	ticksUntilStale = 3

	// Baseline Requirements 4.9.10: the validity interval is 8 hours to 10 days; one of less than 16 hours is renewed before half of it has passed, a longer
	// one 8 hours before nextUpdate and 4 days after thisUpdate at the latest.
	webpkiLeast    = 8 * time.Hour
	webpkiLongest  = 48 * time.Hour // not ten days: no answer outlives its responder certificate, and those do not live longer
	webpkiHalf     = 16 * time.Hour
	webpkiValidity = 12 * time.Hour
)

// validateTimes refuses times that do not go with the profile.
func (s Settings) validateTimes(check func(ok bool, key string, value any, rule string)) {
	switch s.Profile {
	case "", ProfileRealtime:
		check(s.Validity >= 0 && s.Validity <= longestValidity, "validity", s.Validity, "must be at most 168h, or 0 for the default")
	case ProfileWebPKI:
		check(s.Validity == 0 || s.Validity >= webpkiLeast && s.Validity <= webpkiLongest, "validity", s.Validity,
			"must be 8h to 48h with the profile webpki (Baseline Requirements 4.9.10, and the life of a responder certificate), or 0 for 12h")
	default:
		check(false, "profile", s.Profile, `must be "realtime" or "webpki"`)
	}
	check(s.Refresh >= 0 && s.Refresh <= 1, "refresh", s.Refresh,
		"must be more than 0 and at most 1, or 0 for 0.5: an answer is not given past the age that it is a fraction of")
	check(s.ArchiveCutoff >= 0 && s.ArchiveCutoff%time.Second == 0, "archive_cutoff", s.ArchiveCutoff, "must be whole seconds, not negative; 0 is for ever")
}

// limits are the settings with the ledger's tick interval worked in.
type limits struct {
	validity, staleness time.Duration
	webpki              bool
	refresh             float64
}

// limits works out the times that depend on the ledger, and refuses settings that do not go with it.
func (s Settings) limits(c *wire.Consortium) (limits, error) {
	tick := time.Duration(c.TickInterval) * time.Millisecond
	l := limits{validity: s.Validity, staleness: s.Staleness, webpki: s.Profile == ProfileWebPKI, refresh: cmp.Or(s.Refresh, DefaultRefresh)}
	if l.staleness == 0 {
		l.staleness = ticksUntilStale * tick
	}
	if l.staleness < 2*tick {
		return l, fmt.Errorf("staleness: %s: must be at least two of the ledger's tick intervals, %s: one late tick would silence the responder", l.staleness, 2*tick)
	}
	switch {
	case l.validity != 0:
	case l.webpki:
		l.validity = webpkiValidity
	default:
		l.validity = max(leastValidity, (2*l.staleness + s.MaxAge + time.Second - 1).Truncate(time.Second))
	}
	if l.validity < l.staleness+s.MaxAge {
		return l, fmt.Errorf("validity: %s: must be at least staleness + max_age, %s: an answer must outlive the view it may come from", l.validity, l.staleness+s.MaxAge)
	}
	return l, nil
}

// ages returns at which age of its thisUpdate an answer of the given validity is made anew if it can be, and at which it must be. It refuses
// a validity that the profile does not allow: what is left of a responder certificate may be too short.
func (l *limits) ages(validity time.Duration) (due, dead time.Duration, err error) {
	dead = l.staleness
	if l.webpki {
		switch {
		case validity < webpkiLeast:
			return 0, 0, fmt.Errorf("the responder certificate leaves an answer %s: must be at least 8h with the profile webpki (Baseline Requirements 4.9.10)", validity)
		case validity < webpkiHalf:
			dead = validity / 2
		default:
			dead = validity - webpkiLeast // which is less than the 4 days
		}
	}
	return time.Duration(l.refresh * float64(dead)), dead, nil
}
