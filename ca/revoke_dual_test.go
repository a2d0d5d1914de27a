package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// guardedWorld is a world in which two of its operators, whose keys come with it, must agree to revoke more than one certificate.
func guardedWorld(t *testing.T) (*world, map[string]crypto.Signer) {
	t.Helper()
	dir, _ := newDir(t)
	keys := map[string]crypto.Signer{}
	var operators []map[string]string
	for _, name := range []string{"ada", "bob", "eve"} {
		key, err := keyfile.Generate(keyfile.P256)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
		operators = append(operators, map[string]string{"name": name, "role": dual.RoleAdministrator, "public_key": pemOf("PUBLIC KEY", spki)})
	}
	policy := body(t, map[string]any{"version": 1, "need": 2, "operators": operators, "rules": map[string]any{"revoke_more_than": 1}})
	if err := keyfile.WriteNew(filepath.Join(dir, dual.PolicyFile), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	return w, keys
}

// agree signs an operation as some of its operators.
func (w *world) agree(keys map[string]crypto.Signer, id string, names ...string) *caapi.Operation {
	w.t.Helper()
	c := w.client("operator")
	op, err := c.Operation(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		sig, err := dual.Sign(keys[name], []byte(op.Text))
		if err != nil {
			w.t.Fatal(err)
		}
		if op, err = c.Approve(w.t.Context(), id, caapi.OperatorSignature{Operator: name, Signature: base64.StdEncoding.EncodeToString(sig)}); err != nil {
			w.t.Fatal(err)
		}
	}
	return op
}

// TestTwoOperatorsAgreeToABulk: nothing is revoked before, exactly the list that they signed is afterwards, and a compromised key is swept only then.
func TestTwoOperatorsAgreeToABulk(t *testing.T) {
	w, keys := guardedWorld(t)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, key)
	var serials []string
	for range 2 {
		got, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, got.Serial)
	}
	ask := body(t, map[string]any{"key": csr, "reason": "keyCompromise"})
	header := map[string]string{caapi.IdempotencyKey: "leak"}
	code, _, answer := w.call(http.MethodPost, caapi.PathBulk, ask, header)
	var waits caapi.Pending
	if err := json.Unmarshal(answer, &waits); err != nil || code != http.StatusAccepted || waits.Operation == nil || waits.Operation.Params["count"] != "2" {
		t.Fatalf("%d %s", code, answer)
	}
	id := waits.Operation.Params[paramBulk]
	planned := w.await(id)
	if planned.State != caapi.BulkPlanned || planned.Digest != waits.Operation.Params["digest"] || w.state(serials[0]) != "valid" || len(w.server.blocked.sweeps()) != 0 {
		t.Fatalf("%+v", planned)
	}
	_, _, answer = w.call(http.MethodPost, caapi.PathBulk, ask, header)
	var same caapi.Pending
	if err := json.Unmarshal(answer, &same); err != nil || same.Operation == nil || same.Operation.ID != waits.Operation.ID {
		t.Fatalf("a repetition is another operation: %s", answer)
	}
	if code, _, answer = w.call(http.MethodPost, caapi.PathBulk+"/"+id, `{"digest":"`+planned.Digest+`"}`, nil); code != http.StatusAccepted || w.await(id).State != caapi.BulkPlanned {
		t.Fatalf("one operator alone has started it: %d %s", code, answer)
	}
	w.agree(keys, waits.Operation.ID, "ada")
	if w.await(id).State != caapi.BulkPlanned {
		t.Fatal("one signature has started it")
	}
	w.agree(keys, waits.Operation.ID, "bob")
	waitFor(t, "the end of the bulk", func() bool { return w.await(id).State == caapi.BulkDone })
	if b := w.await(id); b.Changed != 2 || !b.KeyBlocked {
		t.Fatalf("%+v", b)
	}
	for _, s := range serials {
		if w.state(s) != "revoked keyCompromise" {
			t.Errorf("%s is %s", s, w.state(s))
		}
	}
	waitFor(t, "the operation's outcome", func() bool {
		op, err := w.client("operator").Operation(t.Context(), waits.Operation.ID)
		return err == nil && op.State == dual.Done
	})
}

// TestOneByOneIsNoWayAroundTwoOperators: what one operator may do alone is counted over all ways.
func TestOneByOneIsNoWayAroundTwoOperators(t *testing.T) {
	w, _ := guardedWorld(t)
	a, b, c := w.issue("requester", "server", "a.example"), w.issue("requester", "server", "b.example"), w.issue("requester", "server", "c.example")
	if got := w.bulkOf(caapi.TypeCSV, "reason=superseded", a); got.Changed != 1 {
		t.Fatalf("%+v", got)
	}
	code, _, answer := w.call(http.MethodPost, caapi.PathRevocations, `{"serial":"`+b+`","reason":"superseded"}`, nil)
	var waits caapi.Pending
	if err := json.Unmarshal(answer, &waits); err != nil || code != http.StatusAccepted || waits.Operation == nil {
		t.Fatalf("%d %s", code, answer)
	}
	code, _, answer = w.call(http.MethodPost, caapi.PathBulk+"?reason=superseded", c, map[string]string{"Content-Type": caapi.TypeCSV})
	if err := json.Unmarshal(answer, &waits); err != nil || code != http.StatusAccepted || waits.Operation == nil {
		t.Fatalf("%d %s", code, answer)
	}
	if w.state(b) != "valid" || w.state(c) != "valid" {
		t.Fatal("revoked without a second operator")
	}
}
