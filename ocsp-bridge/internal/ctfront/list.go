package ctfront

import (
	"fmt"
	"net/http"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tiles/gzipped"
)

// listCache lets a crowd of clients share an answer; a new CA's log is known to all within this time.
const listCache = "public, max-age=60"

// ServeLogList answers with the log list, version 3, of this organisation's logs. Its version grows with the trust list.
func (f *Front) ServeLogList(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem.Write(w, f.cfg.Logger, problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be GET or HEAD"))
		return
	}
	text, err := f.logList()
	if err != nil {
		problem.Write(w, f.cfg.Logger, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", listCache)
	if err := gzipped.Write(w, r, text); err != nil {
		f.cfg.Logger.Debug("answer not delivered", "error", err)
	}
}

func (f *Front) logList() ([]byte, error) {
	for {
		cas := f.cfg.CAs()
		own := ctapi.Operator{Name: f.cfg.Operator}
		for _, ca := range cas {
			listed, err := f.listed(ca)
			if err != nil { // the others' clients need theirs
				f.cfg.Logger.Error("log left out of the log list", "ca_id", ca.ID.String(), "error", err)
				continue
			}
			own.Logs = append(own.Logs, listed)
		}
		// A head that was read after a CA was resumed would not be the one that its log had while suspended.
		if version := changes(cas); version == changes(f.cfg.CAs()) {
			return ctapi.LogList(fmt.Sprintf("1.%d", version), f.cfg.Now(), []ctapi.Operator{own})
		}
	}
}

// changes counts the decisions about all CAs.
func changes(cas []CA) (n uint64) {
	for _, ca := range cas {
		n += ca.Record.Change
	}
	return n
}

// listed describes the log of a CA. That of a suspended one takes nothing, and keeps what it has: it is usable again when the CA is resumed.
func (f *Front) listed(ca CA) (ctapi.ListedLog, error) {
	log, err := f.open(ca.ID)
	if err != nil {
		return ctapi.ListedLog{}, err
	}
	listed := log.api.Listed(ca.Name, f.submission(ca.ID)+"/static", max(ca.Record.Registered, ca.Record.StateTime))
	listed.Pending = f.cfg.Submit(ca.ID) == nil
	if ca.Record.State != wire.CASuspended {
		return listed, nil
	}
	tree, ok := f.cfg.Log(ca.ID)
	if !ok {
		return listed, fmt.Errorf("CA %s has no log", ca.ID)
	}
	head := tree.Head()
	listed.ReadOnly = &ctapi.TreeHead{Size: head.Size, Root: head.Root}
	return listed, nil
}
