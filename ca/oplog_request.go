package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

const (
	maxHeld      = 1 << 20  // of a request's body is read before its action is recorded
	maxDescribed = 64 << 10 // is searched for what it is about
)

// changes tells whether a request may change anything; what only reads is not recorded.
func changes(act action, r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && act != actRead && act != actDescribe
}

// recorded has the operators' log tell of every request that may change something: before it is carried out, durably, and how it ended.
func (s *Server) recorded(act action, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, c *client) error {
		if !changes(act, r) {
			return h(w, r, c)
		}
		body, err := holdBody(r)
		if err != nil {
			return invalid("body", "", "could not be read: %v", err)
		}
		e := attributed(r, c, oplog.Entry{Action: r.Method + " " + r.URL.Path, Detail: body.describe()})
		if e.Target = e.Detail["serial"]; e.Target != "" {
			delete(e.Detail, "serial")
		}
		op, err := s.operators.begin(r.Context(), e)
		if err != nil {
			return err
		}
		s.step(stepRecordedAction)
		answer := &statusWriter{ResponseWriter: w}
		outcome := oplog.Unknown // of a handler that panics
		defer func() {
			body.note(op)
			s.operators.end(op, outcome)
		}()
		err = h(answer, r.WithContext(context.WithValue(r.Context(), operationKey{}, op)), c)
		if at, ok := strings.CutPrefix(w.Header().Get("Location"), caapi.PathCertificates+"/"); ok {
			op.about(at)
		}
		outcome = outcomeOf(err, answer.status)
		return err
	}
}

// stepRecordedAction: the operators' log has a request's action, and it is about to begin.
const stepRecordedAction = "recorded action"

// outcomeOf says how an action ended that returned err, or answered with a status by itself.
func outcomeOf(err error, status int) string {
	if err == nil {
		switch {
		case status >= http.StatusInternalServerError:
			return fmt.Sprintf("failed: status %d", status)
		case status >= http.StatusBadRequest:
			return fmt.Sprintf("refused: status %d", status)
		}
		return oplog.Done
	}
	p := problem.From(err)
	if errors.Is(err, network.ErrUnknownOutcome) || p.Code == problem.CodeUnknownOutcome {
		return oplog.Unknown
	}
	if p.Status >= http.StatusInternalServerError {
		return "failed: " + err.Error()
	}
	return "refused: " + p.Detail
}

// heldBody is a request's body, of which the beginning was read ahead.
type heldBody struct {
	begin []byte
	all   bool      // it is all there is
	sum   hash.Hash // of what the handler has read, if there is more
	read  int64
	rest  io.Reader
}

// holdBody reads the beginning of a request's body and puts it before the rest again.
func holdBody(r *http.Request) (*heldBody, error) {
	begin, err := io.ReadAll(io.LimitReader(r.Body, maxHeld))
	if err != nil {
		return nil, err
	}
	b := &heldBody{begin: begin, all: len(begin) < maxHeld, sum: sha256.New()}
	b.rest = io.MultiReader(bytes.NewReader(begin), r.Body)
	r.Body = struct {
		io.Reader
		io.Closer
	}{b, r.Body}
	return b, nil
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.rest.Read(p)
	if !b.all {
		b.sum.Write(p[:n])
		b.read += int64(n)
	}
	return n, err
}

// describe is what the record says about the body before the action begins.
func (b *heldBody) describe() map[string]string {
	sum := sha256.Sum256(b.begin)
	if !b.all {
		return map[string]string{fmt.Sprintf("sha256 of the first %d bytes", maxHeld): hex.EncodeToString(sum[:])}
	}
	detail := map[string]string{"sha256": hex.EncodeToString(sum[:])}
	var fields map[string]json.RawMessage
	if len(b.begin) > maxDescribed || json.Unmarshal(b.begin, &fields) != nil {
		return detail
	}
	for _, name := range []string{"serial", "reason", "profile", "invalidity_date", "state", "name", "keys", "supersedes", "overlap"} {
		var text string
		if json.Unmarshal(fields[name], &text) == nil && text != "" {
			detail[name] = text
		}
	}
	return detail
}

// note adds what is known about a long body once it was read.
func (b *heldBody) note(op *operation) {
	if !b.all {
		op.note(fmt.Sprintf("sha256 of the %d bytes that were read", b.read), hex.EncodeToString(b.sum.Sum(nil)))
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for handlers that ask for http.Flusher.
func (w *statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
