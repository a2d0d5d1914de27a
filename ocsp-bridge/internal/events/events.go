// Package events streams changes of status as server-sent events (WHATWG HTML, section 9.2), so that whoever caches answers can drop
// those that are not right any more.
//
// A subscriber is a position in the index's change feed and nothing else: it is told what the index has after that position, and when
// there is nothing, it waits for the next block. Whoever reads slowly costs one page of changes, not a buffer; whoever comes back names the
// last event it has.
package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// ContentType of the stream.
const ContentType = "text/event-stream"

const (
	page      = 256              // changes read, and written, at once
	heartbeat = 15 * time.Second // the longest silence
	patience  = 30 * time.Second // for a reader to take what is written
	reconnect = 1000             // milliseconds that clients are asked to wait
	catchUp   = 5 * time.Second  // for the block of a position that this bridge does not know yet,
	farAhead  = 1000             // unless it is so many blocks ahead
)

// Source is what *index.Index gives. Changes of blocks from PublishedHeight on are not told yet: kept answers may still contradict them.
type Source interface {
	View() *index.View
	Changed() <-chan struct{}
	PublishedHeight() uint64
	Changes(after index.Pos, limit int) ([]index.Change, error)
}

// Config of New. All fields are required.
type Config struct {
	Source      Source
	Subscribers int          // at most, at a time
	Behind      func() error // why the view may lack blocks that this organisation's peer has, nil: it does not
	Stale       func() error // why the view is not fresh, nil: it is
	After       func(time.Duration) <-chan time.Time
	Log         *slog.Logger
}

// Server is the handler. Streams end with Close, with the request, or when a reader takes nothing for half a minute.
type Server struct {
	cfg Config

	subscribers atomic.Int64
	close       sync.Once
	closed      chan struct{}
}

// New returns a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg, closed: make(chan struct{})} }

// Close ends all streams, and refuses new ones.
func (s *Server) Close() { s.close.Do(func() { close(s.closed) }) }

// Subscribers is how many streams are open.
func (s *Server) Subscribers() int { return int(s.subscribers.Load()) }

// ServeHTTP answers GET and HEAD. Parameters: Last-Event-ID (header) or after, the position to go on from, default: the newest; ca, the
// only CA to tell of, default: all.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.subscribers.Add(1) > int64(s.cfg.Subscribers) {
		s.subscribers.Add(-1)
		problem.Write(w, s.cfg.Log, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "subscribers", strconv.Itoa(s.cfg.Subscribers),
			"are as many as this server is configured for (event_subscribers): ask again later, or another organisation's"))
		return
	}
	defer s.subscribers.Add(-1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	st, err := s.begin(ctx, r)
	if err != nil {
		problem.Write(w, s.cfg.Log, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that know it pass each event on at once
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	st.w, st.conn = w, http.NewResponseController(w)
	if err := st.run(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("event stream ended", "error", err)
	}
}

// stream is one subscriber.
type stream struct {
	s     *Server
	w     http.ResponseWriter
	conn  *http.ResponseController
	after index.Pos
	told  index.Pos  // the ID that the subscriber has
	only  *wire.CAID // nil: all CAs
	tick  int64      // epoch that the subscriber was told of
}

// begin reads the parameters.
func (s *Server) begin(ctx context.Context, r *http.Request) (*stream, error) {
	select {
	case <-s.closed:
		return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "not running", "must be, to tell of changes")
	default:
	}
	st := &stream{s: s, after: s.newest()}
	behind := s.cfg.Behind() // before anything is looked up that may not be there yet
	q := r.URL.Query()
	if q.Has("ca") {
		id, err := wire.ParseCAID(q.Get("ca"))
		if err != nil {
			return nil, err
		}
		if s.cfg.Source.View().CA(id) == nil {
			if behind != nil {
				return nil, catchingUp("ca", id.String(), behind)
			}
			return nil, wire.Errorf(wire.NotFound, "ca", id.String(), "must be a registered CA")
		}
		st.only = &id
	}
	field, id := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if id == "" {
		field, id = "after", q.Get("after")
	}
	if id == "" {
		return st, nil
	}
	var err error
	st.after, err = s.position(ctx, field, id, behind)
	return st, err
}

// newest is the position of the newest change that may be told.
func (s *Server) newest() index.Pos {
	published := s.cfg.Source.PublishedHeight() // before the view, which is not older
	if pos := s.cfg.Source.View().Changed; pos.Compare(index.Before(published)) <= 0 {
		return pos
	}
	return index.Before(published)
}

// position reads an event's ID. One that this index has no event for is of another ledger, or made up; one that is ahead may be of an
// organisation whose blocks come a little earlier; and while this bridge is behind its own peer, nobody can tell.
func (s *Server) position(ctx context.Context, field, id string, behind error) (pos index.Pos, err error) {
	if pos.Block, pos.N, err = client.ParseEventID(id); err != nil {
		return pos, wire.Errorf(wire.InvalidArgument, field, clip(id), "must be the id of an event, <block>-<number in it>")
	}
	if !s.reach(ctx, pos.Block) {
		if behind != nil {
			return pos, catchingUp(field, id, behind)
		}
		return pos, problem.New(http.StatusConflict, string(wire.FailedPrecondition), field, id,
			fmt.Sprintf("must not be ahead: this server has applied %d blocks; either it is behind, or the event is of another ledger", s.cfg.Source.View().Height))
	}
	if pos.N == 0 { // before all events of the block
		return pos, nil
	}
	found, err := s.cfg.Source.Changes(index.Pos{Block: pos.Block, N: pos.N - 1}, 1)
	if err == nil && (len(found) == 0 || found[0].Pos != pos) {
		err = wire.Errorf(wire.InvalidArgument, field, id, "must be the id of an event: the block has fewer")
	}
	return pos, err
}

// catchingUp: what is asked about may come with the next blocks.
func catchingUp(field, value string, why error) error {
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, field, value, "cannot be judged yet: "+why.Error())
}

// reach waits a little until a block is applied.
func (s *Server) reach(ctx context.Context, block uint64) bool {
	var late <-chan time.Time
	for {
		changed := s.cfg.Source.Changed()
		height := s.cfg.Source.View().Height
		if block < height || block == 0 {
			return true
		}
		if block-height > farAhead {
			return false
		}
		if late == nil {
			late = s.cfg.After(catchUp)
		}
		select {
		case <-changed:
		case <-late:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// run writes until ctx ends or the reader is gone.
func (st *stream) run(ctx context.Context) error {
	// What limits a request must not limit a stream; each write has its own limit.
	if err := st.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	st.tick = st.s.cfg.Source.View().Tick.Epoch
	st.told = st.after
	// The position comes first, without an event: a reader that loses the connection before the first one goes on from here.
	if err := st.write(fmt.Appendf(nil, "retry: %d\nid: %s\n%s\n", reconnect, idOf(st.after), st.comment())); err != nil {
		return err
	}
	silent := st.s.cfg.After(heartbeat)
	for {
		changed := st.s.cfg.Source.Changed()
		changes, err := st.next()
		if err != nil {
			return err
		}
		out, err := st.format(changes)
		if err != nil {
			return err
		}
		if len(changes) == 0 && st.s.cfg.Source.View().Tick.Epoch != st.tick {
			out = st.beat()
		}
		if len(out) > 0 {
			if err := st.write(out); err != nil {
				return err
			}
			silent = st.s.cfg.After(heartbeat)
		}
		if len(changes) > 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		select {
		case <-changed:
		case <-silent:
			if err := st.write(st.beat()); err != nil {
				return err
			}
			silent = st.s.cfg.After(heartbeat)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next returns the next changes that may be told.
func (st *stream) next() ([]index.Change, error) {
	end := index.Before(st.s.cfg.Source.PublishedHeight())
	changes, err := st.s.cfg.Source.Changes(st.after, page)
	for i := range changes {
		if changes[i].Pos.Compare(end) > 0 {
			return changes[:i], nil
		}
	}
	return changes, err
}

// format makes events of those changes that the subscriber wants.
func (st *stream) format(changes []index.Change) ([]byte, error) {
	var out bytes.Buffer
	for i := range changes {
		c := &changes[i]
		st.after = c.Pos
		if st.only != nil && c.CAID != *st.only {
			continue
		}
		data, err := json.Marshal(st.s.describe(c))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "id: %s\nevent: status\ndata: %s\n\n", idOf(c.Pos), data)
		st.told = c.Pos
	}
	return out.Bytes(), nil
}

// beat is a comment, and the position if it has moved over events that the subscriber does not want.
func (st *stream) beat() []byte {
	st.tick = st.s.cfg.Source.View().Tick.Epoch
	out := []byte(st.comment())
	if st.told != st.after {
		st.told = st.after
		out = fmt.Appendf(out, "id: %s\n", idOf(st.after))
	}
	return append(out, '\n')
}

func (st *stream) comment() string {
	v := st.s.cfg.Source.View()
	line := fmt.Sprintf(": height %d, ledger time %s", v.Height, v.Time.Time().Format(time.RFC3339Nano))
	if st.s.cfg.Stale() != nil {
		line += ", stale"
	}
	return line + "\n"
}

// write gives the reader a while to take what is written. The clock is the operating system's, as the connection's is.
func (st *stream) write(b []byte) error {
	if err := st.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := st.w.Write(b); err != nil {
		return err
	}
	return st.conn.Flush()
}

func idOf(p index.Pos) string { return (&client.StatusEvent{Block: p.Block, N: p.N}).ID() }

var (
	stateNames = map[wire.CertState]string{wire.CertValid: "valid", wire.CertHeld: "held", wire.CertRevoked: "revoked", status.Unknown: "unknown"}
	caStates   = map[wire.CAState]string{wire.CAActive: "active", wire.CASuspended: "suspended"}
)

// describe: a rule, once made, stays as it is, so it can be taken from a newer view.
func (s *Server) describe(c *index.Change) *client.StatusEvent {
	e := &client.StatusEvent{Block: c.Pos.Block, N: c.Pos.N, CAID: c.CAID.String(), At: c.At.Time()}
	switch ca := s.cfg.Source.View().CA(c.CAID); {
	case c.Serial != nil:
		e.Serial, e.State, e.Was, e.Time = c.Serial.String(), stateNames[c.After.State], stateNames[c.Before.State], c.After.Time.Time()
		e.InvalidityDate, e.Asserted = timeOf(c.After.Invalidity), timeOf(c.After.Asserted)
		if c.After.Bad() {
			e.Reason = c.After.Reason.String()
		}
		if c.Before.State == status.Unknown {
			e.Was = "" // not issued, as far as anybody was told
		}
	case c.Rule != 0 && ca != nil && c.Rule <= uint64(len(ca.Rules)):
		r := &ca.Rules[c.Rule-1]
		e.Rule, e.State, e.Reason, e.Time = c.Rule, stateNames[wire.CertRevoked], r.Reason.String(), r.Time.Time()
		e.From, e.To, e.InvalidityDate = timeOf(r.From), timeOf(r.To), timeOf(r.Invalidity)
	default:
		e.State, e.Time = caStates[c.CAState], c.At.Time()
	}
	return e
}

// timeOf is nil for 0: none given.
func timeOf(m wire.Millis) *time.Time {
	if m == 0 {
		return nil
	}
	t := m.Time()
	return &t
}
