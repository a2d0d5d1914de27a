package mirror_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/caimport/importtest"
	"github.com/certanchor/certanchor/internal/caimport/mirror"
	"github.com/certanchor/certanchor/network"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server serves a CRL as web servers do: with a tag, by which it knows who has it already.
type server struct {
	*httptest.Server
	mu                sync.Mutex
	body              []byte
	status            int // 0: 200 or 304
	full, not, failed int
}

func serve(t testing.TB) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		tag := strconv.Quote(strconv.Itoa(len(s.body)) + "-" + big.NewInt(0).SetBytes(s.body[max(0, len(s.body)-8):]).Text(36))
		w.Header().Set("ETag", tag)
		switch {
		case s.status != 0:
			s.failed++
			w.WriteHeader(s.status)
		case r.Header.Get("If-None-Match") == tag:
			s.not++
			w.WriteHeader(http.StatusNotModified)
		default:
			s.full++
			_, _ = w.Write(s.body)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body = body
}

// world is an outside CA, of crypto/x509's making, with its ledger and its mirror.
type world struct {
	t      *testing.T
	ca     *cctest.CA
	l      *importtest.Ledger
	ledger network.Ledger // as the mirror sees it
	web    *server
	dir    string
	now    time.Time
	m      *mirror.Mirror
	cfg    func(*mirror.Config)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ca: cctest.NewCA(t), web: serve(t), dir: filepath.Join(t.TempDir(), "mirror"), now: time.Now().Truncate(time.Second)}
	w.l = importtest.NewLedger(t, w.ca.Cert)
	w.ledger = w.l.Conn
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	authority, err := caimport.FindAuthority(w.t.Context(), w.l.Conn, w.l.ID)
	check(w.t, err)
	c := mirror.Config{Ledger: w.ledger, CA: authority, Dir: w.dir, CRL: w.web.URL + "/ca.crl", Patience: time.Second, Now: func() time.Time { return w.now }, Log: importtest.Quiet()}
	if w.cfg != nil {
		w.cfg(&c)
	}
	w.m, err = mirror.Open(c)
	check(w.t, err)
	m := w.m
	w.t.Cleanup(func() { _ = m.Close() })
}

// reopen is a restart.
func (w *world) reopen() {
	w.t.Helper()
	check(w.t, w.m.Close())
	w.open()
}

// crl makes a CRL that is later than those before by number. entries are serial numbers with their reasons.
func (w *world) crl(number int64, entries map[int64]int, tweaks ...func(*x509.RevocationList)) []byte {
	w.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: w.now.Add(-time.Minute), NextUpdate: w.now.Add(time.Hour)}
	for serial, reason := range entries {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: big.NewInt(serial), ReasonCode: reason, RevocationTime: time.Unix(1_700_000_000+serial, 0),
		})
	}
	for _, tweak := range tweaks {
		tweak(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, w.ca.Cert, w.ca.Key)
	check(w.t, err)
	return der
}

func (w *world) once() error { return w.m.Once(w.t.Context()) }

func (w *world) mustOnce() {
	w.t.Helper()
	check(w.t, w.once())
}

func (w *world) expect(states map[string]wire.CertState) {
	w.t.Helper()
	for serial, want := range states {
		rec := w.l.Record(serial)
		if got := rec; got == nil && want != 0 || got != nil && got.State != want {
			w.t.Errorf("%s is %+v, want state %d", serial, got, want)
		}
	}
}

func TestTheLedgerFollowsTheCRL(t *testing.T) {
	w := newWorld(t)
	w.web.set(w.crl(1, map[int64]int{1: 1, 2: 6, 3: 6}))
	w.mustOnce()
	w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "02": wire.CertHeld, "03": wire.CertHeld, "04": 0})
	if rec := w.l.Record("01"); rec.Reason != wire.KeyCompromise || rec.Asserted != wire.Millis(1_700_000_001_000) || !rec.SerialOnly() || !rec.Imported {
		t.Errorf("01 is %+v", rec)
	}
	// 2 is released, 3 revoked for good, 4 is new.
	w.web.set(w.crl(2, map[int64]int{1: 1, 3: 4, 4: 0}))
	w.mustOnce()
	w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "02": wire.CertValid, "03": wire.CertRevoked, "04": wire.CertRevoked})
	// What is gone and was revoked stays so: expired certificates leave a CRL.
	w.web.set(w.crl(3, nil))
	w.mustOnce()
	w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "03": wire.CertRevoked})
	if r := w.m.Report(); r.Changed != 5 || r.Released != 1 || r.Held != 0 || r.Number != "3" {
		t.Errorf("%+v", r)
	}
}

func TestTheSameCRLIsReadOnce(t *testing.T) {
	w := newWorld(t)
	w.web.set(w.crl(1, map[int64]int{1: 1}))
	for range 3 {
		w.mustOnce()
		w.reopen()
	}
	if w.web.full != 1 || w.web.not != 2 {
		t.Errorf("sent %d times, %d times not", w.web.full, w.web.not)
	}
	if height, err := w.l.Conn.Height(t.Context()); err != nil || height != 3 {
		t.Errorf("%d blocks, %v", height, err) // founding, registration, one import
	}
}

func TestCRLsThatMustNotBeBelievedChangeNothing(t *testing.T) {
	w := newWorld(t)
	other := cctest.NewCA(t)
	w.web.set(w.crl(5, map[int64]int{1: 6}))
	w.mustOnce()
	forged, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(6), ThisUpdate: w.now, NextUpdate: w.now.Add(time.Hour)}, other.Cert, other.Key)
	check(t, err)
	broken := w.crl(6, nil)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		der   []byte
		field string
	}{
		"an older number": {w.crl(4, nil), "cRLNumber"},
		"the same number": {w.crl(5, nil), "cRLNumber"},
		"an earlier date": {w.crl(6, nil, func(l *x509.RevocationList) { l.ThisUpdate = w.now.Add(-time.Hour) }), "thisUpdate"},
		"the future":      {w.crl(6, nil, func(l *x509.RevocationList) { l.ThisUpdate = w.now.Add(10 * time.Minute) }), "thisUpdate"},
		"expired": {w.crl(6, nil, func(l *x509.RevocationList) {
			l.NextUpdate = w.now.Add(-10 * time.Minute)
			l.ThisUpdate = w.now.Add(-20 * time.Minute)
		}), "nextUpdate"},
		"another CA's":         {forged, "CRL"},
		"a broken signature":   {broken, "CRL"},
		"no CRL":               {[]byte("<html>"), "CRL"},
		"another scope":        {w.crl(6, nil, func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, scope()) }), "issuingDistributionPoint"},
		"a certificate":        {w.ca.DER, "CRL"},
		"the CRL, and garbage": {append(w.crl(6, nil), 0), "CRL"},
	} {
		w.web.set(c.der)
		err := w.once()
		var r *mirror.RefusedError
		if !errors.As(err, &r) || r.Field != c.field || r.Rule == "" {
			t.Errorf("%s: %v, want field %s", name, err, c.field)
		}
	}
	w.expect(map[string]wire.CertState{"01": wire.CertHeld})
	if r := w.m.Report(); r.Number != "5" || r.Refused != 11 || r.LastError == "" {
		t.Errorf("%+v", r)
	}
	w.web.set(w.crl(6, nil)) // and a good one is taken after all that
	w.mustOnce()
	w.expect(map[string]wire.CertState{"01": wire.CertValid})
}

// scope is an issuingDistributionPoint: user certificates only.
func scope() pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x81, 1, 0xff}}
}

func TestALateCAIsReported(t *testing.T) {
	w := newWorld(t)
	w.web.set(w.crl(1, nil))
	w.mustOnce()
	w.now = w.now.Add(2 * time.Hour)
	var r *mirror.RefusedError
	if err := w.once(); !errors.As(err, &r) || r.Field != "nextUpdate" {
		t.Errorf("%v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	w := newWorld(t)
	check(t, w.m.Close())
	w.cfg = func(c *mirror.Config) { c.MaxCRLBytes = 100 }
	w.open()
	w.web.set(w.crl(1, map[int64]int{1: 1}))
	if err := w.once(); err == nil || !strings.Contains(err.Error(), "100 octets") {
		t.Errorf("%v", err)
	}
	w.web.status = http.StatusInternalServerError
	if err := w.once(); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("%v", err)
	}
}

func TestAHoldOfSomebodyElseStays(t *testing.T) {
	w := newWorld(t)
	ders := w.ca.IssueMany(t, 1)
	_, err := w.l.Conn.Submit(t.Context(), wire.FnIssue, w.ca.IssueArg(ders...))
	check(t, err)
	cert, err := x509.ParseCertificate(ders[0])
	check(t, err)
	serial := cctest.Serial(t, cert)
	id, n := serial.String(), cert.SerialNumber
	set := func(op wire.StatusOp, reason wire.Reason) {
		t.Helper()
		_, err := w.l.Conn.Submit(t.Context(), wire.FnSetStatus, w.ca.StatusArg(wire.StatusChange{Serial: serial, Op: op, Reason: reason}))
		check(t, err)
	}
	listed := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: n, ReasonCode: 6, RevocationTime: time.Unix(1_700_000_000, 0)}}
	}
	// An operator's hold is there first: the CA's comes and goes.
	set(wire.OpHold, wire.CertificateHold)
	w.web.set(w.crl(1, nil, listed))
	w.mustOnce()
	w.web.set(w.crl(2, nil))
	w.mustOnce()
	w.expect(map[string]wire.CertState{id: wire.CertHeld})
	// The CA's hold, released here and put on again by an operator, is the operator's.
	set(wire.OpRelease, wire.Unspecified)
	w.web.set(w.crl(3, nil, listed))
	w.mustOnce()
	w.expect(map[string]wire.CertState{id: wire.CertHeld})
	set(wire.OpRelease, wire.Unspecified)
	set(wire.OpHold, wire.CertificateHold)
	w.web.set(w.crl(4, nil))
	w.mustOnce()
	w.expect(map[string]wire.CertState{id: wire.CertHeld})
}

// TestAMirrorThatDiesAnywhereEndsTheSame: every call of the ledger is the last one of a mirror, in turn.
func TestAMirrorThatDiesAnywhereEndsTheSame(t *testing.T) {
	for dies := 1; ; dies++ {
		w := newWorld(t)
		calls := 0
		faulty := anchortest.New(w.l.Conn, func(string) anchortest.Fault {
			if calls++; calls >= dies {
				return []anchortest.Fault{anchortest.UnknownCommits, anchortest.Unavailable, anchortest.UnknownLost}[dies%3]
			}
			return anchortest.None
		})
		check(t, w.m.Close())
		w.ledger, w.cfg = faulty, func(c *mirror.Config) { c.Patience = time.Nanosecond }
		w.open()
		crls := [][]byte{w.crl(1, map[int64]int{1: 1, 2: 6, 3: 6}), w.crl(2, map[int64]int{1: 1, 3: 4, 4: 0, 5: 6}), w.crl(3, map[int64]int{1: 1, 3: 4, 4: 0})}
		died := false
		for _, crl := range crls {
			w.web.set(crl)
			if err := w.once(); err != nil {
				died = true
				calls = -1 << 30 // the ledger is well again
				w.reopen()
				w.mustOnce()
			}
		}
		w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "02": wire.CertValid, "03": wire.CertRevoked, "04": wire.CertRevoked, "05": wire.CertValid})
		if r := w.m.Report(); r.Held != 0 || r.Retry != 0 {
			t.Errorf("death at call %d: %+v", dies, r)
		}
		if !died {
			if dies < 4 {
				t.Errorf("the mirror calls the ledger %d times only", dies)
			}
			return
		}
	}
}

func TestAnEntryThatTheLedgerRefusesKeepsNoOtherOut(t *testing.T) {
	w := newWorld(t)
	early := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(2), RevocationTime: w.now.Add(time.Hour)})
	}
	w.web.set(w.crl(1, map[int64]int{1: 1, 3: 6}, early))
	w.mustOnce()
	w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "02": 0, "03": wire.CertHeld})
	w.reopen()
	w.mustOnce() // the same CRL
	if r := w.m.Report(); r.Retry != 1 {
		t.Errorf("%+v", r)
	}
	w.web.set(w.crl(2, map[int64]int{1: 1}))
	w.mustOnce()
	if r := w.m.Report(); r.Retry != 0 || r.Released != 1 {
		t.Errorf("%+v", r)
	}
}

func TestWhatASuspendedCAMayNotDoIsDoneLater(t *testing.T) {
	w := newWorld(t)
	resume := w.suspend()
	w.web.set(w.crl(1, map[int64]int{1: 1, 2: 6}))
	if err := w.once(); err == nil {
		t.Error("a hold is taken of a suspended CA")
	}
	w.expect(map[string]wire.CertState{"01": wire.CertRevoked, "02": 0})
	resume()
	w.reopen()
	w.mustOnce()
	w.expect(map[string]wire.CertState{"02": wire.CertHeld})
}

// suspend suspends the CA, and returns what ends that.
func (w *world) suspend() func() {
	w.t.Helper()
	decide := func(arg []byte) {
		w.t.Helper()
		_, err := w.l.Admin().Submit(w.t.Context(), wire.FnDecide, arg)
		check(w.t, err)
	}
	decide(w.ca.SuspendArg(1))
	return func() { decide(w.ca.ResumeArg(2)) }
}

func TestTwoMirrorsDoNotShareADirectory(t *testing.T) {
	w := newWorld(t)
	authority, err := caimport.FindAuthority(t.Context(), w.l.Conn, w.l.ID)
	check(t, err)
	if _, err := mirror.Open(mirror.Config{Ledger: w.l.Conn, CA: authority, Dir: w.dir, CRL: w.web.URL}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
	for flag, c := range map[string]mirror.Config{
		"crl": {Dir: t.TempDir(), CRL: "ldap://x/y"}, "ocsp": {Dir: t.TempDir(), CRL: w.web.URL, OCSP: "file:///x"},
		"interval": {Dir: t.TempDir(), CRL: w.web.URL, Interval: time.Millisecond}, "dir": {CRL: w.web.URL},
	} {
		c.Ledger, c.CA = w.l.Conn, authority
		if _, err := mirror.Open(c); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// TestRealCRLsAndARealResponder: openssl is the CA and answers OCSP, by a delegate without id-pkix-ocsp-nocheck, as it comes.
func TestRealCRLsAndARealResponder(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(4)
	ca.Run("ca", "-config", "ca.cnf", "-batch", "-notext", "-extensions", "responder", "-in", "leaf.csr", "-out", "responder.pem") // 05
	l := importtest.NewLedger(t, ca.Cert)
	authority, err := caimport.FindAuthority(t.Context(), l.Conn, l.ID)
	check(t, err)
	plan, err := caimport.NewPlan(authority, caimport.Inputs{Certs: []string{ca.Path("newcerts/01.pem"), ca.Path("newcerts/02.pem"), ca.Path("newcerts/03.pem")}}, "", caimport.Options{AssumeValid: true})
	check(t, err)
	st, err := caimport.LoadState(filepath.Join(t.TempDir(), "state"), l.Conn.Channel(), l.ID.String())
	check(t, err)
	_, err = plan.Resume(t.Context(), st)
	check(t, err)
	_, err = caimport.Import(t.Context(), plan, &caimport.Submitter{Ledger: l.Conn, CAID: l.ID}, st, func(uint64) {})
	check(t, err)

	asked := 0
	ocsp := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked++
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(ca.Path("req.der"), body, 0o600)
		}
		if err != nil {
			t.Error(err)
			return
		}
		ca.Run("ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "responder.pem", "-rkey", "leaf.key", "-reqin", "req.der", "-respout", "resp.der", "-ndays", "1")
		der, err := os.ReadFile(ca.Path("resp.der"))
		if err != nil {
			t.Error(err)
		}
		_, _ = rw.Write(der)
	}))
	t.Cleanup(ocsp.Close)
	dir := filepath.Join(t.TempDir(), "mirror")
	once := func() mirror.Report {
		t.Helper()
		m, err := mirror.Open(mirror.Config{
			Ledger: l.Conn, CA: authority, Dir: dir, CRL: "file://" + ca.Path("ca.crl"), OCSP: ocsp.URL, OCSPRate: mirror.MaxOCSPRate, Log: importtest.Quiet(),
		})
		check(t, err)
		defer func() { check(t, m.Close()) }()
		check(t, m.Once(t.Context()))
		return m.Report()
	}
	ca.Revoke("01", "-crl_reason", "superseded")
	ca.CRL()
	// After the CRL: only the responder knows.
	ca.Revoke("02", "-crl_compromise", "20240101000000Z")
	ca.Revoke("03", "-crl_hold", "holdInstructionReject")
	if r := once(); r.Known != 3 || r.Asked != 2 || r.OCSPNews != 2 || r.OCSPFailed != 0 || asked != 2 {
		t.Errorf("%+v, %d asked", r, asked)
	}
	for serial, want := range map[string]wire.CertState{"01": wire.CertRevoked, "02": wire.CertRevoked, "03": wire.CertHeld} {
		if rec := l.Record(serial); rec.State != want {
			t.Errorf("%s is %+v", serial, rec)
		}
	}
	// What the responder said to be on hold is on no newer CRL.
	ca.Unhold("03")
	ca.CRL("-crl_lastupdate", time.Now().Add(time.Minute).UTC().Format("060102150405Z")) // clearly after what the responder has said
	if r := once(); r.Released != 1 || r.Held != 0 {
		t.Errorf("%+v", r)
	}
	if rec := l.Record("03"); rec.State != wire.CertValid {
		t.Errorf("03 is %+v", rec)
	}
	// A responder that is on the CRL itself is not believed.
	ca.Revoke("05", "-crl_reason", "keyCompromise")
	ca.CRL("-crl_lastupdate", time.Now().Add(2*time.Minute).UTC().Format("060102150405Z"))
	m, err := mirror.Open(mirror.Config{
		Ledger: l.Conn, CA: authority, Dir: dir, CRL: "file://" + ca.Path("ca.crl"), OCSP: ocsp.URL, OCSPRate: mirror.MaxOCSPRate, Log: importtest.Quiet(),
	})
	check(t, err)
	defer func() { check(t, m.Close()) }()
	if err := m.Once(t.Context()); err == nil || m.Report().OCSPFailed != 1 {
		t.Errorf("%v, %+v", err, m.Report())
	}
}

// TestARunningMirrorTakesWhatComes: until its context ends, and through failures of the CA's server.
func TestARunningMirrorTakesWhatComes(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	w.web.status = http.StatusServiceUnavailable
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	check(t, w.m.Close())
	w.cfg = func(c *mirror.Config) { c.Interval, c.Now = mirror.LeastInterval, time.Now }
	w.open()
	go func() { done <- w.m.Run(ctx) }()
	eventually(t, "the first look has failed", func() bool { w.web.mu.Lock(); defer w.web.mu.Unlock(); return w.web.failed > 0 })
	w.web.set(w.crl(1, map[int64]int{1: 1}))
	w.web.mu.Lock()
	w.web.status = 0
	w.web.mu.Unlock()
	eventually(t, "the revocation is on the ledger", func() bool { return w.l.Record("01") != nil })
	cancel()
	check(t, <-done)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	end := time.After(time.Minute)
	for !holds() {
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("waited a minute in vain: %s", what)
		}
	}
}
