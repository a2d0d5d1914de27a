package ca

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

// maxBulkWait bounds how long GET waits for a bulk to be done.
const maxBulkWait = 30 * time.Second

// postBulk answers 201 for a list that is to be confirmed, 202 for one that is being worked on.
func (s *Server) postBulk(w http.ResponseWriter, r *http.Request, c *client) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	hash := sha256.New()
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.Body, hash), r.Body}
	req, err := s.readBulk(w, r)
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	id, request := "", ""
	if key != "" {
		name := sha256.Sum256([]byte(c.name + "\x00" + key))
		release, err := s.keys.lock(ctx, sha256.Sum256(name[:]))
		if err != nil {
			return err
		}
		defer release()
		hash.Write([]byte("\x00" + r.URL.RawQuery + "\x00" + r.Header.Get("Content-Type")))
		id, request = hex.EncodeToString(name[:16]), hex.EncodeToString(hash.Sum(nil))
	}
	j, err := s.bulks.find(id)
	if id == "" || err != nil {
		if j, err = s.newBulk(ctx, c, req, id, request); err != nil {
			return err
		}
	} else if j.head.Request != request { // never changes
		return problem.New(http.StatusUnprocessableEntity, string(wire.InvalidArgument), caapi.IdempotencyKey, "",
			"must not be used again for another request: an earlier one with this key was different")
	}
	if !req.DryRun {
		if waits, err := s.bulkUnderDual(w, c, j); waits || err != nil {
			return err
		}
		if err := s.startBulk(ctx, c.name, j); err != nil {
			return err
		}
	}
	return s.answerBulk(w, j)
}

func (s *Server) newBulk(ctx context.Context, c *client, req *bulkRequest, id, request string) (*bulk, error) {
	head, items, err := s.plan(ctx, c.name, req)
	if err != nil {
		return nil, err
	}
	head.Request = request
	j, err := s.bulks.add(id, *head, items)
	if err != nil {
		return nil, err
	}
	s.log.Info("bulk revocation planned", "id", j.id, "client", c.name, "operation", head.Operation, "source", head.Source, "total", len(items))
	s.step(stepBulkPlanned)
	return j, nil
}

// startBulk sets a planned bulk going.
func (s *Server) startBulk(ctx context.Context, by string, j *bulk) error {
	if err := s.sweepConfirmed(ctx, by, j); err != nil {
		return err
	}
	started, err := s.bulks.start(j, by)
	if err != nil || !started {
		return err
	}
	s.step(stepBulkStarted)
	s.log.Info("bulk revocation started", "id", j.id, "client", by)
	if s.bulkCtx.Err() == nil { // else it goes on after the next start
		s.background.Go(func() { s.runBulk(s.bulkCtx, j) })
	}
	return nil
}

func (s *Server) answerBulk(w http.ResponseWriter, j *bulk) error {
	v, _ := j.view()
	code := http.StatusCreated
	if v.State != caapi.BulkPlanned {
		code = http.StatusAccepted
	}
	w.Header().Set("Location", caapi.PathBulk+"/"+v.ID)
	return s.answer(w, code, v)
}

// postBulkStart confirms a list.
func (s *Server) postBulkStart(w http.ResponseWriter, r *http.Request, c *client) error {
	var start caapi.BulkStart
	if err := readFields(w, r, map[string]*string{"digest": &start.Digest}); err != nil {
		return err
	}
	j, err := s.bulks.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if v, _ := j.view(); start.Digest != v.Digest {
		return invalid("digest", start.Digest, "must be that of the list, %s", v.Digest)
	}
	ctx := context.WithoutCancel(r.Context())
	if err := s.clockSound(); err != nil {
		return err
	}
	if waits, err := s.bulkUnderDual(w, c, j); waits || err != nil {
		return err
	}
	if err := s.startBulk(ctx, c.name, j); err != nil {
		return err
	}
	return s.answerBulk(w, j)
}

// sweepConfirmed makes a sweep of a list by a compromised key: what is recorded with the key after the list was made is revoked too.
func (s *Server) sweepConfirmed(ctx context.Context, by string, j *bulk) error {
	v, _ := j.view()
	if v.State != caapi.BulkPlanned || !isSweep(v) {
		return nil
	}
	key, change, err := s.sweepOf(v)
	if err == nil {
		err = s.sweepBegins(ctx, by, true, key, change.Invalidity)
	}
	if err == nil {
		j.mu.Lock()
		j.head.KeyBlocked = true
		j.mu.Unlock()
	}
	return err
}

func (s *Server) getBulks(w http.ResponseWriter, _ *http.Request, _ *client) error {
	list := struct {
		Bulks []caapi.Bulk `json:"bulks"`
	}{[]caapi.Bulk{}}
	for _, j := range s.bulks.all() {
		v, _ := j.view()
		list.Bulks = append(list.Bulks, v)
	}
	slices.SortFunc(list.Bulks, func(a, b caapi.Bulk) int { return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID)) })
	return s.answer(w, http.StatusOK, list)
}

// getBulk waits for the end as long as the request says.
func (s *Server) getBulk(w http.ResponseWriter, r *http.Request, _ *client) error {
	j, err := s.bulks.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	ctx := r.Context()
	if text := r.URL.Query().Get("wait"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxBulkWait {
			return invalid("wait", text, "must be a duration such as 10s, of at most %v", maxBulkWait)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
		return s.answer(w, http.StatusOK, j.wait(ctx))
	}
	v, _ := j.view()
	return s.answer(w, http.StatusOK, v)
}

// getBulkResults answers with a line for each certificate, in the order of the list.
func (s *Server) getBulkResults(w http.ResponseWriter, r *http.Request, _ *client) error {
	j, err := s.bulks.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	want := r.URL.Query().Get("outcome")
	if want != "" && !slices.Contains([]string{outcomeOpen, outcomeChanged, outcomeAlready, outcomeFailed}, want) {
		return invalid("outcome", want, "must be open, changed, already or failed")
	}
	limit := caapi.MaxBulk
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > caapi.MaxBulk {
			return invalid("limit", text, "must be 1 to %d", caapi.MaxBulk)
		}
	}
	items, results, err := j.results()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", caapi.TypeJSONLines)
	w.Header().Set("Cache-Control", "no-store")
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for n := range items {
		res := results[n]
		if res == nil {
			res = &caapi.BulkResult{Serial: items[n].Serial, Operation: opNames[wire.StatusOp(items[n].Op)], Outcome: outcomeOpen}
		}
		if want != "" && res.Outcome != want {
			continue
		}
		if limit--; limit < 0 {
			break
		}
		g := s.generationOf(&items[n])
		g.place(res)
		if c, err := g.catalogue.Get(items[n].change().Serial); err == nil && c != nil {
			res.Subject, res.Names = c.Subject, c.Names
			if res.Outcome == outcomeOpen {
				res.State = stateName(c.State)
			}
		}
		if err := enc.Encode(res); err != nil {
			s.log.Debug("answer not delivered", "error", err)
			return nil
		}
	}
	if err := buf.Flush(); err != nil {
		s.log.Debug("answer not delivered", "error", err)
	}
	return nil
}

// results reads list and results from the files; nil for a certificate whose outcome is open.
func (j *bulk) results() ([]bulkItem, []*caapi.BulkResult, error) {
	base := j.dir + string(os.PathSeparator) + j.id
	_, items, err := readPlan(base + planSuffix)
	if err != nil {
		return nil, nil, err
	}
	results := make([]*caapi.BulkResult, len(items))
	f, err := os.Open(base + logSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return items, results, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	for dec := json.NewDecoder(bufio.NewReader(f)); ; {
		var l bulkLine
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the last line is being written
			return items, results, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if l.Kind == lineResult && l.Item >= 0 && l.Item < len(results) && results[l.Item] == nil {
			results[l.Item] = l.Result
		}
	}
}
