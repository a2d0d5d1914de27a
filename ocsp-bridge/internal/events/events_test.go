package events

import (
	"bufio"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// feed is a Source whose blocks have one change each, and that is asked to publish later than it shows them.
type feed struct {
	mu                sync.Mutex
	height, published uint64
	changed           chan struct{}
}

func (f *feed) View() *index.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &index.View{Height: f.height, Changed: index.Pos{Block: f.height - 1, N: 1}}
}

func (f *feed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *feed) PublishedHeight() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.published
}

func (f *feed) Changes(after index.Pos, limit int) (all []index.Change, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.height {
		if pos := (index.Pos{Block: n, N: 1}); pos.Compare(after) > 0 && len(all) < limit {
			all = append(all, index.Change{Pos: pos, Serial: wire.Serial{1}, After: status.Status{State: wire.CertRevoked}})
		}
	}
	return all, nil
}

// show adds a block, and publish tells of all there are.
func (f *feed) show() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.height++
}

func (f *feed) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = f.height
	close(f.changed)
	f.changed = make(chan struct{})
}

// lines opens a stream and returns its lines that begin so.
func lines(t *testing.T, url, prefix string) func() string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	scan := bufio.NewScanner(resp.Body)
	return func() string {
		t.Helper()
		for scan.Scan() {
			if rest, ok := strings.CutPrefix(scan.Text(), prefix); ok {
				return rest
			}
		}
		t.Fatalf("the stream ended: %v", scan.Err())
		return ""
	}
}

func inOrder() error { return nil }

// A block can be read before kept answers are in step with it. Nobody is told of its changes, nor begins after them, until they are.
func TestChangesAreToldWhenKeptAnswersAreInStep(t *testing.T) {
	f := &feed{height: 5, published: 5, changed: make(chan struct{})}
	silence := make(chan time.Time)
	s := New(Config{
		Source: f, Subscribers: 10, Stale: inOrder, Behind: inOrder, Log: slog.New(slog.DiscardHandler),
		After: func(time.Duration) <-chan time.Time { return silence },
	})
	server := httptest.NewServer(s)
	defer server.Close()
	defer s.Close()
	old := lines(t, server.URL, "")
	for _, want := range []string{"retry: 1000", "id: 4-1"} {
		if got := old(); got != want {
			t.Errorf("the stream begins with %q, want %q", got, want)
		}
	}
	old() // comment
	old() // end
	f.show()
	silence <- time.Time{} // it looks again, and then sends a comment
	silence <- time.Time{}
	for range 2 {
		if line := old(); !strings.HasPrefix(line, ": height 6") {
			t.Errorf("after a block that is not published comes %q", line)
		}
		old()
	}
	early := lines(t, server.URL, "id: ")
	if got := early(); got != "5-0" {
		t.Errorf("a new stream begins at %s, want before the changes of block 5", got)
	}
	f.publish()
	for what, next := range map[string]func() string{"id: 5-1": old, "5-1": early} {
		if got := next(); got != what {
			t.Errorf("event %q, want %q", got, what)
		}
	}
	if n := s.Subscribers(); n != 2 {
		t.Errorf("%d subscribers", n)
	}
}

// Whether a position is of another ledger cannot be told before this bridge has what its peer has.
func TestPositionAheadIsAConflictOnlyWhenTheBridgeHasCaughtUp(t *testing.T) {
	f := &feed{height: 5, published: 5, changed: make(chan struct{})}
	behind := errors.New("catching up: 5 of 10 blocks")
	for _, c := range []struct {
		behind error
		code   int
	}{{behind, http.StatusServiceUnavailable}, {nil, http.StatusConflict}} {
		s := New(Config{
			Source: f, Subscribers: 10, Stale: inOrder, Behind: func() error { return c.behind }, Log: slog.New(slog.DiscardHandler),
			After: func(time.Duration) <-chan time.Time {
				late := make(chan time.Time)
				close(late)
				return late
			},
		})
		for _, after := range []string{"7-1", "70000-1"} {
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/events?after="+after, nil))
			if rec.Code != c.code || (rec.Header().Get("Retry-After") != "") != (c.behind != nil) {
				t.Errorf("after %s, behind %v: %d %s, want %d", after, c.behind, rec.Code, rec.Body, c.code)
			}
		}
	}
}
