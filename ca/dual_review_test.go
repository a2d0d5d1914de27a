package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/problem"
)

// issueFor issues a certificate for a key as a client.
func (w *world) issueFor(client string, key crypto.Signer) (string, error) {
	w.t.Helper()
	got, err := w.client(client).Issue(w.t.Context(), caapi.IssueRequest{CSR: newCSR(w.t, key), Profile: "server"}, "")
	if err != nil {
		return "", err
	}
	return got.Serial, nil
}

func newTestKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pendingOf(t testing.TB, code int, answer []byte) *caapi.Operation {
	t.Helper()
	var p caapi.Pending
	if err := json.Unmarshal(answer, &p); err != nil || code != http.StatusAccepted || p.Operation == nil {
		t.Fatalf("no approvals are asked for: %d %s", code, answer)
	}
	return p.Operation
}

// TestSweepNeedsOperatorsHoweverLittleItFinds: nobody knows what else comes to the ledger with the key after the list was made.
func TestSweepNeedsOperatorsHoweverLittleItFinds(t *testing.T) {
	w, keys := guardedWorld(t)
	key := newTestKey(t)
	code, _, answer := w.call(http.MethodPost, caapi.PathBulk, body(t, map[string]any{"key": newCSR(t, key), "reason": "keyCompromise", "dry_run": true}), nil)
	plan := asBulk(t, answer)
	if code != http.StatusCreated || plan.Total != 0 {
		t.Fatalf("%d %s", code, answer)
	}
	var serials []string
	for range 2 { // more than the policy lets go
		serial, err := w.issueFor("requester", key)
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, serial)
	}
	code, _, answer = w.call(http.MethodPost, caapi.PathBulk+"/"+plan.ID, `{"digest":"`+plan.Digest+`"}`, nil)
	op := pendingOf(t, code, answer)
	if op.Params[paramSPKI] != plan.SPKI || op.Params[paramScope] == "" || len(w.server.blocked.sweeps()) != 0 {
		t.Fatalf("%+v", op)
	}
	// One certificate is as many as the limit lets go, but a sweep has no limit.
	other := newTestKey(t)
	if _, err := w.issueFor("requester", other); err != nil {
		t.Fatal(err)
	}
	code, _, answer = w.call(http.MethodPost, caapi.PathBulk, body(t, map[string]any{"key": newCSR(t, other), "reason": "keyCompromise"}), nil)
	pendingOf(t, code, answer)

	w.agree(keys, op.ID, "ada")
	for _, serial := range serials {
		if w.state(serial) != "valid" {
			t.Fatal("revoked by one operator")
		}
	}
	w.agree(keys, op.ID, "bob")
	for _, serial := range serials {
		waitFor(t, "the sweep", func() bool { return w.state(serial) == "revoked keyCompromise" })
	}
}

// TestPolicyIsNotSwitchedOffByTakingFilesAway, nor by another one that nobody approved, from a bridge that runs.
func TestPolicyIsNotSwitchedOffByTakingFilesAway(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	digest := w.server.dual.inForce()
	path, state := filepath.Join(w.dir, dual.PolicyFile), filepath.Join(w.dir, "dual")
	kept, err := os.ReadFile(filepath.Join(state, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func() error{
		"nothing": func() error { return nil },
		"another": func() error { return keyfile.Replace(path, s.policy(t, `{}`, "alice", "bob"), 0o644) },
	} {
		if err := errors.Join(os.Remove(path), os.RemoveAll(state), replace()); err != nil {
			t.Fatal(err)
		}
		if err := w.server.dual.use(); !errors.Is(err, dual.ErrRemoved) {
			t.Errorf("%s: %v", name, err)
		}
		if w.server.dual.inForce() != digest {
			t.Fatalf("%s is in force", name)
		}
		putPolicy(t, w.dir, s.policy(t, revokeAlways, "alice", "bob", "carol"))
		if err := errors.Join(os.MkdirAll(state, 0o700), keyfile.Replace(filepath.Join(state, "state.json"), kept, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	w.asked(w.issueAs("").Serial)
	// Abandoned on purpose it goes away.
	if err := dual.Abandon(w.dir); err != nil {
		t.Fatal(err)
	}
	w.server.Reload()
	waitFor(t, "the end of the policy", func() bool { return w.server.dual.inForce() == noPolicy })
}

// TestRotationBringsNoProfilesIntoForce: the next generation has those that the first one started with.
func TestRotationBringsNoProfilesIntoForce(t *testing.T) {
	dir := newKeyDir(t)
	s := newSigners(t, "alice", "bob")
	putPolicy(t, dir, s.policy(t, `{"profiles":true}`, "alice", "bob"))
	w := startWorld(t, dir, func(c *Config) { c.OpenKey = openTestKey })
	register(t, w.node, dir)
	path := filepath.Join(dir, profilesFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	evil := strings.Replace(string(text), `"server": {`, `"evil": {"usages": ["digital signature", "server auth"], "expiry": "8760h"}, "server": {`, 1)
	if evil == string(text) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(path, []byte(evil), 0o644); err != nil {
		t.Fatal(err)
	}
	r := rotated(t, dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	if serial := w.issue("operator", "server", "a.example.org"); w.server.issuerOf(wireSerial(t, serial)).issuer.id.String() != keyName(r.Certificate) {
		t.Fatal("it is not of the new key")
	}
	_, err = w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "evil"}, "")
	if p := problem.From(err); p.Status != http.StatusBadRequest || p.Field != "profile" {
		t.Fatalf("%+v", err)
	}
}

// TestSupersessionCountsUnlessItRenews: what takes another's certificate out of use, or leaves a name without one, is a revocation.
func TestSupersessionCountsUnlessItRenews(t *testing.T) {
	w, _ := guardedWorld(t) // one may be revoked alone
	renew := func(client, old string, hosts ...string) error {
		t.Helper()
		csr := newCSR(t, nil, forHost(hosts[0]), alsoFor(hosts[1:]...))
		_, err := w.client(client).Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server", Supersedes: old}, "")
		return err
	}
	refused := func(err error) {
		t.Helper()
		if p := problem.From(err); p.Status != http.StatusForbidden || p.Field != "supersedes" || !strings.Contains(p.Rule, "revoke_more_than") {
			t.Errorf("%+v", err)
		}
	}
	revoked := func(serial string) {
		t.Helper()
		waitFor(t, "the superseded certificate's revocation", func() bool { return w.state(serial) == "revoked superseded" })
	}
	for range 2 { // renewals are not counted
		mine := w.issue("requester", "server", "mine.example.org")
		if err := renew("requester", mine, "mine.example.org", "more.example.org"); err != nil {
			t.Fatal(err)
		}
		revoked(mine)
	}
	first, second := w.issue("requester", "server", "a.example.org"), w.issue("requester", "server", "b.example.org")
	if err := renew("operator", first, "a.example.org"); err != nil { // the one that counts
		t.Fatal(err)
	}
	revoked(first)
	before := w.fingerprint()
	refused(renew("operator", second, "b.example.org"))  // another client's
	refused(renew("requester", second, "c.example.org")) // other names
	two := w.server.superseded.count()
	if w.fingerprint() != before || two != 0 || w.state(second) != "valid" {
		t.Errorf("a refused request has left something: %d supersessions", two)
	}
	if err := renew("requester", second, "b.example.org"); err != nil {
		t.Fatal(err)
	}
	revoked(second)
}

// TestKeyIsBlockedWhileItsRevocationWaits: also over a restart, and until the operators have said no, or nothing.
func TestKeyIsBlockedWhileItsRevocationWaits(t *testing.T) {
	dir, _ := newDir(t)
	s := newSigners(t, "alice", "bob")
	putPolicy(t, dir, s.policy(t, revokeAlways, "alice", "bob"))
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	rejected, expired, listedKey, twice := newTestKey(t), newTestKey(t), newTestKey(t), newTestKey(t)
	issue := func(key crypto.Signer) string {
		t.Helper()
		serial, err := w.issueFor("requester", key)
		if err != nil {
			t.Fatal(err)
		}
		return serial
	}
	blocked := func(key crypto.Signer) bool {
		t.Helper()
		_, err := w.issueFor("requester", key)
		if p := problem.From(err); err != nil && (p.Status != http.StatusBadRequest || p.Field != "csr.public_key") {
			t.Fatal(err)
		}
		return err != nil
	}
	reject := func(id string) {
		t.Helper()
		c := w.client("operator")
		op, err := c.Operation(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := dual.ParseOperation([]byte(op.Text))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := dual.Sign(s["bob"], parsed.RejectionBytes())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Reject(t.Context(), id, caapi.OperatorSignature{Operator: "bob", Signature: base64.StdEncoding.EncodeToString(sig)}); err != nil {
			t.Fatal(err)
		}
	}
	no, _, viaList, both, again := w.asked(issue(rejected)), w.asked(issue(expired)), issue(listedKey), issue(twice), issue(twice)
	code, _, answer := w.call(http.MethodPost, caapi.PathBulk, list("keyCompromise", viaList), map[string]string{"Content-Type": caapi.TypeCSV})
	inList := pendingOf(t, code, answer)
	one, two := w.asked(both), w.asked(again)
	for name, key := range map[string]crypto.Signer{"single": rejected, "single too": expired, "in a list": listedKey, "two of a key": twice} {
		if !blocked(key) {
			t.Errorf("%s: the key is certified while its revocation waits", name)
		}
	}
	if blocked(newTestKey(t)) {
		t.Error("another key is blocked")
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := New(Config{Dir: dir, Key: prepared.key, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(next)
	if !blocked(rejected) || !blocked(listedKey) {
		t.Fatal("a restart unblocks")
	}
	reject(no.ID)
	reject(inList.ID)
	reject(one.ID)
	if blocked(rejected) || blocked(listedKey) {
		t.Error("what was rejected is blocked still")
	}
	if !blocked(twice) {
		t.Error("the key's other revocation waits")
	}
	c := w.client("operator")
	for _, name := range []string{"alice", "bob"} {
		if _, err := c.Approve(t.Context(), two.ID, s.sign(t, name, two)); err != nil {
			t.Fatal(err)
		}
	}
	if !blocked(twice) || w.state(again) != "revoked keyCompromise" {
		t.Error("a revoked key is certified")
	}
	if !blocked(expired) {
		t.Error("it has not expired yet")
	}
	// The clock of the store only: nothing is signed with one that is off.
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if next, err = New(Config{Dir: dir, Key: prepared.key, Log: quiet}, w.ledger); err != nil {
		t.Fatal(err)
	}
	next.blocked.waits = func(id string) bool {
		store, err := dual.OpenStore(dir, func() time.Time { return time.Now().Add(2 * dual.MaxLife) })
		if err != nil {
			t.Error(err)
			return true
		}
		r, err := store.Get(id)
		return err == nil && r.State == dual.Pending
	}
	w.serve(next)
	if blocked(expired) {
		t.Error("what has expired is blocked still")
	}
}

// TestReleaseOfAListLeavesLaterHolds: a list is about the holds that it was made from.
func TestReleaseOfAListLeavesLaterHolds(t *testing.T) {
	w := newWorld(t, nil)
	later, held := w.issue("requester", "server", "a.example.org"), w.issue("requester", "server", "b.example.org")
	hold := list("certificateHold", later, held)
	if b := w.bulkOf(caapi.TypeCSV, "", hold); b.Changed != 2 {
		t.Fatalf("%+v", b)
	}
	plan := w.bulkOf(caapi.TypeCSV, "operation=release&dry_run=true", "serial\n"+later+"\n"+held+"\n")
	if plan.State != caapi.BulkPlanned || plan.Total != 2 {
		t.Fatalf("%+v", plan)
	}
	c := w.client("operator")
	if _, _, err := c.Release(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Revoke(t.Context(), caapi.RevokeRequest{Serial: later, Reason: "certificateHold"}); err != nil {
		t.Fatal(err)
	}
	if code, _, answer := w.call(http.MethodPost, caapi.PathBulk+"/"+plan.ID, `{"digest":"`+plan.Digest+`"}`, nil); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, answer)
	}
	done := w.await(plan.ID)
	if res := w.results(plan.ID)[later]; done.Changed != 1 || done.Failed != 1 || res.Error == nil || !strings.Contains(res.Error.Rule, "after the list was made") {
		t.Errorf("%+v, %+v", done, res)
	}
	if w.state(later) != "held certificateHold" || w.state(held) != "valid" {
		t.Errorf("%s, %s", w.state(later), w.state(held))
	}
}

// TestSuspensionInBetweenIsNotLifted: a change that one operator decided about a key in use does not end a suspension that came first.
func TestSuspensionInBetweenIsNotLifted(t *testing.T) {
	w, _ := dualWorld(t, `{"resume_key":true}`)
	retire := KeyChange{To: keystate.Retired, By: "administrator", How: howToken, Why: "rotation"} // decided while the key was active
	w.key("suspended", "stolen")
	if err := w.server.ChangeKey(t.Context(), retire); problem.From(err).Status != http.StatusConflict || w.server.custody.state() != keystate.Suspended {
		t.Fatalf("the key is %s: %v", w.server.custody.state(), err)
	}
}

func wireSerial(t testing.TB, text string) wire.Serial {
	t.Helper()
	serial, err := wire.ParseSerial(text)
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// alsoFor gives a request more names.
func alsoFor(hosts ...string) csrOption {
	return func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, hosts...) }
}
