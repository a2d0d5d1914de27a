package networktest

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

func testVisible(b *bench) {
	acked := newAcknowledged()
	for range 20 {
		der, cert := b.ca.Issue(b)
		r, entries := b.issue(der)
		key := wire.CertKey(b.ca.ID, cctest.Serial(b, cert))
		b.auditRecord(key, b.read(key)[0], entries[0])
		check(b, acked.add(key, entries[0]))
		if h := b.height(); h <= r.Block {
			b.Fatalf("acknowledged in block %d, then the height is %d", r.Block, h)
		}
	}
	b.auditLog(acked)
}

func testRejected(b *bench) {
	der, cert := b.ca.Issue(b)
	_, entries := b.issue(der)
	acked := newAcknowledged()
	check(b, acked.add(wire.CertKey(b.ca.ID, cctest.Serial(b, cert)), entries[0]))

	fresh, _ := b.ca.Issue(b)
	foreign, _ := cctest.NewCA(b).Issue(b)
	clash, _ := b.ca.Issue(b, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	auditor := b.Connect(b, wire.RoleAuditor)
	defer auditor.Close()
	before := b.height()
	for _, c := range []struct {
		name     string
		ledger   network.Ledger
		function string
		arg      []byte
		code     wire.Code
		field    string
	}{
		{"an auditor issues", auditor, wire.FnIssue, b.ca.IssueArg(fresh), wire.PermissionDenied, "caller.role"},
		{"another CA's certificate in a good batch", b.operator, wire.FnIssue, b.ca.IssueArg(fresh, foreign), "", "certs[1]"},
		{"a serial number used before", b.operator, wire.FnIssue, b.ca.IssueArg(fresh, clash), wire.AlreadyExists, "certs[1]"},
		{"not an argument", b.operator, wire.FnIssue, []byte("x"), wire.InvalidArgument, "argument"},
		{"no such function", b.operator, "Nonsense", nil, wire.InvalidArgument, "function"},
		{"an argument above the limit", b.operator, wire.FnIssue, make([]byte, wire.MaxArgBytes+1), wire.InvalidArgument, "arg"},
	} {
		r, err := c.ledger.Submit(b.ctx, c.function, c.arg)
		var (
			rejected *network.RejectedError
			reason   *wire.Error
		)
		if !errors.As(err, &rejected) || !errors.As(err, &reason) {
			b.Errorf("%s: got %+v and %v, want a RejectedError with a wire.Error", c.name, r, err)
			continue
		}
		if rejected.Function != c.function || c.code != "" && reason.Code != c.code || !bytes.HasPrefix([]byte(reason.Field), []byte(c.field)) {
			b.Errorf("%s: got %+v of %s", c.name, reason, rejected.Function)
		}
		if _, err := c.ledger.Evaluate(b.ctx, c.function, c.arg); !network.IsRejected(err) {
			b.Errorf("%s, evaluated: got %v, want a RejectedError", c.name, err)
		}
	}
	if after := b.height(); after != before {
		b.Errorf("refused transactions made %d blocks", after-before)
	}
	b.auditLog(acked)
}

func testSameBytes(b *bench) {
	ders := b.ca.IssueMany(b, 3)
	first, entries := b.issue(ders...)
	acked := newAcknowledged()
	for i, der := range ders {
		check(b, acked.add(certKey(b, der), entries[i]))
	}
	again, _ := b.issue(ders...)
	if !bytes.Equal(first.Result, again.Result) {
		b.Errorf("the same bytes gave %x, then %x", first.Result, again.Result)
	}
	b.auditLog(acked)
}

// certKey is the state key of a certificate of b's CA.
func certKey(b *bench, der []byte) string {
	b.Helper()
	key, err := keyOf(b.ca.ID, der)
	check(b, err)
	return key
}

func testBlocksTell(b *bench) {
	type submission struct {
		arg     []byte
		receipt network.Receipt
	}
	var submissions []submission
	began := time.Now().Add(-time.Minute)
	for range 10 {
		arg := b.ca.IssueArg(b.ca.IssueMany(b, 2)...)
		submissions = append(submissions, submission{arg, b.insist(b.operator, wire.FnIssue, arg)})
	}
	found := make(map[string]network.Tx)
	in := make(map[string]uint64)
	for _, block := range b.chain(b.operator) {
		for i, tx := range block.Txs {
			if i > 0 && block.Txs[i-1].Index >= tx.Index {
				b.Errorf("block %d: transactions are not in order", block.Number)
			}
			if tx.Valid != (tx.Code == "VALID") {
				b.Errorf("block %d: transaction with code %s is valid: %v", block.Number, tx.Code, tx.Valid)
			}
			if tx.Valid {
				found[tx.ID], in[tx.ID] = tx, block.Number
			}
		}
	}
	for _, s := range submissions {
		tx, ok := found[s.receipt.TxID]
		if !ok || in[s.receipt.TxID] != s.receipt.Block {
			b.Errorf("transaction %s is in block %d, acknowledged in %d", s.receipt.TxID, in[s.receipt.TxID], s.receipt.Block)
			continue
		}
		if tx.Function != wire.FnIssue || !bytes.Equal(tx.Arg, s.arg) || !bytes.Equal(tx.Result, s.receipt.Result) || tx.MSPID != b.operator.MSPID() {
			b.Errorf("block %d tells another story about %s", s.receipt.Block, s.receipt.TxID)
		}
		if tx.Time.Before(began) || tx.Time.After(time.Now().Add(time.Minute)) || tx.Time.Location() != time.UTC {
			b.Errorf("transaction %s has time %v", tx.ID, tx.Time)
		}
		if len(tx.Writes) != 3 { // two records and the log's head
			b.Errorf("transaction %s wrote %d keys, want 3", tx.ID, len(tx.Writes))
		}
	}
}

func testReplay(b *bench) {
	ders := b.ca.IssueMany(b, 5)
	b.issue(ders...)
	cert, err := x509.ParseCertificate(ders[0])
	check(b, err)
	b.insist(b.operator, wire.FnSetStatus, b.ca.StatusArg(wire.StatusChange{
		Serial: cctest.Serial(b, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise,
	}))
	state := replay(b, b.chain(b.operator))
	keys := slices.Sorted(maps.Keys(state))
	if len(keys) < 6 {
		b.Fatalf("replaying the blocks gives only %d keys", len(keys))
	}
	for len(keys) > 0 {
		some := keys[:min(len(keys), wire.MaxBatch)]
		keys = keys[len(some):]
		for i, v := range b.read(some...) {
			if !bytes.Equal(v, state[some[i]]) {
				b.Errorf("%s: state has %x, the blocks say %x", some[i], v, state[some[i]])
			}
		}
	}
}

func testBlocksWait(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	from := b.height() + 1 // two blocks ahead of what is there
	got := make(chan *network.Block, 16)
	ended := make(chan error, 1)
	go func() {
		ended <- b.operator.Blocks(ctx, from, func(block *network.Block) error { got <- block; return nil })
	}()
	for range 2 {
		b.issue(b.ca.IssueMany(b, 1)...)
	}
	select {
	case block := <-got:
		if block.Number != from {
			b.Errorf("the stream began with block %d, want %d", block.Number, from)
		}
	case err := <-ended:
		b.Fatalf("the stream ended: %v", err)
	case <-b.ctx.Done():
		b.Fatal("no block came")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || errors.Is(err, network.ErrUnavailable) {
		b.Errorf("a cancelled stream ended with %v", err)
	}
}

func testLargeBatches(b *bench) {
	padding := make([]byte, 2<<10)
	padded := func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: padding})
	}
	acked := newAcknowledged()
	for _, tweaks := range [][]func(*x509.Certificate){nil, {padded}} {
		ders := make([][]byte, wire.MaxBatch)
		for i := range ders {
			ders[i], _ = b.ca.Issue(b, tweaks...)
		}
		r, entries := b.issue(ders...)
		for i, der := range ders {
			check(b, acked.add(certKey(b, der), entries[i]))
		}
		arg := b.ca.IssueArg(ders...)
		for _, tx := range b.blocks(b.operator, r.Block, r.Block+1)[0].Txs {
			if tx.ID == r.TxID && !bytes.Equal(tx.Arg, arg) {
				b.Errorf("an argument of %d bytes arrived as %d others", len(arg), len(tx.Arg))
			}
		}
	}
	b.auditLog(acked)
}

func testEndedContext(b *bench) {
	before := b.height()
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if _, err := b.operator.Submit(ctx, wire.FnIssue, b.ca.IssueArg(b.ca.IssueMany(b, 1)...)); !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		b.Errorf("submit: %v, want ErrUnavailable and context.Canceled", err)
	}
	if _, err := b.operator.Evaluate(ctx, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey)); !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		b.Errorf("evaluate: %v, want ErrUnavailable and context.Canceled", err)
	}
	if err := b.operator.Blocks(ctx, 0, func(*network.Block) error { return nil }); !errors.Is(err, context.Canceled) {
		b.Errorf("blocks: %v, want context.Canceled", err)
	}
	if after := b.height(); after != before {
		b.Errorf("%d blocks came of it", after-before)
	}
}

func testClosed(b *bench) {
	l := b.Connect(b, wire.RoleOperator)
	streamed := make(chan error, 1)
	begun := make(chan struct{}, 1)
	go func() {
		streamed <- l.Blocks(b.ctx, 0, func(*network.Block) error {
			select {
			case begun <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	<-begun
	check(b, l.Close())
	closed := func(what string, err error) {
		b.Helper()
		if !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, network.ErrClosed) {
			b.Errorf("%s: %v, want ErrUnavailable and ErrClosed", what, err)
		}
	}
	closed("running stream", <-streamed)
	_, err := l.Submit(b.ctx, wire.FnIssue, b.ca.IssueArg(b.ca.IssueMany(b, 1)...))
	closed("submit", err)
	_, err = l.Evaluate(b.ctx, wire.FnRead, cctest.ReadArg(wire.ConsortiumKey))
	closed("evaluate", err)
	_, err = l.Height(b.ctx)
	closed("height", err)
	closed("stream", l.Blocks(b.ctx, 0, func(*network.Block) error { return nil }))
	check(b, l.Close())
	if b.operator.MSPID() != l.MSPID() || b.operator.Channel() != l.Channel() || l.MSPID() == "" || l.Channel() == "" {
		b.Errorf("a closed connection is of %s on %s", l.MSPID(), l.Channel())
	}
}
