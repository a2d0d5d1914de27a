package witness

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// TestAnswersAsTlogWitnessSays goes through the statuses of C2SP tlog-witness, add-checkpoint. The witness has cosigned size 5 of 9.
func TestAnswersAsTlogWitnessSays(t *testing.T) {
	b := newBench(t, 9)
	b.mustAdd(0, 5)
	good := b.body(b.log, 5, 8)
	head, checkpoint, _ := strings.Cut(good, "\n\n")
	stranger := policytest.NewOrg(t, channel, "Org2MSP", "stranger", now)
	own, err := merklelog.RootAt(b.log, 8)
	if err != nil {
		t.Fatal(err)
	}
	signedBy := func(o string, by ...note.Signer) string {
		return head + "\n\n" + string(b.sign(&tlogproof.Checkpoint{Origin: o, Size: 8, Root: own}, by...))
	}
	for _, c := range []struct {
		what, body string
		status     int
		size       string // of a 409 that tells it
	}{
		{"no request", "", 400, ""},
		{"no empty line", strings.Replace(good, "\n\n", "\n", 1), 400, ""},
		{"no old size", strings.Replace(good, "old 5\n", "", 1), 400, ""},
		{"old size with a zero before", strings.Replace(good, "old 5", "old 05", 1), 400, ""},
		{"old size with a sign", strings.Replace(good, "old 5", "old +5", 1), 400, ""},
		{"old size out of range", strings.Replace(good, "old 5", "old 18446744073709551616", 1), 400, ""},
		{"old size beyond the checkpoint", strings.Replace(good, "old 5", "old 9", 1), 400, ""},
		{"proof line not base64", strings.Replace(good, "\n\n", "\n!\n\n", 1), 400, ""},
		{"64 proof lines", "old 5\n" + strings.Repeat("R1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n", 64) + "\n" + checkpoint, 400, ""},
		{"no checkpoint", head + "\n\n", 400, ""},
		{"checkpoint without signature", head + "\n\n" + strings.SplitAfter(checkpoint, "\n\n")[0], 400, ""},
		{"checkpoint with an extension line", head + "\n\n" + strings.Replace(checkpoint, "\n\n", "\nmore\n\n", 1), 400, ""},
		{"too long", good + strings.Repeat("\u2014 a AAAAAAA=\n", 8000), 400, ""},
		{"unknown origin", signedBy("example.com/log", b.c.Orgs[1].Log), 404, ""},
		{"unknown origin by a stranger", signedBy("example.com/log", stranger.Log), 404, ""},
		{"a stranger of the same name", signedBy(origin, stranger.Log), 403, ""},
		{"a cosigner key", signedBy(origin, b.c.Orgs[1].Cosigner), 403, ""},
		{"a damaged signature", good[:len(good)-8] + "AAA" + good[len(good)-5:], 403, ""},
		{"old size too small", b.body(b.log, 4, 8), 409, "5"},
		{"old size 0", b.body(b.log, 0, 8), 409, "5"},
		{"old size too large", b.body(b.log, 6, 8), 409, "5"},
		{"smaller than what it has", b.body(b.log, 3, 4), 409, "5"},
		{"proof missing", "old 5\n\n" + checkpoint, 422, ""},
		{"proof of another size", strings.Replace(b.body(b.log, 5, 7), b.body(b.log, 5, 7)[strings.Index(b.body(b.log, 5, 7), "\n\n"):], "\n\n"+checkpoint, 1), 422, ""},
		{"proof too long", strings.Replace(good, "\n\n", "\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\n", 1), 422, ""},
		{"same size with a proof", strings.Replace(b.body(b.log, 5, 5), "\n\n", "\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\n", 1), 422, ""},
		{"more than the own log has", b.body(newLog(12, -1), 5, 12), 503, ""},
		{"the same again", b.body(b.log, 5, 5), 200, ""},
		{"more signatures than the one it knows", signedBy(origin, stranger.Log, b.c.Orgs[1].Log, b.c.Orgs[2].Log), 200, ""},
	} {
		status, header, answer := b.post(c.body)
		if status != c.status {
			t.Errorf("%s: status %d, want %d: %s", c.what, status, c.status, answer)
		}
		sizeTold := header.Get("Content-Type") == "text/x.tlog.size"
		if sizeTold != (c.size != "") || sizeTold && answer != c.size+"\n" {
			t.Errorf("%s: content type %q: %q", c.what, header.Get("Content-Type"), answer)
		}
		if (status == 503) != (header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After is %q", c.what, header.Get("Retry-After"))
		}
		if status == 200 {
			if _, err := note.Open([]byte(c.body[strings.Index(c.body, "\n\n")+2:]+answer), note.VerifierList(b.c.Orgs[0].Cosigner.Verifier())); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		} else if strings.Contains(answer, b.c.Orgs[0].Cosigner.Name()) {
			t.Errorf("%s: answer has a cosignature: %s", c.what, answer)
		}
	}
	if got := b.recorded(); got != "8" {
		t.Errorf("recorded size is %s", got)
	}
	if len(b.alarmed()) != 0 {
		t.Errorf("alarms: %+v", b.alarmed())
	}
	resp, err := b.http.Get(b.url + Path)
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", resp.StatusCode)
	}
}

// TestTwoSequencersWithOneKeyVenafi2017: two servers sign with one organisation's log key, and their histories part at entry 5. Whatever order
// and sizes they are submitted in, the witness cosigns only the own one, and keeps what the key signed.
func TestTwoSequencersWithOneKeyVenafi2017(t *testing.T) {
	b := newBench(t, 9)
	other := newLog(9, 5)
	b.mustAdd(0, 6)
	for _, c := range []struct {
		old, size uint64
		status    int
	}{{6, 8, 422}, {6, 6, 409}, {0, 7, 409}, {5, 6, 409}} {
		if status, _, answer := b.post(b.body(other, c.old, c.size)); status != c.status || strings.Contains(answer, "\u2014") {
			t.Errorf("%d to %d: status %d, want %d: %s", c.old, c.size, status, c.status, answer)
		}
	}
	b.mustAdd(6, 9) // and the honest one goes on
	if status, _, _ := b.post(b.body(other, 9, 9)); status != 409 {
		t.Errorf("same size, other root: status %d", status)
	}
	alarms := b.alarmed()
	if len(alarms) != 4 {
		t.Fatalf("%d alarms, want one for each of the sizes 8, 6, 7, 9", len(alarms))
	}
	key := b.c.Orgs[1].Log.Name()
	for _, e := range alarms {
		cp, names, err := tlogproof.OpenCheckpoint(e.Note, origin, b.c.Policy.LogKeys()...)
		if err != nil || len(names) != 1 || names[0] != key || len(e.Signers) != 1 || e.Signers[0] != key {
			t.Fatalf("evidence does not convict: %+v, %v", e, err)
		}
		if own, err := merklelog.RootAt(b.log, cp.Size); err != nil || own != e.OwnRoot || own == cp.Root {
			t.Errorf("evidence has own root %x and root %x", e.OwnRoot, cp.Root)
		}
	}
	if status, _, _ := b.post(b.body(other, 9, 9)); status != 409 || len(b.alarmed()) != 4 {
		t.Errorf("the same evidence again: status %d, %d alarms", status, len(b.alarmed()))
	}
	b.start()
	all := b.server.cfg.Watch.All()
	if len(all) != 4 {
		t.Fatalf("after a restart: %d pieces of evidence", len(all))
	}
	for _, e := range all {
		again, err := ParseEvidence(e.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), e.Marshal()) {
			t.Errorf("evidence comes back otherwise: %v", err)
		}
	}
	if b.post(b.body(other, 9, 9)); len(b.alarmed()) != 4 {
		t.Error("a restart raises alarms again")
	}
}

// TestAForgedSignatureCannotWedge: what carries a signature that does not verify leaves no trace, and signatures beside the right one do not count.
func TestAForgedSignatureCannotWedge(t *testing.T) {
	b := newBench(t, 9)
	impostor := policytest.NewOrg(t, channel, "Org2MSP", "impostor", now)
	forged := b.sign(&tlogproof.Checkpoint{Origin: origin, Size: 1 << 40, Root: [32]byte{1}}, impostor.Log)
	if status, _, _ := b.post(string((&request{checkpoint: forged}).marshal())); status != 403 {
		t.Errorf("forged: status %d", status)
	}
	// The key's own name and hash, on a signature over something else.
	_, n, err := tlogproof.ReadUnverified(b.signed(b.log, 3))
	if err != nil {
		t.Fatal(err)
	}
	good := b.signed(b.log, 4)
	both := append(bytes.Clone(good), ("\u2014 " + n.UnverifiedSigs[0].Name + " " + n.UnverifiedSigs[0].Base64 + "\n")...)
	if status, _, answer := b.post(string((&request{checkpoint: both}).marshal())); status != 200 {
		t.Errorf("a damaged signature beside the right one: status %d: %s", status, answer)
	}
	// Rightly signed, but never in the ledger: not recorded either, so the honest log goes on.
	huge := b.sign(&tlogproof.Checkpoint{Origin: origin, Size: 1 << 40, Root: [32]byte{1}}, b.c.Orgs[1].Log)
	if status, _, _ := b.post(string((&request{old: 4, checkpoint: huge}).marshal())); status != 503 || len(b.alarmed()) != 0 {
		t.Errorf("beyond the ledger: status %d, alarms %v", status, b.alarmed())
	}
	b.mustAdd(4, 9)
}

func TestWitnessWaitsForItsOwnBlocks(t *testing.T) {
	b := newBench(t, 4)
	ahead := newLog(9, -1)
	asked := make(chan uint64, 1)
	b.wait = func(_ context.Context, log merklelog.Log, size uint64) error {
		asked <- size
		grow(b.log, 9, -1) // the block arrives
		return nil
	}
	if status, _, answer := b.post(b.body(ahead, 0, 9)); status != 200 {
		t.Errorf("status %d: %s", status, answer)
	}
	if size := <-asked; size != 9 {
		t.Errorf("waited for size %d", size)
	}
	b.wait = func(context.Context, merklelog.Log, uint64) error {
		grow(b.log, 12, -1) // what arrives is another history than the server's
		return nil
	}
	if status, _, _ := b.post(b.body(newLog(12, 10), 9, 12)); status != 422 || len(b.alarmed()) != 1 {
		t.Errorf("another history: status %d, %d alarms", status, len(b.alarmed()))
	}
	b.wait = func(context.Context, merklelog.Log, uint64) error {
		t.Error("waits though the old size is wrong")
		return nil
	}
	if status, _, answer := b.post(b.body(newLog(20, -1), 0, 20)); status != 409 || answer != "9\n" {
		t.Errorf("wrong old size: status %d: %s", status, answer)
	}
}

func TestStateSurvivesACrash(t *testing.T) {
	b := newBench(t, 9)
	b.mustAdd(0, 5)
	b.start()
	if status, _, answer := b.post(b.body(b.log, 0, 3)); status != 409 || answer != "5\n" {
		t.Fatalf("after a restart: status %d: %s", status, answer)
	}
	b.mustAdd(5, 7)
	// The disk fails: no cosignature, and the state is what it was.
	full := errors.New("no space left on device")
	b.server.states.write = func(string, []byte) error { return full }
	if status, _, answer := b.post(b.body(b.log, 7, 8)); status != 500 || strings.Contains(answer, "\u2014") {
		t.Errorf("disk full: status %d: %s", status, answer)
	}
	if status, _, _ := b.post(b.body(b.log, 7, 7)); status != 200 {
		t.Errorf("disk full, nothing to write: status %d", status)
	}
	// It crashes after the rename and before the answer: the next request learns the size.
	b.server.states.write = func(path string, data []byte) error {
		return errors.Join(replaceFile(path, data), errors.New("power cut"))
	}
	if status, _, _ := b.post(b.body(b.log, 7, 8)); status != 500 {
		t.Errorf("power cut: status %d", status)
	}
	b.start()
	if status, _, answer := b.post(b.body(b.log, 7, 8)); status != 409 || answer != "8\n" {
		t.Errorf("after a power cut: status %d: %s", status, answer)
	}
	b.mustAdd(8, 9)
	left, err := os.ReadDir(filepath.Join(b.dir, "state"))
	if err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}
}

func TestADamagedStateIsNotTakenForNone(t *testing.T) {
	b := newBench(t, 9)
	b.mustAdd(0, 5)
	path := b.server.states.path(origin)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := b.server.states.load(origin); err == nil {
			t.Fatalf("byte %d changed: read as %+v", i, st)
		}
	}
	b.start()
	if status, _, _ := b.post(b.body(b.log, 0, 9)); status != 500 {
		t.Errorf("status %d", status)
	}
}

// TestABackupThatForksTheOwnLogIsNotCosigned: the ledger under the witness was restored from a backup and grew differently.
func TestABackupThatForksTheOwnLogIsNotCosigned(t *testing.T) {
	b := newBench(t, 9)
	b.mustAdd(0, 8)
	forked := newLog(12, 6)
	b.log = forked
	b.start()
	if status, _, answer := b.post(b.body(forked, 8, 12)); status != 500 || strings.Contains(answer, "\u2014") {
		t.Errorf("status %d: %s", status, answer)
	}
	if _, err := (Local{b.server}).Add(t.Context(), b.signed(forked, 12), forked); !errors.Is(err, ErrForked) {
		t.Errorf("own witness: %v", err)
	}
	b.log = newLog(6, -1) // restored, and shorter than what was cosigned
	if _, err := (Local{b.server}).Add(t.Context(), b.signed(b.log, 6), b.log); err == nil {
		t.Error("cosigns a smaller tree")
	}
}

// TestRacingRequestsNeverRollBack: many submit at once, from all sizes; the recorded size only grows, and each size is cosigned with one root.
func TestRacingRequestsNeverRollBack(t *testing.T) {
	const n = 40
	b := newBench(t, n)
	write := b.server.states.write
	var last uint64 // writes happen under the origin's lock
	b.server.states.write = func(path string, data []byte) error {
		body, _, _ := cutLast(strings.TrimPrefix(string(data), stateHeader))
		cp, err := tlogproof.ParseText(body)
		if err != nil || cp.Size < last {
			t.Errorf("size goes from %d to %+v, %v", last, cp, err)
			return err
		}
		last = cp.Size
		return write(path, data)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := b.remote()
			for size := uint64(i + 1); size <= n; size += 4 {
				var ahead *AheadError
				if _, err := r.Add(t.Context(), b.signed(b.log, size), b.log); err != nil && !errors.As(err, &ahead) && !strings.Contains(err.Error(), "changed in each") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := b.recorded(); got != strconv.FormatUint(last, 10) {
		t.Errorf("recorded size is %s, last written %d", got, last)
	}
	b.start()
	if status, _, answer := b.post(b.body(b.log, 0, 1)); status != 409 || answer != strconv.FormatUint(last, 10)+"\n" {
		t.Errorf("after a restart: status %d: %s", status, answer)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u2014 a b\n"))
	f.Add([]byte("old 0\n\n"))
	f.Add([]byte("old 18446744073709551615\n\r\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err == nil && !bytes.Equal(r.marshal(), body) {
			t.Fatalf("%q has a second form, %q", body, r.marshal())
		}
	})
}
