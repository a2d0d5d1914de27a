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
	own := ctapi.Operator{Name: f.cfg.Operator}
	changes := uint64(0)
	for _, ca := range f.cfg.CAs() {
		changes += ca.Record.Change
		log, err := f.open(ca.ID)
		if err != nil { // the others' clients need theirs
			f.cfg.Logger.Error("log left out of the log list", "ca_id", ca.ID.String(), "error", err)
			continue
		}
		listed := log.api.Listed(ca.Name, f.submission(ca.ID)+"/static", ca.Record.Registered)
		listed.Pending = f.cfg.Submit(ca.ID) == nil
		own.Logs = append(own.Logs, listed)
	}
	return ctapi.LogList(fmt.Sprintf("1.%d", changes), f.cfg.Now(), []ctapi.Operator{own})
}
