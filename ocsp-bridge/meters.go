package ocspbridge

import (
	"context"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/answers"
)

// meters is what the bridge tells Prometheus.
type meters struct {
	bridge *metrics.Bridge
	ocsp   *metrics.OCSP
}

func (b *Bridge) newMeters() meters {
	return meters{ocsp: b.cfg.Metrics.OCSP(b.ocspState), bridge: b.cfg.Metrics.Bridge(func() metrics.BridgeState {
		v, now := b.index.View(), b.cfg.Now()
		s := metrics.BridgeState{Height: v.Height, ViewAge: -1, Pending: v.Pending, Alarms: b.alarms.Load()}
		if v.Time != 0 {
			s.ViewAge = viewAge(v, now)
		}
		_, err := b.fresh(v, now)
		s.Fresh = err == nil
		for _, log := range b.logs(v) {
			l := metrics.LogState{Name: log.Name, Size: log.Log.Head().Size, Age: -1}
			if best := b.heads.State(log).Best; best != nil {
				l.Cosigned, l.Cosignatures = best.Size, len(best.Cosigners)
				if !best.At.IsZero() {
					l.Age = max(now.Sub(best.At), 0)
				}
			}
			s.Logs = append(s.Logs, l)
		}
		return s
	})}
}

func (b *Bridge) ocspState() metrics.OCSPState {
	var s metrics.OCSPState
	for _, lane := range []*answers.Signers{b.signers, b.live} {
		waiting, signing := lane.Load()
		s.Waiting, s.Signing = s.Waiting+waiting, s.Signing+signing
	}
	s.KeptAnswers, s.KeptOctets = b.cache.Size()
	s.ClockOffset, s.Lag = b.offset.Load(), -1
	ctx, cancel := context.WithTimeout(context.Background(), heightPatience)
	defer cancel()
	if peer, err := b.ledger.Height(ctx); err == nil {
		s.Lag = max(int64(peer)-int64(b.index.View().Height), 0)
	}
	return s
}

// mergeDelays returns, for each transaction of a block that is about to be applied and integrates changes of status, how long each change
// has waited. What is read for the second time after a restart was told already, by an earlier process.
func (b *Bridge) mergeDelays(block *network.Block) (all [][]time.Duration) {
	if required := b.required.Load(); required == unknownHeight || block.Number < uint64(required) {
		return nil
	}
	for i := range block.Txs {
		tx := &block.Txs[i]
		if !tx.Valid || tx.Function != wire.FnIntegrate {
			continue
		}
		var arg wire.IntegrateArg
		if wire.Decode(tx.Arg, &arg) != nil {
			continue // the index will say so
		}
		pending, err := b.index.Pending(2 * wire.MaxBatch)
		if err != nil {
			b.log.Warn("merge delay is not measured", "error", err)
			return nil
		}
		since := make(map[string]time.Time, len(pending))
		for i := range pending {
			since[string(pending[i].Hash[:])] = pending[i].Since
		}
		delays := make([]time.Duration, 0, len(arg.Leaves))
		for _, leaf := range arg.Leaves {
			if t, ok := since[string(leaf)]; ok {
				delays = append(delays, max(tx.Time.Sub(t), 0))
			}
		}
		all = append(all, delays)
	}
	return all
}

// applied counts a block and the integrations in it.
func (m meters) applied(integrations [][]time.Duration) {
	m.bridge.Applied()
	for _, delays := range integrations {
		m.bridge.Integrated(delays)
	}
}
