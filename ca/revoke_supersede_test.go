package ca

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

func supersede(w *world, client, old, overlap string) (*caapi.Certificate, error) {
	w.t.Helper()
	return w.client(client).Issue(w.t.Context(), caapi.IssueRequest{CSR: newCSR(w.t, nil), Profile: "server", Supersedes: old, Overlap: overlap}, "")
}

// TestRenewalSupersedes: the old certificate is revoked once the new one is there.
func TestRenewalSupersedes(t *testing.T) {
	w := newWorld(t, nil)
	old := w.issue("requester", "server", "host.example.org")
	got, err := supersede(w, "requester", old, "")
	if err != nil || got.Supersedes == nil || got.Supersedes.Serial != old {
		t.Fatalf("%+v, %v", got, err)
	}
	waitFor(t, "the old certificate's revocation", func() bool { return w.state(old) == "revoked superseded" })
	if w.state(got.Serial) != "valid" {
		t.Fatal(w.state(got.Serial))
	}
}

// TestOverlapOutlivesARestart: both are good until the time has come.
func TestOverlapOutlivesARestart(t *testing.T) {
	dir, _ := newDir(t)
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	register(t, node, dir)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	var old, fresh string
	t.Run("before the restart", func(t *testing.T) {
		w := startWorld(t, dir, nil)
		old = w.issue("requester", "server", "host.example.org")
		got, err := supersede(w, "requester", old, "24h")
		if err != nil {
			t.Fatal(err)
		}
		fresh = got.Serial
		logged, err := time.Parse(caapi.TimeFormat, got.Timestamp)
		if err != nil || got.Supersedes.At != logged.Add(24*time.Hour).Format(caapi.TimeFormat) {
			t.Fatalf("%+v, %v", got, err)
		}
	})
	var late atomic.Bool
	w := startWorld(t, dir, func(c *Config) {
		c.Now = func() time.Time {
			if late.Load() {
				return time.Now().Add(25 * time.Hour)
			}
			return time.Now()
		}
	})
	if w.server.superseded.count() != 1 || w.state(old) != "valid" {
		t.Fatalf("%d open, the old certificate is %s", w.server.superseded.count(), w.state(old))
	}
	late.Store(true)
	w.server.superseded.wake()
	waitFor(t, "the old certificate's revocation", func() bool { return w.state(old) == "revoked superseded" })
	if w.state(fresh) != "valid" {
		t.Fatal(w.state(fresh))
	}
}

// TestOnlyItsOwnerOrAnOperatorSupersedes, and only what can be: nothing is signed otherwise.
func TestOnlyItsOwnerOrAnOperatorSupersedes(t *testing.T) {
	w := newWorld(t, nil)
	others := w.issue("operator", "server", "host.example.org")
	mine := w.issue("requester", "server", "mine.example.org")
	revoked := w.issue("requester", "server", "gone.example.org")
	w.bulkOf(caapi.TypeCSV, "reason=superseded", revoked)
	before := w.fingerprint()
	for name, c := range map[string]struct {
		client, old, overlap string
		status               int
		field                string
	}{
		"another's":         {"requester", others, "", http.StatusForbidden, "supersedes"},
		"nobody's":          {"requester", "0badc0de", "", http.StatusForbidden, "supersedes"},
		"not there":         {"operator", "0badc0de", "", http.StatusNotFound, "supersedes"},
		"revoked":           {"requester", revoked, "", http.StatusConflict, "supersedes"},
		"not a number":      {"requester", "host", "", http.StatusBadRequest, "supersedes"},
		"overlap alone":     {"requester", "", "1h", http.StatusBadRequest, "overlap"},
		"negative overlap":  {"requester", mine, "-1h", http.StatusBadRequest, "overlap"},
		"endless overlap":   {"requester", mine, "87600h", http.StatusBadRequest, "overlap"},
		"not a duration":    {"requester", mine, "a day", http.StatusBadRequest, "overlap"},
		"number of seconds": {"requester", mine, "3600", http.StatusBadRequest, "overlap"},
	} {
		if _, err := supersede(w, c.client, c.old, c.overlap); problem.From(err).Status != c.status || problem.From(err).Field != c.field {
			t.Errorf("%s: %+v", name, err)
		}
	}
	if w.fingerprint() != before {
		t.Error("a refused request has changed something")
	}
	if _, err := supersede(w, "operator", mine, ""); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the revocation by an operator", func() bool { return w.state(mine) == "revoked superseded" })
}
