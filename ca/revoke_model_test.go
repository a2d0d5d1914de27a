package ca

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/internal/caapi"
)

// modelCert is a certificate as the rules say, apart from any code: RFC 5280 section 5.3.1 and invariant 4.
type modelCert struct {
	host, client, profile string
	state, reason         string
	changes               int
}

// apply makes a change and says what becomes of it.
func (c *modelCert) apply(operation, reason string) (outcome string) {
	was := *c
	switch {
	case operation == "hold" && c.state == "revoked", operation == "release" && c.state == "revoked", operation == "release" && c.state == "valid" && c.changes == 0:
		return outcomeFailed
	case operation == "hold":
		c.state, c.reason = "held", "certificateHold"
	case operation == "release":
		c.state, c.reason = "valid", ""
	case c.state != "revoked":
		c.state, c.reason = "revoked", reason
	case reason == "keyCompromise":
		c.reason = reason
	}
	if c.state == was.state && c.reason == was.reason {
		return outcomeAlready
	}
	c.changes++
	return outcomeChanged
}

// concerns reports whether a query's operation would change it.
func (c *modelCert) concerns(operation, reason string) bool {
	try := *c
	return try.apply(operation, reason) == outcomeChanged
}

func (c *modelCert) String() string { return strings.TrimSuffix(c.state+" "+c.reason, " ") }

// TestBulksDoWhatTheModelSays: random lists, queries, holds and releases, single and in bulk; what each answers and what the ledger has afterwards.
func TestBulksDoWhatTheModelSays(t *testing.T) {
	w := newWorld(t, nil)
	round := 0
	checkHeavy(t, func(rt *rapid.T) {
		round++
		certs := map[string]*modelCert{}
		for i := range rapid.IntRange(1, 6).Draw(rt, "certificates") {
			c := &modelCert{
				host: fmt.Sprintf("h%d.%s.round%d.example", i, rapid.SampledFrom([]string{"red", "blue"}).Draw(rt, "colour"), round), state: "valid",
				client: rapid.SampledFrom([]string{"requester", "operator"}).Draw(rt, "client"), profile: rapid.SampledFrom([]string{"server", "client"}).Draw(rt, "profile"),
			}
			certs[w.issue(c.client, c.profile, c.host)] = c
		}
		serials := slices.Sorted(maps.Keys(certs))
		for range rapid.IntRange(1, 6).Draw(rt, "steps") { // fewer than a minute's holds and releases
			operation := rapid.SampledFrom([]string{"revoke", "hold", "release"}).Draw(rt, "operation")
			reason := ""
			if operation == "revoke" {
				reason = rapid.SampledFrom([]string{"superseded", "unspecified", "keyCompromise"}).Draw(rt, "reason")
			}
			if rapid.Bool().Draw(rt, "list") {
				checkList(rt, w, certs, serials, operation, reason)
			} else {
				checkQuery(rt, w, certs, operation, reason, fmt.Sprintf("round%d.example", round))
			}
			for serial, c := range certs {
				if got := w.state(serial); got != c.String() {
					rt.Fatalf("%s (%s) is %q, not %q", c.host, serial, got, c)
				}
			}
		}
	})
}

func checkList(rt *rapid.T, w *world, certs map[string]*modelCert, serials []string, operation, reason string) {
	some := rapid.SliceOfNDistinct(rapid.SampledFrom(serials), 1, len(serials), rapid.ID[string]).Draw(rt, "listed")
	b := w.bulkOf(caapi.TypeCSV, "operation="+operation+"&reason="+reason, strings.Join(some, "\n"))
	want := map[string]int{}
	results := w.results(b.ID)
	for _, s := range some {
		outcome := certs[s].apply(operation, reason)
		want[outcome]++
		if results[s].Outcome != outcome {
			rt.Fatalf("%s of %s: %+v, not %s", operation, certs[s].host, results[s], outcome)
		}
	}
	if b.Total != len(some) || b.Changed != want[outcomeChanged] || b.Already != want[outcomeAlready] || b.Failed != want[outcomeFailed] {
		rt.Fatalf("%+v, not %v", b, want)
	}
}

func checkQuery(rt *rapid.T, w *world, certs map[string]*modelCert, operation, reason, domain string) {
	q := caapi.Query{Name: rapid.SampledFrom([]string{"*." + domain, "*.red." + domain, "*.BLUE." + domain, "h0.red." + domain}).Draw(rt, "name")}
	q.Client = rapid.SampledFrom([]string{"", "requester", "operator"}).Draw(rt, "of client")
	q.Profile = rapid.SampledFrom([]string{"", "server", "client"}).Draw(rt, "of profile")
	q.State = rapid.SampledFrom([]string{"", "valid", "held", "revoked"}).Draw(rt, "in state")
	found := map[string]bool{}
	for s, c := range certs {
		suffix, wild := strings.CutPrefix(strings.ToLower(q.Name), "*")
		if named := c.host == q.Name || wild && strings.HasSuffix(c.host, suffix); named && (q.Client == "" || q.Client == c.client) &&
			(q.Profile == "" || q.Profile == c.profile) && (q.State == "" || q.State == c.state) && c.concerns(operation, reason) {
			found[s] = true
		}
	}
	ask := map[string]any{"query": q, "operation": operation, "dry_run": true}
	if reason != "" {
		ask["reason"] = reason
	}
	b := w.bulkOf("application/json", "", body(w.t, ask))
	listed := w.results(b.ID)
	if b.Total != len(found) || len(listed) != len(found) {
		rt.Fatalf("%+v finds %d, not %d", q, b.Total, len(found))
	}
	for s := range listed {
		if !found[s] {
			rt.Fatalf("%+v finds %s", q, certs[s].host)
		}
	}
	if code, _, answer := w.call(http.MethodPost, caapi.PathBulk+"/"+b.ID, `{"digest":"`+b.Digest+`"}`, nil); code != http.StatusAccepted {
		rt.Fatalf("%d %s", code, answer)
	}
	if b = w.await(b.ID); b.Changed != len(found) {
		rt.Fatalf("%+v", b)
	}
	for s := range found {
		certs[s].apply(operation, reason)
	}
}

// checkHeavy is rapid.Check for a property whose cases take tens of milliseconds each: a quarter of them do, and fewer under the race detector.
func checkHeavy(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	const name = "rapid.checks"
	all := flag.Lookup(name).Value.String()
	n, err := strconv.Atoi(all)
	if err != nil {
		t.Fatal(err)
	}
	n /= 4
	if raced {
		n /= 3
	}
	if err := flag.Set(name, strconv.Itoa(max(1, n))); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := flag.Set(name, all); err != nil {
			t.Error(err)
		}
	}()
	rapid.Check(t, property)
}
