package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

func TestACleanLedgerPasses(t *testing.T) {
	cfg, consortium := consortiumChain(t)
	for name, c := range map[string]struct {
		blocks []*network.Block
		o      Options
	}{
		"embedded":                  {embeddedChain(t, 6), Options{}},
		"consortium":                {consortium, Options{}},
		"consortium as is expected": {consortium, Options{Consortium: cfg}},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []Progress
			c.o.Progress = func(p Progress) { seen = append(seen, p) }
			a := open(t, c.o)
			must(t, a.Run(t.Context(), source(c.blocks), uint64(len(c.blocks))))
			if last := seen[len(seen)-1]; last.Height != uint64(len(c.blocks)) || last.Target != last.Height || last.Blocks != last.Height || last.Left() != 0 {
				t.Errorf("%+v", last)
			}
			for key, value := range replay(c.blocks) {
				got, err := a.Get(key)
				must(t, err)
				if !bytes.Equal(got, value) {
					t.Errorf("%s is %x, want %x", key, got, value)
				}
			}
			heads, err := a.LogHeads()
			must(t, err)
			if len(heads) != 2 {
				t.Errorf("%d logs", len(heads))
			}
			for id, head := range heads {
				if head.Size == 0 || len(head.Root) != 32 {
					t.Errorf("%s: %+v", id, head)
				}
			}
			if a.Consortium() == nil || a.Consortium().TickInterval != tickInterval.Milliseconds() {
				t.Errorf("%+v", a.Consortium())
			}
		})
	}
}

func replay(blocks []*network.Block) map[string][]byte {
	state := map[string][]byte{}
	for _, b := range blocks {
		for _, tx := range b.Txs {
			if !tx.Valid {
				continue
			}
			for _, w := range tx.Writes {
				if state[w.Key] = w.Value; w.Value == nil {
					delete(state, w.Key)
				}
			}
		}
	}
	return state
}

// TestEveryForgeryIsFound changes one thing at every place where there is one, as a colluding majority could have signed it.
func TestEveryForgeryIsFound(t *testing.T) {
	cfg, blocks := consortiumChain(t)
	for _, c := range []struct {
		name   string
		only   func(*network.Tx) bool // nil: every transaction that writes
		change func(*network.Tx)
		field  string // of which the error must be; a prefix
	}{
		{"a bit of each value", nil, func(tx *network.Tx) {
			w := &tx.Writes[len(tx.Writes)/2]
			if w.Value == nil {
				w.Value = []byte{0}
				return
			}
			w.Value[len(w.Value)/2] ^= 1
		}, "write "},
		{"a value longer by an octet", nil, func(tx *network.Tx) { w := &tx.Writes[0]; w.Value = append(w.Value, 0) }, "write "},
		{"a write left out", nil, func(tx *network.Tx) { tx.Writes = tx.Writes[1:] }, "write "},
		{"a write added", nil, func(tx *network.Tx) {
			tx.Writes = append(tx.Writes, network.Write{Key: "zzz", Value: []byte("planted")})
		}, "write zzz"},
		{"a deletion added", nil, func(tx *network.Tx) { tx.Writes = append(tx.Writes, network.Write{Key: "zzz"}) }, "write zzz"},
		{"a deletion instead of a value", nil, func(tx *network.Tx) { tx.Writes[0].Value = nil }, "write "},
		{"another key", nil, func(tx *network.Tx) { tx.Writes[0].Key = "!" + tx.Writes[0].Key }, "write !"},
		{"a bit of each answer", nil, func(tx *network.Tx) { tx.Result[len(tx.Result)-1] ^= 1 }, ""},
		{"an empty answer", nil, func(tx *network.Tx) { tx.Result = nil }, ""},
		{"another role", func(tx *network.Tx) bool { return tx.Function != wire.FnTick && tx.Function != wire.FnRead },
			func(tx *network.Tx) { tx.Role = wire.RoleAuditor }, "outcome"},
		{"another organisation", func(tx *network.Tx) bool { return tx.Function == wire.FnIssue },
			func(tx *network.Tx) { tx.MSPID = "Org3MSP" }, "outcome"},
		{"a stranger", func(tx *network.Tx) bool { return tx.Function != wire.FnRead }, func(tx *network.Tx) { tx.MSPID = "OrgXMSP" }, "outcome"},
		{"a time an interval later", func(tx *network.Tx) bool { return tx.Function == wire.FnIssue },
			func(tx *network.Tx) { tx.Time = tx.Time.Add(tickInterval) }, ""},
		{"a time an hour earlier", func(tx *network.Tx) bool { return tx.Function == wire.FnTick },
			func(tx *network.Tx) { tx.Time = tx.Time.Add(-time.Hour) }, ""},
		{"an argument cut off", func(tx *network.Tx) bool { return len(tx.Arg) > 0 }, func(tx *network.Tx) { tx.Arg = tx.Arg[:len(tx.Arg)-1] }, "outcome"},
		{"another function", func(tx *network.Tx) bool { return tx.Function != wire.FnTick }, func(tx *network.Tx) { tx.Function = wire.FnTick }, "outcome"},
		{"an unknown function", nil, func(tx *network.Tx) { tx.Function = "Grant" }, "outcome"},
		{"no call", nil, func(tx *network.Tx) { tx.Function = "" }, "call"},
		{"a discovery that writes", nil, func(tx *network.Tx) { tx.Function = discovery }, "outcome"},
		{"a valid one hidden", func(tx *network.Tx) bool { return tx.Function == wire.FnIssue }, func(tx *network.Tx) { tx.Valid = false }, "later"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := 0
			for n, b := range blocks {
				for i, tx := range b.Txs {
					if !tx.Valid || c.only == nil && len(tx.Writes) == 0 || c.only != nil && !c.only(&tx) {
						continue
					}
					forged := copyOf(blocks)
					c.change(&forged[n].Txs[i])
					err := open(t, Options{Consortium: cfg}).Run(t.Context(), source(forged), uint64(len(forged)))
					if c.field == "later" { // the next issuance, if there is one, does not follow
						if n < len(blocks)-4 {
							var d *Difference
							if !errors.As(err, &d) || d.Block < uint64(n) {
								t.Fatalf("block %d: %v", n, err)
							}
							found++
						}
						continue
					}
					var d *Difference
					if !errors.As(err, &d) || d.Block != uint64(n) || d.Tx != i || d.TxID != tx.ID || !strings.HasPrefix(d.Field, c.field) {
						t.Fatalf("block %d, transaction %d (%s): %v", n, i, tx.Function, err)
					}
					found++
				}
			}
			if found == 0 {
				t.Error("there was nothing to forge")
			}
		})
	}
}

// TestWhatAnybodyMaySubmitDoesNotStopAnAudit: it changes nothing, and the contract has no say in it.
func TestWhatAnybodyMaySubmitDoesNotStopAnAudit(t *testing.T) {
	_, blocks := consortiumChain(t)
	early := &network.Block{PrevHash: []byte{}, Txs: []network.Tx{
		{ID: "read", Valid: true, Time: cctest.T0, MSPID: "Org1MSP", Function: wire.FnRead, Arg: cctest.ReadArg("x"), Result: []byte("whatever")},
		{ID: "discover", Index: 1, Valid: true, Time: cctest.T0, MSPID: "OrgXMSP", Function: discovery, Result: []byte("{}")},
	}}
	rehash(early)
	all := []*network.Block{early}
	for _, b := range copyOf(blocks) {
		b.Number++
		b.PrevHash = all[len(all)-1].Hash
		rehash(b)
		all = append(all, b)
	}
	must(t, open(t, Options{}).Run(t.Context(), source(all), uint64(len(all))))
	early.Txs[0].Writes = []network.Write{{Key: "x", Value: []byte("y")}}
	if err := open(t, Options{}).Run(t.Context(), source(all), uint64(len(all))); !errors.As(err, new(*Difference)) {
		t.Errorf("a read that writes: %v", err)
	}
}

func TestAForgeryIsNamed(t *testing.T) {
	cfg, blocks := consortiumChain(t)
	n := len(blocks) - 3 // issuances
	forged := copyOf(blocks)
	w := &forged[n].Txs[0].Writes[0]
	w.Value[3] ^= 0x40
	err := open(t, Options{Consortium: cfg}).Run(t.Context(), source(forged), uint64(len(forged)))
	for _, says := range []string{"transaction 0 (" + forged[n].Txs[0].ID + ", Issue)", "write " + w.Key, "at 3, by the rules"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
	}
}

func TestInvalidTransactionsHaveNoEffect(t *testing.T) {
	cfg, blocks := consortiumChain(t)
	changed := copyOf(blocks)
	for _, b := range changed {
		for i := range b.Txs {
			if tx := &b.Txs[i]; !tx.Valid {
				tx.Writes, tx.Function, tx.Role = append(tx.Writes, network.Write{Key: "zzz", Value: []byte("x")}), "", "nobody"
			}
		}
	}
	a, want := open(t, Options{Consortium: cfg}), open(t, Options{Consortium: cfg})
	must(t, a.Run(t.Context(), source(changed), uint64(len(changed))))
	must(t, want.Run(t.Context(), source(blocks), uint64(len(blocks))))
	if a.State != want.State {
		t.Error("they have")
	}
}

func TestBlocksThatDoNotFollow(t *testing.T) {
	_, blocks := consortiumChain(t)
	a := open(t, Options{})
	for _, b := range blocks[:3] {
		must(t, a.Block(b))
	}
	other := *blocks[3]
	other.PrevHash = bytes.Repeat([]byte{7}, 32)
	noHash := *blocks[3]
	noHash.Hash = nil
	for field, b := range map[string]*network.Block{"number": blocks[4], "previous_hash": &other, "hash": &noHash} {
		var d *Difference
		if err := a.Block(b); !errors.As(err, &d) || d.Field != field {
			t.Errorf("%v, want a difference of %s", err, field)
		}
	}
	must(t, a.Block(blocks[3]))
	gap := func(_ context.Context, _ uint64, fn func(*network.Block) error) error { return fn(blocks[6]) }
	if err := a.Run(t.Context(), gap, uint64(len(blocks))); !errors.As(err, new(*Difference)) {
		t.Errorf("a gap: %v", err)
	}
	none := func(context.Context, uint64, func(*network.Block) error) error { return nil }
	if err := a.Run(t.Context(), none, uint64(len(blocks))); err == nil || !strings.Contains(err.Error(), "ended at block 4") {
		t.Errorf("an end: %v", err)
	}
}

func TestAnotherConsortiumThanExpected(t *testing.T) {
	cfg, blocks := consortiumChain(t)
	fewer := chaincode.Config{MSPs: cfg.MSPs[:3], TickInterval: cfg.TickInterval}
	var d *Difference
	if err := open(t, Options{Consortium: fewer}).Run(t.Context(), source(blocks), 1); !errors.As(err, &d) || d.Function != wire.FnInit || d.Field != "outcome" {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	a := open(t, Options{Dir: dir})
	must(t, a.Run(t.Context(), source(blocks), 2))
	must(t, a.Close())
	for says, o := range map[string]Options{
		"consortium": {Dir: dir, Channel: cctest.Channel, Consortium: fewer},
		"channel":    {Dir: dir, Channel: "other"},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want an error about %s", err, says)
		}
	}
	must(t, open(t, Options{Dir: dir, Consortium: cfg}).Run(t.Context(), source(blocks), uint64(len(blocks))))
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600))
	if _, err := Open(Options{Dir: dir, Channel: "c"}); err == nil || !strings.Contains(err.Error(), "letter.txt") {
		t.Errorf("%v", err)
	}
	if err := Remove(dir); err == nil {
		t.Error("removed somebody's files")
	}
	if _, err := Open(Options{Channel: "c"}); err == nil {
		t.Error("without a directory")
	}
	own := filepath.Join(t.TempDir(), "audit")
	a, err := Open(Options{Dir: own, Channel: "c", Log: quiet})
	must(t, err)
	must(t, a.Close())
	must(t, Remove(own))
	must(t, Remove(own))
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestAnOpenLedgerIsAuditedThroughItsInterface(t *testing.T) {
	node, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Channel: cctest.Channel, Log: quiet})
	must(t, err)
	defer func() { must(t, node.Close()) }()
	admin, ca, a := node.Connect(wire.RoleAdministrator), cctest.NewCA(t), open(t, Options{})
	for _, arg := range [][]byte{ca.RegisterArg(node.MSPID()), cctest.NewCA(t).RegisterArg(node.MSPID())} {
		_, err := admin.Submit(t.Context(), wire.FnRegisterCA, arg)
		must(t, err)
		height, err := admin.Height(t.Context())
		must(t, err)
		must(t, a.Run(t.Context(), admin.Blocks, height))
	}
	if value, err := a.Get(wire.CAKey(ca.ID)); err != nil || value == nil || a.Height() != 3 {
		t.Errorf("height %d, %x, %v", a.Height(), value, err)
	}
}
