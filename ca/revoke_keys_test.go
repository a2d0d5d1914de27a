package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/problem"
)

// TestSweepOfAKeyRevokesAllAndKeepsItOut: certificates that other software signed are in it, those of other keys are not; what is asked for with
// the key afterwards is refused, also after a restart; and what is recorded with it all the same is revoked.
func TestSweepOfAKeyRevokesAllAndKeepsItOut(t *testing.T) {
	dir, _ := newDir(t)
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	register(t, node, dir)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(w *world, host string) (*caapi.Certificate, error) {
		return w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, key, forHost(host)), Profile: "server"}, "")
	}
	authority, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	record := func(w *world, serial string) {
		arg := wire.Encode(wire.NewIssueArg(w.server.CAID(), [][]byte{foreign(t, authority, key.Public(), serial, "elsewhere.example")}))
		if _, err := w.node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnIssue, arg); err != nil {
			t.Fatal(err)
		}
	}
	var id string
	t.Run("before the restart", func(t *testing.T) {
		w := startWorld(t, dir, nil)
		mine, err := ask(w, "a.example.org")
		if err != nil {
			t.Fatal(err)
		}
		second, err := ask(w, "b.example.org")
		if err != nil {
			t.Fatal(err)
		}
		record(w, "0abc")
		w.bulkOf(caapi.TypeCSV, "reason=superseded", second.Serial)
		other := w.issue("requester", "server", "a.example.org")
		b := w.bulkOf("application/json", "", body(t, map[string]any{"key": pemOf("PUBLIC KEY", spki), "reason": "keyCompromise"}))
		if b.Total != 3 || b.Changed != 3 || !b.KeyBlocked || b.SPKI != fmt.Sprintf("%x", sha256.Sum256(spki)) || b.AsOf == 0 {
			t.Fatalf("%+v", b)
		}
		for _, s := range []string{mine.Serial, second.Serial, "0abc"} {
			if w.state(s) != "revoked keyCompromise" {
				t.Errorf("%s is %s", s, w.state(s))
			}
		}
		if w.state(other) != "valid" {
			t.Error("a certificate with another key is revoked")
		}
		id = b.ID
	})
	w := startWorld(t, dir, nil)
	if b := w.await(id); b.State != caapi.BulkDone || b.Changed != 3 {
		t.Fatalf("%+v", b)
	}
	before := w.fingerprint()
	for _, host := range []string{"a.example.org", "c.example.org"} {
		_, err := ask(w, host)
		if p := problem.From(err); p.Field != "csr.public_key" || p.Status != http.StatusBadRequest {
			t.Fatalf("%v", err)
		}
	}
	if _, err := w.server.SubmitCertificate(t.Context(), foreign(t, authority, key.Public(), "0abe", "elsewhere.example")); problem.From(err).Field != "certificate.public_key" {
		t.Fatalf("%v", err)
	}
	if w.fingerprint() != before {
		t.Errorf("a refused request has changed something: %s, before %s", w.fingerprint(), before)
	}
	if _, err := w.server.SubmitCertificate(t.Context(), foreign(t, authority, key.Public(), "0abc", "elsewhere.example")); err != nil && problem.From(err).Field == "certificate.public_key" {
		t.Fatalf("what the ledger has is refused for its key: %v", err)
	}
	record(w, "0abd")
	waitFor(t, "the revocation of what was recorded after the sweep", func() bool { return w.state("0abd") == "revoked keyCompromise" })
}

// TestKeyOfOneCompromisedCertificateIsBlocked, whoever says so: an operator for one certificate, a list, or the key's holder.
func TestKeyOfOneCompromisedCertificateIsBlocked(t *testing.T) {
	w := newWorld(t, nil)
	for how, revoke := range map[string]func(serial string){
		"one": func(serial string) {
			if _, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: serial, Reason: "keyCompromise"}); err != nil {
				t.Fatal(err)
			}
		},
		"list": func(serial string) { w.bulkOf(caapi.TypeCSV, "reason=keyCompromise", serial) },
		"another process": func(serial string) {
			s, err := wire.ParseSerial(serial)
			if err != nil {
				t.Fatal(err)
			}
			receipt, err := w.node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnSetStatus, wire.Encode(&wire.SetStatusArg{
				V: wire.Version, CAID: w.server.CAID(), Changes: []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: wire.KeyCompromise}},
			}))
			if err != nil {
				t.Fatal(err)
			}
			if err := w.server.catalogue.WaitHeight(t.Context(), receipt.Block+1); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			key, err := keyfile.Generate(keyfile.P256)
			if err != nil {
				t.Fatal(err)
			}
			request := caapi.IssueRequest{CSR: newCSR(t, key), Profile: "server"}
			first, err := w.client("requester").Issue(t.Context(), request, "")
			if err != nil {
				t.Fatal(err)
			}
			revoke(first.Serial)
			_, err = w.client("requester").Issue(t.Context(), request, "")
			if p := problem.From(err); p.Field != "csr.public_key" {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestSweepForAnotherReasonLeavesTheKeyIn.
func TestSweepForAnotherReasonLeavesTheKeyIn(t *testing.T) {
	w := newWorld(t, nil)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, key)
	for range 2 {
		got, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
		if err != nil {
			t.Fatal(err)
		}
		b := w.bulkOf("application/json", "", body(t, map[string]any{"key": got.Certificate, "reason": "cessationOfOperation"}))
		if b.Changed != 1 || b.KeyBlocked || w.state(got.Serial) != "revoked cessationOfOperation" {
			t.Fatalf("%+v", b)
		}
	}
}

// TestConfirmedSweepBlocksTheKey: the list that was looked at is revoked, and what came with the key since.
func TestConfirmedSweepBlocksTheKey(t *testing.T) {
	w := newWorld(t, nil)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, key)
	issue := func() (*caapi.Certificate, error) {
		return w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
	}
	first, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	b := w.bulkOf("application/json", "", body(t, map[string]any{"key": csr, "reason": "keyCompromise", "dry_run": true}))
	if b.State != caapi.BulkPlanned || b.KeyBlocked || b.Total != 1 {
		t.Fatalf("%+v", b)
	}
	late, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	if code, _, answer := w.call(http.MethodPost, caapi.PathBulk+"/"+b.ID, `{"digest":"`+b.Digest+`"}`, nil); code != http.StatusAccepted || !asBulk(t, answer).KeyBlocked {
		t.Fatalf("%d %s", code, answer)
	}
	w.await(b.ID)
	for _, c := range []*caapi.Certificate{first, late} {
		waitFor(t, "the revocation of "+c.Serial, func() bool { return w.state(c.Serial) == "revoked keyCompromise" })
	}
	if _, err := issue(); problem.From(err).Field != "csr.public_key" {
		t.Fatal(err)
	}
}
