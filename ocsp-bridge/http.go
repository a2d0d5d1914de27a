package ocspbridge

import (
	"net/http"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/witness"
)

const (
	ocspPrefix    = "/ocsp"
	logsPrefix    = "/logs"
	witnessPrefix = "/witness" // add-checkpoint is below it (C2SP tlog-witness)
	pathAlarms    = "/v1/alarms"
)

// routes looks at paths as they were sent before a ServeMux sees them: base64 of OCSP has slashes, which ServeMux would clean out of the
// path with a redirect, and what lies below a log has one spelling.
func (b *Bridge) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs", b.members(b.serveLogs))
	mux.HandleFunc("GET /log_list.json", b.members(b.serveLogList))
	mux.HandleFunc("GET /v1/status/{ca}/{serial}", b.serveStatus)
	mux.HandleFunc("GET /v1/bundle/{ca}/{serial}", b.members(func(w http.ResponseWriter, r *http.Request) {
		b.serveBundle(w, r, r.PathValue("ca"), r.PathValue("serial"))
	}))
	mux.HandleFunc("GET /v1/events", b.members(b.events.ServeHTTP))
	mux.HandleFunc("GET /v1/applied", b.serveApplied)
	mux.HandleFunc("GET /v1/heads", b.serveHeads)
	mux.HandleFunc("GET "+pathAlarms, b.serveAlarms)
	mux.HandleFunc("GET /policy", b.servePolicy)
	mux.Handle("GET /metrics", b.cfg.Metrics.Handler())
	mux.Handle(intent.Path, intent.Handler(b.ledger, intent.Options{
		Applied: b.WaitApplied, Known: b.issuers, Rate: float64(b.cfg.Settings.RevocationRate), Now: b.cfg.Now, Log: b.log,
	}))
	mux.HandleFunc(witnessPrefix+witness.Path, b.serveWitness)
	mux.HandleFunc("GET /healthz", b.serveHealth)
	mux.HandleFunc("GET /readyz", b.serveReady)
	mux.HandleFunc("/", b.serveNothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := b.ocspPath(r); ok {
			b.serveOCSP(w, r, rest)
			return
		}
		path := "/" + strings.TrimLeft(r.URL.EscapedPath(), "/")
		if rest, ok := strings.CutPrefix(path, logsPrefix+"/"); ok {
			name, rest, _ := strings.Cut(rest, "/")
			b.serveLog(w, r, name, rest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (b *Bridge) serveNothing(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, b.log, problem.New(http.StatusNotFound, string(wire.NotFound), "path", r.Method+" "+r.URL.Path,
		"must be one of this server's resources, asked for with GET (OCSP also with POST, /v1/revocations with POST)"))
}

// below returns what follows a prefix of whole path elements.
func below(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}
