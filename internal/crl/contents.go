package crl

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Contents are what a CRL says, without who signs it and until when it holds.
type Contents struct {
	CAID wire.CAID
	// Scope is which of the CA's certificates it is about: "" all of them; otherwise those whose CRL distribution points extension names
	// this URL, octet by octet. At most MaxScope octets of printable ASCII, with the scheme http or https.
	Scope string
	// Number is the CRL number (RFC 5280 section 5.2.3): the ledger's height, in blocks, at which the contents hold. From 1.
	Number uint64
	// Base is 0 in a complete CRL. In a delta CRL (RFC 5280 section 5.2.4) it is the Number of the complete CRL of the same scope that it
	// updates, below Number.
	Base uint64
	// ThisUpdate is the ledger's time at Number, cut to whole seconds, in UTC: no earlier transaction is dated later.
	ThisUpdate time.Time
	// Entries are sorted by Serial, as octet strings (the order of the ledger's keys), each serial once.
	Entries []Entry
}

// Entry is one certificate's entry.
type Entry struct {
	Serial wire.Serial
	// Time is the revocation date, or when a hold began; with Remove, when the hold was released.
	Time Seconds
	// Reason is wire.CertificateHold for a hold. A CRL does not encode wire.Unspecified (RFC 5280 section 5.3.1): the extension is left out.
	Reason wire.Reason
	// Invalidity is the invalidityDate (RFC 5280 section 5.3.2); 0: none given.
	Invalidity Seconds
	// Remove says that a hold was released since Base (reason removeFromCRL). Only in a delta CRL; Reason and Invalidity are zero then.
	Remove bool
}

// Seconds is a time in whole seconds since 1970-01-01 UTC, at most MaxSeconds: CRLs have no finer times.
type Seconds int64

// MaxSeconds is 9999-12-31T23:59:59Z, the last that a CRL can say.
const MaxSeconds Seconds = 253402300799

// SecondsOf cuts a ledger time to whole seconds; 0 stays 0.
func SecondsOf(m wire.Millis) Seconds { return Seconds(m / 1000) }

// Time returns s in UTC.
func (s Seconds) Time() time.Time { return time.Unix(int64(s), 0).UTC() }

// MaxScope bounds a Scope, in octets.
const MaxScope = 1024

// Grace is for how long after its notAfter a certificate stays on CRLs. RFC 5280 section 3.3: it is not removed until it appears on one
// regularly scheduled CRL issued beyond its validity, so a complete CRL must be issued at least every half of this.
const Grace = 48 * time.Hour

// Lists reports whether a CRL with that thisUpdate lists a revoked certificate that expires at notAfter.
func Lists(notAfter wire.Millis, thisUpdate time.Time) bool {
	return !thisUpdate.After(notAfter.Time().Add(Grace))
}

// Check refuses contents that break a rule above; the error names field, value and rule.
func (c *Contents) Check() error {
	if err := CheckScope(c.Scope); err != nil {
		return err
	}
	if c.Number == 0 {
		return refused("number", "0", "must be a ledger height: at least 1")
	}
	if c.Base >= c.Number {
		return refused("base", strconv.FormatUint(c.Base, 10), "must be below number, %d", c.Number)
	}
	if t := c.ThisUpdate; t.Nanosecond() != 0 || t.Unix() <= 0 || Seconds(t.Unix()) > MaxSeconds {
		return refused("this_update", t.UTC().Format(time.RFC3339Nano), "must be a whole second after 1970 and before the year 10000")
	}
	for i := range c.Entries {
		if err := c.checkEntry(i); err != nil {
			return err
		}
	}
	return nil
}

// CheckScope refuses what cannot be a Contents.Scope.
func CheckScope(scope string) error {
	if scope == "" {
		return nil
	}
	u, err := url.Parse(scope)
	bad := len(scope) > MaxScope || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == ""
	for i := 0; i < len(scope) && !bad; i++ {
		bad = scope[i] <= ' ' || scope[i] > '~'
	}
	if bad {
		return refused("scope", scope, "must be empty or an absolute http or https URL of at most %d printable ASCII characters", MaxScope)
	}
	return nil
}

func (c *Contents) checkEntry(i int) error {
	e := &c.Entries[i]
	field := func(name string) string { return "entries[" + strconv.Itoa(i) + "]." + name }
	if err := e.Serial.Check(); err != nil {
		return fmt.Errorf("%s: %w", field("serial"), err)
	}
	if i > 0 && bytes.Compare(c.Entries[i-1].Serial, e.Serial) >= 0 {
		return refused(field("serial"), e.Serial.String(), "must be after the one before it, %s", c.Entries[i-1].Serial)
	}
	if e.Time <= 0 || e.Time > MaxSeconds {
		return refused(field("time"), strconv.FormatInt(int64(e.Time), 10), "must be seconds after 1970 and before the year 10000")
	}
	if e.Invalidity < 0 || e.Invalidity > MaxSeconds {
		return refused(field("invalidity"), strconv.FormatInt(int64(e.Invalidity), 10), "must be 0 or seconds before the year 10000")
	}
	if !e.Reason.Known() {
		return refused(field("reason"), strconv.FormatUint(uint64(e.Reason), 10), "must be a reason of RFC 5280 section 5.3.1 other than removeFromCRL")
	}
	if e.Remove && c.Base == 0 {
		return refused(field("remove"), "true", "must be false in a complete CRL (RFC 5280 section 5.3.1)")
	}
	if e.Remove && (e.Reason != 0 || e.Invalidity != 0) {
		return refused(field("remove"), "true", "goes with no other reason and no invalidity date")
	}
	return nil
}

// Sort brings entries into the order that Check requires.
func Sort(entries []Entry) { slices.SortFunc(entries, compareSerials) }

func compareSerials(a, b Entry) int { return bytes.Compare(a.Serial, b.Serial) }

// Compare returns nil if both say the same. Otherwise the error names the first difference; "is" what c has, "must be" what want has.
func (c *Contents) Compare(want *Contents) error {
	for _, f := range []struct{ name, got, want string }{
		{"ca_id", c.CAID.String(), want.CAID.String()},
		{"scope", c.Scope, want.Scope},
		{"number", strconv.FormatUint(c.Number, 10), strconv.FormatUint(want.Number, 10)},
		{"base", strconv.FormatUint(c.Base, 10), strconv.FormatUint(want.Base, 10)},
		{"this_update", c.ThisUpdate.UTC().Format(time.RFC3339), want.ThisUpdate.UTC().Format(time.RFC3339)},
	} {
		if f.got != f.want {
			return refused(f.name, f.got, "must be %q", f.want)
		}
	}
	return compareEntries(c.Entries, want.Entries)
}

// compareEntries reports the first serial about which the two lists differ.
func compareEntries(got, want []Entry) error {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return refused("entries", want[i].Serial.String(), "is missing")
		case i >= len(want):
			return refused("entries", got[i].Serial.String(), "must not be listed")
		}
		if order := bytes.Compare(got[i].Serial, want[i].Serial); order > 0 {
			return refused("entries", want[i].Serial.String(), "is missing")
		} else if order < 0 {
			return refused("entries", got[i].Serial.String(), "must not be listed")
		}
		if g, w := &got[i], &want[i]; g.Time != w.Time || g.Reason != w.Reason || g.Invalidity != w.Invalidity || g.Remove != w.Remove {
			return refused("entries", g.Serial.String()+" "+g.String(), "must be %s", w)
		}
	}
	return nil
}

// String describes e without its serial.
func (e *Entry) String() string {
	if e.Remove {
		return "removed at " + e.Time.Time().Format(time.RFC3339)
	}
	s := e.Reason.String() + " at " + e.Time.Time().Format(time.RFC3339)
	if e.Invalidity != 0 {
		s += ", invalid since " + e.Invalidity.Time().Format(time.RFC3339)
	}
	return s
}

func refused(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}
