package ocspbridge_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/tlogproof"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// signer is the log key of an organisation, in the hands of whoever wants to lie with it.
func (o *org) signer() note.Signer {
	o.w.t.Helper()
	key, err := logkey.Load(filepath.Join(o.w.dir, o.dir, logkey.File), lognames.Key(channel, o.MSPID))
	if err != nil {
		o.w.t.Fatal(err)
	}
	return key
}

// lie is a signed checkpoint with a root that no log has.
func (o *org) lie(origin string, size uint64) []byte {
	o.w.t.Helper()
	cp := tlogproof.Checkpoint{Origin: origin, Size: size, Root: sha256.Sum256([]byte("another history"))}
	signed, err := cp.Sign(o.signer())
	if err != nil {
		o.w.t.Fatal(err)
	}
	return signed
}

// alarmsOf returns what a bridge lists.
func (b *bridge) alarmsOf() (notes []string) {
	b.w.t.Helper()
	var list []struct {
		Note     string
		Size     uint64
		SignedBy []string `json:"signed_by"`
	}
	b.get("/v1/alarms", &list)
	for _, a := range list {
		notes = append(notes, a.Note)
	}
	return notes
}

// One organisation shows another history to one other: all learn of it, from the evidence.
func TestSplitViewRaisesAnAlarmEverywhere(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	c := newConsortium(w, 2, mspID, "Org2MSP", "Org3MSP")
	liar := c.orgs[2]
	name := w.ca.ID.String()
	lie := liar.lie(w.origins()[name], 2)
	liar.answer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/logs/"+name+"/checkpoint" && r.Header.Get("X-Asked-By") == mspID {
			if _, err := rw.Write(lie); err != nil {
				t.Error(err)
			}
			return
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	logs := []*journal{{}, {}, {}}
	one := c.start(0, askAs(mspID), logs[0].keep).ready()
	two := c.start(1, askAs("Org2MSP"), logs[1].keep).ready()
	for i, b := range []*bridge{one, two} {
		b.until("an alarm", func() (bool, string) {
			w.clock.Advance(tick)
			w.tickIfDue()
			return logs[i].alarm(), "none"
		})
		if got := b.alarmsOf(); len(got) != 1 || got[0] != string(lie) {
			t.Errorf("alarms are %q", got)
		}
		b.wantAlarm(logs[i])
		b.ready().want(cert, "good") // OCSP goes on
		// So does everything between the honest ones.
		b.until("a quorum without the liar", func() (bool, string) {
			w.clock.Advance(time.Second)
			_, err := c.quorate(b, name)
			return err == nil, fmt.Sprint(err)
		})
	}
	// The evidence survives a restart.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	if one = c.start(0, askAs(mspID), logs[2].keep).ready(); len(one.alarmsOf()) != 1 {
		t.Error("evidence is gone after a restart")
	}
	one.wantAlarm(logs[2])
}

// wantAlarm: it is to be seen wherever somebody looks, and nobody who restarts what is not healthy is to restart a bridge for it.
func (b *bridge) wantAlarm(log *journal) {
	b.w.t.Helper()
	var health struct {
		Status string
		Alarms int
		See    string
	}
	if code, body := b.get("/healthz", &health); code != http.StatusOK || health.Status != "alarm" || health.Alarms != 1 || health.See != "/v1/alarms" {
		b.w.t.Errorf("healthz is %d %s", code, body)
	}
	var heads struct{ Alarms int }
	if b.get("/v1/heads", &heads); heads.Alarms != 1 {
		b.w.t.Errorf("heads tell of %d alarms", heads.Alarms)
	}
	if _, body := b.get("/metrics", nil); !strings.Contains(string(body), "certanchor_alarms 1\n") {
		b.w.t.Errorf("metrics tell of no alarm:\n%s", body)
	}
	if !log.alarm() {
		b.w.t.Error("the log tells of no alarm")
	}
}

// journal is what a bridge logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) keep(cfg *ocspbridge.Config) { cfg.Log = slog.New(slog.NewTextHandler(j, nil)) }

func (j *journal) alarm() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), `level=ERROR msg="ALARM`)
}

// What a peer lists as evidence convicts nobody unless somebody has signed it.
func TestMadeUpEvidenceRaisesNoAlarm(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	c := newConsortium(w, 2, mspID, "Org2MSP")
	stranger := newConsortium(w, 1, "Org9MSP").orgs[0]
	forged := strings.Replace(string(stranger.lie(w.origins()[w.ca.ID.String()], 2)), "Org9MSP", "Org2MSP", 1)
	c.orgs[1].answer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/alarms" {
			writeJSON(t, rw, []map[string]string{{"note": forged}, {"note": "nothing"}, {"note": ""}})
			return
		}
		rw.WriteHeader(http.StatusNotFound)
	}))
	b := c.start(0).ready()
	w.nextTick()
	if code, body := b.get("/healthz", nil); code != http.StatusOK {
		t.Errorf("healthz is %d %s", code, body)
	}
	b.until("the peer was compared", func() (bool, string) {
		_, body := b.get("/v1/heads", nil)
		return strings.Contains(string(body), "no valid signature"), string(body)
	})
	if got := b.alarmsOf(); len(got) != 0 {
		t.Errorf("alarms are %q", got)
	}
}

// A backup restored that forks the log: what was cosigned for others binds as well as what was signed for oneself.
func TestOrganisationDoesNotSignAForkOfWhatItHasCosigned(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	c := newConsortium(w, 2, mspID, "Org2MSP")
	one, two := c.start(0).ready(), c.start(1).ready()
	_, r := w.issueIn(3)
	one.applied(r)
	two.applied(r)
	// Only Org2 asks, so that Org1 signs with its cosigner key alone.
	size := uint64(1 + 1 + 1 + 3) // with two responder certificates
	cp := c.awaitQuorate(two, w.ca.ID.String(), size)
	if len(cp.Cosigners) != 2 {
		t.Fatalf("cosigned by %v", cp.Cosigners)
	}
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []string{"index", "checkpoints"} {
		if err := os.RemoveAll(filepath.Join(w.dir, c.orgs[0].dir, lost)); err != nil {
			t.Fatal(err)
		}
	}
	other := newWorldOf(t, w.ca) // the same CA, another history
	other.issue(8)
	w.conn, other.conn = other.conn, w.conn
	one = c.start(0)
	one.until("halted", func() (bool, string) {
		code, body := one.get("/logs/"+w.ca.ID.String()+"/checkpoint", nil)
		if code == http.StatusOK { // 404 until it has read of the CA, 503 from then on
			t.Fatalf("checkpoint: %s", body)
		}
		return strings.Contains(one.Ready().Reason, "halted"), string(body)
	})
	if r := one.Ready(); !strings.Contains(r.Reason, "own log forked") {
		t.Errorf("readiness is %+v", r)
	}
	resp, err := http.Post(one.url+"/witness/add-checkpoint", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body := readAll(t, resp); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a halted bridge cosigns: %d %s", resp.StatusCode, body)
	}
}
