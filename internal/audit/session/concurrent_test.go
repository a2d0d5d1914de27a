package session_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
)

// stages of an audit, by a part of the paths that are asked for.
var stages = []string{"/checkpoint", "/ocsp", "/bundle?", "/tile/"}

// gate lets requests pass once so many servers have arrived.
type gate struct {
	mu      sync.Mutex
	arrived map[int]bool  // guarded by mu
	open    chan struct{} // closed then
	want    int
}

func gates(want int) map[string]*gate {
	all := map[string]*gate{}
	for _, stage := range stages {
		all[stage] = &gate{arrived: map[int]bool{}, open: make(chan struct{}), want: want}
	}
	return all
}

func (g *gate) arrive(server int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.arrived[server] {
		if g.arrived[server] = true; len(g.arrived) == g.want {
			close(g.open)
		}
	}
}

// wait reports whether the gate opened.
func (g *gate) wait() bool {
	select {
	case <-g.open:
		return true
	case <-time.After(deadline):
		return false
	}
}

// TestBridgesAreAskedAtTheSameTime: in each stage, no bridge answers before all have been asked.
func TestBridgesAreAskedAtTheSameTime(t *testing.T) {
	w := newWorld(t)
	const servers = 4
	all := gates(servers)
	o := w.options(t.TempDir())
	o.Bridges = nil
	for i := range servers {
		inner := w.through(w.bridge.Handler())
		s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			for stage, g := range all {
				if !strings.Contains(r.URL.RequestURI(), stage) {
					continue
				}
				if g.arrive(i); !g.wait() {
					t.Errorf("bridge %d was asked for %s, and not all others", i, r.URL.Path)
				}
			}
			inner.ServeHTTP(out, r)
		}))
		t.Cleanup(s.Close)
		o.Bridges = append(o.Bridges, s.URL)
	}
	r := w.audit(o)
	for _, d := range r.Differences { // log_list.json names another URL, the bridge's own
		if !strings.Contains(d.String(), "log_list") {
			t.Errorf("difference: %s", d)
		}
	}
	for i, b := range r.Bridges {
		if b.URL != o.Bridges[i] || b.OCSP == 0 || b.Tiles == 0 || b.Proofs == 0 {
			t.Errorf("bridge %d: %+v", i, b)
		}
	}
}

// TestTheReportDoesNotDependOnWhoAnswersFirst: four bridges of which three are wrong, in several ways each and more often than the limit, and
// whichever of them is held up.
func TestTheReportDoesNotDependOnWhoAnswersFirst(t *testing.T) {
	w := newWorld(t)
	const servers = 4
	path := w.path("/checkpoint")
	agrees(t, w.audit(w.options(t.TempDir())))
	_, other := w.forged(path)
	var (
		mu    sync.Mutex
		first int              // guarded by mu
		ahead map[string]*gate // that open once first has answered; guarded by mu
		urls  []string
	)
	for i := range servers {
		inner := w.through(w.bridge.Handler())
		s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			at := r.URL.RequestURI()
			mu.Lock()
			leads, all := i == first, ahead
			mu.Unlock()
			for stage, g := range all {
				if !strings.Contains(at, stage) {
					continue
				}
				if leads {
					defer g.arrive(i)
				} else if !g.wait() {
					t.Errorf("bridge %d waits for another that never answers for %s", i, stage)
				}
			}
			switch {
			case i == 1 && at == path:
				_, _ = out.Write(other)
			case i == 2 && strings.Contains(at, "/tile/entries/"), i == 3 && strings.Contains(at, "/static/tile/"):
				_, _ = out.Write([]byte("wrong"))
			case i == 3 && strings.Contains(at, "/tile/0/"):
				http.NotFound(out, r)
			default:
				inner.ServeHTTP(out, r)
			}
		}))
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	run := func(leader int) (all []string, r *session.Result) {
		mu.Lock()
		first, ahead = leader, gates(1)
		mu.Unlock()
		o := w.options(t.TempDir())
		o.Bridges, o.Sample, o.Limit = urls, 1, 5
		r = w.audit(o)
		for _, d := range r.Differences {
			if d.Evidence != nil {
				d.Evidence = []string{"some"}
			}
			all = append(all, d.String())
		}
		return all, r
	}
	want, r := run(0)
	if len(r.Differences) != 5 || !r.More {
		t.Fatalf("%d differences, more %v", len(r.Differences), r.More)
	}
	for i, kind := range []string{served.KindEquivocate, served.KindRoot, served.KindEntry, served.KindEntry, served.KindEntry} {
		if r.Differences[i].Kind != kind {
			t.Errorf("difference %d: %s, want one of the kind %s", i, r.Differences[i], kind)
		}
	}
	for _, leader := range []int{1, servers - 1} {
		if got, _ := run(leader); !slices.Equal(got, want) {
			t.Errorf("with bridge %d ahead:\n%s\nwant\n%s", leader, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
