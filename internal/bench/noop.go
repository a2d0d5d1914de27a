package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// benchBatch is how many certificates' bytes one no-op transaction carries: about as many as a CA bridge puts in one at capacity.
const benchBatch = 500

// NoopResult is what a function that does nothing commits, with arguments of as many bytes as the certificates have.
type NoopResult struct {
	Rate    float64 `json:"certificates_per_s"` // of certificates with as many bytes
	Bytes   int     `json:"argument_bytes"`
	Latency Latency `json:"latency"` // of one transaction
	CPU     CPU     `json:"cpu_us"`
}

func (n *NoopResult) String() string {
	return fmt.Sprintf("no-op with the same bytes: %.0f certificates/s in arguments of %d bytes, %s", n.Rate, n.Bytes, n.Latency)
}

// noop is the baseline: each CA's organisation has one transaction in flight, of random bytes, which do not compress.
func (b *issueBench) noop(ctx context.Context, ledgers []network.Ledger, size int) (*NoopResult, error) {
	pad := make([]byte, benchBatch*size)
	if _, err := rand.Read(pad); err != nil {
		return nil, err
	}
	arg := wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.ConsortiumKey}, Pad: pad})
	deadline := time.Now().Add(b.o.Baseline)
	samples, took, err := inFlight(ctx, ledgers, wire.FnRead, func(int, int) []byte {
		if time.Now().After(deadline) {
			return nil
		}
		return arg
	})
	if err != nil {
		return nil, err
	}
	return &NoopResult{Rate: float64(len(samples)*benchBatch) / took.Seconds(), Bytes: len(arg), Latency: summarize(samples)}, nil
}

// LedgerResult is what one transaction in flight for each CA commits, without CA bridge and HTTP.
type LedgerResult struct {
	Rate    float64 `json:"certificates_per_s"`
	Latency Latency `json:"latency"` // of one transaction of a full batch
	CPU     CPU     `json:"cpu_us"`
}

func (r *LedgerResult) String() string {
	return fmt.Sprintf("at the Ledger interface, batches of %d: %.0f certificates/s, %s", benchBatch, r.Rate, r.Latency)
}

// atLedger submits full batches of new certificates, made before the clock starts.
func (b *issueBench) atLedger(ctx context.Context, d *deploy.Deployment, ledgers []network.Ledger, batches int) (*LedgerResult, error) {
	args := make([][][]byte, len(ledgers))
	for i := range ledgers {
		a, err := b.authority(d, i)
		if err != nil {
			return nil, err
		}
		certs, err := a.sign(batches * benchBatch)
		if err != nil {
			return nil, err
		}
		id := wire.CAIDOf(a.cert.RawSubjectPublicKeyInfo)
		for n := range batches {
			args[i] = append(args[i], wire.Encode(wire.NewIssueArg(id, certs[n*benchBatch:(n+1)*benchBatch])))
		}
	}
	b.say("  submitting %d batches of %d certificates", batches*len(ledgers), benchBatch)
	before, err := cpuClock(ctx, d)
	if err != nil {
		return nil, err
	}
	samples, took, err := inFlight(ctx, ledgers, wire.FnIssue, func(ledger, n int) []byte {
		if n >= batches {
			return nil
		}
		return args[ledger][n]
	})
	if err != nil {
		return nil, err
	}
	after, err := cpuClock(ctx, d)
	return &LedgerResult{
		Rate: float64(len(samples)*benchBatch) / took.Seconds(), Latency: summarize(samples), CPU: perCertificate(before, after, len(samples)*benchBatch),
	}, err
}

// inFlight keeps one transaction in flight on each ledger, until next returns nil, and repeats what decided nothing.
func inFlight(ctx context.Context, ledgers []network.Ledger, function string, next func(ledger, n int) []byte) ([]time.Duration, time.Duration, error) {
	start := time.Now()
	samples := make([][]time.Duration, len(ledgers))
	group, ctx := errgroup.WithContext(ctx)
	for i, l := range ledgers {
		group.Go(func() error {
			for n := 0; ; n++ {
				arg := next(i, n)
				if arg == nil {
					return nil
				}
				begin := time.Now()
				if err := untilApplied(ctx, func() error {
					_, err := l.Submit(ctx, function, arg)
					return err
				}); err != nil {
					return err
				}
				samples[i] = append(samples[i], time.Since(begin))
			}
		})
	}
	err := group.Wait()
	return slices.Concat(samples...), time.Since(start), err
}

// embeddedLedger submits full batches to a store of this process, one in flight.
func (b *issueBench) embeddedLedger(ctx context.Context) (err error) {
	store, err := embedded.Open(embedded.Options{Dir: filepath.Join(b.dir, "ledger")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a, err := newAuthority("bench CA", b.o.CAKey)
	if err != nil {
		return err
	}
	if _, err := ca.Register(ctx, store.Connect(wire.RoleAdministrator), a.cert.Raw, nil, store.MSPID()); err != nil {
		return err
	}
	const batches = 60
	certs, err := a.sign(batches * benchBatch)
	if err != nil {
		return err
	}
	id := wire.CAIDOf(a.cert.RawSubjectPublicKeyInfo)
	args := make([][]byte, batches)
	for n := range args {
		args[n] = wire.Encode(wire.NewIssueArg(id, certs[n*benchBatch:(n+1)*benchBatch]))
	}
	samples, took, err := inFlight(ctx, []network.Ledger{store.Connect(wire.RoleOperator)}, wire.FnIssue, func(_, n int) []byte {
		if n >= batches {
			return nil
		}
		return args[n]
	})
	if err != nil {
		return err
	}
	b.res.Ledger = &LedgerResult{Rate: float64(len(samples)*benchBatch) / took.Seconds(), Latency: summarize(samples)}
	b.say("  %s", b.res.Ledger)
	return nil
}

// ledgers connects as the operator of each CA.
func (b *issueBench) ledgers(ctx context.Context, d *deploy.Deployment) (all []network.Ledger, release func() error, err error) {
	release = func() error {
		var errs []error
		for _, l := range all {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	for i := range d.CAs {
		l, err := d.Ledger(ctx, d.CAs[i].Org, testnetwork.Operator)
		if err != nil {
			return nil, nil, errors.Join(err, release())
		}
		all = append(all, l)
	}
	return all, release, nil
}

var errEnough = errors.New("enough")

// stateBytes is the mean size of what a certificate has in the state: its record's key and value, from the blocks.
func stateBytes(ctx context.Context, d *deploy.Deployment) (mean float64, err error) {
	auditor, err := d.Auditor(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, auditor.Close()) }()
	height, err := auditor.Height(ctx)
	if err != nil {
		return 0, err
	}
	var bytes, certs int
	err = auditor.Blocks(ctx, 0, func(b *network.Block) error {
		for _, tx := range b.Txs {
			if !tx.Valid || tx.Function != wire.FnIssue {
				continue
			}
			for _, w := range tx.Writes {
				if _, _, err := wire.ParseCertKey(w.Key); err == nil {
					bytes, certs = bytes+len(w.Key)+len(w.Value), certs+1
				}
			}
		}
		if b.Number+1 >= height {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || certs == 0 {
		return 0, err
	}
	return float64(bytes) / float64(certs), nil
}
