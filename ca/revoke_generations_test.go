package ca

import (
	"bytes"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/cabackup"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// status is what a client is told about a certificate, of whichever generation.
func (w *world) status(serial string) string {
	w.t.Helper()
	got, err := w.client("operator").Get(w.t.Context(), serial)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(got.Status.State + " " + got.Status.Reason)
}

// TestRevocationsReachEveryGeneration: lists, queries, keys and supersessions are of the CA, not of one of its keys, before a restart and after it.
func TestRevocationsReachEveryGeneration(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey; quickly(c) })
	leaked, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(leaked.Public())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(csr string) (*caapi.Certificate, error) {
		return w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
	}
	issue := func(csr string) string {
		t.Helper()
		got, err := ask(csr)
		if err != nil {
			t.Fatal(err)
		}
		return got.Serial
	}
	oldLeaked, oldOther := issue(newCSR(t, leaked)), issue(newCSR(t, other))
	replaced, listed, queried := w.issue("operator", "server", "a.example.org"), w.issue("operator", "server", "b.example.org"), w.issue("operator", "server", "c.example.org")
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	freshLeaked, freshOther := issue(newCSR(t, leaked)), issue(newCSR(t, other))
	freshListed, freshQueried := w.issue("operator", "server", "b.example.org"), w.issue("operator", "server", "c.example.org")

	got, err := supersede(w, "operator", replaced, "")
	if err != nil || got.CAID != keyName(r.Certificate) || got.Supersedes == nil || got.Supersedes.Serial != replaced {
		t.Fatalf("%+v, %v", got, err)
	}
	waitFor(t, "the old generation's certificate to be superseded", func() bool { return w.status(replaced) == "revoked superseded" })
	if _, err := supersede(w, "operator", got.Serial, ""); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new generation's certificate to be superseded", func() bool { return w.status(got.Serial) == "revoked superseded" })

	if b := w.bulkOf(caapi.TypeCSV, "", list("cessationOfOperation", listed, freshListed)); b.Changed != 2 || !b.Acknowledged {
		t.Fatalf("%+v, %+v", b, w.results(b.ID))
	}
	if b := w.bulkOf("application/json", "", body(t, map[string]any{"query": map[string]string{"name": "c.example.org"}, "reason": "affiliationChanged"})); b.Total != 2 || b.Changed != 2 {
		t.Fatalf("%+v", b)
	}
	byKey := w.bulkOf("application/json", "", body(t, map[string]any{"spki": catalogue.KeyOf(spki).String(), "reason": "keyCompromise"}))
	if byKey.Total != 2 || byKey.Changed != 2 || !byKey.KeyBlocked {
		t.Fatalf("%+v", byKey)
	}
	for serial, res := range w.results(byKey.ID) {
		if res.State != "revoked" || res.Block == 0 || len(res.Names) == 0 {
			t.Errorf("%s: %+v", serial, res)
		}
	}
	// One certificate of the old key: the new key certifies its key no more. And one of the new key.
	freshLost := issue(newCSR(t, lost))
	for _, serial := range []string{oldOther, freshLost} {
		if code, _, b := w.call("POST", caapi.PathRevocations, body(t, caapi.RevokeRequest{Serial: serial, Reason: "keyCompromise"}), nil); code != http.StatusOK {
			t.Fatalf("%d %s", code, b)
		}
	}
	want := map[string]string{
		oldLeaked: "revoked keyCompromise", freshLeaked: "revoked keyCompromise", listed: "revoked cessationOfOperation", freshListed: "revoked cessationOfOperation",
		queried: "revoked affiliationChanged", freshQueried: "revoked affiliationChanged", oldOther: "revoked keyCompromise", freshOther: "valid", freshLost: "revoked keyCompromise", got.Serial: "revoked superseded",
	}
	check := func() {
		t.Helper()
		for serial, state := range want {
			if got := w.status(serial); got != state {
				t.Errorf("%s is %q, must be %q", serial, got, state)
			}
		}
		for _, key := range []string{newCSR(t, leaked), newCSR(t, other), newCSR(t, lost)} {
			if _, err := ask(key); err == nil || !strings.Contains(err.Error(), "keyCompromise") {
				t.Errorf("certified a key in other hands: %v", err)
			}
		}
	}
	check()

	st, err := w.client("operator").Status(t.Context())
	if err != nil || len(st.Generations) != 2 || st.BlockedKeys != 3 || !st.Generations[1].Issues || st.Generations[0].KeyState != "retired" ||
		st.Generations[0].Journal.Issued != 5 || st.Generations[1].Journal.Issued != 7 || st.Generations[1].Ledger == nil {
		t.Fatalf("%+v, %v", st, err)
	}
	for _, name := range []string{blockedFile, supersededFile, bulkDir} {
		if _, err := os.Stat(filepath.Join(w.dir, nextDir, name)); err == nil {
			t.Errorf("the later generation has a %s of its own", name)
		}
	}
	m, err := cabackup.Write(new(bytes.Buffer), w.dir, cabackup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		if strings.Contains(f.Name, catalogueDir+"/") {
			t.Errorf("%s is in the backup", f.Name)
		}
	}
	entries, outcomes := w.told()
	told := func(action, target string) bool {
		return slices.ContainsFunc(entries, func(e *oplog.Record) bool {
			end := outcomes[e.Seq]
			return e.Action == action && e.Target == target && end != nil && end.Outcome == oplog.Done
		})
	}
	if !told("bulk revoke", byKey.ID) || !told("supersede", replaced) || !told("take up the next key", keyName(r.Certificate)) {
		t.Errorf("the operators' log lacks some of it: %+v", entries)
	}

	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	// Which keys are in other hands the ledger tells too, of every generation.
	if err := os.Remove(filepath.Join(w.dir, blockedFile)); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Dir: w.dir, Key: prepared.key, OpenKey: openTestKey, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
	if err := s.upToDate(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
}

// TestSerialOfTwoGenerationsIsNotGuessed: other software may number the certificates of both keys.
func TestSerialOfTwoGenerationsIsNotGuessed(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	serial := w.issue("operator", "server", "a.example.org")
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	der := foreign(t, w.server.issuer.cert, key.Public(), serial, "elsewhere.example")
	if _, err := w.ledger.Submit(t.Context(), wire.FnIssue, wire.Encode(wire.NewIssueArg(w.server.CAID(), [][]byte{der}))); err != nil {
		t.Fatal(err)
	}
	code, _, b := w.call("POST", caapi.PathBulk, list("superseded", serial), map[string]string{"Content-Type": caapi.TypeCSV})
	if p := asProblem(t, b); code != http.StatusBadRequest || p.Field != "line 2.serial" || !strings.Contains(p.Rule, w.server.CAID().String()) || !strings.Contains(p.Rule, keyName(r.Certificate)) {
		t.Fatalf("%d %s", code, b)
	}
	found := w.bulkOf("application/json", "", body(t, map[string]any{"query": map[string]string{"name": "elsewhere.example"}, "reason": "superseded"}))
	if found.Changed != 1 || w.state(serial) != "revoked superseded" || w.status(serial) != "valid" {
		t.Fatalf("%+v: the old key's is %s, the new key's %s", found, w.state(serial), w.status(serial))
	}
}

// TestMakingTheNextKeyIsRecorded: of a CA that does not run, by the command itself.
func TestMakingTheNextKeyIsRecorded(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey; quickly(c) })
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	rotated(t, w.dir)
	s, err := New(Config{Dir: w.dir, Key: prepared.key, OpenKey: openTestKey, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
	waitFor(t, "comparison with the ledger", s.operators.settled.Load)
	entries, outcomes := w.told()
	if !slices.ContainsFunc(entries, func(e *oplog.Record) bool {
		return e.Action == "make the next key" && e.Actor == "alice" && outcomes[e.Seq].Outcome == oplog.Done
	}) {
		t.Fatalf("%+v", entries)
	}
}
