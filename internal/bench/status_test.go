package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

func TestHistogramCountsEverySampleOnce(t *testing.T) {
	milli := func(n ...int) (d []time.Duration) {
		for _, n := range n {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	got := timing(milli(10, 11, 20, 45, 99999))
	counts := map[float64]int{}
	sum := 0
	for _, b := range got.Histogram {
		counts[b.UpTo] = b.Count
		sum += b.Count
	}
	if sum != 5 || got.Samples != 5 || counts[10] != 1 || counts[20] != 2 || counts[50] != 1 || counts[0] != 1 || got.Histogram[0].UpTo != 10 {
		t.Errorf("%+v", got)
	}
	if bars := got.bars(""); strings.Count(bars, "\n") != len(got.Histogram) || !strings.Contains(bars, "longer      1 #") {
		t.Errorf("%s", bars)
	}
	if none := timing(nil); none.Histogram != nil || none.bars("") != "" {
		t.Errorf("%+v", none)
	}
}

func TestMergeDelayIsFromTheChangesBlockToTheIntegrationsBlock(t *testing.T) {
	w, now := newMergeWatch(), time.Unix(1000, 0)
	w.now = func() time.Time { return now }
	block := func(at time.Duration, txs ...network.Tx) {
		now = time.Unix(1000, 0).Add(at)
		if err := w.apply(&network.Block{Txs: txs}); err != nil {
			t.Fatal(err)
		}
	}
	pending := func(n byte, value []byte) network.Write {
		return network.Write{Key: wire.PendingKey([32]byte{n}), Value: value}
	}
	change := func(valid bool, ns ...byte) network.Tx {
		tx := network.Tx{Valid: valid, Function: wire.FnSetStatus, Writes: []network.Write{{Key: "cert/x", Value: []byte{1}}}}
		for _, n := range ns {
			tx.Writes = append(tx.Writes, pending(n, []byte{1}))
		}
		return tx
	}
	integrate := func(msp string, valid bool, ns ...byte) network.Tx {
		tx := network.Tx{Valid: valid, Function: wire.FnIntegrate, MSPID: msp}
		for _, n := range ns {
			tx.Writes = append(tx.Writes, pending(n, nil))
		}
		return tx
	}
	block(0, change(true, 1, 2), change(false, 3))
	block(100*time.Millisecond, change(true, 1), integrate("Org2MSP", false, 1, 2)) // not a new change; an integration that was overtaken
	block(300*time.Millisecond, integrate("Org3MSP", true, 1))
	block(500*time.Millisecond, integrate("Org4MSP", true, 2, 9))
	delays, err := w.take(t.Context(), 2)
	if err != nil || len(delays) != 2 || delays[0] != 300*time.Millisecond || delays[1] != 500*time.Millisecond || w.integrator() != "Org4MSP" {
		t.Errorf("%v, %v, %s", delays, err, w.integrator())
	}
	block(time.Second, change(true, 4))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := w.take(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("while a change is pending: %v, %v", d, err)
	}
}
