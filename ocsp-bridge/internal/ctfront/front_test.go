package ctfront

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/certificate-transparency-go/loglist3"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
)

func TestCAThatIsRegisteredLaterAppearsWithoutRestart(t *testing.T) {
	o, first, later := newOrg(t, "Org1MSP"), ctapitest.New(t), ctapitest.New(t)
	o.trust(first, first, first)
	for _, path := range []string{"ct/v1/get-sth", "ct/v1/add-chain", "static/checkpoint", "anything"} {
		o.ask(later, path, nil).refused(t, http.StatusNotFound, "not_found", "registered CA")
	}
	if _, err := o.Keys(later.CA.ID); err == nil {
		t.Error("a key of a CA that is not on the trust list")
	}
	o.trust(later, later, later)
	for _, l := range []*ctapitest.Ledger{first, later} {
		o.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).ok(t)
		o.ask(l, "static/checkpoint", nil).ok(t)
		key, err := o.Keys(l.CA.ID)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(o.cfg.Dir, l.CA.ID.String()+".pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v", info, err)
		}
		o.restart()
		if again, err := o.Keys(l.CA.ID); err != nil || again.ID() != key.ID() {
			t.Errorf("another key after a restart, %v", err)
		}
	}
}

// The trust list entry of each moment counts, not that of the moment when the log was opened.
func TestTrustListEntryIsReadAtEachSubmission(t *testing.T) {
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	o.trust(l, l, l)
	o.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).ok(t)
	o.mu.Lock()
	o.cas = nil
	o.mu.Unlock()
	o.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusNotFound, "not_found")
}

func TestLogWhoseBlocksAreNotThereYetIsUnavailable(t *testing.T) {
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	o.trust(l, nil, l)
	o.mu.Lock()
	delete(o.logs, l.CA.ID)
	o.mu.Unlock()
	o.ask(l, "ct/v1/get-sth", nil).refused(t, http.StatusServiceUnavailable, "unavailable")
	o.setLog(l.CA.ID, l)
	o.ask(l, "ct/v1/get-sth", nil).ok(t)
}

func TestFrontThatTakesNoSubmissionsSaysWhoDoes(t *testing.T) {
	o, l := newOrg(t, "Org4MSP"), ctapitest.New(t)
	l.Fill(t, 3)
	o.trust(l, l, nil)
	for _, name := range []string{"add-chain", "add-pre-chain"} {
		o.ask(l, "ct/v1/"+name, ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusNotFound, "not_found", "Org4MSP", "Org1MSP")
	}
	o.ask(l, "ct/v1/get-entries?start=0&end=2", nil).ok(t)
	o.ask(l, "static/tile/data/000.p/3", nil).ok(t)
}

func TestPathsOfALogHaveOneSpelling(t *testing.T) {
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	l.Fill(t, 3)
	o.trust(l, l, l)
	for path, status := range map[string]int{
		"": 404, "ct/v1": 404, "ct/v1/": 404, "ct/v1/get%2Dsth": 404, "ct%2Fv1/get-sth": 404, "ct/v1//get-sth": 404, "ct/v1/get-sth/": 404,
		"/ct/v1/get-sth": 404, "static": 404, "static/": 404, "static/%63heckpoint": 404, "static/tile/0/%3000.p/3": 400, "static/tile/0%2F000.p/3": 400,
		"static/../ct/v1/get-sth": 404, "checkpoint": 404, "ct/v1/get-sth": 200, "static/checkpoint": 200, "static/tile/0/000.p/3": 200,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		o.ServeLog(w, r, l.CA.ID, path)
		if w.Code != status {
			t.Errorf("%q: status %d, want %d: %s", path, w.Code, status, w.Body)
		}
		if r.URL.Path != "/" {
			t.Errorf("%q: the caller's request was changed", path)
		}
	}
}

func TestLogListIsReadByOthers(t *testing.T) {
	o, own, foreign := newOrg(t, "Org1MSP"), ctapitest.New(t), ctapitest.New(t)
	own.Record.Change = 3
	o.trust(own, own, own)
	answer := o.askIn(t.Context(), o.url+"/log_list.json", nil)
	if answer.Header.Get("Cache-Control") != listCache || answer.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers are %v", answer.Header)
	}
	before, err := loglist3.NewFromJSON(answer.ok(t))
	if err != nil {
		t.Fatal(err)
	}
	foreign.Record.Change = 1
	o.trust(foreign, foreign, nil)
	list, err := loglist3.NewFromJSON(o.askIn(t.Context(), o.url+"/log_list.json", nil).ok(t))
	if err != nil {
		t.Fatal(err)
	}
	if before.Version != "1.3" || list.Version != "1.4" || !list.LogListTimestamp.Equal(listTime) || len(list.Operators) != 1 || list.Operators[0].Name != "Org1MSP" {
		t.Errorf("list is %+v", list)
	}
	for l, want := range map[*ctapitest.Ledger]loglist3.LogStatus{own: loglist3.UsableLogStatus, foreign: loglist3.PendingLogStatus} {
		log := list.FindLogByURL(o.prefix(l))
		key, kerr := o.Keys(l.CA.ID)
		if kerr != nil || log == nil || log.State.LogStatus() != want || log.Description != l.CA.Cert.Subject.String() {
			t.Fatalf("log is %+v, %v", log, kerr)
		}
		if id := key.ID(); string(log.LogID) != string(id[:]) || string(log.Key) != string(key.SPKI()) || sha256.Sum256(log.Key) != id {
			t.Errorf("log %x has key %x", log.LogID, log.Key)
		}
	}
	if got := list.SelectByStatus([]loglist3.LogStatus{loglist3.UsableLogStatus}); len(got.Operators) != 1 || len(got.Operators[0].Logs) != 1 {
		t.Errorf("%d logs take submissions", len(got.Operators[0].Logs))
	}
}

// TestLogOfASuspendedCAIsReadOnly: with the head that it keeps, until the CA is resumed.
func TestLogOfASuspendedCAIsReadOnly(t *testing.T) {
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	l.Fill(t, 3)
	l.Record.Change, l.Record.State, l.Record.Registered, l.Record.StateTime = 1, wire.CAActive, wire.MillisOf(listTime), wire.MillisOf(listTime)
	o.trust(l, l, l)
	decide := func(state wire.CAState, at time.Time) {
		o.mu.Lock()
		defer o.mu.Unlock()
		rec := *o.cas[0].Record
		rec.Change, rec.State, rec.StateTime = rec.Change+1, state, wire.MillisOf(at)
		o.cas[0].Record = &rec
	}
	read := func() (*loglist3.LogList, *loglist3.LogStates) {
		t.Helper()
		list, err := loglist3.NewFromJSON(o.askIn(t.Context(), o.url+"/log_list.json", nil).ok(t))
		if err != nil {
			t.Fatal(err)
		}
		log := list.FindLogByURL(o.prefix(l))
		if log == nil || len(list.Operators[0].TiledLogs) != 1 || log.State.LogStatus() != list.Operators[0].TiledLogs[0].State.LogStatus() {
			t.Fatalf("list is %+v", list)
		}
		return list, log.State
	}
	if _, s := read(); s.LogStatus() != loglist3.UsableLogStatus || !s.Usable.Timestamp.Equal(listTime) {
		t.Errorf("active: %+v", s)
	}
	suspended := listTime.Add(time.Hour)
	decide(wire.CASuspended, suspended)
	list, s := read()
	head := l.Head()
	if s.LogStatus() != loglist3.ReadOnlyLogStatus || !s.ReadOnly.Timestamp.Equal(suspended) || s.ReadOnly.FinalTreeHead.TreeSize != 3 ||
		!bytes.Equal(s.ReadOnly.FinalTreeHead.SHA256RootHash, head.Root[:]) || list.Version != "1.2" {
		t.Errorf("suspended: %s, %+v", list.Version, s)
	}
	if got := list.SelectByStatus([]loglist3.LogStatus{loglist3.UsableLogStatus}); len(got.Operators) != 0 {
		t.Errorf("a suspended CA's log takes submissions: %+v", got.Operators[0])
	}
	decide(wire.CAActive, suspended.Add(time.Hour))
	if list, s := read(); s.LogStatus() != loglist3.UsableLogStatus || !s.Usable.Timestamp.Equal(suspended.Add(time.Hour)) || list.Version != "1.3" {
		t.Errorf("resumed: %s, %+v", list.Version, s)
	}
}

func TestLogListLooksLikeThis(t *testing.T) {
	o, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	o.trust(l, l, l)
	var list struct {
		Version   string `json:"version"`
		Time      string `json:"log_list_timestamp"`
		Operators []struct {
			Name  string           `json:"name"`
			Email []string         `json:"email"`
			Logs  []map[string]any `json:"logs"`
			Tiled []map[string]any `json:"tiled_logs"`
		} `json:"operators"`
	}
	if err := json.Unmarshal(o.askIn(t.Context(), o.url+"/log_list.json", nil).ok(t), &list); err != nil {
		t.Fatal(err)
	}
	if list.Time != "2026-01-02T03:04:05Z" || len(list.Operators) != 1 || list.Operators[0].Email == nil || len(list.Operators[0].Logs) != 1 || len(list.Operators[0].Tiled) != 1 {
		t.Fatalf("list is %+v", list)
	}
	log, tiled := list.Operators[0].Logs[0], list.Operators[0].Tiled[0]
	if log["url"] != o.prefix(l)+"/" || tiled["submission_url"] != o.prefix(l)+"/" || tiled["monitoring_url"] != o.prefix(l)+"/static/" || log["log_type"] != "prod" {
		t.Errorf("log is %v, tiled %v", log, tiled)
	}
	w := httptest.NewRecorder()
	o.ServeLogList(w, httptest.NewRequest(http.MethodPost, "/log_list.json", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d", w.Code)
	}
}

func TestConfigThatIsRefused(t *testing.T) {
	good := newOrg(t, "Org1MSP").cfg
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no directory":      {func(c *Config) { c.Dir = "" }, "Dir"},
		"no operator":       {func(c *Config) { c.Operator = "" }, "Operator"},
		"no trust list":     {func(c *Config) { c.CAs = nil }, "CAs"},
		"no logs":           {func(c *Config) { c.Log = nil }, "Log"},
		"no submitter":      {func(c *Config) { c.Submit = nil }, "Submit"},
		"no URL":            {func(c *Config) { c.PublicURL = "" }, "public_url"},
		"URL with a query":  {func(c *Config) { c.PublicURL = "https://a.example/?x" }, "public_url"},
		"URL with a plus":   {func(c *Config) { c.PublicURL = "https://a.example/a+b" }, "public_url"},
		"not a web URL":     {func(c *Config) { c.PublicURL = "ftp://a.example" }, "public_url"},
		"URL with password": {func(c *Config) { c.PublicURL = "https://a:b@a.example" }, "public_url"},
		"pending below 0":   {func(c *Config) { c.MaxPending = -1 }, "max_pending"},
		"no place for keys": {func(c *Config) { c.Dir = "/dev/null/keys" }, "log keys"},
	} {
		cfg := good
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q named", name, err, c.want)
		}
	}
	l := ctapitest.New(t)
	for name, c := range map[string]ForwardConfig{
		"no log": {URL: "https://a.example", Chain: func() [][]byte { return nil }, Changed: never}, "no chain": {URL: "https://a.example", Log: l, Changed: never},
		"no news": {URL: "https://a.example", Log: l, Chain: func() [][]byte { return nil }}, "no URL": {Log: l, Chain: func() [][]byte { return nil }, Changed: never},
	} {
		if _, err := Forward(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
