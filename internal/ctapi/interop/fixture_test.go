// Package interop holds package ctapi to clients that others wrote for the same protocols.
package interop

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/sct"
)

// fixture is a log, served over HTTP as a bridge mounts it.
type fixture struct {
	ledger *ctapitest.Ledger
	key    *sct.Key
	log    *ctapi.Log
	base   string // submission prefix
	client *http.Client
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{ledger: ctapitest.New(t)}
	var err error
	if f.key, err = sct.LoadOrCreate(filepath.Join(t.TempDir(), "log.pem")); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux) // clients that read log lists insist
	t.Cleanup(server.Close)
	path := "/logs/" + f.ledger.CA.ID.String()
	f.base, f.client = server.URL+path, server.Client()
	f.log, err = ctapi.New(ctapi.Config{
		CAID: f.ledger.CA.ID, CA: f.ledger.Trusted, Log: f.ledger, Key: f.key, Submitter: f.ledger,
		Prefix: f.base, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle(path+"/static/", http.StripPrefix(path+"/static", f.log.Static()))
	mux.Handle(path+"/ct/v1/", http.StripPrefix(path, f.log.API()))
	return f
}

func (f *fixture) fetch(t testing.TB, url string) []byte {
	t.Helper()
	answer, err := f.client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.Body.Close() != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", url, answer.StatusCode, err, text)
	}
	return text
}
