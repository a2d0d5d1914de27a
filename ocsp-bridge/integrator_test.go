package ocspbridge

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/integrator"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Who integrated last stands at the end of the queue, and knows it after a restart too.
func TestIntegratorIsKnownAfterRestart(t *testing.T) {
	const msp = "Org2MSP"
	log := slog.New(slog.DiscardHandler)
	node, err := embedded.Open(embedded.Options{
		Dir: filepath.Join(t.TempDir(), "ledger"), MSPID: msp, Channel: "c", TickInterval: time.Minute, Now: time.Now, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, cctest.NewCA(t).RegisterArg(msp)); err != nil {
		t.Fatal(err)
	}
	conn, dir := node.Connect(wire.RoleOperator), filepath.Join(t.TempDir(), "index")
	open := func() *index.Index {
		ix, err := index.Open(index.Options{Dir: dir, Channel: "c", Now: time.Now, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		return ix
	}
	ix := open()
	read := func() {
		height, err := conn.Height(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := conn.Blocks(ctx, ix.View().Height, func(b *network.Block) error {
			if b.Number+1 == height {
				defer cancel()
			}
			return ix.Apply(b)
		}); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	read()
	if got := integratorView(ix.View()); got.Integrator != "" || got.Pending != 1 {
		t.Fatalf("before the first integration: %+v", got)
	}
	pending, err := ix.Pending(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Submit(t.Context(), wire.FnIntegrate, cctest.IntegrateArg(0, pending[0].Hash[:])); err != nil {
		t.Fatal(err)
	}
	read()
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	ix = open()
	defer func() {
		if err := ix.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := integratorView(ix.View())
	if got.Integrator != msp || got.Size != 1 || got.Pending != 0 {
		t.Errorf("after a restart: %+v, want integrator %s", got, msp)
	}
	got.Consortium = &wire.Consortium{V: wire.Version, MSPs: []string{"Org1MSP", msp, "Org3MSP"}}
	own, _ := integrator.Turn(got, msp)
	next, _ := integrator.Turn(got, "Org3MSP")
	if own <= next {
		t.Errorf("who integrated last waits %s, the next one %s", own, next)
	}
}
