package ctapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
)

// A CA bridge takes submissions for a log that its organisation's OCSP bridge serves.
func TestAFrontWithoutALogOnlyTakesSubmissions(t *testing.T) {
	ledger := ctapitest.New(t)
	l, err := New(Config{CAID: ledger.CA.ID, CA: ledger.Trusted, Key: newKey(t), Submitter: ledger, Prefix: "https://ca.example"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"get-roots": http.StatusOK, "get-sth": http.StatusNotFound, "get-entries?start=0&end=1": http.StatusNotFound, "add-chain": http.StatusOK,
	} {
		r := httptest.NewRequest(http.MethodGet, "/ct/v1/"+path, nil)
		if path == "add-chain" {
			r = httptest.NewRequest(http.MethodPost, "/ct/v1/"+path, bytes.NewReader(ctapitest.Body(ledger.Chain(t)...)))
		}
		w := httptest.NewRecorder()
		l.API().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, strings.TrimSpace(w.Body.String()))
		}
	}
}
