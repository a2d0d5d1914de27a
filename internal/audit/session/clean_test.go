package session_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/network"
)

func TestACleanLedgerAndBridgeAgree(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	o := w.options(dir)
	o.Sample = 0
	r := w.audit(o)
	agrees(t, r)
	b := r.Bridges[0]
	// 263 leaves of one CA: a full tile, a partial one, and one of level 1, for both kinds of files; the other CA has no responder here.
	if r.Certificates != 264 || r.Good != 260 || r.Held != 1 || r.Revoked != 3 || b.OCSP != 262 || b.Unanswered != 0 || b.NoResponder != 2 || b.Proofs != 263 {
		t.Errorf("%+v, %+v", r.Report, b)
	}
	if b.Heads != 8 || b.Tiles != 10 || b.Bundles != 11 {
		t.Errorf("%+v", b)
	}
	if len(r.Logs) != 4 || r.Logs[2].Name != audit.StatusLog || r.Logs[2].Size == 0 || r.Logs[3].Size != 2 {
		t.Errorf("%+v", r.Logs)
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "FIRST BLOCK WAS TAKEN") || !strings.Contains(notes, "POLICY WAS TAKEN") ||
		!strings.Contains(notes, "CA "+w.other.ID.String()+" has no valid OCSP responder certificate") || strings.Contains(notes, "CA "+w.ca.ID.String()) || r.GenesisPinned {
		t.Errorf("notes %q", notes)
	}

	w.applied(w.tick())
	again := w.audit(w.options(dir)) // of what is new
	agrees(t, again)
	if again.NewBlocks != 1 || again.Blocks != r.Blocks+1 || again.Genesis != r.Genesis || again.Txs != r.Txs+1 {
		t.Errorf("%+v, after %+v", again, r)
	}
	o = w.options(dir)
	o.Restart = true
	if whole := w.audit(o); whole.NewBlocks != again.Blocks || whole.LastHash != again.LastHash || whole.Logs[3] != again.Logs[3] {
		t.Errorf("%+v, want %+v", whole, again)
	} else {
		agrees(t, whole)
	}
}

// TestABridgeThatIsBehindAgrees: it does not know yet what the blocks say.
func TestABridgeThatIsBehindAgrees(t *testing.T) {
	w := newWorld(t)
	w.audit(w.options(t.TempDir())) // has everything served once
	frozen := map[string][]byte{}
	for path := range w.served {
		if strings.HasSuffix(path, "/checkpoint") || strings.HasSuffix(path, "/get-sth") {
			frozen[path] = w.last(path)
		}
	}
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if old, ok := frozen[path]; ok {
			return status, old
		}
		return status, body
	})
	w.submit(wire.FnIssue, w.ca.IssueArg(w.ca.IssueMany(t, 3)...))
	w.applied(w.tick())
	agrees(t, w.audit(w.options(t.TempDir())))
}

func TestAnAuditThatWasKilledContinues(t *testing.T) {
	w := newWorld(t)
	want := w.audit(w.options(t.TempDir()))
	o := w.options(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	o.Ledger = &changed{Ledger: w.conn, change: func(b *network.Block) {
		if b.Number == 7 {
			cancel()
		}
	}}
	r, err := session.Run(ctx, o)
	if !errors.Is(err, context.Canceled) || r.Blocks == 0 || r.Blocks >= want.Blocks {
		t.Fatalf("%d blocks, %v", r.Blocks, err)
	}
	o.Ledger = w.conn
	rest := w.audit(o)
	agrees(t, rest)
	if rest.NewBlocks != want.Blocks-r.Blocks || rest.LastHash != want.LastHash || rest.Logs[0] != want.Logs[0] || rest.Logs[3] != want.Logs[3] || rest.Txs != want.Txs {
		t.Errorf("%+v, want %+v", rest, want)
	}
}

// changed is a ledger whose blocks are changed on their way.
type changed struct {
	network.Ledger
	change func(*network.Block)
	height uint64 // 0: as it is
}

func (c *changed) Blocks(ctx context.Context, from uint64, fn func(*network.Block) error) error {
	return c.Ledger.Blocks(ctx, from, func(b *network.Block) error {
		c.change(b)
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(b)
	})
}

func (c *changed) Height(ctx context.Context) (uint64, error) {
	if c.height > 0 {
		return c.height, nil
	}
	return c.Ledger.Height(ctx)
}

func TestAFlippedBitInAnyBlockIsFound(t *testing.T) {
	w := newWorld(t)
	flip := func(b []byte) {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
	}
	o := w.options(t.TempDir()) // the audit goes on from block to block
	o.Bridges = nil
	for n := range uint64(len(w.blocks())) {
		for name, change := range map[string]func(*network.Tx){
			"argument": func(tx *network.Tx) { flip(tx.Arg) },
			"result":   func(tx *network.Tx) { flip(tx.Result) },
			"write":    func(tx *network.Tx) { flip(tx.Writes[0].Value) },
		} {
			o.Ledger = &changed{Ledger: w.conn, change: func(b *network.Block) {
				if b.Number == n {
					change(&b.Txs[0])
				}
			}}
			if d := w.audit(o).Differences; len(d) != 1 || d[0].Kind != served.KindBlock || !strings.HasPrefix(d[0].Where, "block ") {
				t.Errorf("%s of block %d: %v", name, n, d)
			}
		}
		o.Ledger = &changed{w.conn, func(*network.Block) {}, n + 1}
		if r := w.audit(o); len(r.Differences) > 0 || r.Blocks != n+1 {
			t.Fatalf("%d blocks as they are: %v", n+1, r.Differences)
		}
	}
}

func TestALedgerThatIsNotTheOneAuditedBeforeIsFound(t *testing.T) {
	w := newWorld(t)
	o := w.options(t.TempDir())
	first := w.audit(o)
	none := func(*network.Block) {}
	o.Ledger = &changed{w.conn, none, first.Blocks - 2}
	w.finds(o, served.KindRollback, "restored from an old backup", "the ledger")
	o.Ledger = &changed{w.conn, func(b *network.Block) {
		if b.Number == first.Blocks-1 {
			b.Hash[0] ^= 1
		}
	}, 0}
	w.finds(o, served.KindBlock, "as it was audited")
	o.Ledger = w.conn
	o.Genesis = make([]byte, 32)
	w.finds(o, served.KindBlock, "block 0", first.Genesis)
	o.Genesis, _ = hex.DecodeString(first.Genesis)
	if r := w.audit(o); !r.GenesisPinned || strings.Contains(strings.Join(r.Notes, ""), "FIRST BLOCK") {
		t.Errorf("%+v", r)
	} else {
		agrees(t, r)
	}
}

// TestWhatComesDuringAnAuditIsNotADifference: the bridge knows a revocation that the audited blocks do not have yet.
func TestWhatComesDuringAnAuditIsNotADifference(t *testing.T) {
	w := newWorld(t)
	var done atomic.Bool
	w.tampering(func(path string, status int, body []byte) (int, []byte) {
		if path == "/ocsp" && done.CompareAndSwap(false, true) {
			w.applied(w.change(w.good, wire.OpRevoke, wire.Superseded))
			w.integrate()
			w.applied(w.submit(wire.FnIssue, w.ca.IssueArg(w.ca.IssueMany(t, 1)...)))
		}
		return status, body
	})
	o := w.options(t.TempDir())
	o.Sample = 0
	r := w.audit(o)
	agrees(t, r)
	if !done.Load() {
		t.Error("nothing came")
	}
}
