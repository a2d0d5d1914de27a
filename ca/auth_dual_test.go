package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// signers are the operators of a dual-control policy, by name.
type signers map[string]crypto.Signer

// newSigners makes operators who may sign everything.
func newSigners(t testing.TB, names ...string) signers {
	t.Helper()
	s := signers{}
	for _, name := range names {
		key, err := keyfile.Generate(keyfile.P256)
		if err != nil {
			t.Fatal(err)
		}
		s[name] = key
	}
	return s
}

func (s signers) policy(t testing.TB, rules string, names ...string) []byte {
	t.Helper()
	var operators []string
	for _, name := range names {
		der, err := x509.MarshalPKIXPublicKey(s[name].Public())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		if err != nil {
			t.Fatal(err)
		}
		operators = append(operators, fmt.Sprintf(`{"name":%q,"role":"administrator","public_key":%s}`, name, text))
	}
	return []byte(`{"version":1,"need":2,"operators":[` + strings.Join(operators, ",") + `],"rules":` + rules + `}`)
}

// sign is what an operator hands in about an operation.
func (s signers) sign(t testing.TB, name string, op *caapi.Operation) caapi.OperatorSignature {
	t.Helper()
	sig, err := dual.Sign(s[name], []byte(op.Text))
	if err != nil {
		t.Fatal(err)
	}
	return caapi.OperatorSignature{Operator: name, Signature: base64.StdEncoding.EncodeToString(sig)}
}

func putPolicy(t testing.TB, dir string, text []byte) {
	t.Helper()
	if err := keyfile.Replace(filepath.Join(dir, dual.PolicyFile), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// dualWorld is a CA under dual control, with clients operator and administrator.
func dualWorld(t testing.TB, rules string) (*world, signers) {
	t.Helper()
	dir, _ := newDir(t)
	s := newSigners(t, "alice", "bob", "carol")
	putPolicy(t, dir, s.policy(t, rules, "alice", "bob", "carol"))
	if _, err := AddClient(dir, "administrator", RoleAdministrator); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	return w, s
}

// asked makes a revocation that needs approvals and returns its operation.
func (w *world) asked(serial string) *caapi.Operation {
	w.t.Helper()
	_, _, err := w.client("operator").Revoke(w.t.Context(), caapi.RevokeRequest{Serial: serial, Reason: "keyCompromise"})
	p, ok := errors.AsType[*caapi.PendingError](err)
	if !ok {
		w.t.Fatalf("no approvals are asked for: %v", err)
	}
	return p.Operation
}

func (w *world) stateOf(serial string) string {
	w.t.Helper()
	c, err := w.client("auditor").Get(w.t.Context(), serial)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Status.State
}

const revokeAlways = `{"revoke_more_than":0}`

func TestTwoOperatorsRevoke(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	cert := w.issueOne("")
	before := w.fingerprint()
	op := w.asked(cert.Serial)
	if again := w.asked(cert.Serial); again.ID != op.ID {
		t.Fatal("the same request is another operation")
	}
	if op.State != dual.Pending || op.Need != 2 || len(op.Operators) != 3 || op.Params["serial"] != cert.Serial || !strings.Contains(op.Text, cert.Serial) {
		t.Fatalf("%+v", op)
	}
	c := w.client("operator")
	if got, err := c.Approve(t.Context(), op.ID, s.sign(t, "alice", op)); err != nil || got.State != dual.Pending {
		t.Fatal(got, err)
	}
	for name, bad := range map[string]caapi.OperatorSignature{
		"the same in bob's name": {Operator: "bob", Signature: s.sign(t, "alice", op).Signature}, "nobody": {Operator: "eve", Signature: s.sign(t, "bob", op).Signature},
		"no base64": {Operator: "bob", Signature: "***"},
	} {
		if _, err := c.Approve(t.Context(), op.ID, bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got, err := c.Approve(t.Context(), op.ID, s.sign(t, "alice", op)); err != nil || got.State != dual.Pending {
		t.Fatal("one operator suffices", got, err)
	}
	if w.fingerprint() != before {
		t.Fatal("something happened already")
	}
	got, err := c.Approve(t.Context(), op.ID, s.sign(t, "bob", op))
	if err != nil || got.State != dual.Done || !strings.Contains(string(got.Result), `"revoked":1`) {
		t.Fatal(got, err)
	}
	if st := w.stateOf(cert.Serial); st != "revoked" {
		t.Fatal(st)
	}
	if _, err := c.Approve(t.Context(), op.ID, s.sign(t, "carol", op)); err == nil {
		t.Fatal("a finished operation is approved")
	}
	all, err := w.client("auditor").Operations(t.Context())
	if err != nil || len(all) != 1 || len(all[0].Approvals) != 2 {
		t.Fatal(all, err)
	}
	contents, err := w.client("auditor").Contents(t.Context(), op.ID)
	if err != nil || dual.Digest(contents) != op.Params[dual.ParamSHA256] {
		t.Fatal(string(contents), err)
	}
}

// Two second approvals at once carry it out once.
func TestSecondApprovalsAtOnce(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	var mu sync.Mutex
	runs := 0
	revoke := w.server.dual.executors[dual.KindRevoke]
	w.server.dual.executors[dual.KindRevoke] = func(ctx context.Context, op dual.Operation, contents []byte) (any, error) {
		mu.Lock()
		runs++
		mu.Unlock()
		return revoke(ctx, op, contents)
	}
	cert := w.issueOne("")
	op := w.asked(cert.Serial)
	c := w.client("operator")
	if _, err := c.Approve(t.Context(), op.ID, s.sign(t, "alice", op)); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		for _, name := range []string{"bob", "carol"} {
			a := s.sign(t, name, op)
			group.Go(func() {
				got, err := c.Approve(t.Context(), op.ID, a)
				if p, refused := errors.AsType[*problem.Problem](err); err != nil && (!refused || p.Status != http.StatusConflict) {
					t.Errorf("%s: %+v, %v", a.Operator, got, err)
				}
			})
		}
	}
	group.Wait()
	waitFor(t, "the operation", func() bool {
		got, err := c.Operation(t.Context(), op.ID)
		return err == nil && got.State == dual.Done
	})
	mu.Lock()
	defer mu.Unlock()
	if runs != 1 {
		t.Fatalf("carried out %d times", runs)
	}
}

func TestRejectedIsNotCarriedOut(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	cert := w.issueOne("")
	op := w.asked(cert.Serial)
	parsed, err := dual.ParseOperation([]byte(op.Text))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := dual.Sign(s["carol"], parsed.RejectionBytes())
	if err != nil {
		t.Fatal(err)
	}
	c := w.client("operator")
	if _, err := c.Reject(t.Context(), op.ID, s.sign(t, "carol", op)); err == nil {
		t.Fatal("an approval rejects")
	}
	got, err := c.Reject(t.Context(), op.ID, caapi.OperatorSignature{Operator: "carol", Signature: base64.StdEncoding.EncodeToString(sig)})
	if err != nil || got.State != dual.Rejected || got.Rejection.Operator != "carol" {
		t.Fatal(got, err)
	}
	for _, name := range []string{"alice", "bob"} {
		if _, err := c.Approve(t.Context(), op.ID, s.sign(t, name, op)); err == nil {
			t.Fatal("approved after all")
		}
	}
	if st := w.stateOf(cert.Serial); st != "valid" {
		t.Fatal(st)
	}
}

// A few may be revoked alone; one after the other does not get around it.
func TestManyRevocationsOneByOneNeedApproval(t *testing.T) {
	w, _ := dualWorld(t, `{"revoke_more_than":2,"revoke_within":"1h"}`)
	c := w.client("operator")
	for range 2 {
		if _, _, err := c.Revoke(t.Context(), caapi.RevokeRequest{Serial: w.issueOne("").Serial, Reason: "superseded"}); err != nil {
			t.Fatal(err)
		}
	}
	third := w.issueOne("")
	w.asked(third.Serial)
	if st := w.stateOf(third.Serial); st != "valid" {
		t.Fatal(st)
	}
	// What makes no sense is not put before operators.
	var p *problem.Problem
	if _, _, err := c.Revoke(t.Context(), caapi.RevokeRequest{Serial: third.Serial, Reason: "boredom"}); !errors.As(err, &p) || p.Status != http.StatusBadRequest {
		t.Fatal(err)
	}
}

// An approved operation whose ledger is away is carried out when it is back.
func TestApprovedWaitsForTheLedger(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	cert := w.issueOne("")
	away := fmt.Errorf("away: %w", network.ErrUnavailable)
	var mu sync.Mutex
	fail := true
	revoke := w.server.dual.executors[dual.KindRevoke]
	w.server.dual.executors[dual.KindRevoke] = func(ctx context.Context, op dual.Operation, contents []byte) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		if fail {
			fail = false
			return nil, away
		}
		return revoke(ctx, op, contents)
	}
	op := w.asked(cert.Serial)
	c := w.client("operator")
	var got *caapi.Operation
	var err error
	for _, name := range []string{"alice", "bob"} {
		if got, err = c.Approve(t.Context(), op.ID, s.sign(t, name, op)); err != nil {
			t.Fatal(err)
		}
	}
	if got.State != dual.Approved {
		t.Fatal(got.State)
	}
	waitFor(t, "the operation", func() bool { return w.stateOf(cert.Serial) == "revoked" })
}

func TestRefusedOperationSaysWhy(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	op := w.asked("4711")
	c := w.client("operator")
	var got *caapi.Operation
	var err error
	for _, name := range []string{"alice", "bob"} {
		if got, err = c.Approve(t.Context(), op.ID, s.sign(t, name, op)); err != nil {
			t.Fatal(err)
		}
	}
	if got.State != dual.Failed || !strings.Contains(got.Error, "4711") {
		t.Fatalf("%+v", got)
	}
}

func TestProfilesChangeWithApproval(t *testing.T) {
	w, s := dualWorld(t, `{"profiles":true}`)
	path := filepath.Join(w.dir, profilesFile)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next := []byte(strings.Replace(string(old), `"8760h"`, `"8000h"`, 1))
	if string(next) == string(old) {
		t.Fatal("nothing to change")
	}
	var p *problem.Problem
	if _, err := w.client("operator").ReplaceProfiles(t.Context(), next); !errors.As(err, &p) || p.Status != http.StatusForbidden {
		t.Fatalf("an operator changes profiles: %v", err)
	}
	admin := w.client("administrator")
	if _, err := admin.ReplaceProfiles(t.Context(), []byte(`{"signing":{"profiles":{"x":{}}}}`)); !errors.As(err, &p) || p.Status != http.StatusBadRequest {
		t.Fatalf("profiles that are none: %v", err)
	}
	_, err = admin.ReplaceProfiles(t.Context(), next)
	pending, ok := errors.AsType[*caapi.PendingError](err)
	if !ok {
		t.Fatal(err)
	}
	if pending.Operation.Params[dual.ParamSHA256] != dual.Digest(next) || pending.Operation.Params[dual.ParamReplaces] != dual.Digest(old) {
		t.Fatalf("%+v", pending.Operation)
	}
	var got *caapi.Operation
	for _, name := range []string{"alice", "bob"} {
		if got, err = admin.Approve(t.Context(), pending.Operation.ID, s.sign(t, name, pending.Operation)); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != string(next) || got.State != dual.Done {
		t.Fatal(got, err)
	}
	start := func() error {
		dir := filepath.Join(t.TempDir(), "ca")
		copyTree(t, dir, w.dir)
		s, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	// By hand it does not go.
	if err := os.WriteFile(path, old, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := start(); !errors.Is(err, dual.ErrNotApproved) {
		t.Fatal(err)
	}
}

func TestPolicyChangesWithApproval(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	admin := w.client("administrator")
	next := s.policy(t, `{"revoke_more_than":5}`, "alice", "carol")
	_, err := admin.ReplacePolicy(t.Context(), next)
	pending, ok := errors.AsType[*caapi.PendingError](err)
	if !ok {
		t.Fatal(err)
	}
	for _, name := range []string{"bob", "carol"} {
		if _, err = admin.Approve(t.Context(), pending.Operation.ID, s.sign(t, name, pending.Operation)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := admin.DualControl(t.Context())
	if err != nil || d.SHA256 != dual.Digest(next) || len(d.Operators) != 2 || !strings.Contains(d.Rules, "more than 5") {
		t.Fatal(d, err)
	}
	// The one before, put back by hand, is refused, and does not come into force.
	putPolicy(t, w.dir, s.policy(t, revokeAlways, "alice", "bob", "carol"))
	w.server.Reload()
	if d, err = admin.DualControl(t.Context()); err != nil || d.SHA256 != dual.Digest(next) {
		t.Fatal(d, err)
	}
	if _, err := New(Config{Dir: w.dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger); !errors.Is(err, dual.ErrNotApproved) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, dual.PolicyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: w.dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger); !errors.Is(err, dual.ErrRemoved) {
		t.Fatal(err)
	}
}

// The first policy comes over the API too, and without one nothing is asked for.
func TestFirstPolicy(t *testing.T) {
	dir, _ := newDir(t)
	if _, err := AddClient(dir, "administrator", RoleAdministrator); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	s := newSigners(t, "alice", "bob")
	c := w.client("operator")
	if _, _, err := c.Revoke(t.Context(), caapi.RevokeRequest{Serial: w.issueOne("").Serial, Reason: "superseded"}); err != nil {
		t.Fatal(err)
	}
	profiles, err := os.ReadFile(filepath.Join(dir, profilesFile))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := w.client("administrator").ReplaceProfiles(t.Context(), profiles); err != nil || a.SHA256 != dual.Digest(profiles) {
		t.Fatal(a, err)
	}
	if _, err := c.ReplacePolicy(t.Context(), s.policy(t, revokeAlways, "alice", "bob")); err == nil {
		t.Fatal("an operator sets a policy")
	}
	if _, err := w.client("administrator").ReplacePolicy(t.Context(), s.policy(t, revokeAlways, "alice")); err == nil {
		t.Fatal("a policy of one operator")
	}
	if a, err := w.client("administrator").ReplacePolicy(t.Context(), s.policy(t, revokeAlways, "alice", "bob")); err != nil || a.InForce != inForceNow {
		t.Fatal(a, err)
	}
	w.asked(w.issueOne("").Serial)
}

// A policy that is gone together with all that dual control keeps is missed: the operators' log tells of it. One that was abandoned is not.
func TestLogMissesThePolicy(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	told := func() bool {
		text, err := os.ReadFile(filepath.Join(w.dir, "operators", "0.log"))
		return err == nil && strings.Contains(string(text), w.server.dual.policy.Load().Digest())
	}
	waitFor(t, "the log", told)
	start := func(change func(dir string) error) error {
		dir := filepath.Join(t.TempDir(), "ca")
		copyTree(t, dir, w.dir)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	remove := func(dir string) error {
		return errors.Join(os.Remove(filepath.Join(dir, dual.PolicyFile)), os.RemoveAll(filepath.Join(dir, "dual")))
	}
	if err := start(func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := start(remove); !errors.Is(err, dual.ErrRemoved) {
		t.Fatalf("removed: %v", err)
	}
	if err := start(func(dir string) error {
		putPolicy(t, dir, s.policy(t, `{}`, "bob", "carol"))
		return os.RemoveAll(filepath.Join(dir, "dual"))
	}); !errors.Is(err, dual.ErrRemoved) {
		t.Fatalf("another one in its place: %v", err)
	}
	if err := start(dual.Abandon); err != nil {
		t.Fatalf("abandoned: %v", err)
	}
}

const crashDualEnv = "CERTANCHOR_CA_CRASH_DUAL" // the ID of the operation that the child approves as bob

// crashDualChild hands in the second approval and dies at a step.
func crashDualChild(dir string, server *Server, id string) error {
	hs := httptest.NewServer(server.Handler())
	c, err := caapi.New(caapi.Config{URL: hs.URL, TokenFile: filepath.Join(dir, OperatorTokenFile)})
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "bob.signature"))
	if err != nil {
		return err
	}
	_, err = c.Approve(context.Background(), id, caapi.OperatorSignature{Operator: "bob", Signature: string(text)})
	return err
}

// Killed between the second approval and its end, the CA finishes when it is back, once.
func TestKilledBetweenApprovalAndItsEnd(t *testing.T) {
	for _, at := range []string{"dual-approved", "dual-revoke", stepSubmitting, stepCommitted, "dual-executed"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, s, cert, op := approvedOnce(t)
			if err := keyfile.WriteNew(filepath.Join(dir, "bob.signature"), []byte(s.sign(t, "bob", op).Signature), 0o600); err != nil {
				t.Fatal(err)
			}
			runChild(t, at, dir, crashDualEnv+"="+op.ID)

			w := startWorld(t, dir, nil)
			waitFor(t, "the operation", func() bool {
				got, err := w.client("operator").Operation(t.Context(), op.ID)
				return err == nil && got.State == dual.Done
			})
			seen, err := w.client("auditor").Get(t.Context(), cert)
			if err != nil || seen.Status.State != "revoked" || seen.Status.Change != 1 {
				t.Fatalf("%+v, %v", seen.Status, err)
			}
		})
	}
}

// approvedOnce is the directory of a CA with a certificate whose revocation alice has approved.
func approvedOnce(t *testing.T) (dir string, s signers, serial string, op *caapi.Operation) {
	t.Helper()
	dir, _ = newDir(t)
	s = newSigners(t, "alice", "bob")
	putPolicy(t, dir, s.policy(t, revokeAlways, "alice", "bob"))
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	register(t, node, dir)
	server, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, node.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(server.Handler())
	w := &world{t: t, dir: dir, node: node, server: server, url: hs.URL}
	serial = w.issueOne("").Serial
	op = w.asked(serial)
	if _, err := w.client("operator").Approve(t.Context(), op.ID, s.sign(t, "alice", op)); err != nil {
		t.Fatal(err)
	}
	hs.Close()
	if err := errors.Join(server.Close(), node.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, s, serial, op
}
