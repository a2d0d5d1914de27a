package ocspbridge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tiles"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// logInfo is one log in the list at /logs.
type logInfo struct {
	Name     string `json:"name"`            // in paths: a CA ID, "status" or "map"
	CAID     string `json:"ca_id,omitempty"` // of an issuance log
	Origin   string `json:"origin"`
	Size     uint64 `json:"size"`
	VKey     string `json:"vkey"`          // of the key that signs the checkpoints served here
	Cosigner string `json:"cosigner_vkey"` // of this organisation's cosigner key
}

func (b *Bridge) serveLogs(w http.ResponseWriter, _ *http.Request) {
	list := []logInfo{}
	for _, log := range b.logs(b.index.View()) {
		info := logInfo{Name: log.Name, Origin: log.Origin, Size: log.Log.Head().Size, VKey: b.key.VKey, Cosigner: b.cosigner.VKey()}
		if log.Name != statusName && log.Name != mapName {
			info.CAID = log.Name
		}
		list = append(list, info)
	}
	b.writeJSON(w, http.StatusOK, list)
}

// serveLog answers below /logs/{name}/. rest is the path as it was sent.
func (b *Bridge) serveLog(w http.ResponseWriter, r *http.Request, name, rest string) {
	ct, ofFront := strings.CutPrefix(rest, "ct/v1/")
	ofFront = ofFront || strings.HasPrefix(rest, "static/")
	// Submissions carry their own credentials: a CA's signature.
	if ct != "add-chain" && ct != "add-pre-chain" && !b.admitted(w, r) {
		return
	}
	if err := b.routeLog(w, r, name, rest, ofFront); err != nil {
		problem.Write(w, b.log, err)
	}
}

// routeLog returns an error if nothing has been answered yet.
func (b *Bridge) routeLog(w http.ResponseWriter, r *http.Request, name, rest string, ofFront bool) error {
	if ofFront {
		id, err := wire.ParseCAID(name)
		if err != nil {
			return err
		}
		if b.front == nil {
			return wire.Errorf(wire.NotFound, "path", r.URL.Path, "is not served here: this bridge has no public_url, which the logs' names are made of")
		}
		b.front.ServeLog(w, r, id, rest)
		return nil
	}
	if (rest == "proof" || rest == "bundle") && r.Method == http.MethodGet {
		if rest == "bundle" {
			b.serveBundle(w, r, name, r.URL.Query().Get("serial"))
			return nil
		}
		proof, err := b.proof(r, name)
		if err == nil {
			b.writeText(w, proof)
		}
		return err
	}
	log, err := b.logNamed(name)
	if err != nil {
		return err
	}
	files, err := tiles.New(tiles.Config{Log: log.Log, Logger: b.log, Checkpoint: func(ctx context.Context) ([]byte, error) {
		cp, err := b.checkpoint(ctx, log, 0)
		if err != nil {
			return nil, err
		}
		return cp.Note, nil
	}})
	if err != nil {
		return err
	}
	// The slash before rest stays: that there is one is for the handler to see.
	http.StripPrefix(strings.TrimSuffix(r.URL.EscapedPath(), "/"+rest), files).ServeHTTP(w, r)
	return nil
}

func (b *Bridge) serveLogList(w http.ResponseWriter, r *http.Request) {
	if b.front == nil {
		b.serveNothing(w, r)
		return
	}
	b.front.ServeLogList(w, r)
}

// proof answers ?index=N or, of an issuance log, ?serial=HEX with a C2SP tlog-proof.
func (b *Bridge) proof(r *http.Request, name string) ([]byte, error) {
	log, err := b.logNamed(name)
	if err != nil {
		return nil, err
	}
	position, err := b.leafIndex(r, name)
	if err != nil {
		return nil, err
	}
	if size := log.Log.Head().Size; position >= size { // read after the record: it has its leaf
		return nil, wire.Errorf(wire.NotFound, "index", strconv.FormatUint(position, 10), "must be below the size of the log, %d", size)
	}
	cp, err := b.checkpoint(r.Context(), log, position+1)
	if err != nil {
		return nil, err
	}
	entries, err := log.Log.Entries(position, position+1)
	if err != nil {
		return nil, err
	}
	path, err := merklelog.Inclusion(log.Log, position, cp.Size)
	if err != nil {
		return nil, err
	}
	p := tlogproof.Proof{Index: position, Time: entries[0].Time, Path: path, Checkpoint: cp.Note}
	if k := entries[0].Kind; k == merklelog.Status || k == merklelog.Map {
		return p.MarshalBare(), nil // the leaf stands for itself
	}
	return p.Marshal(), nil
}

// leafIndex reads which leaf is asked for: exactly one of index and serial.
func (b *Bridge) leafIndex(r *http.Request, log string) (uint64, error) {
	q := r.URL.Query()
	switch {
	case q.Has("index") == q.Has("serial"):
		return 0, wire.Errorf(wire.InvalidArgument, "query", r.URL.RawQuery, "must have index=N or serial=HEX, and not both")
	case q.Has("index"):
		n, err := strconv.ParseUint(q.Get("index"), 10, 64)
		if err != nil {
			return 0, wire.Errorf(wire.InvalidArgument, "index", q.Get("index"), "must be a decimal number below 2^64")
		}
		return n, nil
	}
	id, err := wire.ParseCAID(log)
	if err != nil {
		return 0, wire.Errorf(wire.InvalidArgument, "query", r.URL.RawQuery, "must have index=N: only a CA's log has serial numbers")
	}
	serial, err := wire.ParseSerial(q.Get("serial"))
	if err != nil {
		return 0, err
	}
	rec, err := b.record(id, serial)
	if err != nil {
		return 0, err
	}
	if rec.Final == nil {
		return rec.Pre.Index, nil
	}
	return rec.Final.Index, nil
}

// record returns the record of a certificate, or of a precertificate without one, or a NotFound error.
func (b *Bridge) record(id wire.CAID, serial wire.Serial) (*wire.CertRecord, error) {
	rec, err := b.index.Record(id, serial)
	if err != nil {
		return nil, err
	}
	if rec == nil || rec.Final == nil && rec.Pre == nil {
		return nil, notLogged(serial)
	}
	return rec, nil
}

func notLogged(serial wire.Serial) error {
	return wire.Errorf(wire.NotFound, "serial", serial.String(), "must be the serial number of a certificate that this CA's log has")
}

func (b *Bridge) writeText(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", tlogproof.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(text); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}

func (b *Bridge) writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		problem.Write(w, b.log, fmt.Errorf("encode answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	if _, err := w.Write(append(body, '\n')); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}

// unavailable is answered while the bridge cannot vouch for what it has.
func unavailable(err error) error {
	return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "bridge", "not ready", err.Error())
}
