// Package bench measures what docs/benchmarks.md reports, each figure beside a baseline of the same run.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Options of Run.
type Options struct {
	Executable string    // the certanchor program; empty: the running one
	Samples    int       // of each latency, at least 1
	Rounds     int       // of leader failures, at least 1
	Out        io.Writer // progress and results
}

// Result is everything that was measured.
type Result struct {
	Date     time.Time `json:"date"`
	Up       Up        `json:"network_up"`
	Fabric   Commit    `json:"fabric_submit_to_commit"`
	Revoke   Revoke    `json:"revoke_to_ocsp"`
	Ticks    Ticks     `json:"ticks"`
	Failover Failover  `json:"failover"`
	Embedded Commit    `json:"embedded_submit_to_commit"`
}

// Up is what it takes to start a network whose programs are built.
type Up struct {
	Seconds float64 `json:"seconds"`
	Nodes   int     `json:"nodes"`
	RSS     int64   `json:"rss_bytes"` // of all nodes, after the latencies were measured
}

// tickInterval lets many ticks pass during a run; what an hour of them costs is computed for the default interval.
const tickInterval = 2 * time.Second

// Run measures everything on a network of its own, which is gone when it returns.
func Run(ctx context.Context, o Options) (res *Result, err error) {
	if o.Samples < 1 || o.Rounds < 1 {
		return nil, fmt.Errorf("samples %d, rounds %d: must be at least 1", o.Samples, o.Rounds)
	}
	dir, err := os.MkdirTemp("", "certanchor-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{o: o, dir: dir, res: &Result{Date: time.Now().UTC()}}
	if err := r.embedded(ctx); err != nil {
		return r.res, fmt.Errorf("embedded ledger: %w", err)
	}
	return r.res, r.fabric(ctx)
}

type run struct {
	o   Options
	dir string
	res *Result
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.o.Out, format+"\n", args...) }

func (r *run) fabric(ctx context.Context) (err error) {
	r.say("four-organisation Fabric network")
	options := testnetwork.Options{Dir: filepath.Join(r.dir, "network"), Executable: r.o.Executable, BasePort: testnetwork.AnyPort, TickInterval: tickInterval}
	// Once to have the programs built, once to measure.
	for range 2 {
		start := time.Now()
		net, err := testnetwork.Up(ctx, options)
		if err != nil {
			return err
		}
		r.res.Up.Seconds, r.res.Up.Nodes = time.Since(start).Seconds(), len(net.Nodes())
		if err := net.Purge(ctx); err != nil {
			return err
		}
	}
	r.say("  network up (programs built): %.1f s", r.res.Up.Seconds)
	net, err := testnetwork.Up(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Purge(context.WithoutCancel(ctx))) }()
	return r.onNetwork(ctx, net)
}

func (r *run) onNetwork(ctx context.Context, net *testnetwork.Network) (err error) {
	operator, err := fabric.Open(ctx, net.Connection(1, testnetwork.Operator))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.Close()) }()
	// Failures of leaders and ticks first: nothing else runs on the network yet.
	if r.res.Failover, err = measureFailover(ctx, net, operator, r.o.Rounds, r.say); err != nil {
		return fmt.Errorf("failover: %w", err)
	}
	if _, err := settle(ctx, net, operator); err != nil {
		return err
	}
	if r.res.Ticks, err = measureTicks(ctx, net, operator); err != nil {
		return fmt.Errorf("ticks: %w", err)
	}
	r.say("  ticks: %s", r.res.Ticks)
	var admins []network.Ledger
	for org := 1; org <= net.Orgs()/2+1; org++ {
		admin, err := fabric.Open(ctx, net.Connection(org, testnetwork.Admin))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, admin.Close()) }()
		admins = append(admins, admin)
	}
	if r.res.Fabric, err = measureCommit(ctx, operator, admins, r.o.Samples); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	r.say("%s", r.res.Fabric)
	d, err := deploy.OnFabric(ctx, net, deploy.Options{Dir: filepath.Join(r.dir, "services"), Executable: r.o.Executable})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.StopAll(context.WithoutCancel(ctx))) }()
	if r.res.Revoke, err = measureRevoke(ctx, d, operator, r.o.Samples); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	r.say("%s", r.res.Revoke)
	status, err := net.Status(ctx)
	if err != nil {
		return err
	}
	for _, n := range status.Nodes {
		r.res.Up.RSS += n.RSS
	}
	r.say("  memory of the network's %d nodes: %d MiB resident", len(status.Nodes), r.res.Up.RSS>>20)
	return nil
}
