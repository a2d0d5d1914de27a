package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// embedded measures the ledger of one machine. Its baseline is a write and fsync of as many bytes as a certificate has.
func (r *run) embedded(ctx context.Context) (err error) {
	r.say("embedded ledger")
	store, err := embedded.Open(embedded.Options{Dir: filepath.Join(r.dir, "ledger"), TickInterval: tickInterval})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	r.res.Embedded, err = measureCommit(ctx, store.Connect(wire.RoleOperator), []network.Ledger{store.Connect(wire.RoleAdministrator)}, r.o.Samples)
	if err != nil {
		return err
	}
	// A no-op commits a block here too; what the disk asks for is the floor under both.
	floor, err := r.fsync(ctx)
	if err != nil {
		return err
	}
	r.say("%s\n    write and fsync   %s", r.res.Embedded, floor)
	return nil
}

func (r *run) fsync(ctx context.Context) (l Latency, err error) {
	f, err := os.Create(filepath.Join(r.dir, "floor"))
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, 1200)
	return sequence(ctx, r.o.Samples, func(context.Context, int) error {
		_, err := f.Write(block)
		return errors.Join(err, f.Sync())
	})
}
