package ca

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/cabackup"
)

// backupTime is how long sending a backup may take.
const backupTime = time.Hour

// postBackup sends a backup of the CA's directory, without keys: those never leave it through the API. Nothing in the running CA waits for it.
func (s *Server) postBackup(w http.ResponseWriter, r *http.Request, _ *client) error {
	var req caapi.BackupRequest
	if err := readFields(w, r, map[string]*string{"keys": &req.Keys}); err != nil {
		return err
	}
	if req.Keys != cabackup.KeysNone && req.Keys != cabackup.KeysWrapped {
		return invalid("keys", req.Keys, "must be %s or %s", cabackup.KeysNone, cabackup.KeysWrapped)
	}
	if !s.backups.TryLock() {
		return wire.Errorf(wire.FailedPrecondition, "backup", "", "must be the only one that is being sent")
	}
	defer s.backups.Unlock()
	// Servers here give up writing after a minute; a journal may take longer.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	out := &begun{ResponseWriter: w}
	w.Header().Set("Content-Type", caapi.BackupType)
	w.Header().Set("Cache-Control", "no-store")
	m, err := cabackup.Write(out, s.dual.dir, cabackup.Options{Now: s.now})
	if err == nil {
		operationOf(r.Context()).note("files", fmt.Sprint(len(m.Files)))
		return nil
	}
	if !out.sent {
		w.Header().Del("Content-Type")
		return err
	}
	s.log.Error("a backup was not sent whole", "error", err)
	operationOf(r.Context()).note("error", err.Error())
	panic(http.ErrAbortHandler) // the connection ends, and what was sent has no manifest
}

// begun remembers whether anything was sent.
type begun struct {
	http.ResponseWriter
	sent bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.sent = true
	return b.ResponseWriter.Write(p)
}
