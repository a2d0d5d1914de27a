package ocspbridge

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/witness"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/heads"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Names of the logs that are no CA's, in paths.
const (
	statusName = "status"
	mapName    = "map"
)

func (b *Bridge) statusLog() heads.Log {
	return heads.Log{Name: statusName, Origin: lognames.Status(b.ledger.Channel()), Log: b.index.StatusLog()}
}

func (b *Bridge) mapLog() heads.Log {
	return heads.Log{Name: mapName, Origin: lognames.Map(b.ledger.Channel()), Log: b.index.MapLog()}
}

// issuanceLog returns a CA's log. Errors: NotFound.
func (b *Bridge) issuanceLog(id wire.CAID) (heads.Log, error) {
	log, ok := b.index.Issuance(id)
	if !ok {
		return heads.Log{}, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	return heads.Log{Name: id.String(), Origin: lognames.Issuance(b.ledger.Channel(), id), Log: log}, nil
}

// logNamed returns the log with a name as paths have it.
func (b *Bridge) logNamed(name string) (heads.Log, error) {
	switch name {
	case statusName:
		return b.statusLog(), nil
	case mapName:
		return b.mapLog(), nil
	}
	id, err := wire.ParseCAID(name)
	if err != nil {
		return heads.Log{}, err
	}
	return b.issuanceLog(id)
}

// logOf returns the log of an origin, as the witness asks for it.
func (b *Bridge) logOf(origin string) (merklelog.Log, bool) {
	switch origin {
	case lognames.Status(b.ledger.Channel()):
		return b.index.StatusLog(), true
	case lognames.Map(b.ledger.Channel()):
		return b.index.MapLog(), true
	}
	id, err := wire.ParseCAID(origin[strings.LastIndexByte(origin, '/')+1:])
	if err != nil || origin != lognames.Issuance(b.ledger.Channel(), id) {
		return nil, false
	}
	return b.index.Issuance(id)
}

// logs returns every log: those of the CAs, sorted, then status and map.
func (b *Bridge) logs(v *index.View) []heads.Log {
	var logs []heads.Log
	for _, ca := range v.CAs() {
		if log, err := b.issuanceLog(ca.ID); err == nil {
			logs = append(logs, log)
		}
	}
	return append(logs, b.statusLog(), b.mapLog())
}

// waitSize returns nil once a log of the index has at least size entries.
func (b *Bridge) waitSize(ctx context.Context, log merklelog.Log, size uint64) error {
	for {
		changed := b.index.Changed()
		if log.Head().Size >= size {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkpoint returns a signed checkpoint of a log of at least the size least: see heads.Serve.
func (b *Bridge) checkpoint(ctx context.Context, log heads.Log, least uint64) (*heads.Checkpoint, error) {
	if err := b.haltReason(); err != nil {
		return nil, unavailable(err)
	}
	cp, err := b.heads.Serve(ctx, log, least)
	return cp, b.notSigned(err)
}

// quorate returns a checkpoint that a quorum has cosigned, of at least the size least.
func (b *Bridge) quorate(ctx context.Context, log heads.Log, least uint64) (*heads.Checkpoint, error) {
	if err := b.haltReason(); err != nil {
		return nil, unavailable(err)
	}
	cp, err := b.heads.Quorate(ctx, log, least)
	return cp, b.notSigned(err)
}

// notSigned says why there is no checkpoint. A damaged store is the server's fault, and everything else may pass.
func (b *Bridge) notSigned(err error) error {
	var (
		behind *heads.BehindError
		ahead  *witness.AheadError // this organisation's own, while the index is behind what it has cosigned
		two    *heads.TwoHistoriesError
	)
	if err == nil {
		return nil
	}
	if errors.As(err, &behind) || errors.As(err, &ahead) || errors.As(err, &two) || errors.Is(err, heads.ErrNoQuorum) || b.haltReason() != nil {
		return unavailable(err)
	}
	return err
}

// headRetry is how long after a round that brought no quorum the next one begins by itself.
const headRetry = 2 * time.Second

// keepHeads has every log cosigned again at each Tick, and as soon as the bridge has caught up.
func (b *Bridge) keepHeads(ctx context.Context) error {
	var (
		began bool
		ticks uint64
		again = b.cfg.After(headRetry)
	)
	for {
		changed := b.index.Changed()
		v := b.index.View()
		if _, err := b.fresh(v, b.cfg.Now()); err == nil && (!began || v.MapLog().Size != ticks) {
			began, ticks = true, v.MapLog().Size
			if err := b.heads.Refresh(b.logs(v)...); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.halted:
			return nil
		case <-changed:
		case <-again:
			again = b.cfg.After(headRetry)
			if err := b.heads.Retry(); err != nil {
				return err
			}
		}
	}
}
