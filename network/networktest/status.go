package networktest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

func testPrecert(b *bench) {
	pre, cert, final := b.ca.Precert(b)
	_, entries := b.issue(pre)
	der, _ := final(cctest.SCTList())
	key := certKey(b, der)
	_, completed := b.issue(der)
	if completed[0].Index != entries[0].Index+1 {
		b.Errorf("certificate stands at %d, its precertificate at %d", completed[0].Index, entries[0].Index)
	}
	var rec wire.CertRecord
	check(b, wire.Decode(b.read(key)[0], &rec))
	if rec.Pre == nil || !bytes.Equal(rec.Pre.LeafHash, entries[0].LeafHash) || rec.Final == nil || !bytes.Equal(rec.Final.LeafHash, completed[0].LeafHash) {
		b.Errorf("recorded as %+v", rec)
	}
	for i, again := range [][]byte{pre, der} {
		if _, got := b.issue(again); got[0].Index != entries[0].Index+uint64(i) {
			b.Errorf("the retry of entry %d answers %+v", i, got)
		}
	}
	other, _, _ := b.ca.Precert(b, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	b.refused(b.operator, wire.FnIssue, b.ca.IssueArg(other), wire.AlreadyExists, "certs[0].serial")
}

// refused asserts that a transaction is rejected with code, about field.
func (b *bench) refused(l network.Ledger, function string, arg []byte, code wire.Code, field string) {
	b.Helper()
	_, err := l.Submit(b.ctx, function, arg)
	var reason *wire.Error
	if !errors.As(err, &reason) || !network.IsRejected(err) || reason.Code != code || reason.Field != field {
		b.Errorf("%s: %v, want a RejectedError with %s about %s", function, err, code, field)
	}
}

// evaluate returns a certificate's status as this organisation sees it.
func (b *bench) evaluate(der []byte) status.Status {
	b.Helper()
	cert, err := x509.ParseCertificate(der)
	check(b, err)
	serial := cctest.Serial(b, cert)
	values := b.read(wire.CertKey(b.ca.ID, serial), wire.CAKey(b.ca.ID),
		wire.RevokeKey(b.ca.ID, serial, wire.HolderSource(sha256.Sum256(cert.RawSubjectPublicKeyInfo))),
		wire.RevokeKey(b.ca.ID, serial, wire.QuorumSource()))
	var rec wire.CertRecord
	check(b, wire.Decode(values[0], &rec))
	var revocations []wire.Revocation
	for _, v := range values[2:] {
		if v != nil {
			var r wire.Revocation
			check(b, wire.Decode(v, &r))
			revocations = append(revocations, r)
		}
	}
	var entry wire.CARecord
	check(b, wire.Decode(values[1], &entry))
	rules := make([]wire.Rule, entry.Rules)
	for i := range rules {
		check(b, wire.Decode(b.read(wire.RuleKey(b.ca.ID, uint64(i+1)))[0], &rules[i]))
	}
	return status.Evaluate(&rec, revocations, rules)
}

func testHolderRevokes(b *bench) {
	der, cert := b.ca.Issue(b)
	b.issue(der)
	auditor := b.Connect(b, wire.RoleAuditor)
	defer auditor.Close()
	elsewhere := b.ca.RevokeArg(b, auditor.Channel()+"-2", der, wire.Superseded, time.Now())
	b.refused(auditor, wire.FnRevoke, elsewhere, wire.InvalidArgument, "intent.channel")
	forged := cctest.SignIntent(b, cctest.NewKey(b), der, b.ca.Intent(b, auditor.Channel(), cert, wire.Superseded, time.Now()))
	b.refused(auditor, wire.FnRevoke, forged, wire.PermissionDenied, "signature")

	arg := b.ca.RevokeArg(b, auditor.Channel(), der, wire.Superseded, time.Now())
	first := revokeResult(b, b.insist(auditor, wire.FnRevoke, arg))
	again := revokeResult(b, b.insist(auditor, wire.FnRevoke, arg))
	if first.Time != again.Time || again.Changed {
		b.Errorf("revoked: %+v; again: %+v", first, again)
	}
	if got := b.evaluate(der); got.State != wire.CertRevoked || got.Time != first.Time || got.Reason != wire.Superseded {
		b.Errorf("status is %+v", got)
	}
	hold := b.ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(b, cert), Op: wire.OpHold, Reason: wire.CertificateHold})
	b.insist(b.operator, wire.FnSetStatus, hold)
	release := b.ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(b, cert), Op: wire.OpRelease})
	b.refused(b.operator, wire.FnSetStatus, release, wire.FailedPrecondition, "changes[0].op")
	compromised := revokeResult(b, b.insist(auditor, wire.FnRevoke, b.ca.RevokeArg(b, auditor.Channel(), der, wire.KeyCompromise, time.Now())))
	if !compromised.Changed || compromised.Time != first.Time || compromised.Reason != wire.KeyCompromise {
		b.Errorf("compromised: %+v", compromised)
	}
}

func revokeResult(b *bench, r network.Receipt) *wire.RevokeResult {
	b.Helper()
	var result wire.RevokeResult
	check(b, wire.Decode(r.Result, &result))
	return &result
}

// decide has a majority submit a decision.
func (b *bench) decide(arg []byte) {
	b.Helper()
	var result wire.DecideResult
	for _, admin := range b.Administrators(b) {
		check(b, wire.Decode(b.insist(admin, wire.FnDecide, arg).Result, &result))
		check(b, admin.Close())
	}
	if !result.Decided {
		b.Errorf("not decided: %+v", result)
	}
}

func testDecisions(b *bench) {
	der, cert := b.ca.Issue(b)
	other, _ := b.ca.Issue(b)
	_, entries := b.issue(der, other)
	b.decide(b.ca.QuorumArg(cctest.Serial(b, cert), wire.PrivilegeWithdrawn))
	b.decide(b.ca.QuorumArg(cctest.Serial(b, cert), wire.PrivilegeWithdrawn))
	b.eventually("the quorum's revocation is here", func() bool { return b.evaluate(der).State == wire.CertRevoked })
	if got := b.evaluate(other); got.State != wire.CertValid {
		b.Errorf("the other certificate is %+v", got)
	}
	b.eventually("the log's last millisecond has passed", func() bool { return wire.MillisOf(time.Now()) > entries[1].Time+1 })
	b.decide(b.ca.RuleArg(1, entries[1].Time, entries[1].Time+1, wire.CACompromise))
	b.eventually("the rule is here", func() bool { return b.evaluate(other).State == wire.CertRevoked })
	b.decide(b.ca.SuspendArg(2))
	fresh, _ := b.ca.Issue(b)
	b.eventually("the suspension is here", func() bool { return b.entry().State == wire.CASuspended })
	b.refused(b.operator, wire.FnIssue, b.ca.IssueArg(fresh), wire.FailedPrecondition, "ca.state")
	b.decide(b.ca.ResumeArg(b.entry().Change))
	b.eventually("the CA is active", func() bool { return b.entry().State == wire.CAActive })
	b.issue(fresh)
}

// entry is the trust list entry of b's CA.
func (b *bench) entry() *wire.CARecord {
	b.Helper()
	var entry wire.CARecord
	check(b, wire.Decode(b.read(wire.CAKey(b.ca.ID))[0], &entry))
	return &entry
}

// testIntegrate moves everything pending into the status log, batch by batch, and recomputes the log from the blocks.
func testIntegrate(b *bench) {
	ders := b.ca.IssueMany(b, 5)
	b.issue(ders...)
	for _, der := range ders {
		b.insist(b.operator, wire.FnRevoke, b.ca.RevokeArg(b, b.operator.Channel(), der, wire.Superseded, time.Now()))
	}
	log, pending := statusLog(b, b.chain(b.operator))
	if len(pending) < len(ders) {
		b.Fatalf("%d changes are pending", len(pending))
	}
	missing := bytes.Repeat([]byte{7}, sha256.Size)
	b.refused(b.operator, wire.FnIntegrate, cctest.IntegrateArg(uint64(len(log)), missing), wire.NotFound, "leaves[0]")
	b.refused(b.operator, wire.FnIntegrate, cctest.IntegrateArg(uint64(len(log)+1), pending[0]), wire.FailedPrecondition, "size")
	for len(pending) > 0 {
		some := pending[:min(len(pending), 3)]
		arg := cctest.IntegrateArg(uint64(len(log)), some...)
		b.eventually("it is this organisation's turn", func() bool {
			_, err := b.operator.Submit(b.ctx, wire.FnIntegrate, arg)
			var reason *wire.Error
			if errors.As(err, &reason) && reason.Field != "caller.msp" && reason.Field != "size" {
				b.Fatalf("integrate: %v", err)
			}
			return err == nil || reason != nil && reason.Field == "size" // committed, though an earlier answer was lost
		})
		log, pending = append(log, some...), pending[len(some):]
	}
	got, left := statusLog(b, b.chain(b.operator))
	if len(left) != 0 || len(got) != len(log) {
		b.Errorf("%d entries, %d pending; want %d and none", len(got), len(left), len(log))
	}
	var head wire.StatusHead
	check(b, wire.Decode(b.read(wire.StatusHeadKey)[0], &head))
	if root := rootOf(b, log); head.Size != uint64(len(log)) || !bytes.Equal(head.Root, root[:]) || head.MSP != b.operator.MSPID() {
		b.Errorf("head is %+v, want size %d and root %x", head, len(log), root)
	}
}

// statusLog follows the blocks as a bridge does: the status log's leaf hashes, and those of changes that it does not have yet.
func statusLog(b *bench, blocks []*network.Block) (log, pending [][]byte) {
	b.Helper()
	for _, block := range blocks {
		for _, tx := range block.Txs {
			if !tx.Valid {
				continue
			}
			for _, w := range tx.Writes {
				if len(w.Key) < len(wire.PendingPrefix) || w.Key[:len(wire.PendingPrefix)] != wire.PendingPrefix || w.Value == nil {
					continue
				}
				var leaf wire.StatusLeaf
				check(b, wire.Decode(w.Value, &leaf))
				hash := leaf.Hash()
				pending = append(pending, hash[:])
			}
			if tx.Function != wire.FnIntegrate {
				continue
			}
			var a wire.IntegrateArg
			check(b, wire.Decode(tx.Arg, &a))
			for _, leaf := range a.Leaves {
				for i := range pending {
					if bytes.Equal(pending[i], leaf) {
						pending = append(pending[:i:i], pending[i+1:]...)
						break
					}
				}
				log = append(log, leaf)
			}
		}
	}
	return log, pending
}

// rootOf computes a log's root with the Go checksum database's implementation.
func rootOf(b *bench, leaves [][]byte) tlog.Hash {
	b.Helper()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(i), tlog.Hash(leaf), reader)
		check(b, err)
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(int64(len(leaves)), reader)
	check(b, err)
	return root
}

func testOperators(b *bench) {
	log, fork := cctest.NewOperatorsLog(0, "x", 9), cctest.NewOperatorsLog(0, "other", 12)
	key := wire.OperatorsKey(b.ca.ID, "")
	head := func() *wire.OperatorsRecord {
		b.Helper()
		var rec wire.OperatorsRecord
		cctest.Decode(b, b.read(key)[0], &rec)
		return &rec
	}
	b.insist(b.operator, wire.FnAnchorOperators, log.AnchorArg(b, b.ca, 0, 4))
	r := b.insist(b.operator, wire.FnAnchorOperators, log.AnchorArg(b, b.ca, 4, 9))
	if got := head(); !got.Head.Equal(log.Head(9)) || got.Lost != nil {
		b.Errorf("the head is %+v", got)
	}
	again := b.insist(b.operator, wire.FnAnchorOperators, log.AnchorArg(b, b.ca, 4, 9))
	var before, after wire.AnchorOperatorsResult
	cctest.Decode(b, r.Result, &before)
	cctest.Decode(b, again.Result, &after)
	if !after.Head.Equal(before.Head) || after.Time != before.Time || after.Changed {
		b.Errorf("the same again gave %+v, before it was %+v", after, before)
	}
	if _, err := b.operator.Submit(b.ctx, wire.FnAnchorOperators, fork.AnchorArg(b, b.ca, 9, 12)); !network.IsRejected(err) {
		b.Errorf("a fork gave %v, want a RejectedError", err)
	}
	second := cctest.NewOperatorsLog(0, "of another bridge", 3)
	second.Name = "bridge-2"
	b.insist(b.operator, wire.FnAnchorOperators, second.AnchorArg(b, b.ca, 0, 3))
	var named wire.OperatorsRecord
	cctest.Decode(b, b.read(wire.OperatorsKey(b.ca.ID, second.Name))[0], &named)
	if got := head(); !got.Head.Equal(log.Head(9)) || !named.Head.Equal(second.Head(3)) {
		b.Errorf("the heads are %+v and %+v", got, named)
	}
	next, lost := cctest.NewOperatorsLog(1, "y", 2), log.Head(9)
	b.insist(b.operator, wire.FnAnchorOperators, cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: b.ca.ID, Head: next.Head(2), Lost: &lost}))
	if got := head(); !got.Head.Equal(next.Head(2)) || got.Lost == nil || !got.Lost.Equal(lost) {
		b.Errorf("the head is %+v", got)
	}
}
