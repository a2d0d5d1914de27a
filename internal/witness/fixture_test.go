package witness

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const (
	channel = "testchannel"
	origin  = channel + "/status"
)

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func now() time.Time { return at }

func consortium(t testing.TB) *policytest.Consortium {
	return policytest.New(t, channel, 3, time.Minute, now, "Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP")
}

// newLog has entries that differ from those of another history from fork on.
func newLog(entries, fork int) *merklelogtest.Memory {
	log := merklelogtest.New()
	grow(log, entries, fork)
	return log
}

func grow(log *merklelogtest.Memory, entries, fork int) {
	for i := int(log.Head().Size); i < entries; i++ {
		leaf := fmt.Sprintf("leaf %d", i)
		if fork >= 0 && i >= fork {
			leaf += " of another history"
		}
		log.Append(1, merklelog.Entry{Leaf: []byte(leaf)})
	}
}

// bench is one witness over HTTP, of Org1MSP.
type bench struct {
	t      testing.TB
	c      *policytest.Consortium
	dir    string
	log    *merklelogtest.Memory // its own
	wait   func(ctx context.Context, log merklelog.Log, size uint64) error
	server *Server
	url    string
	http   *http.Client

	mu     sync.Mutex
	alarms []*Evidence
}

func newBench(t testing.TB, entries int) *bench {
	b := &bench{t: t, c: consortium(t), dir: t.TempDir(), log: newLog(entries, -1)}
	b.wait = func(context.Context, merklelog.Log, uint64) error { return context.DeadlineExceeded }
	b.start()
	return b
}

// start is also a restart: nothing but the directory survives.
func (b *bench) start() {
	b.t.Helper()
	watch, err := NewWatch(WatchConfig{
		Dir: filepath.Join(b.dir, "evidence"), LogKeys: b.c.Policy.LogKeys, Cosigners: b.c.Policy.Cosigners, Now: now,
		Alarm: func(e *Evidence) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.alarms = append(b.alarms, e)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.server, err = NewServer(Config{
		Dir: filepath.Join(b.dir, "state"), Signer: b.c.Orgs[0].Cosigner, Watch: watch, MaxWait: 2 * time.Second,
		Logs: func(o string) (merklelog.Log, bool) { return b.log, o == origin },
		Wait: func(ctx context.Context, log merklelog.Log, size uint64) error { return b.wait(ctx, log, size) },
		Log:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Path, b.server)
	srv := httptest.NewServer(mux)
	b.t.Cleanup(srv.Close)
	b.url, b.http = srv.URL, srv.Client()
}

func (b *bench) remote() *Remote {
	return &Remote{URL: b.url, Key: b.c.Orgs[0].Cosigner.Verifier(), HTTP: b.http, Now: now}
}

func (b *bench) alarmed() []*Evidence {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alarms
}

// signed is a checkpoint of log at a size, signed by Org2MSP, who serves.
func (b *bench) signed(log merklelog.Log, size uint64) []byte {
	b.t.Helper()
	root, err := merklelog.RootAt(log, size)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.sign(&tlogproof.Checkpoint{Origin: origin, Size: size, Root: root}, b.c.Orgs[1].Log)
}

func (b *bench) sign(cp *tlogproof.Checkpoint, by ...note.Signer) []byte {
	b.t.Helper()
	signed, err := cp.Sign(by...)
	if err != nil {
		b.t.Fatal(err)
	}
	return signed
}

// body is a request as an honest client would send it.
func (b *bench) body(log merklelog.Log, old, size uint64) string {
	b.t.Helper()
	path, err := merklelog.Consistency(log, old, size)
	if err != nil {
		b.t.Fatal(err)
	}
	return string((&request{old: old, proof: path, checkpoint: b.signed(log, size)}).marshal())
}

func (b *bench) post(body string) (status int, header http.Header, answer string) {
	b.t.Helper()
	resp, err := b.http.Post(b.url+Path, "", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// mustAdd has the witness cosign size.
func (b *bench) mustAdd(old, size uint64) {
	b.t.Helper()
	if status, _, answer := b.post(b.body(b.log, old, size)); status != http.StatusOK {
		b.t.Fatalf("%d to %d: status %d: %s", old, size, status, answer)
	}
}

// recorded is the size that the witness says it has.
func (b *bench) recorded() string {
	b.t.Helper()
	b.server.states.mu.Lock()
	defer b.server.states.mu.Unlock()
	st, err := b.server.states.load(origin)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprint(st.Size)
}
