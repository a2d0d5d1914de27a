package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Ticks is what the ledger's clock costs in block files.
type Ticks struct {
	Count          int     `json:"count"`
	PeerBytes      float64 `json:"peer_bytes_per_tick"`
	OrdererBytes   float64 `json:"orderer_bytes_per_tick"`
	PeerPerHour    float64 `json:"peer_bytes_per_hour"`    // at the default interval
	OrdererPerHour float64 `json:"orderer_bytes_per_hour"` // at the default interval
}

func (t Ticks) String() string {
	return fmt.Sprintf("%.0f bytes of blocks a tick on a peer, %.0f on an orderer; every %v: %.2f and %.2f MB an hour (%d ticks)",
		t.PeerBytes, t.OrdererBytes, testnetwork.DefaultTickInterval, t.PeerPerHour/1e6, t.OrdererPerHour/1e6, t.Count)
}

const ticksMeasured = 10

// measureTicks submits ticks, which nobody else does on this network, and looks at what the block files grow by.
func measureTicks(ctx context.Context, net *testnetwork.Network, l network.Ledger) (t Ticks, err error) {
	peer, orderer := filepath.Join(net.Dir(), "data", "org1.peer"), filepath.Join(net.Dir(), "data", "org1.orderer")
	if err := tickNow(ctx, l); err != nil { // its epoch is over when the next one is accepted
		return t, err
	}
	var before, after [2]int64
	if before, err = blockFiles(peer, orderer); err != nil {
		return t, err
	}
	for range ticksMeasured {
		if err := tickNow(ctx, l); err != nil {
			return t, err
		}
	}
	if err := net.AwaitLevel(ctx); err != nil {
		return t, err
	}
	if after, err = blockFiles(peer, orderer); err != nil {
		return t, err
	}
	t.Count = ticksMeasured
	t.PeerBytes, t.OrdererBytes = float64(after[0]-before[0])/ticksMeasured, float64(after[1]-before[1])/ticksMeasured
	hourly := float64(time.Hour / testnetwork.DefaultTickInterval)
	t.PeerPerHour, t.OrdererPerHour = t.PeerBytes*hourly, t.OrdererBytes*hourly
	return t, nil
}

// tickNow submits a tick as soon as its epoch is open.
func tickNow(ctx context.Context, l network.Ledger) error {
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for {
		_, err := l.Submit(ctx, wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version}))
		var refused *wire.Error
		if !errors.As(err, &refused) || refused.Code != wire.FailedPrecondition {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// blockFiles adds up the block files below each directory.
func blockFiles(dirs ...string) (sums [2]int64, err error) {
	for i, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasPrefix(e.Name(), "blockfile_") {
				return err
			}
			info, err := e.Info()
			if err == nil {
				sums[i] += info.Size()
			}
			return err
		})
		if err != nil {
			return sums, err
		}
		if sums[i] == 0 {
			return sums, fmt.Errorf("%s: holds no block files", dir)
		}
	}
	return sums, nil
}
