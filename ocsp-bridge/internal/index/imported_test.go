package index

import (
	"errors"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

// importOf is an Import of one certificate as valid, which is the log's next, and of the serial number 7, which is revoked.
func (c *chain) importOf() network.Tx {
	c.t.Helper()
	now := wire.MillisOf(c.now)
	der := stub(c.t, serialAt(c.log.size()), false)
	f, err := fieldsOf(der)
	if err != nil {
		c.t.Fatal(err)
	}
	index := uint64(c.log.size())
	leaf, err := ctleaf.X509(index, now, der)
	if err != nil {
		c.t.Fatal(err)
	}
	hash := c.log.append(leaf)
	entry := wire.LogEntry{Index: index, Time: now, LeafHash: hash[:]}
	rec := &wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: now, Final: &entry, SPKIHash: f.spkiHash[:], NotAfter: f.notAfter, Imported: true}
	root := c.log.root(c.log.size())
	return network.Tx{
		Function: wire.FnImport,
		Arg: wire.Encode(wire.NewImportArg(c.ca.ID, []wire.ImportItem{
			{HasCert: true, State: wire.CertValid}, {Serial: wire.Serial{7}, State: wire.CertRevoked, Revoked: 1000},
		}, [][]byte{der})),
		Result: wire.Encode(&wire.ImportResult{V: 1, Entries: []wire.ImportEntry{{Changed: true, Log: &entry}, {Changed: true}}}),
		Writes: sorted([]network.Write{
			{Key: wire.CertKey(c.ca.ID, f.serial), Value: wire.Encode(rec)},
			{Key: wire.LogHeadKey(c.ca.ID), Value: wire.Encode(&wire.LogHead{V: 1, Size: uint64(c.log.size()), Root: root[:], Time: now})},
			{Key: wire.CertKey(c.ca.ID, wire.Serial{7}), Value: wire.Encode(bareRecord(now))},
			c.pend(bareRecord(now).Leaf(c.ca.ID, wire.Serial{7})),
		}),
	}
}

func bareRecord(now wire.Millis) *wire.CertRecord {
	return &wire.CertRecord{V: 1, State: wire.CertRevoked, StatusTime: now, Change: 1, Imported: true, Asserted: 1000, Antedated: true}
}

// editBare changes what a block writes at the serial number's record, and the leaf that says so.
func editBare(t *testing.T, c *chain, b *network.Block, fn func(*wire.CertRecord)) {
	t.Helper()
	key := wire.CertKey(c.ca.ID, wire.Serial{7})
	without(b, wire.PendingPrefix)
	for i, w := range b.Txs[0].Writes {
		if w.Key == key {
			rec := new(wire.CertRecord)
			decode(t, w.Value, rec)
			fn(rec)
			b.Txs[0].Writes[i].Value = wire.Encode(rec)
			leaf := rec.Leaf(c.ca.ID, wire.Serial{7})
			add(b, wire.PendingKey(leaf.Hash()), wire.Encode(leaf))
			return
		}
	}
	t.Fatal("no record of the serial number")
}

// Each case makes one thing wrong in an Import, or in what comes after it.
func TestImportsThatContradictThemselvesAreNotApplied(t *testing.T) {
	importArg := func(t *testing.T, b *network.Block, fn func(*wire.ImportArg)) {
		var a wire.ImportArg
		if err := wire.Decode(b.Txs[0].Arg, &a); err != nil {
			t.Fatal(err)
		}
		fn(&a)
		b.Txs[0].Arg = wire.Encode(&a)
	}
	importResult := func(t *testing.T, b *network.Block, fn func(*wire.ImportResult)) {
		var r wire.ImportResult
		if err := wire.Decode(b.Txs[0].Result, &r); err != nil {
			t.Fatal(err)
		}
		fn(&r)
		b.Txs[0].Result = wire.Encode(&r)
	}
	for what, spoil := range map[string]func(*testing.T, *chain, *network.Block){
		"argument unreadable": func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Arg = []byte{1} },
		"result unreadable":   func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Result = nil },
		"certificates unreadable": func(t *testing.T, _ *chain, b *network.Block) {
			importArg(t, b, func(a *wire.ImportArg) { a.Packed = []byte{1} })
		},
		"a certificate too many": func(t *testing.T, _ *chain, b *network.Block) {
			importArg(t, b, func(a *wire.ImportArg) { a.Items[0].HasCert, a.Items[0].Serial = false, wire.Serial{9} })
		},
		"a certificate too few": func(t *testing.T, _ *chain, b *network.Block) {
			importArg(t, b, func(a *wire.ImportArg) { a.Items[1].HasCert = true })
		},
		"no place": func(t *testing.T, _ *chain, b *network.Block) {
			importResult(t, b, func(r *wire.ImportResult) { r.Entries[0].Log = nil })
		},
		"an answer too few": func(t *testing.T, _ *chain, b *network.Block) {
			importResult(t, b, func(r *wire.ImportResult) { r.Entries = r.Entries[:1] })
		},
		"another place": func(t *testing.T, _ *chain, b *network.Block) {
			importResult(t, b, func(r *wire.ImportResult) { r.Entries[0].Log.Index++ })
		},
		"as if it was issued": func(t *testing.T, c *chain, b *network.Block) {
			editBare(t, c, b, func(r *wire.CertRecord) { r.Imported = false })
		},
		"by another function": func(_ *testing.T, _ *chain, b *network.Block) { b.Txs[0].Function = wire.FnSetStatus },
		"with a key": func(t *testing.T, c *chain, b *network.Block) {
			editBare(t, c, b, func(r *wire.CertRecord) { r.SPKIHash = bad[:] })
		},
		"asserted in the future": func(t *testing.T, c *chain, b *network.Block) {
			editBare(t, c, b, func(r *wire.CertRecord) { r.Asserted = wire.MillisOf(b.Txs[0].Time) + 1 })
		},
		"asserted before 1970": func(t *testing.T, c *chain, b *network.Block) {
			editBare(t, c, b, func(r *wire.CertRecord) { r.Asserted = -1 })
		},
		"antedated without a date": func(t *testing.T, c *chain, b *network.Block) {
			editBare(t, c, b, func(r *wire.CertRecord) { r.Asserted = 0 })
		},
		"a leaf without the date": func(t *testing.T, c *chain, b *network.Block) {
			without(b, wire.PendingPrefix)
			leaf := bareRecord(wire.MillisOf(b.Txs[0].Time)).Leaf(c.ca.ID, wire.Serial{7})
			leaf.Asserted = 0
			add(b, wire.PendingKey(leaf.Hash()), wire.Encode(leaf))
		},
		"": nil, // is right
	} {
		t.Run(what, func(t *testing.T) {
			c := newChain(t)
			c.block(c.issue(2))
			ix := open(t, t.TempDir())
			apply(t, ix, c.blocks...)
			b := c.block(c.importOf())
			if spoil != nil {
				spoil(t, c, b)
			}
			err := ix.Apply(b)
			if d := new(DivergenceError); spoil != nil && !errors.As(err, &d) || spoil == nil && err != nil {
				t.Fatalf("error is %v, want a *DivergenceError: %t", err, spoil != nil)
			}
		})
	}
}

// What an import has recorded, later transactions keep.
func TestImportedRecordsKeepWhatTheySay(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*wire.CertRecord)
		right  bool
	}{
		"notAfter learned":              {func(r *wire.CertRecord) { r.NotAfter = 5 }, true},
		"keyCompromise":                 {func(r *wire.CertRecord) { r.Reason, r.Change = wire.KeyCompromise, 2 }, true},
		"not imported any more":         {func(r *wire.CertRecord) { r.Imported = false }, false},
		"another date":                  {func(r *wire.CertRecord) { r.Asserted++ }, false},
		"another date with a change":    {func(r *wire.CertRecord) { r.Asserted, r.Reason, r.Change = 0, wire.KeyCompromise, 2 }, false},
		"not antedated any more":        {func(r *wire.CertRecord) { r.Antedated = false }, false},
		"nor with a change":             {func(r *wire.CertRecord) { r.Antedated, r.Reason, r.Change = false, wire.KeyCompromise, 2 }, false},
		"the key of no certificate":     {func(r *wire.CertRecord) { r.SPKIHash = bad[:] }, false},
		"a leaf of another certificate": {func(r *wire.CertRecord) { r.Final = &wire.LogEntry{Index: 0} }, false},
	} {
		t.Run(what, func(t *testing.T) {
			w := newChain(t)
			w.block(w.issue(2))
			imported := w.block(w.importOf())
			rec := bareRecord(wire.MillisOf(imported.Txs[0].Time))
			before := *rec
			c.change(rec)
			tx := network.Tx{Function: wire.FnImport, Writes: []network.Write{{Key: wire.CertKey(w.ca.ID, wire.Serial{7}), Value: wire.Encode(rec)}}}
			item := wire.ImportItem{Serial: wire.Serial{7}, State: wire.CertRevoked, Revoked: 1000}
			tx.Arg = wire.Encode(wire.NewImportArg(w.ca.ID, []wire.ImportItem{item}, nil))
			tx.Result = wire.Encode(&wire.ImportResult{V: 1, Entries: []wire.ImportEntry{{Changed: true}}})
			if rec.Change != before.Change {
				tx.Writes = append(tx.Writes, w.pend(rec.Leaf(w.ca.ID, wire.Serial{7})))
			}
			last := w.block(tx)
			ix := open(t, t.TempDir())
			apply(t, ix, w.blocks[:len(w.blocks)-1]...)
			err := ix.Apply(last)
			if d := new(DivergenceError); !c.right && !errors.As(err, &d) || c.right && err != nil {
				t.Errorf("error is %v, want a *DivergenceError: %t", err, !c.right)
			}
		})
	}
}
