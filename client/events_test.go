package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func readEvents(r io.Reader) (events []serverEvent, err error) {
	reader := newEventReader(r)
	for {
		ev, err := reader.next()
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
}

// WHATWG HTML, section 9.2.6.
func TestEventStreamIsReadAsSpecified(t *testing.T) {
	event := func(id, name, data string) serverEvent {
		return serverEvent{id: id, hasID: true, name: name, data: data}
	}
	for name, c := range map[string]struct {
		stream string
		want   []serverEvent
	}{
		"an event":               {"id: 1-1\nevent: status\ndata: {}\n\n", []serverEvent{event("1-1", "status", "{}")}},
		"CRLF":                   {"id: 1-1\r\nevent: status\r\ndata: {}\r\n\r\n", []serverEvent{event("1-1", "status", "{}")}},
		"CR":                     {"id: 1-1\revent: status\rdata: {}\r\r", []serverEvent{event("1-1", "status", "{}")}},
		"byte order mark":        {"\ufeffid: 1-1\n\n", []serverEvent{event("1-1", "", "")}},
		"no space":               {"id:1-1\ndata:a\n\n", []serverEvent{event("1-1", "", "a")}},
		"two spaces":             {"id: 1-1\ndata:  a\n\n", []serverEvent{event("1-1", "", " a")}},
		"several lines of data":  {"id: 1-1\ndata: a\ndata\ndata: b\n\n", []serverEvent{event("1-1", "", "a\n\nb")}},
		"comments":               {": a\n\n:\nid: 1-1\n: b\n\n", []serverEvent{{}, {}, event("1-1", "", "")}},
		"unknown fields":         {"what: 1\nid: 1-1\n\n", []serverEvent{event("1-1", "", "")}},
		"retry":                  {"retry: 1500\n\nretry: x\n\n", []serverEvent{{retry: 1500 * time.Millisecond}, {}}},
		"what nothing ends":      {"id: 1-1\n\nid: 1-2\ndata: {}\n", []serverEvent{event("1-1", "", "")}},
		"nothing":                {"\n\n\n", nil},
		"a line that is cut off": {"id: 1-1\n\nid: 1-", []serverEvent{event("1-1", "", "")}},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.stream), iotest.OneByteReader(strings.NewReader(c.stream))} {
			got, err := readEvents(r)
			if !errors.Is(err, io.EOF) || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
			}
		}
	}
	for name, stream := range map[string]string{
		"a line": "data: " + strings.Repeat("x", maxEvent), "an event": strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 100),
		"empty lines of data": strings.Repeat("data\n", maxEvent),
	} {
		if _, err := readEvents(strings.NewReader(stream)); !errors.Is(err, errLongEvent) {
			t.Errorf("%s without an end: %v", name, err)
		}
	}
}

func FuzzEventStream(f *testing.F) {
	for _, seed := range []string{
		"retry: 1000\nid: 17-2\n: height 18, ledger time 2026-05-01T12:00:00Z\n\n", "id: 17-3\nevent: status\ndata: {\"block\":17,\"n\":3}\n\n",
		"id: 1-1\r\ndata: a\r\ndata: b\r\n\r\n", "id\r\rdata:\r\r", "\ufeff:\n\n", "data: x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := readEvents(bytes.NewReader(stream))
		if !errors.Is(err, io.EOF) && !errors.Is(err, errLongEvent) {
			t.Fatal(err)
		}
		// How the octets arrive makes no difference.
		pieces, pieceErr := readEvents(iotest.HalfReader(bytes.NewReader(stream)))
		if fmt.Sprint(whole, err) != fmt.Sprint(pieces, pieceErr) {
			t.Fatalf("%+v, %v at once, %+v, %v in pieces", whole, err, pieces, pieceErr)
		}
		for _, ev := range whole {
			if strings.ContainsAny(ev.id+ev.name, "\r\n") || len(ev.data) > maxEvent {
				t.Fatalf("event %+v", ev)
			}
			if block, n, err := ParseEventID(ev.id); err == nil && (&StatusEvent{Block: block, N: n}).ID() != ev.id {
				t.Fatalf("ID %q has two spellings", ev.id)
			}
		}
	})
}

func TestEventIDsHaveOneSpelling(t *testing.T) {
	for _, id := range []string{"0-0", "17-3", "18446744073709551615-4294967295"} {
		block, n, err := ParseEventID(id)
		if err != nil || (&StatusEvent{Block: block, N: n}).ID() != id {
			t.Errorf("%s is %d, %d, %v", id, block, n, err)
		}
	}
	for _, id := range []string{"", "1", "-", "1-", "-1", "01-1", "1-01", "+1-1", "1-1 ", "1-1-1", "18446744073709551616-1", "1-4294967296", "a-1"} {
		if _, _, err := ParseEventID(id); err == nil {
			t.Errorf("%q is taken", id)
		}
	}
}

// says serves one stream after the other, then 404.
func says(t *testing.T, streams ...func(http.ResponseWriter, *http.Request)) (url string) {
	next := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if next++; next > len(streams) {
			http.Error(w, `{"detail":"no more"}`, http.StatusNotFound)
			return
		}
		streams[next-1](w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func stream(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

func event(block uint64, n uint32) string {
	return fmt.Sprintf("id: %d-%d\nevent: status\ndata: {\"block\":%[1]d,\"n\":%[2]d,\"state\":\"revoked\"}\n\n", block, n)
}

// follow returns the events that come, the waits, and how it ended.
func follow(t *testing.T, url, after string) (ids []string, waits []time.Duration, err error) {
	err = Events(t.Context(), EventsConfig{
		URL: url, After: after,
		Event: func(e *StatusEvent) error { ids = append(ids, e.ID()); return nil },
		Down:  func(_ error, retry time.Duration) { waits = append(waits, retry) },
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	return ids, waits, err
}

func TestEventsGoOnAfterTheLastOne(t *testing.T) {
	asked := []string{}
	note := func(next func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("Last-Event-ID"))
			next(w, r)
		}
	}
	url := says(t,
		note(stream("retry: 10\nid: 4-1\n\n")), note(stream(event(4, 2)+"id: 4-3\nevent: sta")), note(stream(event(4, 3)+event(5, 1)+"id: 9-2\n\n")),
		note(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "40")
			w.WriteHeader(http.StatusServiceUnavailable)
		}), note(stream("id: 9-3\nevent: other\ndata: ?\n\n")), note(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
		note(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	ids, waits, err := follow(t, url, "")
	if !errors.Is(err, ErrTransport) || !strings.Contains(err.Error(), "no more") {
		t.Errorf("it ended with %v", err)
	}
	if fmt.Sprint(ids) != "[4-2 4-3 5-1]" || fmt.Sprint(asked) != "[ 4-1 4-2 9-2 9-2 9-3 9-3]" {
		t.Errorf("events %v, asked after %q", ids, asked)
	}
	if fmt.Sprint(waits) != "[1s 1s 1s 40s 1s 2s 4s]" {
		t.Errorf("waits are %v", waits)
	}
}

func TestEventsThatCannotBeAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		stream, want string
	}{
		"back":                    {event(5, 2) + event(5, 1), "must come after 5-2"},
		"twice":                   {event(5, 2) + event(5, 2), "must come after 5-2"},
		"back by a beat":          {event(5, 2) + "id: 4-9\n\n", "must come after 5-2"},
		"other position":          {strings.Replace(event(5, 2), "id: 5-2", "id: 5-3", 1), "its data is of 5-2"},
		"no ID":                   {"id: x\ndata: {}\n\n", "must be <block>"},
		"not JSON":                {"id: 5-2\nevent: status\ndata: {\n\n", "5-2"},
		"not after what was seen": {event(2, 1), "must come after 3-1"},
	} {
		if _, _, err := follow(t, says(t, stream(c.stream)), "3-1"); !errors.Is(err, ErrTransport) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	html := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }
	if _, _, err := follow(t, says(t, html), ""); err == nil || !strings.Contains(err.Error(), "must be text/event-stream") {
		t.Errorf("a page: %v", err)
	}
	conflict := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"detail":"must not be ahead"}`)
	}
	if _, waits, err := follow(t, says(t, conflict), "3-1"); err == nil || !strings.Contains(err.Error(), "must not be ahead") || len(waits) > 0 {
		t.Errorf("a position of another ledger: %v after %v", err, waits)
	}
	for _, c := range []EventsConfig{{URL: "bridge.example"}, {URL: "http://bridge.example", After: "x"}} {
		if err := Events(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// A connection that is dead without saying so is given up.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	dead := make(chan struct{})
	defer close(dead)
	url := says(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-dead:
		}
	})
	var downs []string
	err := Events(t.Context(), EventsConfig{
		URL: url, Silence: 10 * time.Millisecond, Event: func(*StatusEvent) error { return nil },
		Down:  func(err error, _ time.Duration) { downs = append(downs, err.Error()) },
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
	if err == nil || !strings.Contains(err.Error(), "no more") || len(downs) == 0 || !strings.Contains(downs[0], "silent for 10ms") {
		t.Errorf("%v after %q", err, downs)
	}
}

func TestEventsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := says(t, stream(event(1, 1)))
	err := Events(ctx, EventsConfig{URL: url, Event: func(*StatusEvent) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	failed := errors.New("disk full")
	if err := Events(t.Context(), EventsConfig{URL: says(t, stream(event(1, 1))), Event: func(*StatusEvent) error { return failed }}); err != failed {
		t.Errorf("error is %v, want the one of Event", err)
	}
}
