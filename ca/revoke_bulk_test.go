package ca

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

// TestListIsRevokedInOneCall: the answer says block, transaction and, once there is one, the place in the status log; a repetition says that
// it was so already.
func TestListIsRevokedInOneCall(t *testing.T) {
	w := newWorld(t, nil)
	var serials []string
	for i := range 5 {
		serials = append(serials, w.issue("requester", "server", fmt.Sprintf("host%d.example.org", i)))
	}
	body := list("superseded", serials[:3]...) + serials[3] + ",keyCompromise," + inThePast + "\n" + serials[4] + ",certificateHold\n"
	b := w.bulkOf(caapi.TypeCSV, "", body)
	if b.State != caapi.BulkDone || b.Total != 5 || b.Changed != 5 || b.Failed+b.Already != 0 || !b.Acknowledged || b.Block == 0 || b.Source != "list" {
		t.Fatalf("%+v", b)
	}
	for n, want := range []string{"revoked superseded", "revoked superseded", "revoked superseded", "revoked keyCompromise", "held certificateHold"} {
		if got := w.state(serials[n]); got != want {
			t.Errorf("certificate %d is %s, not %s", n, got, want)
		}
		r := w.results(b.ID)[serials[n]]
		if r.Outcome != "changed" || r.Block == 0 || r.TxID == "" || r.State+" "+r.Reason != want || r.StatusLogIndex != nil || r.StatusLogPending != caapi.PathCertificates+"/"+serials[n] {
			t.Errorf("result %d: %+v", n, r)
		}
	}
	if got := w.record(serials[3]).Invalidity.Time().Format("2006-01-02T15:04:05Z"); got != inThePast {
		t.Errorf("invalidity date %s, not %s", got, inThePast)
	}
	integrate(t, w.node.Connect(wire.RoleOperator))
	seen := map[uint64]bool{}
	for n, serial := range serials {
		waitFor(t, "the place in the status log", func() bool { return w.results(b.ID)[serial].StatusLogIndex != nil })
		seen[*w.results(b.ID)[serial].StatusLogIndex] = true
		cert, err := w.client("auditor").Get(t.Context(), serial)
		if err != nil || cert.Status.StatusLogIndex == nil || *cert.Status.StatusLogIndex != *w.results(b.ID)[serial].StatusLogIndex {
			t.Errorf("certificate %d: %+v, %v", n, cert.Status, err)
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d places for 5 changes", len(seen))
	}
	again := w.bulkOf(caapi.TypeCSV, "", body)
	if again.Already != 5 || again.Changed != 0 || !again.Acknowledged || again.Digest != b.Digest {
		t.Fatalf("%+v", again)
	}
	if r, first := w.results(again.ID)[serials[0]], w.results(b.ID)[serials[0]]; r.Outcome != "already" || r.Block != first.Block || r.TxID != first.TxID {
		t.Errorf("the repetition tells of another transaction: %+v, first %+v", r, first)
	}
}

// TestUnknownAndImpossibleOnesAreReportedAndTheRestIsDone.
func TestUnknownAndImpossibleOnesAreReportedAndTheRestIsDone(t *testing.T) {
	w := newWorld(t, nil)
	good, revoked := w.issue("requester", "server", "a.example.org"), w.issue("requester", "server", "b.example.org")
	w.bulkOf(caapi.TypeCSV, "reason=superseded", revoked)
	b := w.bulkOf(caapi.TypeJSONLines, "operation=hold", `{"serial":"`+good+`"}`+"\n"+`{"serial":"`+revoked+`"}`+"\n\n"+`{"serial":"0badc0de"}`)
	if b.Changed != 1 || b.Failed != 2 || b.Total != 3 {
		t.Fatalf("%+v", b)
	}
	res := w.results(b.ID)
	if e := res[revoked].Error; e == nil || e.Code != string(wire.FailedPrecondition) || e.Field != "operation" || e.Value != "hold" {
		t.Errorf("%+v", e)
	}
	if e := res["0badc0de"].Error; e == nil || e.Code != string(wire.NotFound) || e.Field != "serial" || e.Value != "0badc0de" {
		t.Errorf("%+v", res["0badc0de"])
	}
	b = w.bulkOf(caapi.TypeCSV, "operation=release", good)
	if b.Changed != 1 || w.state(good) != "valid" {
		t.Fatalf("%+v, %s", b, w.state(good))
	}
	b = w.bulkOf(caapi.TypeCSV, "operation=release", w.issue("requester", "server", "c.example.org"))
	if b.Failed != 1 {
		t.Fatalf("%+v", b)
	}
}

// TestDryRunFixesTheListThatIsRevokedLater: what is issued in between is not in it, and only its digest starts it.
func TestDryRunFixesTheListThatIsRevokedLater(t *testing.T) {
	w := newWorld(t, nil)
	old := w.issue("requester", "server", "one.shop.example")
	other := w.issue("requester", "server", "one.example.org")
	before := w.fingerprint()
	ask := `{"query":{"name":"*.shop.example"},"reason":"cessationOfOperation","dry_run":true}`
	b := w.bulkOf("application/json", "", ask)
	if b.State != caapi.BulkPlanned || b.Total != 1 || b.AsOf == 0 || w.fingerprint() != before {
		t.Fatalf("%+v", b)
	}
	if r := w.results(b.ID)[old]; r.Outcome != "open" || r.State != "valid" || len(r.Names) == 0 || r.Names[0] != "one.shop.example" {
		t.Fatalf("%+v", r)
	}
	late := w.issue("requester", "server", "two.shop.example")
	code, _, answer := w.call(http.MethodPost, caapi.PathBulk+"/"+b.ID, `{"digest":"`+listDigest(nil)+`"}`, nil)
	if p := asProblem(t, answer); code != http.StatusBadRequest || p.Field != "digest" {
		t.Fatalf("%d %s", code, answer)
	}
	for range 2 { // once is enough
		if code, _, answer = w.call(http.MethodPost, caapi.PathBulk+"/"+b.ID, `{"digest":"`+b.Digest+`"}`, nil); code != http.StatusAccepted {
			t.Fatalf("%d %s", code, answer)
		}
	}
	if b = w.await(b.ID); b.Changed != 1 || w.state(old) != "revoked cessationOfOperation" {
		t.Fatalf("%+v, %s", b, w.state(old))
	}
	if w.state(late) != "valid" || w.state(other) != "valid" {
		t.Fatal("a certificate is revoked that was not in the list")
	}
}

// TestSameIdempotencyKeySameBulk: an answer that got lost is asked for again.
func TestSameIdempotencyKeySameBulk(t *testing.T) {
	w := newWorld(t, nil)
	body := list("superseded", w.issue("requester", "server", "a.example.org"))
	header := map[string]string{"Content-Type": caapi.TypeCSV, caapi.IdempotencyKey: "monday"}
	_, _, first := w.call(http.MethodPost, caapi.PathBulk, body, header)
	code, _, second := w.call(http.MethodPost, caapi.PathBulk, body, header)
	if a, b := asBulk(t, first), asBulk(t, second); code != http.StatusAccepted || a.ID == "" || a.ID != b.ID {
		t.Fatalf("%s, then %d %s", first, code, second)
	}
	code, _, other := w.call(http.MethodPost, caapi.PathBulk, list("superseded", "0b"), header)
	if p := asProblem(t, other); code != http.StatusUnprocessableEntity || p.Field != caapi.IdempotencyKey {
		t.Fatalf("%d %s", code, other)
	}
	code, _, answer := w.call(http.MethodGet, caapi.PathBulk, "", map[string]string{"Authorization": "Bearer " + w.token("auditor")})
	var all struct{ Bulks []caapi.Bulk }
	if err := json.Unmarshal(answer, &all); err != nil || code != http.StatusOK || len(all.Bulks) != 1 {
		t.Fatalf("%d %s", code, answer)
	}
	w.await(all.Bulks[0].ID)
}

// TestTenThousandInOneCall: a transaction for each thousand, and one acknowledgement.
func TestTenThousandInOneCall(t *testing.T) {
	n := 10_000
	if raced {
		n = 1_200
	}
	asked := &countingResponder{}
	w := newWorld(t, func(c *Config) { c.Responders = []Responder{asked} })
	serials := flood(t, w.node.Connect(wire.RoleOperator), w.dir, n)
	sent := w.ledger.Sent()
	b := w.bulkOf(caapi.TypeCSV, "", list("superseded", serials...))
	if b.Changed != n || b.Failed+b.Already != 0 || !b.Acknowledged {
		t.Fatalf("%+v", b)
	}
	if got := w.ledger.Sent() - sent; got > 4*(n/wire.MaxBatch+1) {
		t.Errorf("%d transactions for %d certificates", got, n)
	}
	if got := asked.n.Load(); got != 1 {
		t.Errorf("the responder was asked %d times", got)
	}
	for _, s := range []string{serials[0], serials[n/2], serials[n-1]} {
		if got := w.state(s); got != "revoked superseded" {
			t.Errorf("%s is %s", s, got)
		}
	}
}

// TestOneRevocationTellsItsPlaceInTheStatusLog, or where to ask while there is none.
func TestOneRevocationTellsItsPlaceInTheStatusLog(t *testing.T) {
	w := newWorld(t, nil)
	revoke := caapi.RevokeRequest{Serial: w.issue("requester", "server", "a.example.org"), Reason: "superseded"}
	first, _, err := w.client("operator").Revoke(t.Context(), revoke)
	if err != nil || first.Block == 0 || first.TxID == "" || first.StatusLogIndex != nil || first.StatusLogPending != caapi.PathCertificates+"/"+revoke.Serial {
		t.Fatalf("%+v, %v", first, err)
	}
	integrate(t, w.node.Connect(wire.RoleOperator))
	waitFor(t, "the place", func() bool {
		again, _, err := w.client("operator").Revoke(t.Context(), revoke)
		return err == nil && !again.Changed && again.StatusLogPending == "" && again.StatusLogIndex != nil && *again.StatusLogIndex == 1 // after the registration of the CA
	})
}
