package ca

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// What a child finds in these beside crash_test.go's.
const (
	crashBulkEnv = "CERTANCHOR_CA_CRASH_BULK" // revoke the certificates in the file list instead of issuing one
	crashOldEnv  = "CERTANCHOR_CA_CRASH_OLD"  // the certificate that the new one supersedes
	crashList    = "list"
	crashChunk   = 50
)

// crashBulk is a client's part of a child: it returns only if the bulk could be made to its end.
func crashBulk(dir, url string) error {
	token, err := os.ReadFile(filepath.Join(dir, OperatorTokenFile))
	if err != nil {
		return err
	}
	list, err := os.Open(filepath.Join(dir, crashList))
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, url+caapi.PathBulk, list)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", caapi.TypeCSV)
	req.Header.Set(caapi.IdempotencyKey, crashKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d: %s, %v", resp.StatusCode, answer, err)
	}
	select {} // dies at its step
}

// TestBulkKilledAtAnyStepIsFinished: after a restart it goes on by itself, or, killed before anything was decided, by a repetition of the call; every
// certificate is changed once, and the results say so.
func TestBulkKilledAtAnyStepIsFinished(t *testing.T) {
	const n = 2*crashChunk + 20 // three chunks
	for _, at := range []string{stepBulkPlanned, stepBulkStarted, stepSubmitting, stepCommitted, stepBulkChunk, stepBulkRecorded, stepBulkEnding} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, _ := newDir(t)
			node, err := openNode(dir)
			if err != nil {
				t.Fatal(err)
			}
			register(t, node, dir)
			serials := flood(t, node.Connect(wire.RoleOperator), dir, n)
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			revoke := list("superseded", serials...)
			if err := keyfile.WriteNew(filepath.Join(dir, crashList), []byte(revoke), 0o600); err != nil {
				t.Fatal(err)
			}
			runChild(t, at, dir, crashBulkEnv+"=1")

			w := startWorld(t, dir, func(c *Config) { c.bulkChunk = crashChunk })
			running := len(w.server.bulks.all()) == 1 && w.server.bulks.all()[0].head.Started != ""
			if early := at == stepBulkPlanned; running == early {
				t.Fatalf("goes on by itself: %t", running)
			}
			header := map[string]string{"Content-Type": caapi.TypeCSV, caapi.IdempotencyKey: crashKey}
			code, _, answer := w.call(http.MethodPost, caapi.PathBulk, revoke, header)
			if code != http.StatusAccepted {
				t.Fatalf("%d %s", code, answer)
			}
			b := w.await(asBulk(t, answer).ID)
			if b.State != caapi.BulkDone || b.Total != n || b.Changed != n || b.Failed+b.Already != 0 || !b.Acknowledged {
				t.Fatalf("%+v", b)
			}
			if len(w.server.bulks.all()) != 1 {
				t.Fatal("the repetition made another bulk")
			}
			results := w.results(b.ID)
			for _, i := range []int{0, 1, n / 2, crashChunk - 1, crashChunk, n - 1} {
				rec, r := w.record(serials[i]), results[serials[i]]
				if rec.State != wire.CertRevoked || rec.Reason != wire.Superseded || rec.Change != 1 {
					t.Errorf("certificate %d: %+v", i, rec)
				}
				waitFor(t, "the block of the change", func() bool { r = w.results(b.ID)[serials[i]]; return r.Block != 0 })
				if r.Outcome != "changed" || r.TxID == "" {
					t.Errorf("result %d: %+v", i, r)
				}
			}
		})
	}
}

// TestSupersedingSurvivesDeathAtAnyStep: if the new certificate is there in the end, the old one is revoked; if not, it is good.
func TestSupersedingSurvivesDeathAtAnyStep(t *testing.T) {
	for _, at := range []string{stepSigned, stepSuperseding, stepJournalled, stepSubmitting, stepCommitted, stepAnchored, stepRecorded, stepReleasing} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, _ := newDir(t)
			node, err := openNode(dir)
			if err != nil {
				t.Fatal(err)
			}
			register(t, node, dir)
			old := flood(t, node.Connect(wire.RoleOperator), dir, 1)[0]
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			if err := keyfile.WriteNew(filepath.Join(dir, "request.pem"), []byte(newCSR(t, nil)), 0o600); err != nil {
				t.Fatal(err)
			}
			runChild(t, at, dir, crashOldEnv+"="+old)

			w := startWorld(t, dir, nil)
			want := "revoked superseded"
			if at == stepSigned || at == stepSuperseding {
				want = "valid"
			}
			waitFor(t, "the end of what was begun", func() bool { return w.server.superseded.count() == 0 && open(w.server) == 0 && w.state(old) == want })
			if issued := len(w.server.book.bySerial) == 1; issued != (want != "valid") {
				t.Fatalf("a new certificate: %t, the old one is %s", issued, want)
			}
		})
	}
}
