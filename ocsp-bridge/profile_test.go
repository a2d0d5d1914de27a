package ocspbridge_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// enrollers has the world's CA certify responders for so long.
func (w *world) enrollers(life time.Duration) func(wire.CAID) ocspbridge.Enroller {
	enr := &enroller{w: w, life: life}
	return func(id wire.CAID) ocspbridge.Enroller {
		if id != w.ca.ID {
			return nil
		}
		return enr
	}
}

// startWith starts a bridge with settings that differ from the default.
func (w *world) startWith(tweak func(*ocspbridge.Config)) *bridge {
	w.t.Helper()
	return w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		tweak(c)
	})
}

// answer returns the parsed answer to a request.
func (b *bridge) answer(der []byte) *ocspwire.Response {
	b.w.t.Helper()
	_, body := b.post(der)
	status, resp, err := ocspwire.ParseResponse(body)
	if err != nil || status != ocspwire.Successful {
		b.w.t.Fatalf("answer is %s, %v", status, err)
	}
	return resp
}

func TestUnsafeMixesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		want  string
		tweak func(*ocspbridge.Settings)
	}{
		{`profile: fast: must be "realtime" or "webpki"`, func(s *ocspbridge.Settings) { s.Profile = "fast" }},
		{"validity: 7h0m0s: must be 8h to 48h with the profile webpki", func(s *ocspbridge.Settings) { s.Profile, s.Validity = "webpki", 7*time.Hour }},
		{"validity: 48h0m1s: must be 8h to 48h", func(s *ocspbridge.Settings) { s.Profile, s.Validity = "webpki", 48*time.Hour+time.Second }},
		{"validity: 200h0m0s: must be at most 168h", func(s *ocspbridge.Settings) { s.Profile, s.Validity = "realtime", 200*time.Hour }},
		{"refresh: 1.5: must be more than 0 and at most 1", func(s *ocspbridge.Settings) { s.Refresh = 1.5 }},
		{"refresh: -0.1: must be", func(s *ocspbridge.Settings) { s.Refresh = -0.1 }},
		{"archive_cutoff: -1s: must be whole seconds", func(s *ocspbridge.Settings) { s.ArchiveCutoff = -time.Second }},
		{"archive_cutoff: 1.5s: must be whole seconds", func(s *ocspbridge.Settings) { s.ArchiveCutoff = 1500 * time.Millisecond }},
		{`signed_requests: maybe: must be "ignore" or "verify"`, func(s *ocspbridge.Settings) { s.SignedRequests = "maybe" }},
		{"ocsp_path: /logs/ocsp: must be / or a path", func(s *ocspbridge.Settings) { s.OCSPPath = "/logs/ocsp" }},
		{"ocsp_path: ocsp: must be / or a path", func(s *ocspbridge.Settings) { s.OCSPPath = "ocsp" }},
		{"ocsp_path: /a/: must be / or a path", func(s *ocspbridge.Settings) { s.OCSPPath = "/a/" }},
		{"cache_bytes: 1000: must be 1048576 to", func(s *ocspbridge.Settings) { s.CacheBytes = 1000 }},
		{"signers: -1: must be at most 1000", func(s *ocspbridge.Settings) { s.Signers = -1 }},
		{"signer_queue: -1: must be at most 1000000", func(s *ocspbridge.Settings) { s.SignerQueue = -1 }},
	} {
		s := ocspbridge.DefaultSettings()
		c.tweak(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one with %q", err, c.want)
		}
	}
	for _, tweak := range []func(*ocspbridge.Settings){
		func(s *ocspbridge.Settings) { s.Profile = "webpki" },
		func(s *ocspbridge.Settings) { s.Profile, s.Validity, s.Refresh = "webpki", 48*time.Hour, 1 },
		func(s *ocspbridge.Settings) { s.OCSPPath, s.NotIssued = "/", "revoked" },
	} {
		s := ocspbridge.DefaultSettings()
		tweak(&s)
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// Baseline Requirements 4.9.10: at least 8 hours and at most 10 days; renewed by half of it if it is less than 16 hours, else 8 hours
// before its end and within 4 days.
func TestWebPKIAnswersKeepTheBaselineRequirements(t *testing.T) {
	for _, c := range []struct {
		validity time.Duration // as configured
		got      time.Duration
		renewed  time.Duration // by then, at the latest
	}{{0, 12 * time.Hour, 6 * time.Hour}, {8 * time.Hour, 8 * time.Hour, 4 * time.Hour}, {20 * time.Hour, 20 * time.Hour, 12 * time.Hour}} {
		w := newWorld(t)
		cert := w.issue(1)[0]
		b := w.startWith(func(cfg *ocspbridge.Config) {
			cfg.Settings.Profile, cfg.Settings.Validity, cfg.Settings.Refresh = ocspbridge.ProfileWebPKI, c.validity, 1
			cfg.Enrollers = w.enrollers(47 * time.Hour)
		}).ready()
		der := request(t, w.ca.Cert, nil, cert)
		first := b.answer(der)
		one := first.Responses[0]
		if v := one.NextUpdate.Sub(one.ThisUpdate); v != c.got {
			t.Errorf("validity %s: is %s, want %s", c.validity, v, c.got)
		}
		begin := w.clock.Now()
		for w.clock.Now().Sub(begin) < c.renewed {
			if again := b.answer(der); !bytes.Equal(again.TBS, first.TBS) {
				t.Errorf("validity %s: made anew after %s already", c.validity, w.clock.Now().Sub(begin))
				break
			}
			w.clock.Advance(30 * time.Minute)
			b.applied(w.tick())
		}
		again := b.answer(der)
		if bytes.Equal(again.TBS, first.TBS) {
			t.Errorf("validity %s: not made anew after %s", c.validity, w.clock.Now().Sub(begin))
		}
		b.applied(w.revoke(cert, wire.KeyCompromise))
		b.want(cert, "revoked") // whatever the profile
	}
}

func TestWebPKIRefusesWhatTheResponderCertificateLeavesTooShort(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.startWith(func(c *ocspbridge.Config) {
		c.Settings.Profile = ocspbridge.ProfileWebPKI
		c.Enrollers = w.enrollers(8 * time.Hour)
	}).ready()
	b.want(cert, "tryLater")
}

func TestExpiredCertificatesAreAnsweredForAsLongAsConfigured(t *testing.T) {
	for _, retention := range []time.Duration{0, time.Hour} {
		w := newWorld(t)
		end := w.clock.Now().Truncate(time.Second).Add(10 * time.Minute)
		der, cert := w.ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = end })
		w.submit(wire.FnIssue, w.ca.IssueArg(der))
		b := w.startWith(func(c *ocspbridge.Config) {
			c.Settings.ArchiveCutoff, c.Settings.Validity = retention, 24*time.Hour
		}).ready()
		req := request(t, w.ca.Cert, nil, cert)
		if single := b.answer(req).Responses[0]; single.Status != ocspwire.Good || !single.ArchiveCutoff().IsZero() {
			t.Errorf("before its end: %s, archive cutoff %s", single.Status, single.ArchiveCutoff())
		}
		later := func(d time.Duration) {
			w.clock.Advance(end.Add(d).Sub(w.clock.Now()))
			b.applied(w.tick())
		}
		later(time.Second)
		single, want := b.answer(req).Responses[0], w.ca.Cert.NotBefore.UTC()
		if retention != 0 {
			want = w.clock.Now().Add(-retention).UTC().Truncate(time.Second)
		}
		if single.Status != ocspwire.Good || !single.ArchiveCutoff().Equal(want) {
			t.Errorf("retention %s, after its end: %s, archive cutoff %s, want %s", retention, single.Status, single.ArchiveCutoff(), want)
		}
		later(time.Hour + time.Second)
		if got, want := b.single(req), map[bool]string{true: "good", false: "unauthorized"}[retention == 0]; got != want {
			t.Errorf("retention %s, an hour after its end: %s, want %s", retention, got, want)
		}
	}
}

func TestNeverIssuedMayBeAnsweredRevoked(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	_, never := w.ca.Issue(t)
	b := w.startWith(func(c *ocspbridge.Config) { c.Settings.NotIssued = ocspbridge.NotIssuedRevoked }).ready()
	resp := b.answer(request(t, w.ca.Cert, nil, never))
	single := resp.Responses[0]
	// RFC 6960 section 2.2: on hold since 1970, with extended revoke, and nothing else.
	if single.Status != ocspwire.Revoked || single.Reason != 6 || single.RevokedAt.Unix() != 0 || !resp.ExtendedRevoke() || len(single.Extensions) != 0 {
		t.Errorf("never issued: %+v, extended revoke: %v", single, resp.ExtendedRevoke())
	}
	if resp := b.answer(request(t, w.ca.Cert, nil, cert)); resp.Responses[0].Status != ocspwire.Good || resp.ExtendedRevoke() {
		t.Errorf("issued: %+v", resp)
	}
	if resp := b.answer(request(t, w.ca.Cert, []byte("n"), cert, never)); resp.Responses[1].RevokedAt.Unix() != 0 || !resp.ExtendedRevoke() {
		t.Errorf("both: %+v", resp)
	}
	stranger := cctest.NewCA(t)
	_, foreign := stranger.Issue(t)
	if got := b.single(request(t, stranger.Cert, nil, foreign)); got != "unauthorized" {
		t.Errorf("of a CA that is not on the trust list: %s, want unauthorized", got)
	}
	der, _ := w.ca.Issue(t)
	_ = der
	b.applied(w.submit(wire.FnIssue, w.ca.IssueArg(never.Raw)))
	b.want(never, "good") // and nothing that was kept says otherwise
}

func TestSignedRequestsAreVerifiedOrIgnored(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := func(recorded bool) *x509.Certificate {
		der, c, err := w.responderCert(key.Public(), time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		if recorded {
			w.submit(wire.FnIssue, w.ca.IssueArg(der))
		}
		return c
	}
	known, unknown, gone := client(true), client(false), client(true)
	w.revoke(gone, wire.Superseded)
	sign := func(by *x509.Certificate) []byte {
		req, err := ocspwire.ParseRequest(request(t, w.ca.Cert, nil, cert), 1)
		if err != nil {
			t.Fatal(err)
		}
		der, err := req.Sign(key, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	forged := sign(known)
	at := bytes.Index(forged, cctest.Serial(t, cert))
	forged[at+len(cctest.Serial(t, cert))-1] ^= 1 // another certificate than was signed for
	verify := w.startWith(func(c *ocspbridge.Config) { c.Settings.SignedRequests = ocspbridge.SignedVerify }).ready()
	ignore := w.start("ignore", nil).ready()
	for _, c := range []struct {
		what              string
		req               []byte
		verified, ignored string
	}{
		{"unsigned", request(t, w.ca.Cert, nil, cert), "good", "good"},
		{"signed", sign(known), "good", "good"},
		{"by nobody on the ledger", sign(unknown), "unauthorized", "good"},
		{"by a revoked certificate", sign(gone), "unauthorized", "good"},
		{"forged", forged, "unauthorized", "unauthorized"}, // ignored: never issued
	} {
		if got := verify.single(c.req); got != c.verified {
			t.Errorf("%s, verified: %s, want %s", c.what, got, c.verified)
		}
		if got := ignore.single(c.req); got != c.ignored {
			t.Errorf("%s, ignored: %s, want %s", c.what, got, c.ignored)
		}
	}
}

func TestPreferredSignatureAlgorithmsChooseTheSigner(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	dir := t.TempDir()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []ocspbridge.KeyPair
	for i, key := range []crypto.Signer{p384, rsaKey} {
		pair := ocspbridge.KeyPair{CertFile: filepath.Join(dir, string(rune('a'+i))), KeyFile: filepath.Join(dir, string(rune('k'+i)))}
		w.submit(wire.FnIssue, w.ca.IssueArg(w.writePair(key, pair)))
		pairs = append(pairs, pair)
	}
	b := w.start("bridge", func(c *ocspbridge.Config) { c.Enrollers, c.Responders = nil, pairs }).ready()
	for _, c := range []struct {
		prefs []x509.SignatureAlgorithm
		want  x509.SignatureAlgorithm
	}{
		{nil, x509.ECDSAWithSHA384},
		{[]x509.SignatureAlgorithm{x509.ECDSAWithSHA384}, x509.ECDSAWithSHA384},
		{[]x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.ECDSAWithSHA384}, x509.SHA256WithRSA},
		{[]x509.SignatureAlgorithm{x509.PureEd25519, x509.SHA256WithRSAPSS}, x509.SHA256WithRSAPSS},
		{[]x509.SignatureAlgorithm{x509.PureEd25519}, x509.ECDSAWithSHA384}, // nobody can: as usual
	} {
		req, err := ocspwire.ParseRequest(request(t, w.ca.Cert, nil, cert), 1)
		if err != nil {
			t.Fatal(err)
		}
		if c.prefs != nil {
			ext, err := ocspwire.PreferredAlgorithmsExtension(c.prefs...)
			if err != nil {
				t.Fatal(err)
			}
			req.Extensions = append(req.Extensions, ext)
		}
		der, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range []string{"signed", "kept"} {
			resp := b.answer(der)
			_, signer, err := resp.Verify(ocspwire.VerifyOptions{Issuer: w.ca.Cert, ID: req.Items[0].ID, Now: w.clock.Now(), Skew: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if err := signer.CheckSignature(c.want, resp.TBS, resp.Signature); err != nil {
				t.Errorf("preferring %v, %s: not signed with %s: %v", c.prefs, how, c.want, err)
			}
		}
	}
}

// writePair writes a responder certificate for key, and key, and returns the certificate.
func (w *world) writePair(key crypto.Signer, pair ocspbridge.KeyPair) []byte {
	w.t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	der, _, err := w.responderCert(key.Public(), 2*time.Hour, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{pair.CertFile: {Type: "CERTIFICATE", Bytes: der}, pair.KeyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return der
}

func TestRenewedResponderFilesAreTakenUpOnReload(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := ocspbridge.KeyPair{CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key")}
	w.submit(wire.FnIssue, w.ca.IssueArg(w.writePair(key, pair)))
	b := w.start("bridge", func(c *ocspbridge.Config) { c.Enrollers, c.Responders = nil, []ocspbridge.KeyPair{pair} }).ready()
	signer := func() string {
		return string(b.answer(request(t, w.ca.Cert, []byte("n"), cert)).Certs[0])
	}
	before := signer()
	next := w.writePair(key, pair)
	b.applied(w.submit(wire.FnIssue, w.ca.IssueArg(next)))
	if signer() != before {
		t.Error("taken up without a reload")
	}
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	if signer() != string(next) {
		t.Error("not taken up by the reload")
	}
	if err := os.WriteFile(pair.CertFile, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(); err == nil || !strings.Contains(err.Error(), pair.CertFile) {
		t.Errorf("reload of rubbish: %v", err)
	}
	if signer() != string(next) {
		t.Error("what was in use is gone after a reload that failed")
	}
}

func TestMetricsOfAResponder(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	_, never := w.ca.Issue(t)
	b := w.start("bridge", nil).ready()
	b.want(certs[0], "good")
	b.want(certs[0], "good")
	b.want(never, "unauthorized")
	b.single(request(t, w.ca.Cert, []byte("n"), certs[0]))
	b.single([]byte("rubbish"))
	b.applied(w.revoke(certs[1], wire.KeyCompromise))
	b.want(certs[1], "revoked")
	_, text := b.get("/metrics", nil)
	id := w.ca.ID.String()
	for _, line := range []string{
		`certanchor_ocsp_requests_total{answer="good",cache="miss",issuer="` + id + `"} 1`,
		`certanchor_ocsp_requests_total{answer="good",cache="hit",issuer="` + id + `"} 1`,
		`certanchor_ocsp_requests_total{answer="good",cache="live",issuer="` + id + `"} 1`,
		`certanchor_ocsp_requests_total{answer="revoked",cache="miss",issuer="` + id + `"} 1`,
		`certanchor_ocsp_requests_total{answer="unauthorized",cache="none",issuer="` + id + `"} 1`,
		`certanchor_ocsp_requests_total{answer="malformedRequest",cache="none",issuer=""} 1`,
		`certanchor_ocsp_request_seconds_count{cache="hit"} 1`,
		`certanchor_ocsp_request_seconds_count{cache="live"} 1`,
		`certanchor_revocation_visible_seconds_count 1`,
		`certanchor_ocsp_kept_answers 2`,
		`certanchor_ocsp_signer_queue 0`,
		`certanchor_ledger_lag_blocks 0`,
		`certanchor_ledger_clock_offset_seconds 0`,
	} {
		if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}
