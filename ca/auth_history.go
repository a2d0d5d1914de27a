package ca

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/oplog"
)

// The operators' log tells which dual-control policy is in force, at each start and change that it does not tell of yet. Its head is anchored in the
// ledger: so a policy that was taken away together with all that dual control keeps in the CA's directory is missed all the same.
const (
	actionPolicy = "dual control in force"
	noPolicy     = "none"
)

// policyTold takes notice of what the log says, while it is read.
func (d *dualControl) policyTold(r *oplog.Record) {
	if r.Kind == oplog.Tells && r.Action == actionPolicy && r.How == howProcess {
		d.told = r.Target
	}
}

// howProcess is what operators.internally puts into its entries.
const howProcess = "process"

// checkHistory refuses to start when the log tells of a policy that what is in force now did not replace with approvals.
func (d *dualControl) checkHistory() error {
	if d.told == "" || d.told == noPolicy || d.told == d.inForce() {
		return nil
	}
	ok, err := dual.Succeeds(d.dir, d.told)
	if err == nil && !ok {
		err = fmt.Errorf("%s: the operators' log says that the policy with SHA-256 %s was in force: %w; certanchor ca dual-control abandon, with that file and its state in place, "+
			"takes one out of force that nobody can change any more", filepath.Join(d.dir, dual.PolicyFile), d.told, dual.ErrRemoved)
	}
	return err
}

// inForce is the digest of the policy in force, as the log has it.
func (d *dualControl) inForce() string {
	if p := d.policy.Load(); p != nil {
		return p.Digest()
	}
	return noPolicy
}

// tellPolicy keeps the log up with the policy, until ctx ends.
func (s *Server) tellPolicy(ctx context.Context) {
	d := s.dual
	for pause := time.NewTicker(watchPause); ; {
		if now := d.inForce(); now != d.told && (d.told != "" || now != noPolicy) {
			err := s.operators.internally(ctx, oplog.Entry{Actor: "dual control", Action: actionPolicy, Target: now}, func(context.Context) error { return nil })
			if err == nil {
				d.told = now
			}
		}
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}
