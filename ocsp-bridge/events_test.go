package ocspbridge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// subscription is an open stream, line by line.
type subscription struct {
	t     *testing.T
	resp  *http.Response
	lines chan string // closed at its end
}

func (b *bridge) subscribe(t *testing.T, query string, header ...string) *subscription {
	t.Helper()
	s := subscribeAt(t, b.url+"/v1/events"+query, header...)
	if s.resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", query, s.resp.Status)
	}
	return s
}

func subscribeAt(t *testing.T, url string, header ...string) *subscription {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &subscription{t: t, resp: resp, lines: make(chan string)}
	t.Cleanup(func() { _ = resp.Body.Close() })
	go func() {
		defer close(s.lines)
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			select {
			case s.lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// line returns the next line, false at the end of the stream.
func (s *subscription) line() (string, bool) {
	s.t.Helper()
	select {
	case l, ok := <-s.lines:
		return l, ok
	case <-time.After(deadline):
		s.t.Fatal("nothing comes")
		return "", false
	}
}

// until reads up to a line that begins so, and returns the rest of it.
func (s *subscription) until(prefix string) string {
	s.t.Helper()
	for {
		l, ok := s.line()
		if !ok {
			s.t.Fatalf("the stream ended before a line %q", prefix)
		}
		if rest, found := strings.CutPrefix(l, prefix); found {
			return rest
		}
	}
}

// event returns the next event.
func (s *subscription) event() (e client.StatusEvent) {
	s.t.Helper()
	data := s.until("data: ")
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		s.t.Fatalf("%v: %s", err, data)
	}
	return e
}

func tell(e *client.StatusEvent) string {
	return fmt.Sprintf("%s %s->%s %s rule %d", e.Serial, e.Was, e.State, e.Reason, e.Rule)
}

func TestChangesAreStreamedAsTheyHappen(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	serial := func(n int) wire.Serial { return cctest.Serial(t, certs[n]) }
	b := w.start("bridge", nil).ready()
	now, all := b.subscribe(t, ""), b.subscribe(t, "?after=0-0")
	if registered := all.event(); tell(&registered) != " ->active  rule 0" || registered.CAID != w.ca.ID.String() {
		t.Errorf("the first event is %+v", registered)
	}
	now.until("id: ") // it has begun
	w.change(wire.StatusChange{Serial: serial(0), Op: wire.OpHold, Reason: wire.CertificateHold})
	w.change(wire.StatusChange{Serial: serial(0), Op: wire.OpRelease})
	invalid := wire.MillisOf(w.clock.Now().Add(-time.Hour))
	w.change(wire.StatusChange{Serial: serial(1), Op: wire.OpRevoke, Reason: wire.KeyCompromise, Invalidity: invalid})
	entry := wire.MillisOf(w.clock.Now())
	admin := w.node.Connect(wire.RoleAdministrator)
	r, err := admin.Submit(t.Context(), wire.FnDecide, w.ca.RuleArg(1, entry-1000, entry, wire.CACompromise))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		serial(0).String() + " valid->held certificateHold rule 0", serial(0).String() + " held->valid  rule 0",
		serial(1).String() + " valid->revoked keyCompromise rule 0", " ->revoked cACompromise rule 1",
	}
	for _, s := range []*subscription{now, all} {
		for i, want := range want {
			e := s.event()
			if got := tell(&e); got != want {
				t.Errorf("event %d is %s, want %s", i, got, want)
			}
			switch i {
			case 2:
				if e.InvalidityDate == nil || wire.MillisOf(*e.InvalidityDate) != invalid || e.Time.IsZero() || e.At.IsZero() {
					t.Errorf("revocation is %+v", e)
				}
			case 3:
				if e.From == nil || wire.MillisOf(*e.From) != entry-1000 || wire.MillisOf(*e.To) != entry || e.Block != r.Block {
					t.Errorf("rule is %+v", e)
				}
			}
		}
	}
	if ct, cc := now.resp.Header.Get("Content-Type"), now.resp.Header.Get("Cache-Control"); ct != "text/event-stream" || cc != "no-store" {
		t.Errorf("content type %q, cache control %q", ct, cc)
	}
}

// After each event a reader can go on: from the next one, none twice, none left out, by header and by parameter.
func TestStreamGoesOnAfterAnyEvent(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	var last string
	for _, cert := range w.issue(5) {
		b.applied(w.revoke(cert, wire.Superseded))
	}
	all := b.subscribe(t, "?after=0-0")
	var ids []string
	for range 6 { // the registration too
		e := all.event()
		ids = append(ids, e.ID())
	}
	for i, id := range ids[:5] {
		for _, s := range []*subscription{b.subscribe(t, "?after="+id), b.subscribe(t, "?after=0-0", "Last-Event-ID", id)} {
			for _, want := range ids[i+1:] {
				if e := s.event(); e.ID() != want {
					t.Fatalf("after %s comes %s, want %s", id, e.ID(), want)
				}
			}
		}
		last = id
	}
	if e := b.subscribe(t, "?after="+last+"&ca="+w.ca.ID.String()).event(); e.ID() != ids[5] {
		t.Errorf("of the CA comes %s, want %s", e.ID(), ids[5])
	}
}

func TestPositionsThatAreNoneAreRefused(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	other := cctest.NewCA(t)
	for query, want := range map[string]struct {
		code int
		rule string
	}{
		"after=1":                      {http.StatusBadRequest, "must be the id of an event"},
		"after=1-":                     {http.StatusBadRequest, "must be the id of an event"},
		"after=01-1":                   {http.StatusBadRequest, "must be the id of an event"},
		"after=-1-1":                   {http.StatusBadRequest, "must be the id of an event"},
		"after=1-4294967296":           {http.StatusBadRequest, "must be the id of an event"},
		"after=0-1":                    {http.StatusBadRequest, "the block has fewer"},
		"after=1-2":                    {http.StatusBadRequest, "the block has fewer"},
		"after=18446744073709551615-1": {http.StatusConflict, "must not be ahead"},
		"ca=abc":                       {http.StatusBadRequest, "ca"},
		"ca=" + other.ID.String():      {http.StatusNotFound, "must be a registered CA"},
	} {
		code, body := b.get("/v1/events?"+query, nil)
		if code != want.code || !strings.Contains(string(body), want.rule) {
			t.Errorf("%s: %d %s, want %d, %s", query, code, body, want.code, want.rule)
		}
	}
	// A little ahead is waited for, and then it is a conflict.
	done := make(chan int)
	go func() {
		resp, err := http.Get(b.url + "/v1/events?after=9-1")
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		_ = resp.Body.Close()
		done <- resp.StatusCode
	}()
	b.until("refused", func() (bool, string) {
		w.clock.Advance(10 * time.Second)
		select {
		case code := <-done:
			return code == http.StatusConflict, fmt.Sprint(code)
		default:
			return false, "waiting"
		}
	})
}

// A bridge whose index was deleted does not know the last event of its clients until it has read the ledger again. They wait for it.
func TestClientWaitsForABridgeThatIsCatchingUp(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	b := w.start("bridge", nil).ready()
	r := w.revoke(certs[0], wire.Superseded)
	b.applied(r)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "bridge", "index")); err != nil {
		t.Fatal(err)
	}
	line := &faulty{Ledger: w.conn}
	line.set(true)
	b = w.startOn("bridge", line, nil)
	w.revoke(certs[1], wire.Superseded)
	var (
		heard = errors.New("heard")
		downs []string
		got   string
	)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	err := client.Events(ctx, client.EventsConfig{
		URL: b.url, CA: w.ca.ID.String(), After: fmt.Sprintf("%d-1", r.Block),
		Down: func(err error, _ time.Duration) { downs = append(downs, err.Error()) },
		Sleep: func(context.Context, time.Duration) error {
			line.set(false)
			b.until("caught up", func() (bool, string) {
				w.clock.Advance(100 * time.Millisecond)
				return b.Ready().Height > r.Block+1, b.Ready().Reason
			})
			return nil
		},
		Event: func(e *client.StatusEvent) error { got = e.Serial; return heard },
	})
	if !errors.Is(err, heard) || got != cctest.Serial(t, certs[1]).String() || len(downs) != 1 || !strings.Contains(downs[0], "cannot be judged yet") {
		t.Errorf("%v: heard of %q, after %q", err, got, downs)
	}
}

// An organisation whose blocks come a little later takes the position of one that is ahead.
func TestPositionThatIsAheadIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	line := &faulty{Ledger: w.conn}
	ahead, behind := w.start("ahead", nil).ready(), w.startOn("behind", line, nil).ready()
	line.set(true)
	r := w.revoke(certs[0], wire.Superseded)
	ahead.applied(r)
	id := fmt.Sprintf("%d-1", r.Block)
	go line.set(false)
	s := subscribeAt(t, behind.url+"/v1/events", "Last-Event-ID", id)
	if got := s.until("id: "); s.resp.StatusCode != http.StatusOK || got != id {
		t.Errorf("%s, begins at %s, want %s", s.resp.Status, got, id)
	}
	w.revoke(certs[1], wire.Superseded)
	if e := s.event(); e.Serial != cctest.Serial(t, certs[1]).String() {
		t.Errorf("next is %+v", e)
	}
}

func TestSilenceIsBrokenByTicksAndByTime(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	s := b.subscribe(t, "")
	s.until(": height")
	b.applied(w.tick())
	s.until(": height")
	// Time passes for the bridge in steps: when it looks at its clock cannot be seen from here.
	beats := func(what string, cond func(string) bool) {
		t.Helper()
		b.until(what, func() (bool, string) {
			w.clock.Advance(5 * time.Second)
			select {
			case line := <-s.lines:
				return strings.HasPrefix(line, ": height") && cond(line), line
			default:
				return false, "silence"
			}
		})
	}
	beats("heartbeat", func(string) bool { return true })
	beats("stale", func(line string) bool { return strings.HasSuffix(line, ", stale") })
}

func TestSubscribersAreLimited(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.Settings = ocspbridge.DefaultSettings()
		c.Settings.EventSubscribers = 2
	}).ready()
	first := b.subscribe(t, "")
	b.subscribe(t, "")
	third := subscribeAt(t, b.url+"/v1/events")
	if third.resp.StatusCode != http.StatusServiceUnavailable || third.resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third subscriber gets %s, Retry-After %q", third.resp.Status, third.resp.Header.Get("Retry-After"))
	}
	if err := first.resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	b.until("the place of who has left is free", func() (bool, string) {
		s := subscribeAt(t, b.url+"/v1/events")
		return s.resp.StatusCode == http.StatusOK, s.resp.Status
	})
}

func TestStreamsEndWithTheBridge(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	s := b.subscribe(t, "")
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop() }()
	for {
		if _, ok := s.line(); !ok {
			break
		}
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Error("the bridge does not stop")
	}
}

// What limits a request to seconds, in time to be read and to be answered, does not limit a stream.
func TestStreamOutlivesTheServersTimeouts(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(1)
	b := w.start("bridge", func(c *ocspbridge.Config) {
		c.After = func(d time.Duration) <-chan time.Time { return time.After(d / 300) } // a heartbeat each 50 ms
	}).ready()
	server := httptest.NewUnstartedServer(b.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	server.Start()
	defer server.Close()
	s := subscribeAt(t, server.URL+"/v1/events")
	for range 10 {
		s.until(": height")
	}
	w.revoke(certs[0], wire.Superseded)
	if e := s.event(); e.State != "revoked" {
		t.Errorf("event is %+v", e)
	}
	if err := s.resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestEventsAreForMembersWhereReadsAre(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", func(c *ocspbridge.Config) { c.MembersOnly = true }).ready()
	if code, body := b.get("/v1/events", nil); code != http.StatusForbidden {
		t.Errorf("a stranger gets %d %s", code, body)
	}
}

// cutting closes every connection after some octets, in the middle of whatever is on it.
type cutting struct {
	http.RoundTripper
	every int
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		c.every += 7
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, int64(c.every)), resp.Body}
	}
	return resp, err
}

// A client that loses its connection again and again, in the middle of events, hears of each change once and in order.
func TestClientHearsEachChangeOnceWhateverTheConnectionDoes(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(40)
	b := w.start("bridge", nil).ready()
	var want []string
	for _, cert := range certs {
		b.applied(w.revoke(cert, wire.Superseded))
		want = append(want, cctest.Serial(t, cert).String())
	}
	enough := errors.New("enough")
	var got []string
	downs := 0
	err := client.Events(t.Context(), client.EventsConfig{
		URL: b.url, After: "0-0", CA: w.ca.ID.String(), HTTP: &http.Client{Transport: &cutting{RoundTripper: http.DefaultTransport, every: 300}},
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Down:  func(error, time.Duration) { downs++ },
		Event: func(e *client.StatusEvent) error {
			if e.Serial != "" {
				got = append(got, e.Serial)
			}
			if len(got) == len(want) {
				return enough
			}
			return nil
		},
	})
	if !errors.Is(err, enough) || !slices.Equal(got, want) || downs < 10 {
		t.Errorf("%v, after %d interruptions: heard of %v, want %v", err, downs, got, want)
	}
}

// The position outlives a restart of the bridge, and of the client, and another organisation's bridge has the same.
func TestClientGoesOnAfterARestartAndAtAnotherBridge(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	b := w.start("bridge", nil).ready()
	position := ""
	next := func(b *bridge, serial string) {
		t.Helper()
		heard := errors.New("heard")
		err := client.Events(t.Context(), client.EventsConfig{
			URL: b.url, After: position, Position: func(id string) error { position = id; return nil },
			Event: func(e *client.StatusEvent) error {
				if e.Serial != serial {
					return fmt.Errorf("event is about %s, want %s", e.Serial, serial)
				}
				position = e.ID()
				return heard
			},
		})
		if !errors.Is(err, heard) {
			t.Fatal(err)
		}
	}
	b.applied(w.revoke(certs[0], wire.Superseded))
	position = "1-1" // after the registration of the CA
	next(b, cctest.Serial(t, certs[0]).String())
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = w.start("bridge", nil).ready()
	b.applied(w.revoke(certs[1], wire.Superseded))
	next(b, cctest.Serial(t, certs[1]).String())
	other := w.start("other", nil).ready()
	b.applied(w.revoke(certs[2], wire.Superseded))
	next(other, cctest.Serial(t, certs[2]).String())
}
