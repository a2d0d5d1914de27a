package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// conforms is what any Witness does: one test over both.
func conforms(t *testing.T, b *bench, w Witness) {
	t.Helper()
	if w.Name() != b.c.Orgs[0].Cosigner.Name() {
		t.Errorf("name is %q", w.Name())
	}
	for _, size := range []uint64{0, 3, 3, 8} {
		signed := b.signed(b.log, size)
		sig, err := w.Add(t.Context(), signed, b.log)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		_, n, err := tlogproof.ReadUnverified(signed)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := tlogproof.Assemble(n.Text, append(n.UnverifiedSigs, sig)...)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := note.Open(whole, note.VerifierList(b.c.Orgs[0].Cosigner.Verifier()))
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if when, err := cosign.Time(opened.Sigs[0]); err != nil || !when.Equal(at) {
			t.Errorf("size %d: time %v, %v", size, when, err)
		}
	}
	var ahead *AheadError
	if _, err := w.Add(t.Context(), b.signed(b.log, 5), b.log); !errors.As(err, &ahead) || ahead.Size != 8 {
		t.Errorf("smaller than what it has: %v", err)
	}
	if _, err := w.Add(t.Context(), b.signed(newLog(9, 2), 9), newLog(9, 2)); err == nil || len(b.alarmed()) != 1 {
		t.Errorf("another history: %v, %d alarms", err, len(b.alarmed()))
	}
	if _, err := w.Add(t.Context(), []byte("rubbish"), b.log); err == nil {
		t.Error("rubbish is cosigned")
	}
}

func TestWitnesses(t *testing.T) {
	t.Run("remote", func(t *testing.T) { b := newBench(t, 9); conforms(t, b, b.remote()) })
	t.Run("local", func(t *testing.T) { b := newBench(t, 9); conforms(t, b, Local{b.server}) })
}

func TestAConflictIsAnsweredFromTheSizeReturned(t *testing.T) {
	b := newBench(t, 9)
	var requests atomic.Int32
	b.http.Transport = counted{&requests, b.http.Transport}
	r := b.remote()
	b.mustAdd(0, 5)
	requests.Store(0)
	for i, want := range []int32{2, 1} { // then it knows
		if _, err := r.Add(t.Context(), b.signed(b.log, uint64(7+i)), b.log); err != nil {
			t.Fatal(err)
		}
		if got := requests.Swap(0); got != want {
			t.Errorf("%d requests, want %d", got, want)
		}
	}
	// The witness lost its state and begins again.
	b.dir = t.TempDir()
	b.start()
	r.URL = b.url
	if _, err := r.Add(t.Context(), b.signed(b.log, 9), b.log); err != nil {
		t.Error(err)
	}
}

type counted struct {
	n    *atomic.Int32
	next http.RoundTripper
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// liar is a witness that answers what it likes.
func liar(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestLyingWitnessesAreNotBelieved(t *testing.T) {
	b := newBench(t, 9)
	key := b.c.Orgs[0].Cosigner
	late, err := cosign.NewSigner(key.Name(), make([]byte, 32), func() time.Time { return at.Add(time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	line := func(text string, s note.Signer) string {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Error(err)
		}
		return string(signed[len(text)+1:])
	}
	_, n, err := tlogproof.ReadUnverified(b.signed(b.log, 9))
	if err != nil {
		t.Fatal(err)
	}
	conflict := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", sizeType)
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, body)
		}
	}
	say := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	var back atomic.Int32
	for _, c := range []struct {
		what   string
		answer http.HandlerFunc
		key    note.Verifier
	}{
		{"nothing", say(""), nil},
		{"HTML", say("<html>"), nil},
		{"the checkpoint back", say(string(b.signed(b.log, 9))), nil},
		{"a cosignature of another root", say(line(strings.Replace(n.Text, "\n9\n", "\n8\n", 1), key)), nil},
		{"a plain signature", say(line(n.Text, b.c.Orgs[0].Log)), nil},
		{"another organisation's cosignature", say(line(n.Text, b.c.Orgs[1].Cosigner)), nil},
		{"a text before the signature", say("more\n\n" + line(n.Text+"\nmore\n", key)), nil},
		{"from the future", say(line(n.Text, late)), late.Verifier()},
		{"endless", say(strings.Repeat("\u2014 a AAAAAAA=\n", 10000)), nil},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, nil},
		{"409 with the old size", conflict("0\n"), nil},
		{"409 with rubbish", conflict("many\n"), nil},
		{"409 with a size beyond", conflict("18446744073709551615\n"), nil},
		{"409 for ever", func(w http.ResponseWriter, r *http.Request) { conflict(fmt.Sprint(back.Add(1)%8+1, "\n"))(w, r) }, nil},
	} {
		if c.key == nil {
			c.key = key.Verifier()
		}
		r := &Remote{URL: liar(t, c.answer), Key: c.key, HTTP: b.http, Now: now}
		if sig, err := r.Add(t.Context(), b.signed(b.log, 9), b.log); err == nil {
			t.Errorf("%s: accepted as %v", c.what, sig)
		}
	}
	if got := back.Load(); got != maxAttempts {
		t.Errorf("%d attempts, want %d", got, maxAttempts)
	}
}

func TestGatherIsTolerant(t *testing.T) {
	b := newBench(t, 9)
	honest := func(i int) Witness {
		other := newBench(t, 9)
		other.server.cfg.Signer = b.c.Orgs[i].Cosigner
		return &Remote{URL: other.url, Key: b.c.Orgs[i].Cosigner.Verifier(), HTTP: other.http, Now: now}
	}
	release := make(chan struct{})
	slow := &Remote{URL: liar(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}), Key: b.c.Orgs[3].Cosigner.Verifier(), HTTP: b.http, Now: now}
	t.Cleanup(func() { close(release) }) // before its server closes
	dead := &Remote{URL: "http://127.0.0.1:1", Key: b.c.Orgs[3].Cosigner.Verifier(), HTTP: b.http, Now: now}
	lying := &Remote{URL: liar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "yes\n") }), Key: b.c.Orgs[3].Cosigner.Verifier(), HTTP: b.http, Now: now}
	signed := b.signed(b.log, 9)
	for what, fourth := range map[string]Witness{"slow": slow, "dead": dead, "lying": lying, "honest": honest(3)} {
		g, err := Gather(t.Context(), signed, b.log, 3, time.Millisecond, honest(2), fourth, Local{b.server}, honest(1))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		// What comes out is what a bundle takes: canonical, and the policy is content.
		cp, err := b.c.Policy.OpenCheckpoint(g.Note, origin, true)
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, g.Note)
		}
		if len(cp.Cosigners) != len(g.Cosigners) || len(cp.Cosigners) < 3 || !slices.Equal(cp.Servers, []string{"Org2MSP"}) {
			t.Errorf("%s: %+v", what, cp)
		}
		if len(g.Cosigners)+len(g.Failed) != 4 || what != "honest" && g.Failed[fourth.Name()] == nil {
			t.Errorf("%s: cosigned %v, failed %v", what, g.Cosigners, g.Failed)
		}
	}
	// All are waited for when there is time.
	g, err := Gather(t.Context(), signed, b.log, 3, time.Minute, Local{b.server}, honest(1), honest(2), honest(3))
	if err != nil || len(g.Cosigners) != 4 {
		t.Errorf("%+v, %v", g, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	g, err = Gather(ctx, signed, b.log, 3, time.Minute, Local{b.server}, slow, honest(1), dead)
	if !errors.Is(err, ErrNoQuorum) || !errors.Is(err, context.DeadlineExceeded) || g == nil || len(g.Cosigners) > 2 {
		t.Errorf("two of four: %+v, %v", g, err)
	}
	if _, err := Gather(t.Context(), []byte("rubbish"), b.log, 1, 0); err == nil {
		t.Error("rubbish is gathered for")
	}
}

func TestCompareFindsASplitViewInWhatOthersServe(t *testing.T) {
	b := newBench(t, 9)
	other := newLog(12, 5)
	watch := b.server.cfg.Watch
	stranger := policytest.NewOrg(t, channel, "Org9MSP", "", now)
	for _, c := range []struct {
		what   string
		signed []byte
		want   error
	}{
		{"the same", policytest.Checkpoint(t, b.log, origin, 9, b.c.Orgs...), nil},
		{"older", b.signed(b.log, 3), nil},
		{"empty", b.signed(b.log, 0), nil},
		{"larger", b.signed(other, 12), ErrAhead},
		{"nobody's", b.sign(&tlogproof.Checkpoint{Origin: origin, Size: 9}, stranger.Log), ErrUnsigned},
		{"older than the fork", b.signed(other, 5), nil},
	} {
		if err := watch.Compare(c.signed, b.log); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if len(b.alarmed()) != 0 {
		t.Fatalf("alarms: %v", b.alarmed())
	}
	// A cosigner that signed both histories is named too.
	if err := watch.Compare(policytest.Checkpoint(t, other, origin, 9, b.c.Orgs[1], b.c.Orgs[2]), b.log); !errors.Is(err, ErrSplitView) {
		t.Errorf("another root: %v", err)
	}
	alarms := b.alarmed()
	if len(alarms) != 1 || len(alarms[0].Signers) != 3 || !slices.Contains(alarms[0].Signers, b.c.Orgs[2].Cosigner.Name()) {
		t.Fatalf("alarms: %+v", alarms)
	}
	if root, err := merklelog.RootAt(b.log, 9); err != nil || alarms[0].OwnRoot != root {
		t.Errorf("own root is %x", alarms[0].OwnRoot)
	}
}
