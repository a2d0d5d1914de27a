package ocspbridge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

func TestSettingsAreReadFromYAMLOverTheDefaults(t *testing.T) {
	got := ocspbridge.DefaultSettings()
	text := "validity: 10m\nstaleness: 1m30s\nmax_age: 0s\nnot_issued: unknown\nmax_cert_ids: 4\nmax_request_bytes: 4096\nrevocation_rate: 50\nevent_subscribers: 7\n"
	if err := yaml.UnmarshalWithOptions([]byte(text), &got, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	want := ocspbridge.Settings{
		Validity: 10 * time.Minute, Staleness: 90 * time.Second, NotIssued: ocspbridge.NotIssuedUnknown,
		MaxCertIDs: 4, MaxRequestBytes: 4096, ClockTolerance: 20 * time.Second, RevocationRate: 50, EventSubscribers: 7,
	}
	if got != want {
		t.Errorf("settings are %+v, want %+v", got, want)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if err := ocspbridge.DefaultSettings().Validate(); err != nil {
		t.Error(err)
	}
}

func TestUnsafeSettingsAreRefusedByName(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		want  string
		tweak func(*ocspbridge.Settings)
	}{
		{"validity: 30s: must be at least staleness + max_age, 45s", func(s *ocspbridge.Settings) { s.Validity, s.Staleness = 30*time.Second, 40*time.Second }},
		{"validity: 1.5s: must be whole seconds", func(s *ocspbridge.Settings) { s.Validity = 1500 * time.Millisecond }},
		{"validity: 200h0m0s: must be at most 168h", func(s *ocspbridge.Settings) { s.Validity = 200 * time.Hour }},
		{"staleness: -1s", func(s *ocspbridge.Settings) { s.Staleness = -time.Second }},
		{"max_age: 2h0m0s", func(s *ocspbridge.Settings) { s.MaxAge = 2 * time.Hour }},
		{`not_issued: good: must be "unauthorized" or "unknown"`, func(s *ocspbridge.Settings) { s.NotIssued = "good" }},
		{"max_cert_ids: 0", func(s *ocspbridge.Settings) { s.MaxCertIDs = 0 }},
		{"max_request_bytes: 1", func(s *ocspbridge.Settings) { s.MaxRequestBytes = 1 }},
		{"revocation_rate: 0", func(s *ocspbridge.Settings) { s.RevocationRate = 0 }},
		{"event_subscribers: -1", func(s *ocspbridge.Settings) { s.EventSubscribers = -1 }},
		{"clock_tolerance: 1h0m0s", func(s *ocspbridge.Settings) { s.ClockTolerance = time.Hour }},
	} {
		cfg := ocspbridge.Config{Dir: t.TempDir(), Settings: ocspbridge.DefaultSettings(), Log: quiet()}
		c.tweak(&cfg.Settings)
		if _, err := ocspbridge.New(t.Context(), cfg, w.conn); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one with %q", err, c.want)
		}
	}
	// Only the ledger tells that this is unsafe: its ticks come every 15 seconds.
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.Staleness = 20 * time.Second
	})
	b.until("halted", func() (bool, string) {
		r := b.Ready().Reason
		return strings.Contains(r, "staleness: 20s: must be at least two of the ledger's tick intervals, 30s"), r
	})
	if err := b.stop(); err == nil {
		t.Error("Run did not say why it ended")
	}
}
