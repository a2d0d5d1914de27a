package ca

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
)

// TestCertificateHasSCTsOfKFronts: its precertificate and it are a pair on the ledger, and others' programs verify the SCTs.
func TestCertificateHasSCTsOfKFronts(t *testing.T) {
	for _, tc := range []struct{ n, k int }{{1, 1}, {4, 3}, {4, 4}} {
		w, p := ctWorld(t, tc.n, tc.k, nil)
		got, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "k")
		if err != nil {
			t.Fatal(err)
		}
		der := parsePEM(t, got.Certificate).Raw
		p.checkSCTs(t, w, der, tc.k)
		rec := checkPair(t, w, der)
		if got.LogIndex != rec.Final.Index || rec.Pre.Index >= rec.Final.Index || w.logSize() != 2 {
			t.Errorf("answer says index %d, record %+v, log of %d entries", got.LogIndex, rec, w.logSize())
		}
		checkIssued(t, w, got, "server")
		text := openssl(t, got.Certificate, "x509", "-noout", "-text")
		if strings.Count(text, "Signed Certificate Timestamp:") != tc.k || strings.Contains(text, "CT Precertificate Poison") {
			t.Errorf("openssl reads\n%s", text)
		}
		again, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "client"}, "")
		if err != nil || strings.Contains(openssl(t, again.Certificate, "x509", "-noout", "-text"), "Timestamp:") {
			t.Errorf("a profile without SCTs: %v", err)
		}
	}
}

// TestFrontsThatLieOrHangDoNotMatterWhileKAreGood: what is embedded is the good ones'.
func TestFrontsThatLieOrHangDoNotMatterWhileKAreGood(t *testing.T) {
	stranger, err := sct.LoadOrCreate(filepath.Join(t.TempDir(), "stranger.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w, p := ctWorld(t, 4, 3, nil)
	for name, c := range map[string]conduct{
		"hangs":        stuck,
		"is broken":    broken,
		"says nothing": func(http.ResponseWriter, *http.Request, http.Handler) {},
		"says too much": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
		},
		"sends elsewhere": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, p.http[0].URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"another time":       tamper(func(a *ct.AddChainResponse) { a.Timestamp++ }),
		"another index":      tamper(func(a *ct.AddChainResponse) { a.Extensions = "AAAFAAAAAAk=" }),
		"no extensions":      tamper(func(a *ct.AddChainResponse) { a.Extensions = "" }),
		"another version":    tamper(func(a *ct.AddChainResponse) { a.SCTVersion = 1 }),
		"another signature":  tamper(func(a *ct.AddChainResponse) { a.Signature[len(a.Signature)-1] ^= 1 }),
		"another log's":      tamper(func(a *ct.AddChainResponse) { id := stranger.ID(); a.ID = id[:] }),
		"the front before's": func(w http.ResponseWriter, r *http.Request, _ http.Handler) { p.serve(1, w, r) },
	} {
		p.behave(2, c)
		got, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if of := p.checkSCTs(t, w, parsePEM(t, got.Certificate).Raw, 3); !slices.Equal(of, []int{0, 1, 3}) {
			t.Errorf("%s: SCTs of the fronts %v", name, of)
		}
	}
}

// TestTooFewFrontsIsPendingAndFinishedLater: the requester is told where to ask, gets no certificate before it is on the ledger, and then the one that was
// promised.
func TestTooFewFrontsIsPendingAndFinishedLater(t *testing.T) {
	w, p := ctWorld(t, 3, 3, func(c *Config) { c.Settings.FrontTimeout = 100 * time.Millisecond })
	p.behave(1, broken)
	p.behave(2, stuck)
	req := caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}
	code, _, b := w.call("POST", caapi.PathCertificates, body(t, req), map[string]string{caapi.IdempotencyKey: "one"})
	pr := asProblem(t, b)
	if code != http.StatusServiceUnavailable || pr.Code != problem.CodeUnknownOutcome || !strings.HasPrefix(pr.Instance, caapi.PathCertificates+"/") {
		t.Fatalf("%d %s", code, b)
	}
	if code, _, b := w.call("GET", pr.Instance, "", nil); code != http.StatusServiceUnavailable || bytes.Contains(b, []byte("BEGIN CERTIFICATE")) {
		t.Fatalf("%d %s", code, b)
	}
	if w.logSize() != 1 {
		t.Fatalf("%d entries on the ledger, want the precertificate", w.logSize())
	}
	p.behave(1, nil)
	w.server.kickResolver()
	if code, _, _ := w.call("GET", pr.Instance, "", nil); code != http.StatusServiceUnavailable {
		t.Fatalf("two of three are enough: %d", code)
	}
	p.behave(2, nil)
	waitFor(t, "the certificate", func() bool { w.server.kickResolver(); return open(w.server) == 0 })
	got, err := w.client("operator").Issue(t.Context(), req, "one")
	if err != nil || w.logSize() != 2 || pr.Instance != caapi.PathCertificates+"/"+got.Serial {
		t.Fatalf("%+v, %v, %d entries on the ledger", got, err, w.logSize())
	}
	der := parsePEM(t, got.Certificate).Raw
	p.checkSCTs(t, w, der, 3)
	checkPair(t, w, der)
}

// TestFrontThatFailsIsProbedAndNotFlooded: thousands of certificates that wait do not ask it thousands of times.
func TestFrontThatFailsIsProbedAndNotFlooded(t *testing.T) {
	start, later, asked := time.Now(), atomic.Int64{}, atomic.Int64{}
	w, p := ctWorld(t, 2, 2, func(c *Config) {
		c.Now = func() time.Time { return start.Add(time.Duration(later.Load())) }
	})
	p.behave(1, func(w http.ResponseWriter, r *http.Request, h http.Handler) { asked.Add(1); broken(w, r, h) })
	for range 3 * frontFailures {
		if _, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil {
			t.Fatal("issued without enough SCTs")
		}
	}
	if n := asked.Load(); n != frontFailures {
		t.Fatalf("asked %d times in no time", n)
	}
	if w.server.fronts.failing() != 1 {
		t.Error("nobody notices")
	}
	later.Add(int64(frontProbe))
	w.server.kickResolver()
	waitFor(t, "a probe", func() bool { return asked.Load() == frontFailures+1 })
	p.behave(1, nil)
	waitFor(t, "all certificates", func() bool {
		later.Add(int64(frontProbe))
		w.server.kickResolver()
		return open(w.server) == 0
	})
	if w.logSize() != 6*frontFailures || w.server.fronts.failing() != 0 {
		t.Errorf("%d entries on the ledger, %d fronts fail", w.logSize(), w.server.fronts.failing())
	}
}

// TestKeyOutOfUseFinishesLater: a precertificate is a promise, but a suspended key signs nothing.
func TestKeyOutOfUseFinishesLater(t *testing.T) {
	var suspended atomic.Bool
	w, p := ctWorld(t, 1, 1, func(c *Config) {
		c.KeyUsable = func() error {
			if suspended.Load() {
				return wire.Errorf(wire.FailedPrecondition, "ca.key", "suspended", "must be active")
			}
			return nil
		}
		c.step = func(s string) {
			if s == stepStampsRecorded {
				suspended.Store(true)
			}
		}
	})
	req := Request{CSR: newCSR(t, nil), Profile: "server", Client: "c", IdempotencyKey: "k"}
	if _, err := w.server.Issue(t.Context(), req); err == nil {
		t.Fatal("signed with a suspended key")
	}
	w.server.resolveRound(t.Context())
	if open(w.server) != 1 || w.logSize() != 1 {
		t.Fatal("finished with a suspended key")
	}
	suspended.Store(false)
	got, err := w.server.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	p.checkSCTs(t, w, got.DER, 1)
	checkPair(t, w, got.DER)
}

// TestLedgerFaultsAtEitherStepLeaveOneCertificate: whatever happens to the transactions, there is one precertificate and one certificate, or nothing.
func TestLedgerFaultsAtEitherStepLeaveOneCertificate(t *testing.T) {
	for fault := anchortest.None; fault < anchortest.NumFaults; fault++ {
		for at := 1; at <= 2; at++ {
			w, p := ctWorld(t, 1, 1, func(c *Config) { c.Settings.IssueTimeout, c.Settings.SubmitTimeout = time.Second, 250*time.Millisecond })
			n := 0
			w.ledger.Plan(func(function string) anchortest.Fault {
				if function != wire.FnIssue {
					return anchortest.None
				}
				if n++; n == at {
					return fault
				}
				return anchortest.None
			})
			req := Request{CSR: newCSR(t, nil), Profile: "server", Client: "c", IdempotencyKey: "k"}
			_, _ = w.server.Issue(t.Context(), req) // may or may not be told
			w.ledger.Plan(nil)
			var got *Issued
			waitFor(t, "the certificate", func() (ok bool) {
				var err error
				got, err = w.server.Issue(t.Context(), req)
				return err == nil
			})
			if w.logSize() != 2 {
				t.Errorf("fault %d at transaction %d: %d entries on the ledger", fault, at, w.logSize())
			}
			p.checkSCTs(t, w, got.DER, 1)
			checkPair(t, w, got.DER)
		}
	}
}

// TestSecondCertificateOfAPrecertificateIsNotReleased: somebody else with the CA's key completed it first. The ledger takes one, so the other is never let out.
func TestSecondCertificateOfAPrecertificateIsNotReleased(t *testing.T) {
	w, p := ctWorld(t, 2, 2, nil)
	p.behave(1, broken)
	if _, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil {
		t.Fatal("issued with one SCT of two")
	}
	var e *entry
	for _, e = range w.server.book.bySerial {
	}
	pre, err := w.server.journal.read(e.pos)
	if err != nil {
		t.Fatal(err)
	}
	other, err := sct.MarshalList([]*sct.SCT{w.server.issuer.linter.sct})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := w.server.issuer.complete(pre.Cert, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.server.SubmitCertificate(t.Context(), cert.Raw); err != nil {
		t.Fatal(err)
	}
	p.behave(1, nil)
	admin := w.node.Connect(wire.RoleOperator)
	waitFor(t, "refusal", func() bool {
		_, _ = admin.Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version})) // one per epoch; others are refused
		w.server.kickResolver()
		return open(w.server) == 0
	})
	if st, _ := w.server.book.stateOf(e); st != stateRefused || w.logSize() != 2 {
		t.Fatalf("state %d, %d entries on the ledger", st, w.logSize())
	}
	if code, _, b := w.call("GET", caapi.PathCertificates+"/"+e.serial.String(), "", nil); code != 404 || bytes.Contains(b, []byte("BEGIN CERTIFICATE")) {
		t.Fatalf("%d %s", code, b)
	}
}

// TestFinalIsFinishedWhileTheCAIsSuspended: the contract takes what was promised.
func TestFinalIsFinishedWhileTheCAIsSuspended(t *testing.T) {
	w, p := ctWorld(t, 2, 2, nil)
	p.behave(1, broken)
	req := Request{CSR: newCSR(t, nil), Profile: "server", Client: "c", IdempotencyKey: "k"}
	if _, err := w.server.Issue(t.Context(), req); err == nil {
		t.Fatal("issued with one SCT of two")
	}
	if _, err := w.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnDecide, w.elsewhere().SuspendArg(1)); err != nil {
		t.Fatal(err)
	}
	p.behave(1, nil)
	got, err := w.server.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	checkPair(t, w, got.DER)
	if _, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil {
		t.Error("a suspended CA makes promises")
	}
}

func FuzzParseStamp(f *testing.F) {
	f.Add([]byte(`{"sct_version":0,"id":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","timestamp":1767225600000,"extensions":"AAAFAAAAAAc=","signature":"BAMAAQA="}`))
	f.Add([]byte(`{"sct_version":1}`))
	f.Add([]byte(`{"sct_version":0,"id":"","timestamp":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseStamp(text)
		if err == nil && (s.Time < 0 || len(s.Signature) == 0) {
			t.Fatalf("%+v", s)
		}
	})
}

// FuzzCompleted: what is made of a precertificate is its certificate, or nothing.
func FuzzCompleted(f *testing.F) {
	key := ecKey(f, elliptic.P256())
	pre, _, final := cctest.NewCA(f).Precert(f, func(*x509.Certificate) {})
	der, _ := final(cctest.SCTList())
	for _, seed := range [][]byte{pre, der, pre[:len(pre)-1], nil} {
		f.Add(seed, []byte{0, 3, 0, 1, 7})
	}
	f.Fuzz(func(t *testing.T, der, list []byte) {
		d, err := completed(der, list)
		if err != nil {
			return
		}
		final, err := d.sign(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := isCertificateOf(final, der); err != nil {
			t.Fatal(err)
		}
	})
}
