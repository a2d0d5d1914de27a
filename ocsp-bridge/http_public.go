package ocspbridge

import (
	"net/http"

	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/crls"
)

// PublicHandler serves what clients ask for over plain HTTP, and nothing else: OCSP (RFC 6960 appendix A; RFC 5019 section 5) and CRLs
// (RFC 5280 section 4.2.1.13). Both are signed and secret to nobody, and a certificate's URLs for them are http as a rule: TLS would need a
// certificate that would have to be checked first.
func (b *Bridge) PublicHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+crlPrefix+"/{ca}/{name}", b.serveCRL)
	mux.HandleFunc("GET "+crlPrefix+"/"+crls.NameIndirect, b.serveIndirect)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, b.log, problem.New(http.StatusNotFound, "not_found", "path", r.Method+" "+r.URL.Path,
			"must be OCSP, or GET of a CRL: this address serves only those; the rest is at the organisation's other address, over TLS"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := b.ocspPath(r); ok { // before a ServeMux sees the path: see routes
			b.serveOCSP(w, r, rest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
