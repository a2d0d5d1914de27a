package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

// newKeyDir is newDir with the client administrator.
func newKeyDir(t testing.TB) string {
	t.Helper()
	dir, _ := newDir(t)
	if _, err := AddClient(dir, "administrator", RoleAdministrator); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newKeyWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := startWorld(t, newKeyDir(t), change)
	register(t, w.node, w.dir)
	return w
}

// key changes the state of the CA's key over HTTP.
func (w *world) key(to, why string) *caapi.Key {
	w.t.Helper()
	k, err := w.client("administrator").ChangeKey(w.t.Context(), caapi.KeyRequest{To: to, Why: why})
	if err != nil || k.State != to || k.Why != why || k.By != "administrator" || k.How != howToken {
		w.t.Fatalf("%+v, %v", k, err)
	}
	return k
}

// refusedAs makes a request to issue, which must be refused for the key's state, and must leave no trace.
func (w *world) refusedAs(state, path, body string) {
	w.t.Helper()
	before := w.fingerprint()
	code, _, b := w.call("POST", path, body, nil)
	p := asProblem(w.t, b)
	if code != http.StatusConflict || p.Field != "ca.key" || p.Value != state || !strings.Contains(p.Rule, "by administrator (") || !strings.Contains(p.Rule, time.Now().UTC().Format("2006-")) {
		w.t.Fatalf("%d %s", code, b)
	}
	if w.fingerprint() != before {
		w.t.Fatal("it left traces")
	}
}

func TestKeyStatesTakeEffectWhileTheBridgeRuns(t *testing.T) {
	w := newKeyWorld(t, nil)
	issue, enrol := serverRequest(t), body(t, caapi.IssueRequest{CSR: newCSR(t, nil, func(r *x509.CertificateRequest) { r.DNSNames = nil })})
	must := func(path, body string) {
		t.Helper()
		if code, _, b := w.call("POST", path, body, nil); code != http.StatusCreated {
			t.Fatalf("%s: %d %s", path, code, b)
		}
	}
	must(caapi.PathCertificates, issue)

	w.key("suspended", "a custodian has lost a card")
	w.refusedAs("suspended", caapi.PathCertificates, issue)
	w.refusedAs("suspended", caapi.PathResponders, enrol)
	if ready, err := w.client("operator").Ready(t.Context()); err != nil || ready.Ready || !strings.Contains(ready.Detail, "suspended") {
		t.Fatalf("%+v, %v", ready, err)
	}
	w.key("active", "it was found")
	must(caapi.PathCertificates, issue)

	k := w.key("retired", "a new key has taken over")
	if !slices.Equal(k.Signs, []string{string(keystate.Responders), string(keystate.CRLs), string(keystate.Promised)}) || len(k.History) != 5 {
		t.Fatalf("%+v", k)
	}
	w.refusedAs("retired", caapi.PathCertificates, issue)
	must(caapi.PathResponders, enrol)

	// Suspended after that, it does not come back as an issuer.
	w.key("suspended", "again")
	_, err := w.client("administrator").ChangeKey(t.Context(), caapi.KeyRequest{To: "active", Why: "x"})
	if err == nil || !strings.Contains(err.Error(), "retired before it was suspended") {
		t.Fatal(err)
	}
	w.refusedAs("suspended", caapi.PathResponders, enrol)
	w.key("retired", "resumed")
	must(caapi.PathResponders, enrol)
}

func TestKeyStateOutlivesARestart(t *testing.T) {
	dir := newKeyDir(t)
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	w.key("suspended", "incident")
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: dir, Key: prepared.key, Log: w.server.log}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil || !strings.Contains(err.Error(), "incident") {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir, Key: prepared.key, Log: w.server.log}, w.ledger); !errors.Is(err, keystate.ErrLocked) {
		t.Fatalf("another process has the key's state: %v", err)
	}
}

func TestWhoMayChangeTheKey(t *testing.T) {
	w := newKeyWorld(t, nil)
	for _, client := range []string{"operator", "requester", "responder", "auditor"} {
		h := map[string]string{"Authorization": "Bearer " + w.token(client)}
		if code, _, b := w.call("POST", caapi.PathKey, `{"to":"suspended","why":"x"}`, h); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", client, code, b)
		}
		if code, _, b := w.call("GET", caapi.PathKey, "", h); code != http.StatusOK || !strings.Contains(string(b), `"state":"active"`) {
			t.Errorf("%s: %d %s", client, code, b)
		}
	}
	admin := map[string]string{"Authorization": "Bearer " + w.token("administrator")}
	for name, tc := range map[string]struct{ body, field string }{
		"no such state": {`{"to":"frozen","why":"x"}`, "to"},
		"no reason":     {`{"to":"suspended"}`, "why"},
		"control":       {`{"to":"suspended","why":"a\u0000b"}`, "why"},
		"force":         {`{"to":"suspended","why":"x","force":"yes"}`, "force"},
		"another CA":    {`{"to":"suspended","why":"x","ca_id":"` + strings.Repeat("00", 32) + `"}`, "ca_id"},
		"no CA":         {`{"to":"suspended","why":"x","ca_id":"zz"}`, "ca_id"},
		"by":            {`{"to":"suspended","why":"x","by":"mallory"}`, "by"},
		"type":          {`{"to":1,"why":"x"}`, "to"},
		"already":       {`{"to":"active","why":"x"}`, "to"},
	} {
		if code, _, b := w.call("POST", caapi.PathKey, tc.body, admin); code/100 != 4 || asProblem(t, b).Field != tc.field {
			t.Errorf("%s: %d %s", name, code, b)
		}
	}
	if w.server.custody.state() != keystate.Active {
		t.Error("something was changed")
	}
}

// counting counts signatures, and holds those that are begun while hold is set.
type counting struct {
	crypto.Signer
	n       atomic.Int64
	hold    atomic.Pointer[chan struct{}]
	holding chan struct{} // one for each that is held
}

func (c *counting) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h := c.hold.Load(); h != nil {
		c.holding <- struct{}{}
		<-*h
	}
	c.n.Add(1)
	return c.Signer.Sign(r, digest, opts)
}

// Requests that have passed every check when the suspension is acknowledged are not signed any more, and the suspension waits for signatures
// in progress.
func TestNoSignatureAfterTheSuspensionIsAcknowledged(t *testing.T) {
	const n = 8
	key := &counting{holding: make(chan struct{}, n)}
	passed, gate := make(chan struct{}, n), make(chan struct{})
	var holdSteps atomic.Bool
	w := newKeyWorld(t, func(c *Config) {
		key.Signer = c.Key
		c.Key = key
		c.step = func(s string) {
			if s == stepChecked && holdSteps.Load() {
				passed <- struct{}{}
				<-gate
			}
		}
	})
	ask := func() error {
		_, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}

	// One is being signed: the suspension is not over before it.
	held := make(chan struct{})
	key.hold.Store(&held)
	signing := make(chan error, 1)
	go func() { signing <- ask() }()
	<-key.holding
	key.hold.Store(nil)

	// Others wait between check and signature.
	holdSteps.Store(true)
	errs := make(chan error, n)
	for range n {
		go func() { errs <- ask() }()
	}
	for range n {
		<-passed
	}
	holdSteps.Store(false)

	acknowledged := make(chan error, 1)
	go func() {
		acknowledged <- w.server.ChangeKey(context.Background(), KeyChange{To: keystate.Suspended, By: "administrator", How: "test", Why: "now"})
	}()
	waitFor(t, "the suspension to wait", func() bool { // then nobody else gets the lock
		if w.server.custody.signing.TryRLock() {
			w.server.custody.signing.RUnlock()
			return false
		}
		return true
	})
	select {
	case err := <-acknowledged:
		t.Fatalf("acknowledged while a signature is being made: %v", err)
	default:
	}
	close(held)
	if err := <-signing; err != nil {
		t.Fatal(err)
	}
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}
	signatures, before := key.n.Load(), w.fingerprint()
	close(gate)
	for range n {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "suspended") {
			t.Errorf("a request that waited: %v", err)
		}
	}
	if got := key.n.Load(); got != signatures || w.fingerprint() != before {
		t.Fatalf("%d signatures after the acknowledgement; %s, then %s", got-signatures, before, w.fingerprint())
	}
}

// The same under load, with the race detector's eyes: issuers and somebody who suspends and resumes.
func TestSuspensionUnderLoad(t *testing.T) {
	key := &counting{}
	w := newKeyWorld(t, func(c *Config) { key.Signer = c.Key; c.Key = key })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		csr := newCSR(t, nil)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = w.server.Issue(context.Background(), Request{CSR: csr, Profile: "server"}) // refused or not
				}
			}
		})
	}
	change := func(to keystate.State) {
		if err := w.server.ChangeKey(t.Context(), KeyChange{To: to, By: "a", How: "test", Why: "x", ends: w.server.custody.states.Last().Seq}); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		now := key.n.Load()
		waitFor(t, "a signature", func() bool { return key.n.Load() > now })
		change(keystate.Suspended)
		at := key.n.Load()
		for range 100 {
			if w.server.custody.usable(keystate.Certificates) == nil {
				t.Error("usable")
			}
		}
		if n := key.n.Load(); n != at {
			t.Errorf("%d signatures while suspended", n-at)
		}
		change(keystate.Active)
	}
	close(stop)
	wg.Wait()
}

// A suspension that the disk does not take holds in this process all the same.
func TestSuspensionThatCannotBeRecordedHolds(t *testing.T) {
	w := newKeyWorld(t, nil)
	if err := w.server.custody.states.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client("administrator").ChangeKey(t.Context(), caapi.KeyRequest{To: "suspended", Why: "stolen"}); err == nil {
		t.Fatal("acknowledged")
	}
	_, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"})
	if err == nil || !strings.Contains(err.Error(), "couldn't be recorded") || !strings.Contains(err.Error(), "stolen") {
		t.Fatal(err)
	}
}

func TestSuspendedOrDestroyedKeySignsNoCRL(t *testing.T) {
	cw := newCRLWorld(t, 1, nil)
	serial := cw.issue()
	waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
	set := func(to keystate.State) {
		t.Helper()
		if err := cw.server.ChangeKey(t.Context(), KeyChange{To: to, By: "administrator", How: "test", Why: "x", ends: cw.server.custody.states.Last().Seq}); err != nil {
			t.Fatal(err)
		}
	}
	set(keystate.Suspended)
	revokeBehind(t, cw, serial)
	cw.bridges[0].tell()
	waitFor(t, "the problem", func() bool { return len(cw.status().Problems) == 1 })
	if p := cw.status().Problems[0]; p.Stage != stageKey || !strings.Contains(p.Detail, "suspended") {
		t.Errorf("the status says %+v", p)
	}
	if cw.bridges[0].lists("delta.crl", serial) {
		t.Error("a CRL was signed")
	}
	set(keystate.Retired) // which signs CRLs
	cw.everywhere("delta.crl", serial)
}

func TestDestroyedIsForEver(t *testing.T) {
	w := newKeyWorld(t, nil)
	admin := w.client("administrator")
	ask := func(r caapi.KeyRequest) error {
		r.To, r.Why = "destroyed", "end of life"
		_, err := admin.ChangeKey(t.Context(), r)
		return err
	}
	id := w.server.CAID().String()
	mustRefuse := func(r caapi.KeyRequest, want string) {
		t.Helper()
		if err := ask(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v, want %q", err, want)
		}
		if _, err := os.Stat(filepath.Join(w.dir, keyFile)); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	end := parsePEM(t, cert.Certificate).NotAfter.UTC().Format(time.RFC3339)
	if k, err := admin.Key(t.Context(), ""); err != nil || k.Needed != end {
		t.Fatalf("%+v, %v; the last certificate ends at %s", k, err, end)
	}
	mustRefuse(caapi.KeyRequest{}, "confirm")
	mustRefuse(caapi.KeyRequest{Confirm: id}, end)
	mustRefuse(caapi.KeyRequest{Confirm: id, Force: "true"}, "suspended or retired first")
	w.key("retired", "rotated")
	mustRefuse(caapi.KeyRequest{Confirm: id}, end)
	if err := ask(caapi.KeyRequest{Confirm: id, Force: "true"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, keyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the key file is still there: %v", err)
	}
	w.refusedAs("destroyed", caapi.PathCertificates, serverRequest(t))
	// Its certificates can still be revoked, now and after a restart.
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := OpenKey(w.dir, func() ([]byte, error) { t.Error("asked for a passphrase"); return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: w.dir, Key: key, Log: w.server.log}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if c, _, err := again.Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "superseded"}); err != nil || c.State != "revoked" {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := again.ChangeKey(t.Context(), KeyChange{To: keystate.Active, By: "a", How: "test", Why: "x"}); err == nil || !strings.Contains(err.Error(), "for ever") {
		t.Fatal(err)
	}
}

// Killed between the record and the removal: the next process removes the key.
func TestDestructionIsFinishedAfterACrash(t *testing.T) {
	w := newKeyWorld(t, nil)
	w.key("suspended", "compromised")
	_, err := w.server.custody.change(keystate.Change{To: keystate.Destroyed, By: "a", How: "test", Why: "x", At: time.Now()}, 0, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, keyFile)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: w.dir, Key: prepared.key, Log: w.server.log}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the key file is still there: %v", err)
	}
	if _, err := again.custody.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Fatal("it signs")
	}
}
