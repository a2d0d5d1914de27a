package ca

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/certanchor/certanchor/internal/crl"
)

// CRLSettings are how the CA makes and publishes its certificate revocation lists. A zero field takes its default.
type CRLSettings struct {
	Disabled bool `yaml:"disabled,omitempty"` // make none; what was made before runs out

	// Contents is the base URL of the OCSP bridge of this organisation whose view of the ledger the CRLs are made of; default: the
	// first of the responders.
	Contents string `yaml:"contents,omitempty"`
	// Publish are base URLs of the OCSP bridges, of every organisation, that are to serve the CRLs; default: Contents alone.
	Publish []string `yaml:"publish,omitempty"`
	TLSCA   string   `yaml:"tls_ca,omitempty"` // PEM file with roots for all of them; default: the system's
	// TLSCert and TLSKey are PEM files with the certificate, and its key, that is shown to OCSP bridges that ask for one (logs_access: members);
	// default: that of the CA's own server.
	TLSCert string `yaml:"tls_cert,omitempty"`
	TLSKey  string `yaml:"tls_key,omitempty"`
	// DeltaURL goes into complete CRLs, for who has one to find the delta CRLs (freshestCRL, RFC 5280 section 5.2.6); may contain {ca}; default: none.
	DeltaURL string `yaml:"delta_url,omitempty"`

	FullEvery     time.Duration `yaml:"full_every,omitempty"`     // between complete CRLs; default 1h, 1s to 24h; with few entries also soon after a change
	Validity      time.Duration `yaml:"validity,omitempty"`       // of a complete CRL; default 24h, more than FullEvery and at most 240h
	DeltaEvery    time.Duration `yaml:"delta_every,omitempty"`    // between delta CRLs when nothing changes; default a third of DeltaValidity
	DeltaValidity time.Duration `yaml:"delta_validity,omitempty"` // of a delta CRL; default 1h, or Validity if that is less
	PollEvery     time.Duration `yaml:"poll_every,omitempty"`     // looks for changes that nobody told of; default 5s, 100ms to 1h

	Staleness      time.Duration `yaml:"staleness,omitempty"`       // age of the ledger's newest time past which nothing is signed; default three of the ledger's tick intervals
	ClockTolerance time.Duration `yaml:"clock_tolerance,omitempty"` // how far the ledger's time may be ahead of this machine's; default 20s, at most 1m
}

// Limits of CRLSettings. crl.Grace asks for a complete CRL at least every half of it.
const (
	maxFullEvery    = crl.Grace / 2
	maxCRLValidity  = 10 * 24 * time.Hour // CA/Browser Forum's requirements, section 4.9.7
	maxCRLTargets   = 64
	minCRLInterval  = time.Second
	minPollEvery    = 100 * time.Millisecond
	maxCRLTolerance = time.Minute
)

func (c CRLSettings) withDefaults(responders []string) CRLSettings {
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.FullEvery, time.Hour)
	def(&c.Validity, 24*time.Hour)
	def(&c.DeltaValidity, min(time.Hour, c.Validity))
	def(&c.DeltaEvery, c.DeltaValidity/3)
	def(&c.PollEvery, 5*time.Second)
	def(&c.ClockTolerance, 20*time.Second)
	if c.Contents == "" && len(responders) > 0 {
		c.Contents = responders[0]
	}
	if c.Publish == nil && c.Contents != "" {
		c.Publish = []string{c.Contents}
	}
	return c
}

// validate refuses what is out of range. Errors are *wire.Error: Field is the key below crl.
func (c CRLSettings) validate(responders []string) error {
	if c.Disabled {
		return nil
	}
	c = c.withDefaults(responders)
	for _, d := range []struct {
		key             string
		value, low, top time.Duration
		why             string
	}{
		{"full_every", c.FullEvery, minCRLInterval, maxFullEvery, "an expired certificate stays on CRLs for twice that (RFC 5280 section 3.3)"},
		{"validity", c.Validity, 2 * minCRLInterval, maxCRLValidity, "who misses a revocation must not do so for long"},
		{"delta_validity", c.DeltaValidity, 2 * minCRLInterval, c.Validity, "a delta CRL is of no use longer than a complete one"},
		{"delta_every", c.DeltaEvery, 500 * time.Millisecond, c.DeltaValidity / 2, "the next one must be there before the last has run out"},
		{"poll_every", c.PollEvery, minPollEvery, time.Hour, "it is how late a change may be seen"},
		{"clock_tolerance", c.ClockTolerance, time.Second, maxCRLTolerance, "a CRL from the future is not valid yet"},
	} {
		if d.value < d.low || d.value > d.top {
			return invalid("crl."+d.key, d.value.String(), "must be %v to %v: %s", d.low, d.top, d.why)
		}
	}
	if c.Validity <= c.FullEvery {
		return invalid("crl.validity", c.Validity.String(), "must be more than full_every, %v: otherwise a CRL runs out before the next", c.FullEvery)
	}
	if s := c.Staleness; s != 0 && (s < minCRLInterval || s >= c.Validity) {
		return invalid("crl.staleness", s.String(), "must be %v to less than validity, %v", minCRLInterval, c.Validity)
	}
	return c.checkURLs()
}

func (c CRLSettings) checkURLs() error {
	if c.DeltaURL != "" {
		if err := new(points).check("crl.delta_url", c.DeltaURL); err != nil {
			return err
		}
	}
	if c.Contents == "" {
		return invalid("crl.contents", "", "must name an OCSP bridge of this organisation, since responders lists none")
	}
	if err := checkBase("crl.contents", c.Contents); err != nil {
		return err
	}
	if n := len(c.Publish); n == 0 || n > maxCRLTargets {
		return invalid("crl.publish", fmt.Sprintf("%d URLs", n), "must be 1 to %d: a CRL that nobody serves revokes nothing", maxCRLTargets)
	}
	for i, u := range c.Publish {
		field := fmt.Sprintf("crl.publish[%d]", i)
		if err := checkBase(field, u); err != nil {
			return err
		}
		if slices.Contains(c.Publish[:i], u) {
			return invalid(field, u, "occurs twice")
		}
	}
	return nil
}

// checkBase accepts a URL that paths may be put behind.
func checkBase(field, raw string) error {
	if err := checkURL(field, raw); err != nil {
		return err
	}
	if u, err := url.Parse(raw); raw == "" || err != nil || u.RawQuery != "" || u.Fragment != "" {
		return invalid(field, raw, "must be a base URL without query and fragment")
	}
	return nil
}
