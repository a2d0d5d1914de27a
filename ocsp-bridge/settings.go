package ocspbridge

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
)

// What is answered about a certificate that was never issued.
const (
	NotIssuedUnauthorized = "unauthorized" // RFC 5019 section 2.2.3: no record, no answer
	NotIssuedUnknown      = "unknown"      // RFC 6960 section 2.2: a signed "unknown"
	NotIssuedRevoked      = "revoked"      // RFC 6960 section 2.2 and 4.4.8: "revoked", on hold since 1970, with extended revoke
)

// What is done with a request's signature.
const (
	SignedIgnore = "ignore" // as if there were none; the default
	SignedVerify = "verify" // one that does not verify, or is not by the holder of a valid certificate on the ledger, is answered unauthorized
)

// How answers name who signed them (RFC 6960 section 4.2.1, ResponderID).
const (
	ResponderByKey  = "key"  // SHA-1 of the responder's key: short, and RFC 5019's choice; the default
	ResponderByName = "name" // the subject of the responder's certificate
)

// Settings are what an operator may tune.
type Settings struct {
	// Profile is ProfileRealtime (or empty) or ProfileWebPKI: what times answers have.
	Profile string `yaml:"profile"`
	// Validity is nextUpdate - thisUpdate. 0: with ProfileRealtime the larger of 5 minutes and twice the staleness plus MaxAge, with
	// ProfileWebPKI 12 hours.
	Validity time.Duration `yaml:"validity"`
	// Staleness is the age of the view past which nothing is answered. 0: three of the ledger's tick intervals.
	Staleness time.Duration `yaml:"staleness"`
	// MaxAge is for how long an HTTP cache may keep an answer without a nonce. A revocation is late by that much behind one.
	MaxAge time.Duration `yaml:"max_age"`
	// Refresh says when a kept answer is signed anew: a fraction of the age at which it must not be given any more, which is the
	// staleness with ProfileRealtime and what the Baseline Requirements allow with ProfileWebPKI. 0: DefaultRefresh.
	Refresh float64 `yaml:"refresh"`
	// ArchiveCutoff is for how long after its end a certificate's status is given (RFC 6960 section 4.4.4); then it is answered like one that was never
	// issued. 0: for ever; the archive cutoff is then the beginning of the CA's certificate.
	ArchiveCutoff time.Duration `yaml:"archive_cutoff"`
	// SignedRequests is SignedIgnore (or empty) or SignedVerify.
	SignedRequests string `yaml:"signed_requests"`
	// ResponderID is ResponderByKey (or empty) or ResponderByName.
	ResponderID string `yaml:"responder_id"`
	// OCSPPath is where OCSP is served beside /ocsp: / or a path such as /pki/ocsp. Empty: nowhere else.
	OCSPPath string `yaml:"ocsp_path"`
	// CacheBytes bounds the memory of kept answers, of some 1.5 kB each. 0: DefaultCacheBytes.
	CacheBytes int64 `yaml:"cache_bytes"`
	// Signers is how many answers are signed at a time, for answers that can be kept and for those that cannot each. 0: four for each processor.
	Signers int `yaml:"signers"`
	// SignerQueue is how many requests wait for a signer, of each of the two kinds; more get tryLater. 0: DefaultSignerQueue.
	SignerQueue int `yaml:"signer_queue"`
	// NotIssued is NotIssuedUnauthorized, NotIssuedUnknown or NotIssuedRevoked.
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

// What stands for 0 in Settings.
const (
	DefaultRefresh     = 0.5
	DefaultCacheBytes  = 64 << 20
	DefaultSignerQueue = 1024
)

func (s Settings) cacheBytes() int { return int(cmp.Or(s.CacheBytes, DefaultCacheBytes)) }

// signers: more than there are processors, so that one that the system has put aside holds up nobody.
func (s Settings) signers() int { return cmp.Or(s.Signers, 4*runtime.GOMAXPROCS(0)) }

func (s Settings) queue() int { return cmp.Or(s.SignerQueue, DefaultSignerQueue) }

// Validate refuses settings that are wrong by themselves; each error names key, value and rule.
func (s Settings) Validate() error {
	var errs []error
	check := func(ok bool, key string, value any, rule string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %v: %s", key, value, rule))
		}
	}
	s.validateTimes(check)
	check(s.Validity%time.Second == 0, "validity", s.Validity, "must be whole seconds: OCSP has no finer times")
	check(s.Staleness >= 0, "staleness", s.Staleness, "must not be negative; 0 is three tick intervals")
	check(s.MaxAge >= 0 && s.MaxAge <= time.Hour, "max_age", s.MaxAge, "must be 0 to 1h: caches hide revocations for so long")
	check(s.NotIssued == NotIssuedUnauthorized || s.NotIssued == NotIssuedUnknown || s.NotIssued == NotIssuedRevoked,
		"not_issued", s.NotIssued, `must be "unauthorized" or "unknown" or "revoked"`)
	check(s.SignedRequests == "" || s.SignedRequests == SignedIgnore || s.SignedRequests == SignedVerify, "signed_requests", s.SignedRequests, `must be "ignore" or "verify"`)
	check(s.ResponderID == "" || s.ResponderID == ResponderByKey || s.ResponderID == ResponderByName, "responder_id", s.ResponderID, `must be "key" or "name"`)
	check(s.OCSPPath == "" || validPath(s.OCSPPath), "ocsp_path", s.OCSPPath, "must be / or a path like /pki/ocsp, without a slash at its end, that hides nothing else that is served")
	check(s.CacheBytes == 0 || s.CacheBytes >= answers.LeastCache && s.CacheBytes <= 1<<36, "cache_bytes", s.CacheBytes, "must be 1048576 to 68719476736, or 0 for the default")
	check(s.Signers >= 0 && s.Signers <= 1000, "signers", s.Signers, "must be at most 1000, or 0 for four for each processor")
	check(s.SignerQueue >= 0 && s.SignerQueue <= 1_000_000, "signer_queue", s.SignerQueue, "must be at most 1000000, or 0 for the default")
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

// validPath tells whether OCSP can be served at path without hiding anything else.
func validPath(path string) bool {
	if path == "/" {
		return true
	}
	for _, other := range []string{logsPrefix, witnessPrefix, "/v1", "/crl", "/policy", "/metrics", "/healthz", "/readyz", "/log_list.json"} {
		if _, hides := below(path, other); hides {
			return false
		}
	}
	return path[0] == '/' && path[len(path)-1] != '/' && !strings.ContainsAny(path, "%?#+ ") && !strings.Contains(path, "//")
}
