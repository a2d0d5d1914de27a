package ca

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
)

// catalogueDir is derived from the ledger: it needs no backup.
const catalogueDir = "catalogue"

// revoking is the part of a Server that changes the status of many certificates, or later. Reading order: revoke.go for one certificate;
// revoke_request.go, query.go, revoke_plan.go, revoke_job.go, revoke_run.go, revoke_http.go for many; revoke_keys.go for compromised keys;
// revoke_supersede.go.
type revoking struct {
	catalogue  *catalogue.Store
	blocked    *blockedKeys
	bulks      *bulks
	superseded *supersessions
	sweepKick  chan struct{} // capacity 1
	bulkCtx    context.Context
	bulkChunk  int // certificates that are brought to the ledger at a time: the queue stays short for others' changes
}

// openRevoking requires the journal's lock: one process at a time has these files. Each generation of the CA's key has a catalogue; the rest is the first one's, and all
// use it: a key is in other hands whichever generation certified it.
func (s *Server) openRevoking(cfg Config) (err error) {
	dir := cfg.Dir
	s.sweepKick, s.bulkChunk = make(chan struct{}, 1), cmp.Or(cfg.bulkChunk, wire.MaxBatch)
	s.catalogue, err = catalogue.Open(catalogue.Options{
		Dir: filepath.Join(dir, catalogueDir), CAID: s.issuer.id, Channel: s.ledger.Channel(), Log: s.log, Now: s.now, Recorded: s.kickSweep,
	})
	if err != nil {
		return err
	}
	if first := s.first(); first != s {
		s.blocked, s.superseded, s.bulks = first.blocked, first.superseded, first.bulks
		return nil
	}
	if s.blocked, err = openBlockedKeys(dir, s.now, s.compromised, s.waits); err != nil {
		return err
	}
	if s.superseded, err = openSupersessions(dir); err != nil {
		return err
	}
	s.bulks, err = openBulks(dir, s.now)
	return err
}

// compromised reports whether the ledger says of a certificate of any generation that its key is in other hands.
func (s *Server) compromised(k catalogue.Key) bool {
	return slices.ContainsFunc(s.line.list(), func(g *Server) bool { return g.catalogue.Compromised(k) })
}

// kickSweeps has every generation look for certificates with compromised keys.
func (s *Server) kickSweeps() {
	for _, g := range s.line.list() {
		select {
		case g.sweepKick <- struct{}{}:
		default:
		}
	}
}

// startRevoking goes on with what an earlier process left, once the directory is known to be no old copy: settled says when.
func (s *Server) startRevoking(ctx context.Context, settled func(func(context.Context)) func()) {
	s.bulkCtx = ctx
	s.background.Go(func() { _ = s.catalogue.Follow(ctx, s.ledger) }) // it logs why it ends, and tells who waits for it
	s.background.Go(settled(s.sweepOn))
	if s.first() != s {
		return
	}
	s.background.Go(settled(s.supersede))
	sweeps := s.blocked.sweeps()
	for _, j := range s.bulks.all() {
		if k, err := catalogue.ParseKey(j.head.SPKI); err == nil && j.head.State != caapi.BulkPlanned {
			_, j.head.KeyBlocked = sweeps[k]
		}
		if v, _ := j.view(); v.State == caapi.BulkRunning {
			s.log.Info("a bulk revocation goes on", "id", j.id, "total", v.Total, "done", v.Changed+v.Already+v.Failed)
			s.background.Go(settled(func(ctx context.Context) { s.runBulk(ctx, j) }))
		}
	}
}

// closeRevoking ends what openRevoking has opened, all of it or not.
func (s *Server) closeRevoking() error {
	var errs []error
	if s.catalogue != nil {
		errs = append(errs, s.catalogue.Close())
	}
	if s.first() != s {
		return errors.Join(errs...)
	}
	if s.bulks != nil {
		for _, j := range s.bulks.all() {
			if v, _ := j.view(); v.State == caapi.BulkRunning {
				errs = append(errs, j.log.close())
			}
		}
	}
	if s.superseded != nil && s.superseded.file != nil {
		errs = append(errs, s.superseded.file.close())
	}
	if s.blocked != nil && s.blocked.file != nil {
		errs = append(errs, s.blocked.file.close())
	}
	return errors.Join(errs...)
}

// logged says where a certificate's newest change is in the status log.
func (s *Server) logged(serial wire.Serial, change uint64) caapi.StatusLog {
	if change == 0 {
		return caapi.StatusLog{}
	}
	if c, err := s.catalogue.Get(serial); err == nil && c != nil && c.Change == change {
		return statusLog(serial, c.Position)
	}
	return statusLog(serial, nil)
}
