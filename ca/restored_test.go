package ca

import (
	"crypto"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/cabackup"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// noAnchor keeps the operators' log from being anchored.
func noAnchor(function string) anchortest.Fault {
	if function == wire.FnAnchorOperators {
		return anchortest.Unavailable
	}
	return anchortest.None
}

// dies ends w's Server without a last anchor, as a process does that is killed.
func (w *world) dies() {
	w.t.Helper()
	w.ledger.Plan(noAnchor)
	if err := w.server.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Plan(nil)
}

// TestLostDirectoryCannotGoOnAfterARestore: what the restored CA has begun with is anchored before it does anything, so the other copy is an old one from then on.
func TestLostDirectoryCannotGoOnAfterARestore(t *testing.T) {
	w := newWorld(t, nil)
	w.issue("requester", "server", "a.example.org")
	lost, old := w.dir, w.backedUp()
	w.dies()
	if err := oplog.MarkRestored(old, oplog.Restored{Restored: time.Now().UTC(), From: "a copy"}); err != nil {
		t.Fatal(err)
	}
	w.startFrom(old, nil)
	w.dies()

	s, err := New(Config{Dir: lost, Key: prepared.key, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
	_, err = w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err == nil || !strings.Contains(err.Error(), "must be the one anchored in the ledger") {
		t.Fatalf("two copies of one CA go on: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.startFrom(old, nil)
	w.issue("requester", "server", "b.example.org")
}

// TestNothingIsDoneBeforeTheLogIsAnchored: also after a start that follows no restore.
func TestNothingIsDoneBeforeTheLogIsAnchored(t *testing.T) {
	w := newWorld(t, nil)
	w.issue("requester", "server", "a.example.org")
	w.told() // the outcome is in the log, too
	w.dies()
	w.ledger.Plan(noAnchor)
	s, err := New(Config{Dir: w.dir, Key: prepared.key, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
	req := body(t, caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"})
	ask := func() int {
		code, _, _ := w.call(http.MethodPost, caapi.PathCertificates, req, map[string]string{"Authorization": "Bearer " + w.token("requester")})
		return code
	}
	if code := ask(); code != http.StatusServiceUnavailable || w.logSize() != 1 {
		t.Fatalf("status %d, %d certificates", code, w.logSize())
	}
	w.ledger.Plan(nil)
	waitFor(t, "an anchor, and a certificate after it", func() bool { return ask() < 300 })
}

// TestGenerationWhoseKeyComesLaterCatchesUp: it was restored with the others, and could not be opened when they caught up.
func TestGenerationWhoseKeyComesLaterCatchesUp(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	r := rotated(t, w.dir)
	w.awaitKeys(keystate.Active, keystate.Generated)
	old := w.backedUp()
	if err := os.RemoveAll(filepath.Join(old, nextDir, catalogueDir)); err != nil {
		t.Fatal(err)
	}
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	lost := w.issueAs("")
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := oplog.MarkRestored(old, oplog.Restored{Restored: time.Now().UTC(), From: "a copy"}); err != nil {
		t.Fatal(err)
	}
	var there atomic.Bool
	open := func(dir string) (crypto.Signer, error) {
		if !there.Load() {
			return nil, errors.New("the key is not there yet")
		}
		return openTestKey(dir)
	}
	key, err := openTestKey(old)
	if err != nil {
		t.Fatal(err)
	}
	start := func() {
		t.Helper()
		s, err := New(Config{Dir: old, Key: key, OpenKey: open, Log: quiet}, w.ledger)
		if err != nil {
			t.Fatal(err)
		}
		w.dir = old
		w.serve(s)
		waitFor(t, "comparison with the ledger", s.operators.settled.Load)
	}
	start()
	if marked, err := oplog.IsRestored(filepath.Join(old, nextDir)); err != nil || !marked {
		t.Fatalf("nothing tells that the later generation lags: %v", err)
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	start() // does not forget it
	there.Store(true)
	waitFor(t, "the later generation", func() bool { return len(w.server.line.list()) == 2 })
	if got, err := w.client("auditor").Get(t.Context(), lost.Serial); err != nil || got.Certificate != lost.Certificate {
		t.Fatalf("%+v, %v", got, err)
	}
	if marked, err := oplog.IsRestored(filepath.Join(old, nextDir)); err != nil || marked {
		t.Fatalf("the mark is there: %v, %v", marked, err)
	}
}

// TestCADoesNotStartWithoutTheKeysOfItsClients: a restore without keys leaves places to fill in, and an error that names them.
func TestCADoesNotStartWithoutTheKeysOfItsClients(t *testing.T) {
	t.Setenv("CERTANCHOR_TEST_AUTH_KEY", cfsslOther)
	w := newCFSSLWorld(t, nil)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	file, dir := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "ca")
	m, err := cabackup.Create(file, w.dir, cabackup.Options{})
	if err == nil {
		_, err = cabackup.Restore(file, dir, cabackup.RestoreOptions{})
	}
	if err != nil || strings.Join(m.AuthKeys, " ") != "auth_keys.web auth_keys.older" {
		t.Fatalf("%+v, %v", m, err)
	}
	cfg := Config{Dir: dir, Key: prepared.key, Log: quiet}
	if _, err := New(cfg, w.ledger); err == nil || !strings.Contains(err.Error(), "auth_keys.web, auth_keys.older were left out of the backup") {
		t.Fatalf("started: %v", err)
	}
	path := filepath.Join(dir, profilesFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, key := range []string{cfsslKey, cfsslPrevious} {
		text = strings.Replace(text, cabackup.LeftOutKey, key, 1)
	}
	if text != cfsslProfilesText {
		t.Fatalf("the profiles with their keys are\n%s", text)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.startFrom(dir, nil)
}

func TestStatusTellsTheStateOfTheKey(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		to     keystate.State
		usable bool
	}{{keystate.Suspended, false}, {keystate.Active, true}, {keystate.Retired, false}} {
		if err := w.server.ChangeKey(t.Context(), KeyChange{To: c.to, ends: w.server.custody.states.Last().Seq, By: "alice", How: "token", Why: "a test"}); err != nil {
			t.Fatal(err)
		}
		st := w.server.Status(t.Context())
		if k := st.Key; k.State != string(c.to) || k.Since == "" || k.Usable != c.usable || (k.Detail == "") != c.usable || (len(st.Problems) == 0) != c.usable {
			t.Errorf("%s: %+v, problems %q", c.to, k, st.Problems)
		}
	}
}
