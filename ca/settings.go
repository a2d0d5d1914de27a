package ca

import (
	"fmt"
	"time"

	"github.com/certanchor/certanchor/internal/anchor"
)

// Settings are what an operator may tune. A zero field takes its default.
type Settings struct {
	// Responders are base URLs of this organisation's OCSP responders. A revocation is acknowledged when each of them has applied it.
	Responders []string `yaml:"responders,omitempty"`

	IssueTimeout  time.Duration `yaml:"issue_timeout,omitempty"`   // for a certificate to reach the ledger; default 30s
	StatusTimeout time.Duration `yaml:"status_timeout,omitempty"`  // for a change of status to reach the ledger; default 20s
	AckTimeout    time.Duration `yaml:"ack_timeout,omitempty"`     // for the responders to apply it after that; default 10s
	SubmitTimeout time.Duration `yaml:"submit_timeout,omitempty"`  // for one attempt, less than the other two; default 6s, or half of the lesser of them
	FrontTimeout  time.Duration `yaml:"front_timeout,omitempty"`   // for one front to give an SCT; default 5s
	MaxQueue      int           `yaml:"max_queue,omitempty"`       // certificates that may wait for the ledger; default 4096
	MaxQueueBytes int           `yaml:"max_queue_bytes,omitempty"` // and their size; default 33554432
	MaxWait       time.Duration `yaml:"max_wait,omitempty"`        // that others may make a certificate wait, beyond which it is turned away; default 2s, negative: no bound
	MaxBatch      int           `yaml:"max_batch,omitempty"`       // certificates in one transaction; default 1000
	MaxBatchBytes int           `yaml:"max_batch_bytes,omitempty"` // and their size; default 2097152
	QuietTime     time.Duration `yaml:"quiet_time,omitempty"`      // a gap between requests that ends waiting for more of them; default 2ms, negative: no waiting

	CFSSL        *CFSSLSettings       `yaml:"cfssl,omitempty"` // nil: cfssl's API is there, and nothing of it is open
	OperatorsLog OperatorsLogSettings `yaml:"operators_log,omitempty"`

	Operators *OperatorSettings `yaml:"operators,omitempty"` // nil: certificates are no credentials
	Rate      RateSettings      `yaml:"rate,omitempty"`

	CRL *CRLSettings `yaml:"crl,omitempty"` // nil: no CRLs are made
}

// maxAnswer is the longest a request may take: HTTP servers here give up writing after a minute.
const maxAnswer = 55 * time.Second

func (s Settings) withDefaults() Settings {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&s.IssueTimeout, 30 * time.Second}, {&s.StatusTimeout, 20 * time.Second}, {&s.AckTimeout, 10 * time.Second}, {&s.FrontTimeout, 5 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if s.SubmitTimeout == 0 {
		s.SubmitTimeout = min(6*time.Second, s.IssueTimeout/2, s.StatusTimeout/2)
	}
	return s
}

// Validate refuses settings that are out of range. Errors are *wire.Error: Field is the key, with Value and Rule.
func (s Settings) Validate() error {
	s = s.withDefaults()
	for _, c := range []struct {
		key   string
		value time.Duration
		most  time.Duration
	}{
		{"issue_timeout", s.IssueTimeout, maxAnswer},
		{"status_timeout", s.StatusTimeout, maxAnswer},
		{"ack_timeout", s.AckTimeout, maxAnswer - s.StatusTimeout},
		{"submit_timeout", s.SubmitTimeout, maxAnswer},
		{"front_timeout", s.FrontTimeout, maxAnswer},
	} {
		if c.value < 0 || c.value > c.most {
			return invalid(c.key, c.value.String(), "must be positive and at most %v (status_timeout and ack_timeout add up)", c.most)
		}
	}
	if s.MaxWait >= s.IssueTimeout {
		return invalid("max_wait", s.MaxWait.String(), "must be less than issue_timeout, %v: who waits that long gives up", s.IssueTimeout)
	}
	if s.SubmitTimeout >= s.StatusTimeout || s.SubmitTimeout >= s.IssueTimeout {
		return invalid("submit_timeout", s.SubmitTimeout.String(), "must be less than issue_timeout and status_timeout: an attempt that got lost is to be followed by another")
	}
	if err := s.Operators.validate(); err != nil {
		return err
	}
	if err := s.Rate.validate(); err != nil {
		return err
	}
	for i, raw := range s.Responders {
		if err := checkBase(fmt.Sprintf("responders[%d]", i), raw); err != nil {
			return err
		}
	}
	if err := s.OperatorsLog.validate(); err != nil {
		return err
	}
	if s.CRL != nil {
		if err := s.CRL.validate(s.Responders); err != nil {
			return err
		}
	}
	return s.anchorOptions().Validate()
}

func (s Settings) anchorOptions() anchor.Options {
	return anchor.Options{
		MaxBatch: s.MaxBatch, MaxBytes: s.MaxBatchBytes, MaxQueue: s.MaxQueue, MaxQueueBytes: s.MaxQueueBytes,
		MaxWait: s.MaxWait, QuietTime: s.QuietTime, SubmitTimeout: s.SubmitTimeout,
	}
}
