package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/internal/integrator"
)

// Takeover is how long a change of status stays pending when the organisation whose turn it is to integrate does nothing.
type Takeover struct {
	Frozen []float64 `json:"frozen_ms"` // its bridge is frozen (SIGSTOP)
	Killed []float64 `json:"killed_ms"` // its bridge is gone
}

func (t Takeover) longest() (d float64) {
	for _, s := range append(append([]float64{}, t.Frozen...), t.Killed...) {
		d = max(d, s)
	}
	return d
}

func (t Takeover) String() string {
	return fmt.Sprintf("  from a change of status to its integration while the bridge whose turn it is does nothing\n    frozen  %.0f ms\n    killed  %.0f ms", t.Frozen, t.Killed)
}

// away is how a bridge is taken away and brought back.
type away struct {
	name    string
	samples *[]float64
	begin   func(ctx context.Context, d *deploy.Deployment, service string) error
	end     func(ctx context.Context, d *deploy.Deployment, service string) error
}

// takeover takes the bridge away whose turn it is, changes a status, and measures until another organisation has integrated that.
func (b *statusBench) takeover(ctx context.Context) error {
	ways := []away{
		{"frozen", &b.res.Takeover.Frozen,
			func(_ context.Context, d *deploy.Deployment, s string) error { return d.Freeze(s) },
			func(_ context.Context, d *deploy.Deployment, s string) error { return d.Thaw(s) }},
		{"killed", &b.res.Takeover.Killed,
			func(ctx context.Context, d *deploy.Deployment, s string) error { return d.Kill(ctx, s) },
			func(ctx context.Context, d *deploy.Deployment, s string) error { return d.Start(ctx, s) }},
	}
	for range b.o.Rounds {
		for _, way := range ways {
			if err := b.takeAway(ctx, way); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *statusBench) takeAway(ctx context.Context, way away) (err error) {
	if err := b.change(ctx); err != nil { // so that it is known who is next
		return err
	}
	if _, err := b.watch.take(ctx, 1); err != nil {
		return err
	}
	org, err := b.next()
	if err != nil {
		return err
	}
	service := deploy.BridgeName(org)
	if err := way.begin(ctx, b.d, service); err != nil {
		return err
	}
	defer func() {
		again := context.WithoutCancel(ctx)
		err = errors.Join(err, way.end(again, b.d, service))
		if err == nil {
			err = b.d.AwaitReady(again, service)
		}
	}()
	if err := b.change(ctx); err != nil {
		return err
	}
	delays, err := b.watch.take(ctx, 1)
	if err != nil {
		return fmt.Errorf("%s %s: %w", service, way.name, err)
	}
	b.say("  %s %s: integrated by %s after %.0f ms", service, way.name, b.watch.integrator(), ms(delays[0]))
	*way.samples = append(*way.samples, ms(delays[0]))
	return nil
}

// next is the organisation that waits the least before it integrates.
func (b *statusBench) next() (int, error) {
	msps := make([]string, len(b.d.Orgs)) // in the order of the consortium, which is theirs
	for i, org := range b.d.Orgs {
		msps[i] = org.MSPID
	}
	view := integrator.View{Consortium: &wire.Consortium{MSPs: msps}, Integrator: b.watch.integrator()}
	first, least := 0, time.Duration(0)
	for _, org := range b.d.Orgs {
		delay, ok := integrator.Turn(view, org.MSPID)
		if !ok {
			return 0, fmt.Errorf("%s is not in the consortium", org.MSPID)
		}
		if first == 0 || delay < least {
			first, least = org.Number, delay
		}
	}
	return first, nil
}

// change revokes the next certificate, by a transaction of the CA's operator.
func (b *statusBench) change(ctx context.Context) error {
	cert := b.certs[0]
	b.certs = b.certs[1:]
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return err
	}
	arg := wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: b.d.CAID(), Changes: []wire.StatusChange{{Serial: serial, Op: wire.OpRevoke, Reason: wire.Superseded}}})
	return untilApplied(ctx, func() error {
		_, err := b.operator.Submit(ctx, wire.FnSetStatus, arg)
		return err
	})
}
