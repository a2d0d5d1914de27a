package ca

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

func TestBadBulksAreRefusedAndChangeNothing(t *testing.T) {
	w := newWorld(t, nil)
	serial := w.issue("requester", "server", "a.example.org")
	planned := w.bulkOf("application/json", "", `{"query":{"name":"a.example.org"},"reason":"superseded","dry_run":true}`)
	before := w.fingerprint()
	const j, c, l = "application/json", caapi.TypeCSV, caapi.TypeJSONLines
	at := func(id string) string { return caapi.PathBulk + "/" + id }
	for _, tc := range []struct {
		name, kind, url, body string
		status                int
		field, rule           string
	}{
		{"nothing", j, "", `{"reason":"superseded"}`, 400, "query", "exactly one"},
		{"two selections", j, "", `{"query":{"state":"valid"},"spki":"` + strings.Repeat("ab", 32) + `","reason":"superseded"}`, 400, "query", "exactly one"},
		{"empty query", j, "", `{"query":{},"reason":"superseded"}`, 400, "query", "one field at least"},
		{"query of another type", j, "", `{"query":"all","reason":"superseded"}`, 400, "query", "object"},
		{"query null", j, "", `{"query":null,"reason":"superseded"}`, 400, "query", "object"},
		{"query array", j, "", `{"query":["all"],"reason":"superseded"}`, 400, "query", "object"},
		{"unknown field", j, "", `{"queries":{},"reason":"superseded"}`, 400, "queries", "not a field"},
		{"unknown field of the query", j, "", `{"query":{"issuer":"x"},"reason":"superseded"}`, 400, "query.issuer", "not a field"},
		{"field twice", j, "", `{"query":{"name":"a","name":"b"},"reason":"superseded"}`, 400, "query.name", "twice"},
		{"number for a name", j, "", `{"query":{"name":7},"reason":"superseded"}`, 400, "query.name", "string"},
		{"string for a boolean", j, "", `{"query":{"name":"a"},"reason":"superseded","dry_run":"yes"}`, 400, "dry_run", "true or false"},
		{"not JSON", j, "", `name=a`, 400, "body", "JSON object"},
		{"cut", j, "", `{"query":{"name":"a"`, 400, "body", "JSON object"},
		{"two values", j, "", `{"query":{"name":"a"},"reason":"superseded"}{}`, 400, "body", "follows"},
		{"not UTF-8", j, "", "{\"reason\":\"\xff\"}", 400, "body", "UTF-8"},
		{"too large", j, "", `{"key":"` + strings.Repeat("x", maxBody) + `"}`, 413, "body", "at most"},
		{"fields in the URL", j, "?reason=superseded", `{"query":{"name":"a"}}`, 400, "url.query", "empty"},
		{"no reason", j, "", `{"query":{"name":"a"}}`, 400, "reason", "5.3.1"},
		{"unknown reason", j, "", `{"query":{"name":"a"},"reason":"bored"}`, 400, "reason", "5.3.1"},
		{"unknown operation", j, "", `{"query":{"name":"a"},"operation":"delete","reason":"superseded"}`, 400, "operation", "revoke, hold or release"},
		{"hold by another reason", j, "", `{"query":{"name":"a"},"operation":"hold","reason":"superseded"}`, 400, "reason", "certificateHold"},
		{"revocation by hold's reason", j, "", `{"query":{"name":"a"},"operation":"revoke","reason":"certificateHold"}`, 400, "reason", "operation must be hold"},
		{"release with a reason", j, "", `{"query":{"name":"a"},"operation":"release","reason":"superseded"}`, 400, "reason", "absent"},
		{"release with a date", j, "", `{"query":{"name":"a"},"operation":"release","invalidity_date":"2020-01-01T00:00:00Z"}`, 400, "invalidity_date", "absent"},
		{"date", j, "", `{"query":{"name":"a"},"reason":"superseded","invalidity_date":"yesterday"}`, 400, "invalidity_date", "RFC 3339"},
		{"date in the future", j, "", `{"query":{"name":"a"},"reason":"superseded","invalidity_date":"2999-01-01T00:00:00Z"}`, 400, "invalidity_date", "future"},
		{"profile", j, "", `{"query":{"profile":"root"},"reason":"superseded"}`, 400, "query.profile", "a profile of this CA"},
		{"control characters", j, "", `{"query":{"name":"a\u0000.example"},"reason":"superseded"}`, 400, "query.name", "control"},
		{"control characters in a client", j, "", `{"query":{"client":"a\nb"},"reason":"superseded"}`, 400, "query.client", "control"},
		{"asterisk in the middle", j, "", `{"query":{"name":"a*.example"},"reason":"superseded"}`, 400, "query.name", "asterisk"},
		{"asterisk alone", j, "", `{"query":{"name":"*"},"reason":"superseded"}`, 400, "query.name", "asterisk"},
		{"endless name", j, "", `{"query":{"subject":"` + strings.Repeat("x", maxPattern+1) + `"},"reason":"superseded"}`, 400, "query.subject", "at most"},
		{"state", j, "", `{"query":{"state":"expired"},"reason":"superseded"}`, 400, "query.state", "valid, held or revoked"},
		{"interval", j, "", `{"query":{"issued_from":"2026-01-01"},"reason":"superseded"}`, 400, "query.issued_from", "RFC 3339"},
		{"interval backwards", j, "", `{"query":{"expires_from":"2027-01-01T00:00:00Z","expires_to":"2026-01-01T00:00:00Z"},"reason":"superseded"}`, 400, "query.expires_to", "after"},
		{"key hash", j, "", `{"spki":"` + strings.Repeat("ab", 20) + `","reason":"superseded"}`, 400, "spki", "64 hexadecimal"},
		{"no key", j, "", `{"key":"hello","reason":"superseded"}`, 400, "key", "PEM"},
		{"private key", j, "", body(t, map[string]string{"key": pemOf("PRIVATE KEY", []byte{1}), "reason": "superseded"}), 400, "key", "never send a private key"},
		{"two keys", j, "", body(t, map[string]string{"key": newCSR(t, nil) + newCSR(t, nil), "reason": "superseded"}), 400, "key", "one PEM"},
		{"bad certificate", j, "", body(t, map[string]string{"key": pemOf("CERTIFICATE", []byte{1}), "reason": "superseded"}), 400, "key", "X.509"},

		{"empty list", c, "?reason=superseded", "", 400, "body", "one certificate"},
		{"header alone", c, "", "serial,reason\n", 400, "body", "one certificate"},
		{"unknown column", c, "", "serial,why\n01,superseded\n", 400, "line 1", "not a column"},
		{"column twice", c, "", "serial,serial\n01,02\n", 400, "line 1", "twice"},
		{"too many columns", c, "", "01,superseded,,x\n", 400, "line 1", "at most 3 columns"},
		{"serial", c, "?reason=superseded", serial + "\nhost\n", 400, "line 2.serial", "hexadecimal"},
		{"serial of 21 octets", c, "?reason=superseded", strings.Repeat("1f", 21) + "\n", 400, "line 1.serial", "20 octets"},
		{"no serial", c, "", "serial,reason\n,superseded\n", 400, "line 2.serial", "must be given"},
		{"serial twice", c, "?reason=superseded", "serial\n" + serial + "\n" + strings.ToUpper(serial[:2]) + ":" + serial[2:] + "\n", 400, "line 3.serial", "line 2"},
		{"line without a reason", c, "", serial + "\n", 400, "line 1.reason", "5.3.1"},
		{"bad reason in a line", c, "", "01,superseded\n02,Superseded\n", 400, "line 2.reason", "5.3.1"},
		{"bad date in a line", c, "", "01,superseded,tomorrow\n", 400, "line 1.invalidity_date", "RFC 3339"},
		{"hold with a date", c, "", "01,certificateHold,2020-01-01T00:00:00Z\n", 400, "line 1.invalidity_date", "hold"},
		{"reason in a release", c, "?operation=release", "01,superseded\n", 400, "line 1.reason", "absent"},
		{"other reason in a hold", c, "?operation=hold", "01,superseded\n", 400, "line 1.reason", "certificateHold"},
		{"quotes", c, "?reason=superseded", "\"01\n", 400, "line 1", "CSV"},
		{"NUL", c, "?reason=superseded", "01\x00\n", 400, "line 1.serial", "hexadecimal"},
		{"list that is not UTF-8", c, "?reason=superseded", "\xff\xfe0\x001\x00", 400, "body", "UTF-8"},
		{"too many", c, "?reason=superseded", strings.Repeat("01\n", caapi.MaxBulk+1), 400, fmt.Sprintf("line %d", caapi.MaxBulk+1), "split it"},
		{"list too large", c, "?reason=superseded", strings.Repeat("x", caapi.MaxBulkBody+1), 413, "body", "at most"},
		{"unknown parameter", c, "?force=true", "01\n", 400, "force", "not a field"},
		{"parameter twice", c, "?reason=superseded&reason=keyCompromise", "01\n", 400, "reason", "twice"},
		{"dry run", c, "?reason=superseded&dry_run=1", "01\n", 400, "dry_run", "true or false"},
		{"unknown field in a line", l, "?reason=superseded", `{"serial":"01","days":"7"}`, 400, "line 1.days", "not a field"},
		{"line of another type", l, "?reason=superseded", "{\"serial\":\"01\"}\n\n{\"serial\":2}", 400, "line 3.serial", "string"},
		{"endless line", l, "?reason=superseded", `{"serial":"` + strings.Repeat("1", maxLine) + `"}`, 400, "line 1", "at most"},
		{"content type", "text/plain", "?reason=superseded", "01\n", 415, "Content-Type", "text/csv"},

		{"start without a digest", j, at(planned.ID), `{}`, 400, "digest", "must be given"},
		{"start of another list", j, at(planned.ID), `{"digest":"00"}`, 400, "digest", "that of the list"},
		{"start of none", j, at("0123"), `{"digest":"00"}`, 404, "id", "lists them"},
		{"start elsewhere", j, at("..%2F..%2Fjournal"), `{"digest":"00"}`, 404, "id", "lists them"},
	} {
		path := tc.url
		if !strings.HasPrefix(path, "/") {
			path = caapi.PathBulk + path
		}
		code, _, b := w.call("POST", path, tc.body, map[string]string{"Content-Type": tc.kind})
		if p := asProblem(t, b); code != tc.status || p.Field != tc.field || !strings.Contains(p.Rule, tc.rule) {
			t.Errorf("%s: %d %s; want %d %s %q", tc.name, code, b, tc.status, tc.field, tc.rule)
		}
	}
	for path, field := range map[string]string{
		at("0123"): "id", at("0123") + caapi.PathResults: "id", at(planned.ID) + "?wait=1h": "wait", at(planned.ID) + "?wait=x": "wait",
		at(planned.ID) + caapi.PathResults + "?outcome=good": "outcome", at(planned.ID) + caapi.PathResults + "?limit=0": "limit",
	} {
		if code, _, b := w.call("GET", path, "", nil); code/100 != 4 || asProblem(t, b).Field != field {
			t.Errorf("GET %s: %d %s", path, code, b)
		}
	}
	for _, client := range []string{"requester", "responder", "auditor"} {
		header := as(w, client)
		header["Content-Type"] = c
		if code, _, b := w.call("POST", caapi.PathBulk+"?reason=superseded", serial, header); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", client, code, b)
		}
	}
	if after := w.fingerprint(); after != before || w.state(serial) != "valid" {
		t.Fatalf("%s, then %s", before, after)
	}
}

// TestNothingIsDoneWhileTheLedgerIsDown: each answer is 503 with Retry-After, and what runs already waits and ends.
func TestNothingIsDoneWhileTheLedgerIsDown(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Settings.StatusTimeout, c.Settings.SubmitTimeout = 300*time.Millisecond, 100*time.Millisecond
	})
	serial := w.issue("requester", "server", "a.example.org")
	planned := w.bulkOf("application/json", "", `{"query":{"name":"a.example.org"},"reason":"superseded","dry_run":true}`)
	w.ledger.Down(true)
	before := w.fingerprint()
	for name, tc := range map[string]struct{ kind, path, body string }{
		"list":       {caapi.TypeCSV, caapi.PathBulk + "?reason=superseded", serial},
		"query":      {"application/json", caapi.PathBulk, `{"query":{"name":"a.example.org"},"reason":"superseded"}`},
		"key":        {"application/json", caapi.PathBulk, `{"spki":"` + strings.Repeat("ab", 32) + `","reason":"superseded"}`},
		"one":        {"application/json", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"superseded"}`},
		"release":    {"application/json", caapi.PathReleases, `{"serial":"` + serial + `"}`},
		"supersedes": {"application/json", caapi.PathCertificates, body(t, caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server", Supersedes: serial})},
	} {
		code, h, b := w.call("POST", tc.path, tc.body, map[string]string{"Content-Type": tc.kind})
		if p := asProblem(t, b); code != http.StatusServiceUnavailable || p.Code != problem.CodeUnavailable || h.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, code, b)
		}
	}
	if after := w.fingerprint(); after != before {
		t.Fatalf("%s, then %s", before, after)
	}
	code, _, answer := w.call("POST", caapi.PathBulk+"/"+planned.ID, `{"digest":"`+planned.Digest+`"}`, nil)
	if code != http.StatusAccepted {
		t.Fatalf("%d %s", code, answer)
	}
	waitFor(t, "the bulk saying what it waits for", func() bool {
		_, _, b := w.call("GET", caapi.PathBulk+"/"+planned.ID, "", nil)
		return strings.Contains(asBulk(t, b).Detail, "ledger")
	})
	if w.fingerprint() != before {
		t.Fatal("something was written")
	}
	w.ledger.Down(false)
	if b := w.await(planned.ID); b.Changed != 1 || b.Detail != "" || w.state(serial) != "revoked superseded" {
		t.Fatalf("%+v", b)
	}
}

// TestWrongClockIsNamedAndNothingIsSigned: a clock an hour off, before or behind.
func TestWrongClockIsNamedAndNothingIsSigned(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -time.Hour, "ahead of": time.Hour} {
		t.Run(name, func(t *testing.T) {
			var wrong atomic.Int64
			w := newWorld(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) } })
			serial := w.issue("requester", "server", "a.example.org")
			planned := w.bulkOf("application/json", "", `{"query":{"name":"a.example.org"},"reason":"superseded","dry_run":true}`)
			wrong.Store(int64(off))
			tick(t, w)
			before := w.fingerprint()
			check := func() {
				t.Helper()
				for what, tc := range map[string]struct{ kind, path, body string }{
					"issuance":   {"application/json", caapi.PathCertificates, serverRequest(t)},
					"revocation": {"application/json", caapi.PathRevocations, `{"serial":"` + serial + `","reason":"superseded"}`},
					"release":    {"application/json", caapi.PathReleases, `{"serial":"` + serial + `"}`},
					"list":       {caapi.TypeCSV, caapi.PathBulk + "?reason=superseded", serial},
					"start":      {"application/json", caapi.PathBulk + "/" + planned.ID, `{"digest":"` + planned.Digest + `"}`},
				} {
					code, h, b := w.call("POST", tc.path, tc.body, map[string]string{"Content-Type": tc.kind})
					if p := asProblem(t, b); code != http.StatusServiceUnavailable || p.Field != "clock" || !strings.Contains(p.Rule, "1h0m0s "+name) || h.Get("Retry-After") == "" {
						t.Errorf("%s: %d %s", what, code, b)
					}
				}
			}
			check()
			if after := w.fingerprint(); after != before {
				t.Fatalf("%s, then %s", before, after)
			}
			wrong.Store(0)
			tick(t, w)
			if code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil); code != http.StatusCreated {
				t.Fatalf("the clock is right again: %d %s", code, b)
			}
		})
	}
}

// tick moves the ledger's clock, by itself and not by the CA's, and waits until the CA has seen it.
func tick(t *testing.T, w *world) {
	t.Helper()
	waitFor(t, "a tick", func() bool {
		r, err := w.node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version}))
		return err == nil && w.server.catalogue.WaitHeight(t.Context(), r.Block+1) == nil
	})
}
