package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// clock is moved by the tests.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const tickInterval = time.Second

// embeddedChain is what an embedded ledger made of issuances, some in one block, changes of status and ticks.
func embeddedChain(t testing.TB, issues int) []*network.Block {
	t.Helper()
	now := &clock{now: cctest.T0}
	node, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Channel: cctest.Channel, TickInterval: tickInterval, Now: now.Now, Log: quiet})
	must(t, err)
	defer func() { must(t, node.Close()) }()
	submit := func(role, function string, arg []byte) {
		t.Helper()
		now.move(100 * time.Millisecond)
		_, err := node.Connect(role).Submit(t.Context(), function, arg)
		must(t, err)
	}
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	for _, c := range []*cctest.CA{ca, other} {
		submit(wire.RoleAdministrator, wire.FnRegisterCA, c.RegisterArg(node.MSPID()))
	}
	operators := cctest.NewOperatorsLog(0, "x", 3*issues+3)
	submit(wire.RoleOperator, wire.FnAnchorOperators, operators.AnchorArg(t, ca, 0, 2))
	named := cctest.NewOperatorsLog(0, "of another bridge", 2)
	named.Name = "bridge-2"
	submit(wire.RoleOperator, wire.FnAnchorOperators, named.AnchorArg(t, ca, 0, 2))
	for i := range issues {
		submit(wire.RoleOperator, wire.FnAnchorOperators, operators.AnchorArg(t, ca, uint64(3*i+2), uint64(3*i+5)))
		ders := ca.IssueMany(t, 3)
		_, cert := other.Issue(t)
		submit(wire.RoleOperator, wire.FnIssue, ca.IssueArg(ders...))
		submit(wire.RoleOperator, wire.FnIssue, other.IssueArg(cert.Raw))
		if i%3 == 0 {
			submit(wire.RoleOperator, wire.FnSetStatus, other.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise}))
			now.move(2 * tickInterval)
			submit(wire.RoleAuditor, wire.FnTick, cctest.TickArg())
		}
	}
	var wg sync.WaitGroup
	for range 8 { // several transactions in one block
		arg := ca.IssueArg(ca.IssueMany(t, 1)...)
		wg.Go(func() { _, _ = node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnIssue, arg) })
	}
	wg.Wait()
	return read(t, node.Connect(wire.RoleAuditor))
}

func read(t testing.TB, l network.Ledger) []*network.Block {
	t.Helper()
	height, err := l.Height(t.Context())
	must(t, err)
	var all []*network.Block
	done := errors.New("done")
	if err := l.Blocks(t.Context(), 0, func(b *network.Block) error {
		if all = append(all, b); uint64(len(all)) == height {
			return done
		}
		return nil
	}); !errors.Is(err, done) {
		t.Fatal(err)
	}
	return all
}

// source streams blocks.
func source(blocks []*network.Block) Source {
	return func(ctx context.Context, from uint64, fn func(*network.Block) error) error {
		for _, b := range blocks[from:] {
			if err := fn(b); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

// consortiumChain is what four organisations' endorsers made, with conflicts: blocks as Fabric would have them.
func consortiumChain(t testing.TB) (chaincode.Config, []*network.Block) {
	t.Helper()
	cfg := chaincode.Config{MSPs: []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}, TickInterval: tickInterval}
	l := cctest.NewLedger(t, cfg)
	var blocks []*network.Block
	type proposed struct {
		by       chaincode.Caller
		function string
		arg      []byte
	}
	commit := func(all ...proposed) {
		t.Helper()
		b := &network.Block{Number: uint64(len(blocks)), PrevHash: []byte{}}
		if len(blocks) > 0 {
			b.PrevHash = blocks[len(blocks)-1].Hash
		}
		var envelopes []*cctest.Envelope
		for i, p := range all {
			e, refusal := l.Endorse(t, p.by, p.function, p.arg)
			if refusal != nil {
				t.Fatal(refusal)
			}
			tx := network.Tx{ID: fmt.Sprintf("%d-%d", b.Number, i), Index: i, Time: l.Now, MSPID: p.by.MSPID, Role: p.by.Role, Function: p.function, Arg: p.arg, Result: e.Result}
			for _, w := range e.Writes {
				tx.Writes = append(tx.Writes, network.Write{Key: w.Key, Value: w.Value})
			}
			envelopes, b.Txs = append(envelopes, e), append(b.Txs, tx)
		}
		for i, valid := range l.Commit(t, envelopes...) {
			b.Txs[i].Valid = valid
		}
		rehash(b)
		blocks = append(blocks, b)
		l.Now = l.Now.Add(100 * time.Millisecond)
	}
	commit(proposed{cctest.Admin("Org1MSP"), wire.FnInit, l.InitArg()})
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	for _, msp := range cfg.MSPs[:3] {
		commit(proposed{cctest.Admin(msp), wire.FnRegisterCA, ca.RegisterArg("Org1MSP")})
		commit(proposed{cctest.Admin(msp), wire.FnRegisterCA, other.RegisterArg("Org2MSP")})
	}
	for range 4 {
		a, b, c := ca.IssueMany(t, 2), ca.IssueMany(t, 1), other.IssueMany(t, 1)
		commit(proposed{cctest.Operator("Org1MSP"), wire.FnIssue, ca.IssueArg(a...)},
			proposed{cctest.Operator("Org1MSP"), wire.FnIssue, ca.IssueArg(b...)}, // loses
			proposed{cctest.Operator("Org2MSP"), wire.FnIssue, other.IssueArg(c...)})
		commit(proposed{cctest.Auditor("Org4MSP"), wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)})
		l.Now = l.Now.Add(2 * tickInterval)
		commit(proposed{cctest.Auditor("Org4MSP"), wire.FnTick, cctest.TickArg()})
	}
	return cfg, blocks
}

// rehash gives a made-up block a hash.
func rehash(b *network.Block) {
	sum := sha256.Sum256(fmt.Append(nil, b.Number, b.PrevHash, b.Txs))
	b.Hash = sum[:]
}

// copyOf copies a chain so far that its transactions can be changed.
func copyOf(blocks []*network.Block) []*network.Block {
	all := make([]*network.Block, len(blocks))
	for i, b := range blocks {
		c := *b
		c.Txs = slices.Clone(b.Txs)
		for j := range c.Txs {
			tx := &c.Txs[j]
			tx.Arg, tx.Result, tx.Writes = bytes.Clone(tx.Arg), bytes.Clone(tx.Result), slices.Clone(tx.Writes)
			for k := range tx.Writes {
				tx.Writes[k].Value = bytes.Clone(tx.Writes[k].Value)
			}
		}
		all[i] = &c
	}
	return all
}

func open(t testing.TB, o Options) *Auditor {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Channel == "" {
		o.Channel = cctest.Channel
	}
	o.Log = quiet
	a, err := Open(o)
	must(t, err)
	t.Cleanup(func() { must(t, a.Close()) })
	return a
}
