package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// DefaultSilence is three of a server's heartbeats.
const DefaultSilence = 45 * time.Second

const (
	maxEvent     = 64 << 10         // octets
	longestPause = 30 * time.Second // between attempts, unless the server asks for more
	eventStream  = "text/event-stream"
	pathEvents   = "/v1/events"
)

// EventsConfig of Events. URL and Event are required.
type EventsConfig struct {
	URL   string // base URL of an organisation's bridge
	After string // ID of the last event that was seen; empty: begin with the next one. "0-0": from the ledger's first
	CA    string // CAID of the only CA to hear of; empty: all

	// Event is called with one event after the other, in the ledger's order, each once. An error ends Events.
	Event func(*StatusEvent) error

	// Position, if not nil, is called with the ID that a later Events can go on after: after each event, and when the server says so.
	Position func(id string) error
	// Down, if not nil, is called when the connection is lost or cannot be made: why, and how long until the next attempt.
	Down func(err error, retry time.Duration)

	// Silence is after how long without an event or a heartbeat the connection is taken for dead. 0: DefaultSilence.
	Silence time.Duration
	HTTP    *http.Client                                     // nil: one that follows no redirects. It must have no Timeout: streams do not end
	Sleep   func(ctx context.Context, d time.Duration) error // nil: time passes
}

// Events follows a bridge's changes of status until ctx ends, Event fails, or the server refuses what is asked for. When the connection is
// lost it goes on after the last event, with growing pauses, so that none is missed and none comes twice. What it tells is the bridge's
// word, as over TLS: a bundle proves it.
//
// Errors: of ctx; of Event or Position as they are; ErrTransport for an answer that asking again does not change, such as a position that is not the ledger's.
func Events(ctx context.Context, cfg EventsConfig) error {
	f, err := newFollower(cfg)
	if err != nil {
		return err
	}
	pause := firstBackoff
	for {
		before := f.heard
		err := f.connect(ctx)
		switch final := new(finalError); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final):
			return final.err
		}
		if f.heard != before {
			pause = firstBackoff
		}
		wait := max(pause, f.retry)
		if answer := new(httpError); errors.As(err, &answer) {
			wait = max(wait, answer.after)
		}
		if f.cfg.Down != nil {
			f.cfg.Down(err, wait)
		}
		if err := f.cfg.Sleep(ctx, wait); err != nil {
			return err
		}
		pause = min(2*pause, longestPause)
	}
}

// finalError is one that the next attempt does not mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }

// follower is where Events stands.
type follower struct {
	cfg     EventsConfig
	address string
	after   string        // ID to go on after; empty: none yet
	retry   time.Duration // that the server asks for
	heard   int           // lines that have come
}

func newFollower(cfg EventsConfig) (*follower, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: URL %q: must be an absolute http or https URL", ErrTransport, cfg.URL)
	}
	if cfg.After != "" {
		if _, _, err := ParseEventID(cfg.After); err != nil {
			return nil, err
		}
	}
	address := strings.TrimRight(cfg.URL, "/") + pathEvents
	if cfg.CA != "" {
		address += "?ca=" + url.QueryEscape(cfg.CA)
	}
	cfg.HTTP = noRedirects(cfg.HTTP)
	if cfg.Silence <= 0 {
		cfg.Silence = DefaultSilence
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	return &follower{cfg: cfg, address: address, after: cfg.After}, nil
}

// connect reads one stream to its end.
func (f *follower) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(f.cfg.Silence, func() { cancel(fmt.Errorf("silent for %s", f.cfg.Silence)) })
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.address, nil)
	if err != nil {
		return &finalError{fmt.Errorf("%w: %w", ErrTransport, err)}
	}
	req.Header.Set("Accept", eventStream)
	if f.after != "" {
		req.Header.Set("Last-Event-ID", f.after)
	}
	resp, err := f.cfg.HTTP.Do(req)
	if err != nil {
		return f.lost(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing more is read
	if err := f.refused(resp); err != nil {
		return err
	}
	r := newEventReader(resp.Body)
	for {
		ev, err := r.next()
		if err != nil {
			return f.lost(ctx, err)
		}
		silence.Reset(f.cfg.Silence)
		f.heard++
		if err := f.take(ev); err != nil {
			return err
		}
	}
}

func (f *follower) lost(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the stream ended")
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %s: %w", ErrTransport, f.address, err)
}

// refused: 5xx and 429 may pass, and a proxy between may have answered something else than a stream.
func (f *follower) refused(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK && mediaType(resp.Header) == eventStream {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTransport, f.address, err)
	}
	answer := &httpError{address: f.address, status: resp.StatusCode, detail: detail(body), after: retryAfter(resp.Header, time.Now())}
	if resp.StatusCode == http.StatusOK {
		return &finalError{fmt.Errorf("%w: %s: content type %q: must be %s", ErrTransport, f.address, mediaType(resp.Header), eventStream)}
	}
	if !answer.retry() {
		return &finalError{answer}
	}
	return answer
}

// take passes an event on, if it comes after the last one, and remembers the position.
func (f *follower) take(ev serverEvent) error {
	if ev.retry > 0 {
		f.retry = min(ev.retry, longestPause)
	}
	if !ev.hasID {
		return nil // of another kind: later versions may have some
	}
	fail := func(format string, args ...any) error {
		return &finalError{fmt.Errorf("%w: %s: event %q: %s", ErrTransport, f.address, ev.id, fmt.Sprintf(format, args...))}
	}
	block, n, err := ParseEventID(ev.id)
	if err != nil {
		return fail("%v", err)
	}
	if f.after != "" {
		lastBlock, lastN, err := ParseEventID(f.after)
		if err != nil {
			return fail("%v", err)
		}
		if block < lastBlock || block == lastBlock && n < lastN || ev.data != "" && ev.id == f.after {
			return fail("must come after %s", f.after)
		}
	}
	if ev.data != "" && ev.name == "status" {
		e := new(StatusEvent)
		if err := json.Unmarshal([]byte(ev.data), e); err != nil {
			return fail("%v", err)
		}
		if e.ID() != ev.id {
			return fail("its data is of %s", e.ID())
		}
		if err := f.cfg.Event(e); err != nil {
			return &finalError{err}
		}
	}
	if f.after == ev.id {
		return nil
	}
	f.after = ev.id
	if f.cfg.Position != nil {
		if err := f.cfg.Position(ev.id); err != nil {
			return &finalError{err}
		}
	}
	return nil
}

// serverEvent is what stands between two empty lines of a stream.
type serverEvent struct {
	id    string
	hasID bool
	name  string
	data  string
	retry time.Duration
}

// eventReader reads server-sent events (WHATWG HTML, section 9.2.6). A comment is an event with nothing in it: it shows that the server
// lives.
type eventReader struct {
	lines *bufio.Scanner
	begun bool // past the place where a byte order mark may be
}

var errLongEvent = fmt.Errorf("an event has more than %d octets", maxEvent)

func newEventReader(r io.Reader) *eventReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4<<10), maxEvent)
	s.Split(splitLines)
	return &eventReader{lines: s}
}

// splitLines takes CR, LF and CRLF for one end of a line. After a CR it waits for the next octet.
func splitLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0 && atEOF: // what no empty line ends is no event
		return len(data), nil, nil
	case i < 0:
		return 0, nil, nil
	case data[i] == '\n':
		return i + 1, data[:i], nil
	case i+1 < len(data) && data[i+1] == '\n':
		return i + 2, data[:i], nil
	case i+1 == len(data) && !atEOF:
		return 0, nil, nil
	}
	return i + 1, data[:i], nil
}

// next returns the next event or comment. Errors: io.EOF at the end, the reader's, or errLongEvent.
func (r *eventReader) next() (ev serverEvent, err error) {
	var data []string
	size, begun := 0, false
	for r.lines.Scan() {
		line := r.lines.Text()
		if !r.begun {
			line, r.begun = strings.TrimPrefix(line, "\ufeff"), true
		}
		if line == "" {
			if !begun {
				continue
			}
			ev.data = strings.Join(data, "\n")
			return ev, nil
		}
		if line[0] == ':' && !begun {
			return serverEvent{}, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		begun = true
		if size += len(line); size > maxEvent {
			return serverEvent{}, errLongEvent
		}
		switch field {
		case "id":
			ev.id, ev.hasID = value, true
		case "event":
			ev.name = value
		case "data":
			data = append(data, value)
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				ev.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	switch err := r.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return serverEvent{}, errLongEvent
	case err != nil:
		return serverEvent{}, err
	}
	return serverEvent{}, io.EOF
}
