package ca

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/oplog"
)

// clockError is how much the ledger's time may be behind this machine's without a change of status seeming older than the wish for it.
const clockError = wire.Millis(10 * time.Second / time.Millisecond)

// foundHow is the detail that says where the outcome of an action was found whose process ended.
const foundHow = "found after a restart"

// signedCert is a certificate of one of the generations of the CA's key.
type signedCert struct {
	by     *Server
	serial wire.Serial
}

// trace remembers which certificate was signed in which unfinished action. It is called for the records of every generation's journal.
func (o *operators) trace(by *Server, r *record) {
	if r.Op == 0 || r.Op>>refBits != o.generation {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	seq := r.Op & (1<<refBits - 1)
	if _, waits := o.signedIn[seq]; waits {
		o.signedIn[seq] = &signedCert{by, r.Serial}
	}
}

// found is the certificate that was signed in an unfinished action; nil: none was.
func (o *operators) found(seq uint64) *signedCert {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.signedIn[seq]
}

// resolveUnfinished records how the actions ended that an earlier process left without an outcome, as far as journal and ledger tell.
func (o *operators) resolveUnfinished(ctx context.Context) {
	for _, u := range o.left {
		var outcome, target string
		var err error
		switch cert := o.found(u.Seq); {
		case cert != nil:
			target = cert.serial.String()
			outcome, err = cert.issued(ctx)
		case u.Action == http.MethodPost+" "+caapi.PathCertificates || u.Action == http.MethodPost+" "+caapi.PathResponders:
			outcome = "failed: the process ended before anything was signed"
		default:
			outcome, err = o.changed(ctx, u)
		}
		if ctx.Err() != nil {
			return
		}
		detail := map[string]string{foundHow: "in journal and ledger"}
		if err != nil {
			outcome, detail[foundHow] = oplog.Unknown, err.Error()
		}
		if err := o.log.End(u.Seq, outcome, target, detail); err != nil {
			o.server.log.Error("the operators' log did not take the outcome of an action", "record", u.Seq, "error", err)
			return
		}
		o.grew()
		o.server.log.Info("an action of an earlier process", "record", u.Seq, "actor", u.Actor, "action", u.Action, "outcome", outcome)
	}
}

// issued waits for the resolver.
func (c *signedCert) issued(ctx context.Context) (string, error) {
	e := c.by.book.findSerial(c.serial)
	if e == nil {
		return oplog.Unknown, nil
	}
	_, resolved := c.by.book.stateOf(e)
	select {
	case <-resolved:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	switch st, _ := c.by.book.stateOf(e); st {
	case stateAnchored:
		return oplog.Done, nil
	case stateRefused:
		return outcomeOf(e.refusal, 0), nil
	}
	return "failed: it was never submitted", nil
}

var errNotTold = errors.New("neither journal nor ledger tell")

// changed tells what became of a change of one certificate's status.
func (o *operators) changed(ctx context.Context, u *oplog.Record) (string, error) {
	serial, err := wire.ParseSerial(u.Target)
	if err != nil {
		return "", errNotTold
	}
	var want func(*wire.CertRecord) bool
	switch u.Action {
	case http.MethodPost + " " + caapi.PathRevocations:
		reason, err := wire.ParseReason(u.Detail["reason"])
		if err != nil {
			return "", errNotTold
		}
		want = func(r *wire.CertRecord) bool { return r.State != wire.CertValid && r.Reason == reason }
	case http.MethodPost + " " + caapi.PathReleases:
		want = func(r *wire.CertRecord) bool { return r.State == wire.CertValid }
	default:
		return "", errNotTold
	}
	for {
		outcome, err := o.statusSays(ctx, serial, u.Time, want)
		if outcome != "" {
			return outcome, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(resolveEvery):
		}
	}
}

// statusSays is "" while a transaction of the earlier process may still commit, or the ledger does not answer.
func (o *operators) statusSays(ctx context.Context, serial wire.Serial, asked wire.Millis, want func(*wire.CertRecord) bool) (string, error) {
	dead, err := o.server.envelopesDead(ctx, o.started)
	if err != nil {
		return "", err
	}
	g, err := o.server.holder(ctx, serial)
	if err != nil {
		return "", err
	}
	values, err := g.readState(ctx, wire.CertKey(g.issuer.id, serial))
	if err != nil {
		return "", err
	}
	var rec wire.CertRecord
	if values[0] != nil {
		if err := wire.Decode(values[0], &rec); err != nil {
			return oplog.Unknown, err
		}
		if want(&rec) && rec.StatusTime+clockError >= asked {
			return oplog.Done, nil
		}
	}
	if !dead {
		return "", nil
	}
	return "failed: the ledger does not have it", nil
}
