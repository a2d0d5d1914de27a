package session_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// keys are the bridge's own: what it signs wrongly, it signs with them.
func (w *world) keys(now func() time.Time) (*logkey.Key, *cosign.Signer) {
	w.t.Helper()
	log, err := logkey.Load(filepath.Join(w.dir, "bridge", logkey.File), lognames.Key(channel, mspID))
	must(w.t, err)
	cosigner, err := logkey.LoadCosigner(filepath.Join(w.dir, "bridge", logkey.CosignerFile), lognames.Cosigner(channel, mspID), now)
	must(w.t, err)
	return log, cosigner
}

func (w *world) path(rest string) string { return "/logs/" + w.ca.ID.String() + rest }

func parse(t testing.TB, signed []byte) *tlogproof.Checkpoint {
	t.Helper()
	cp, _, err := tlogproof.ReadUnverified(signed)
	must(t, err)
	return cp
}

// files are the paths of what is static among all that was served.
func (w *world) files() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.served)), func(path string) bool {
		return !strings.Contains(path, "/tile/") && !strings.Contains(path, "/issuer/")
	})
}

// TestAFlippedBitInAnyStoredTileYeti2022: a bit of a stored hash or entry was flipped, and served for ever after.
func TestAFlippedBitInAnyStoredTileYeti2022(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	agrees(t, w.audit(o))
	o.Sample = 1
	files := w.files()
	if len(files) < 20 {
		t.Fatalf("only %d files: %q", len(files), files)
	}
	for i, file := range files {
		for _, part := range []int{0, 1, 2} { // the first octet, one in the middle, the last
			if i > 0 && part != 1 {
				continue
			}
			w.tampering(func(path string, status int, body []byte) (int, []byte) {
				if path == file && len(body) > 0 {
					body[part*(len(body)-1)/2] ^= 0x10
				}
				return status, body
			})
			kind := served.KindTile
			if strings.Contains(file, "/entries/") || strings.Contains(file, "/data/") || strings.Contains(file, "/issuer/") {
				kind = served.KindEntry
			}
			r := w.audit(o)
			finds(t, r, kind, w.url+file, "found ", "by the blocks: ")
			if len(r.Differences) != 1 {
				t.Errorf("%s: %d differences", file, len(r.Differences))
			}
		}
	}
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if path == w.path("/tile/entries/000") {
			body[2*len(body)/3] ^= 1
		}
		return status, body
	})
	if d := w.finds(o, served.KindEntry); !strings.Contains(d.What, "log of CA "+w.ca.ID.String()+", entry 1") {
		t.Errorf("%s", d)
	}
}

// TestMissingTilesRaio2025: two writes failed for a moment, and their tiles were never there.
func TestMissingTilesRaio2025(t *testing.T) {
	w := newWorld(t)
	missing := []string{w.path("/static/tile/data/000"), w.path("/tile/0/000")}
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if slices.Contains(missing, path) {
			return http.StatusNotFound, []byte("no such file")
		}
		return status, body
	})
	r := w.audit(w.options(t.TempDir()))
	finds(t, r, served.KindMissing, missing[0], "entries 0 to 255", "404")
	finds(t, r, served.KindMissing, missing[1], "level 0, hashes 0 to 255", "404")
	if len(r.Differences) != 2 {
		t.Errorf("%d differences", len(r.Differences))
	}
}

// liar is the bridge, but that it says good of one serial number.
func (w *world) liar(of *big.Int) *httptest.Server {
	t := w.t
	inner := w.bridge.Handler()
	lie := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ocsp" {
			inner.ServeHTTP(out, r)
			return
		}
		der := new(bytes.Buffer)
		_, _ = der.ReadFrom(r.Body)
		req, err := ocspwire.ParseRequest(der.Bytes(), 1)
		if err != nil || req.Items[0].ID.Serial.Cmp(of) != 0 {
			r.Body = http.NoBody
			r2 := r.Clone(r.Context())
			r2.Body = readCloser{bytes.NewReader(der.Bytes())}
			inner.ServeHTTP(out, r2)
			return
		}
		now := w.clock.Now().UTC().Truncate(time.Second)
		answer, err := (&ocspwire.Response{
			Responder: ocspwire.ResponderID{Name: w.ca.Cert.RawSubject}, ProducedAt: now, Nonce: req.Nonce,
			Responses: []ocspwire.SingleResponse{{ID: req.Items[0].ID, Status: ocspwire.Good, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}},
		}).Sign(w.ca.Key)
		if err != nil {
			t.Error(err)
		}
		out.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = out.Write(answer)
	}))
	t.Cleanup(lie.Close)
	return lie
}

func TestAResponderServingAnotherStatusIsFound(t *testing.T) {
	w := newWorld(t)
	lie := w.liar(w.revoked.SerialNumber)
	o := w.options(t.TempDir())
	o.Bridges = append(o.Bridges, lie.URL)
	r := w.audit(o)
	finds(t, r, served.KindStatus, lie.URL+"/ocsp", fmt.Sprintf("%x", w.revoked.SerialNumber), "found good, as of", "by the blocks: revoked at", "keyCompromise")
	if len(r.Differences) != 1 {
		t.Errorf("%v", r.Differences)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// forged is the CA's checkpoint with another root, signed by the bridge.
func (w *world) forged(path string) (real, other []byte) {
	w.t.Helper()
	real = w.last(path)
	cp := parse(w.t, real)
	cp.Root[7] ^= 1
	log, cosigner := w.keys(w.clock.Now)
	other, err := cp.Sign(log, cosigner)
	must(w.t, err)
	return real, other
}

func isEvidence(t *testing.T, d *served.Difference, notes ...[]byte) {
	t.Helper()
	if len(d.Evidence) != len(notes) {
		t.Errorf("evidence %q of %s", d.Evidence, d)
	}
	for _, n := range notes {
		if !slices.ContainsFunc(d.Evidence, func(path string) bool {
			kept, err := os.ReadFile(path)
			return err == nil && bytes.Equal(kept, n)
		}) {
			t.Errorf("no file of %q has the note %q", d.Evidence, n)
		}
	}
}

func TestTwoCheckpointsOfOneSizeWithDifferentRootsAreEquivocation(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	agrees(t, w.audit(o))
	path := w.path("/checkpoint")
	real, other := w.forged(path)
	size := fmt.Sprintf("root of size %d", parse(t, real).Size)

	t.Run("between bridges", func(t *testing.T) {
		inner := w.through(w.bridge.Handler())
		liar := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				_, _ = out.Write(other)
				return
			}
			inner.ServeHTTP(out, r)
		}))
		defer liar.Close()
		o := w.options(t.TempDir())
		o.Bridges = append(o.Bridges, liar.URL)
		r := w.audit(o)
		isEvidence(t, finds(t, r, served.KindEquivocate, size, liar.URL, w.url, "signed by "+lognames.Key(channel, mspID)), real, other)
		finds(t, r, served.KindRoot, liar.URL+path, size)
		if r.Differences[0].Kind != served.KindEquivocate {
			t.Errorf("the first is %s", r.Differences[0])
		}
	})
	t.Run("against an earlier audit", func(t *testing.T) {
		w.replace(path, other)
		defer w.tampering(nil)
		isEvidence(t, w.finds(o, served.KindEquivocate, size, "at an earlier audit"), real, other)
		w.finds(o, served.KindRoot) // and again: a lie is not what is remembered
	})
	t.Run("in a bridge's alarms", func(t *testing.T) {
		cp := parse(t, real)
		alarms, err := json.Marshal([]map[string]any{{
			"seen": w.clock.Now(), "origin": cp.Origin, "size": cp.Size, "own_root": fmt.Sprintf("%x", cp.Root), "signed_by": []string{"x"}, "note": string(other),
		}})
		must(t, err)
		w.replace("/v1/alarms", alarms)
		defer w.tampering(nil)
		isEvidence(t, w.finds(w.options(t.TempDir()), served.KindEquivocate, size, "/v1/alarms"), real, other)
	})
	t.Run("an alarm signed by nobody", func(t *testing.T) {
		w.replace("/v1/alarms", []byte(`[{"seen":"2026-01-01T00:00:00Z","note":"testchannel/status\n5\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\n— x AAAAAAAA\n"}]`))
		defer w.tampering(nil)
		r := w.audit(w.options(t.TempDir()))
		agrees(t, r)
		if !strings.Contains(strings.Join(r.Notes, "\n"), "convicts nobody") {
			t.Errorf("%q", r.Notes)
		}
	})
}

func TestALogRestoredFromAnOldBackupIsFound(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	agrees(t, w.audit(o))
	paths := []string{w.path("/checkpoint"), w.path("/ct/v1/get-sth"), w.path("/static/checkpoint"), "/logs/map/checkpoint"}
	old := map[string][]byte{}
	for _, p := range paths {
		old[p] = w.last(p)
	}
	w.submit(wire.FnIssue, w.ca.IssueArg(w.ca.IssueMany(t, 2)...))
	w.applied(w.tick())
	agrees(t, w.audit(o))
	for _, p := range paths {
		w.replace(p, old[p])
		isEvidence(t, w.finds(o, served.KindRollback, w.url+p, "restored from an old backup"), old[p], w.last(p))
		w.finds(o, served.KindRollback, w.url+p) // until it has caught up
	}
	w.tampering(nil)
	agrees(t, w.audit(o))
}

func TestATimestampRunningBackwardsIsFound(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	agrees(t, w.audit(o))
	paths := []string{w.path("/checkpoint"), w.path("/ct/v1/get-sth"), w.path("/static/checkpoint")}
	old := map[string][]byte{}
	for _, p := range paths {
		old[p] = w.last(p)
	}
	w.applied(w.tick()) // of the same size, and later
	w.await(func() bool {
		agrees(t, w.audit(o))
		return !bytes.Equal(w.last(paths[0]), old[paths[0]])
	})
	for _, p := range paths {
		w.replace(p, old[p])
		w.finds(o, served.KindTime, w.url+p, "runs backwards")
	}
}

// TestAHeadOlderThanItsEntriesMammoth2025: a clock was behind, so a head was dated before entries that it covers.
func TestAHeadOlderThanItsEntriesMammoth2025(t *testing.T) {
	w := newWorld(t)
	agrees(t, w.audit(w.options(t.TempDir())))
	for _, p := range []string{w.path("/checkpoint"), "/logs/status/checkpoint", "/logs/map/checkpoint"} {
		log, cosigner := w.keys(func() time.Time { return w.clock.Now().Add(-time.Hour) })
		behind, err := parse(t, w.last(p)).Sign(log, cosigner)
		must(t, err)
		w.replace(p, behind)
		w.finds(w.options(t.TempDir()), served.KindTime, w.url+p, "its newest entry is of", lognames.Cosigner(channel, mspID))
	}
}

// await polls a condition.
func (w *world) await(cond func() bool) {
	w.t.Helper()
	look, limit := time.NewTicker(time.Millisecond), time.After(deadline)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-limit:
			w.t.Fatalf("not within %s", deadline)
		}
	}
}

// TestACosignatureByARevokedOrganisationKeyIsFound: version 2 of the policy is without an organisation that goes on signing.
func TestACosignatureByARevokedOrganisationKeyIsFound(t *testing.T) {
	w := newWorld(t)
	agrees(t, w.audit(w.options(t.TempDir())))
	log, cosigner := w.keys(w.clock.Now)
	own := policy.Org{MSPID: mspID, LogKey: log.VKey, CosignerKey: cosigner.VKey()}
	gone := policytest.NewOrg(t, channel, "Org2MSP", "", w.clock.Now)
	first, err := policy.New(channel, 1, 2, time.Minute, own, gone.Org)
	must(t, err)
	second, err := policy.New(channel, 2, 1, time.Minute, own)
	must(t, err)
	next := &policy.Signed{Policy: second}
	must(t, next.Sign(log, gone.Log))
	file, err := (&policy.Signed{Policy: first}).Marshal()
	must(t, err)
	more, err := next.Marshal()
	must(t, err)
	path := w.path("/checkpoint")
	stranger := policytest.NewOrg(t, channel, "Org9MSP", "", w.clock.Now)

	audit := func(signers ...note.Signer) *session.Result {
		signed, err := parse(t, w.last(path)).Sign(signers...)
		must(t, err)
		w.replace(path, signed)
		o := w.options(t.TempDir())
		o.PolicyFile, o.Fingerprint = append(bytes.Clone(file), more...), first.Fingerprint()
		return w.audit(o)
	}
	if r := audit(log, cosigner); !r.PolicyPinned || r.PolicyVersion != 2 {
		t.Errorf("%+v", r)
	} else {
		agrees(t, r)
	}
	finds(t, audit(log, cosigner, gone.Cosigner), served.KindForeign, w.url+path, "Org2MSP/cosigner", "version 1 of the policy had and version 2 has not: it was revoked")
	finds(t, audit(log, cosigner, stranger.Cosigner), served.KindForeign, "Org9MSP/cosigner", "no version of the policy has")
	finds(t, audit(log), served.KindSignature, "cosignatures of 0 organisations", "the policy wants 1")
	finds(t, audit(cosigner), served.KindSignature, "no signature of an organisation's log key")
}

func TestABridgeThatServesMoreThanTheBlocksIsFound(t *testing.T) {
	w := newWorld(t)
	agrees(t, w.audit(w.options(t.TempDir())))
	path := w.path("/checkpoint")
	cp := parse(t, w.last(path))
	cp.Size, cp.Root = cp.Size+1, sha256.Sum256([]byte("planted"))
	log, cosigner := w.keys(w.clock.Now)
	signed, err := cp.Sign(log, cosigner)
	must(t, err)
	w.replace(path, signed)
	w.finds(w.options(t.TempDir()), served.KindAhead, w.url+path, fmt.Sprintf("size %d", cp.Size))
}

func TestABundleOfAnotherStatusIsFound(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir()) // in the sample once it has changed
	serial, err := wire.SerialOf(w.good.SerialNumber)
	must(t, err)
	path := w.path("/bundle?serial=" + serial.String())
	resp, err := http.Get(w.url + path)
	must(t, err)
	old, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	w.applied(w.change(w.good, wire.OpRevoke, wire.KeyCompromise))
	w.integrate()
	w.applied(w.tick())
	agrees(t, w.audit(o))
	w.replace(path, old) // says good, as of before: one that is behind, until it is stale
	agrees(t, w.audit(o))
	w.replace(path, old[:len(old)-1])
	w.finds(o, served.KindBundle, path, "malformed")
	w.tampering(nil)
	for range 3 {
		w.applied(w.tick())
	}
	w.replace(path, old)
	w.finds(o, served.KindBundle, path, "not of now", "by the blocks: revoked at")
}
