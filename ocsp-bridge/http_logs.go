package ocspbridge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// logInfo is one log in the list at /logs.
type logInfo struct {
	CAID   string `json:"ca_id"`
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	VKey   string `json:"vkey"` // of the key that signs the checkpoints served here
}

func (b *Bridge) serveLogs(w http.ResponseWriter, _ *http.Request) {
	v := b.index.View()
	list := []logInfo{}
	for _, ca := range v.CAs() {
		log, _ := v.Log(ca.ID)
		list = append(list, logInfo{
			CAID: ca.ID.String(), Origin: lognames.Issuance(b.ledger.Channel(), ca.ID), Size: log.Size, VKey: b.key.VKey,
		})
	}
	b.writeJSON(w, http.StatusOK, list)
}

func (b *Bridge) serveCheckpoint(w http.ResponseWriter, r *http.Request) {
	id, err := wire.ParseCAID(r.PathValue("ca"))
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	head, err := b.checkpoint(b.index.View(), id)
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	b.writeText(w, head.Note)
}

// serveProof answers ?index=N or ?serial=HEX with a C2SP tlog-proof.
func (b *Bridge) serveProof(w http.ResponseWriter, r *http.Request) {
	proof, err := b.proof(r)
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	b.writeText(w, proof)
}

func (b *Bridge) proof(r *http.Request) ([]byte, error) {
	id, err := wire.ParseCAID(r.PathValue("ca"))
	if err != nil {
		return nil, err
	}
	v := b.index.View()
	if v.CA(id) == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	position, err := b.leafIndex(r, id)
	if err != nil {
		return nil, err
	}
	head, err := b.checkpoint(b.index.View(), id) // a view that is no older than the record
	if err != nil {
		return nil, err
	}
	if position >= head.Size {
		return nil, wire.Errorf(wire.NotFound, "index", strconv.FormatUint(position, 10), "must be below the size of the log, %d", head.Size)
	}
	log, ok := b.index.Issuance(id)
	if !ok {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	entries, err := log.Entries(position, position+1)
	if err != nil {
		return nil, err
	}
	path, err := merklelog.Inclusion(log, position, head.Size)
	if err != nil {
		return nil, err
	}
	p := tlogproof.Proof{Index: position, Time: entries[0].Time, Path: path, Checkpoint: head.Note}
	return p.Marshal(), nil
}

// leafIndex reads which leaf is asked for: exactly one of index and serial.
func (b *Bridge) leafIndex(r *http.Request, id wire.CAID) (uint64, error) {
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
	serial, err := wire.ParseSerial(q.Get("serial"))
	if err != nil {
		return 0, err
	}
	rec, err := b.record(id, serial)
	if err != nil {
		return 0, err
	}
	return rec.Final.Index, nil
}

// record returns a certificate's record or a NotFound error.
func (b *Bridge) record(id wire.CAID, serial wire.Serial) (*wire.CertRecord, error) {
	rec, err := b.index.Record(id, serial)
	if err != nil {
		return nil, err
	}
	if rec == nil || rec.Final == nil {
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
