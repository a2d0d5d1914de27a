package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// evidence expects two signed checkpoints with the sizes given.
func evidence(t *testing.T, w *logsWorld, e client.Event, sizes ...uint64) {
	t.Helper()
	if len(e.Evidence) != len(sizes) {
		t.Fatalf("evidence is %q", e.Evidence)
	}
	for i, signed := range e.Evidence {
		cp, _, err := tlogproof.OpenCheckpoint([]byte(signed), e.Log, w.logKey()...)
		if err != nil || cp.Size != sizes[i] {
			t.Errorf("evidence %d is %+v, %v; want size %d", i, cp, err, sizes[i])
		}
	}
}

// history returns a log with n certificates for example.org that no other log has.
func (w *logsWorld) history(n int) *merklelogtest.Memory {
	w.t.Helper()
	name := w.cas[0].ID.String()
	before := w.logs[name]
	w.logs[name] = merklelogtest.New()
	for range n {
		w.issue("other.example.org")
	}
	other := w.logs[name]
	w.logs[name] = before
	return other
}

// TestARestoredBackupIsAnAlarm also holds how often an alarm comes: once while it lasts, restarts included, and again the next time.
func TestARestoredBackupIsAnAlarm(t *testing.T) {
	w := newLogsWorld(t)
	name := w.cas[0].ID.String()
	w.issue("a.example.org")
	backup := merklelogtest.New()
	entries, err := w.logs[name].Entries(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	backup.Append(0, entries...)
	w.issue("b.example.org")
	_, state := stateIn(t)
	x := w.watch(state)
	x.catchUp()
	whole := w.logs[name]
	w.locked(func() { w.logs[name] = backup })
	first := x.alarm(client.AlarmRollback)
	if first.Log != w.ca0() || first.Index != 2 {
		t.Errorf("alarm is %+v", first)
	}
	evidence(t, w, first, 2, 1)
	x.alarm("")
	x = w.watch(state)
	x.alarm("")
	w.locked(func() { w.logs[name] = whole })
	w.issue("c.example.org")
	if got := x.catchUp(); len(got) != 1 || got[0].Index != 2 {
		t.Errorf("after the log is whole again: %+v", got)
	}
	w.locked(func() { w.logs[name] = backup })
	if again := x.alarm(client.AlarmRollback); again.ID == first.ID {
		t.Errorf("another alarm has the same ID, %s", again.ID)
	}
}

// TestTwoHistoriesUnderOneKeyVenafi2017: two sequencers with one key signed heads that contradicted each other.
func TestTwoHistoriesUnderOneKeyVenafi2017(t *testing.T) {
	for what, size := range map[string]int{"same size": 3, "larger": 300} {
		t.Run(what, func(t *testing.T) {
			w := newLogsWorld(t)
			for range 3 {
				w.issue("a.example.org")
			}
			x := w.watch()
			x.catchUp()
			fork := w.history(size)
			w.locked(func() { w.logs[w.cas[0].ID.String()] = fork })
			evidence(t, w, x.alarm(client.AlarmFork), 3, uint64(size))
			// The certificates of the other history are not reported as if they were in the log.
			x.alarm("")
		})
	}
}

// TestAForkIsNotForgottenWhenTheServerHidesItAgain: a look past caches would find nothing then.
func TestAForkIsNotForgottenWhenTheServerHidesItAgain(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("a.example.org")
	x := w.watch()
	x.catchUp()
	name := w.cas[0].ID.String()
	whole, fork := w.logs[name], w.history(2)
	w.locked(func() {
		w.logs[name] = fork
		seen := false
		w.tamper = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/logs/"+name+"/checkpoint" {
				w.locked(func() {
					if seen {
						w.logs[name] = whole
					}
					seen = true
				})
			}
			return false
		}
	})
	x.alarm(client.AlarmFork)
	if got := x.catchUp(); len(got) != 0 {
		t.Errorf("events are %+v", got)
	}
}

// TestABitFlipIsAnAlarmYeti2022: one bit in a stored hash, or in anything else that is served, is found and never reported as fact.
func TestABitFlipIsAnAlarmYeti2022(t *testing.T) {
	w := newLogsWorld(t)
	filler, _ := w.cas[0].Issue(t)
	for range 299 {
		w.log(w.cas[0], filler, false)
	}
	pre, _, _ := w.cas[0].Precert(t, named("a.example.org"))
	w.log(w.cas[0], pre, true)
	w.set(mustIssue(w), wire.CertHeld, wire.CertificateHold)
	logs := "/logs/" + w.cas[0].ID.String()
	for path, places := range map[string][]int{
		logs + "/tile/0/000":                    {0, 8191},
		logs + "/tile/0/001.p/45":               {44 * 32},
		logs + "/tile/1/000.p/1":                {31},
		logs + "/static/tile/data/000":          {0, 12, 500},
		logs + "/static/tile/data/001.p/45":     {0, -40}, // what follows is the chain, in no hash and of no consequence
		"/logs/status/tile/0/000.p/2":           {0, 63},
		"/logs/status/tile/entries/000.p/2":     {0, 5, -1},
		logs + "/static/tile/data/001.p/45#pre": {bytes.Index(data(w), pre) + len(pre)/2},
	} {
		path, _, _ = strings.Cut(path, "#")
		for _, at := range places {
			hit := false
			w.locked(func() {
				w.change = func(p string, body []byte) []byte {
					if p != path {
						return body
					}
					hit = true
					body = bytes.Clone(body)
					body[(at+len(body))%len(body)] ^= 4
					return body
				}
			})
			x := w.watch()
			if err := x.CatchUp(t.Context()); !errors.Is(err, client.ErrAlarm) || !hit {
				t.Errorf("%s, octet %d: %v", path, at, err)
			}
			for _, e := range x.take() {
				if e.Log == w.ca0() && strings.HasPrefix(path, logs) && e.Alarm != client.AlarmDamage {
					t.Errorf("%s, octet %d: reported %s", path, at, e.ID)
				}
			}
			w.locked(func() { w.change = nil })
			if got := x.catchUp(); len(got) == 0 && strings.HasPrefix(path, logs) {
				t.Errorf("%s, octet %d: nothing is reported when all is well again", path, at)
			}
		}
	}
}

// mustIssue logs a certificate that matches.
func mustIssue(w *logsWorld) *x509.Certificate { return w.issue("held.example.org") }

// data is the last data tile of the first CA's log.
func data(w *logsWorld) []byte {
	resp, err := http.Get(w.server.URL + "/logs/" + w.cas[0].ID.String() + "/static/tile/data/001.p/45")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// TestAnotherPrecertificateBesideTheLeafIsAnAlarm: the leaf's hash does not cover it.
func TestAnotherPrecertificateBesideTheLeafIsAnAlarm(t *testing.T) {
	w := newLogsWorld(t)
	pre, _, _ := w.cas[0].Precert(t, named("aa.example.org"))
	w.log(w.cas[0], pre, true)
	w.locked(func() {
		w.change = func(path string, body []byte) []byte {
			if i := bytes.LastIndex(body, []byte("aa.example.org")); strings.Contains(path, "/data/") && i > 0 {
				body = bytes.Clone(body)
				copy(body[i:], "zz.example.com")
			}
			return body
		}
	})
	if e := w.watch().alarm(client.AlarmDamage); !strings.Contains(e.Detail, "pre_certificate") {
		t.Errorf("alarm is %+v", e)
	}
}

func TestACachesDamageIsNoAlarm(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("a.example.org")
	w.locked(func() {
		w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/tile/") || r.Header.Get("Cache-Control") == "no-cache" {
				return false
			}
			_, err := rw.Write([]byte("<html>welcome to this hotel"))
			return err == nil
		}
	})
	if got := w.watch().catchUp(); len(got) != 1 {
		t.Errorf("events are %+v", got)
	}
}

func TestMonitorSurvivesHostileServers(t *testing.T) {
	bomb := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range 8 {
			if _, err := z.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}()
	for _, c := range []struct {
		what, path string
		want       error
		answer     func(rw http.ResponseWriter, r *http.Request)
	}{
		{"gzip bomb for hashes", "/tile/0/", client.ErrAlarm, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(bomb)
		}},
		{"gzip bomb for entries", "/data/", client.ErrAlarm, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(bomb)
		}},
		{"gzip bomb for a checkpoint", "/checkpoint", client.ErrCheckpoint, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(bomb)
		}},
		{"gzip bomb for the list", "/logs", client.ErrTransport, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(bomb)
		}},
		{"short tile", "/tile/0/", client.ErrAlarm, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, 31)) }},
		{"empty tile", "/data/", client.ErrAlarm, func(http.ResponseWriter, *http.Request) {}},
		{"endless redirects", "/tile/0/", client.ErrTransport, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, r.URL.Path+"x", http.StatusFound)
		}},
		{"no end", "/checkpoint", client.ErrTransport, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = rw.Write([]byte("x"))
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}},
		{"cut off", "/data/", client.ErrTransport, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write([]byte("x"))
		}},
		{"no tile", "/tile/0/", client.ErrTransport, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotFound) }},
		{"too many logs", "/logs", client.ErrTransport, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte("[{}" + strings.Repeat(",{}", 5000) + "]"))
		}},
		{"CA that is none", "/logs", client.ErrTransport, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`[{"ca_id":"../../x"}]`))
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newLogsWorld(t)
			w.issue("a.example.org")
			w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, c.path) || c.path == "/logs" && r.URL.Path != "/logs" || strings.Contains(r.URL.Path, "status") {
					return false
				}
				c.answer(rw, r)
				return true
			}
			x := w.watch(func(m *client.MonitorConfig) { m.GiveUp = time.Millisecond; m.Timeout = 200 * time.Millisecond })
			if err := x.CatchUp(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("CatchUp: %v, want %v", err, c.want)
			}
			for _, e := range x.events {
				if e.Kind != client.EventAlarm {
					t.Errorf("reported: %+v", e)
				}
			}
		})
	}
}

// TestALogOutOfSightIsAnAlarm: who cannot see does not know that nothing happens. Old checkpoints are no sight.
func TestALogOutOfSightIsAnAlarm(t *testing.T) {
	for what, blind := range map[string]func(w *logsWorld){
		"refused": func(w *logsWorld) {
			w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/checkpoint") && !strings.Contains(r.URL.Path, "status") {
					rw.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			}
		},
		"unsigned": func(w *logsWorld) { w.signers = w.Orgs[:2] },
		"stale": func(w *logsWorld) {
			kept := map[string][]byte{}
			w.change = func(path string, body []byte) []byte {
				if strings.HasSuffix(path, "/checkpoint") {
					if kept[path] == nil {
						kept[path] = bytes.Clone(body)
					}
					return kept[path]
				}
				return body
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newLogsWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			rounds := 0
			x := w.watch(func(c *client.MonitorConfig) {
				c.Sleep = func(ctx context.Context, d time.Duration) error {
					if rounds++; rounds == 1 {
						w.locked(func() { blind(w) })
					}
					if rounds == 60 { // a quarter of an hour
						cancel()
					}
					return w.sleep(ctx, d)
				}
			})
			if err := x.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			found := false
			for _, e := range x.events {
				if e.Kind != client.EventAlarm || e.Alarm != client.AlarmBlind {
					t.Errorf("event is %+v", e)
				}
				if e.Log == w.ca0() && found {
					t.Errorf("repeated: %+v", e)
				}
				found = found || e.Log == w.ca0()
			}
			if !found {
				t.Errorf("no alarm about %s: %+v", w.ca0(), x.events)
			}
		})
	}
}

// TestFailuresThatPassAreNoEvents: every other request fails.
func TestFailuresThatPassAreNoEvents(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("a.example.org")
	n := 0
	w.tamper = func(rw http.ResponseWriter, _ *http.Request) (failed bool) {
		w.locked(func() { n++; failed = n%2 == 1 })
		if failed {
			rw.WriteHeader(http.StatusBadGateway)
		}
		return failed
	}
	if got := w.watch().catchUp(); len(got) != 1 || got[0].Kind != client.EventCertificate {
		t.Errorf("events are %+v", got)
	}
}
