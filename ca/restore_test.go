package ca

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
)

// backedUp is a copy of w's directory as it is, with what a backup has of it.
func (w *world) backedUp() string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "old")
	copyTree(w.t, dir, w.dir)
	if err := os.RemoveAll(filepath.Join(dir, catalogueDir)); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// restoredFrom ends w's Server and starts one from a copy, which is marked as restored.
func (w *world) restoredFrom(dir string, change func(*Config)) {
	w.t.Helper()
	if err := w.server.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := oplog.MarkRestored(dir, oplog.Restored{Restored: time.Now().UTC(), From: "a copy"}); err != nil {
		w.t.Fatal(err)
	}
	w.startFrom(dir, change)
}

func (w *world) startFrom(dir string, change func(*Config)) {
	w.t.Helper()
	cfg := Config{Dir: dir, Key: prepared.key, Log: quiet}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, w.ledger)
	if err != nil {
		w.t.Fatal(err)
	}
	w.dir = dir
	w.serve(s)
	waitFor(w.t, "comparison with the ledger", s.operators.settled.Load)
}

// TestRestoredJournalTakesTheCertificateOfItsPrecertificate: the backup knows of a precertificate, the ledger has its certificate. There is no other one.
func TestRestoredJournalTakesTheCertificateOfItsPrecertificate(t *testing.T) {
	for _, at := range []string{stepJournalled, stepRecorded, stepStampsRecorded, stepFinalJournalled, stepFinalRecorded} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			var w *world
			old := ""
			w, p := ctWorld(t, 2, 2, func(c *Config) {
				c.step = func(s string) {
					if s == at && old == "" {
						old = w.backedUp()
					}
				}
			})
			csr := newCSR(t, nil)
			ask := func() *caapi.Certificate {
				t.Helper()
				got, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "key")
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			released := ask()
			w.restoredFrom(old, p.configure)
			p.server.Store(w.server)
			waitFor(t, "resolution", func() bool { w.server.kickResolver(); return open(w.server) == 0 })
			if again := ask(); again.Certificate != released.Certificate || again.LogIndex != released.LogIndex {
				t.Fatalf("%+v, it was %+v", again, released)
			}
			if w.logSize() != 2 {
				t.Errorf("%d entries on the ledger", w.logSize())
			}
			der := parsePEM(t, released.Certificate).Raw
			p.checkSCTs(t, w, der, 2)
			checkPair(t, w, der)
			// The journal says so too.
			if err := w.server.Close(); err != nil {
				t.Fatal(err)
			}
			w.startFrom(w.dir, p.configure)
			if again := ask(); again.Certificate != released.Certificate {
				t.Fatalf("%+v, it was %+v", again, released)
			}
		})
	}
}

// TestKeyBlockedAfterTheBackupStaysBlocked: the ledger tells of it, before anything is issued.
func TestKeyBlockedAfterTheBackupStaysBlocked(t *testing.T) {
	w := newWorld(t, quickly)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (*caapi.Certificate, error) {
		return w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, key), Profile: "server"}, "")
	}
	cert, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	old := w.backedUp()
	if _, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	w.restoredFrom(old, quickly)
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "keyCompromise") {
		t.Fatalf("certified a key in other hands: %v", err)
	}
	w.issue("requester", "server", "other.example.org")
}

// TestOperationFromBeforeARestoreIsNotCarriedOutAgain: that it was carried out is what the backup does not know.
func TestOperationFromBeforeARestoreIsNotCarriedOutAgain(t *testing.T) {
	w, s := dualWorld(t, revokeAlways)
	serial := w.issueAs("").Serial
	hold := func() *caapi.Operation {
		t.Helper()
		_, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: serial, Reason: "certificateHold"})
		p, ok := errors.AsType[*caapi.PendingError](err)
		if !ok {
			t.Fatalf("no approvals are asked for: %v", err)
		}
		return p.Operation
	}
	approve := func(op *caapi.Operation, names ...string) (got *caapi.Operation, err error) {
		for _, name := range names {
			if got, err = w.client("operator").Approve(t.Context(), op.ID, s.sign(t, name, op)); err != nil {
				return got, err
			}
		}
		return got, err
	}
	op := hold()
	if _, err := approve(op, "alice"); err != nil {
		t.Fatal(err)
	}
	old := w.backedUp()
	if got, err := approve(op, "bob"); err != nil || got.State != dual.Done || w.state(serial) != "held certificateHold" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, _, err := w.client("operator").Release(t.Context(), serial); err != nil {
		t.Fatal(err)
	}
	w.restoredFrom(old, nil)
	for i := range 2 {
		if i == 1 { // the mark is gone now, which makes no difference
			if err := w.server.Close(); err != nil {
				t.Fatal(err)
			}
			w.startFrom(old, nil)
		}
		if got, err := w.client("operator").Operation(t.Context(), op.ID); err != nil || got.State != dual.Failed || !strings.Contains(got.Error, "restored") {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := approve(op, "bob"); err == nil || w.state(serial) != "valid" {
			t.Fatalf("%v; the certificate is %s", err, w.state(serial))
		}
	}
	if fresh := hold(); fresh.ID == op.ID {
		t.Fatal("the old operation is asked for again")
	}
}
