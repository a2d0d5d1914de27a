package bench

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/internal/load"
	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// What Status holds the measurements against: the design's bounds.
const (
	MergeDelayBound = time.Second     // 99 of 100 changes are in the status log by then
	TakeoverBound   = 2 * time.Second // so is every one when the organisation whose turn it is does nothing
)

// StatusOptions of Status.
type StatusOptions struct {
	Executable string    // the certanchor program; empty: the running one
	CAs        int       // that issue at the same time, at least 1; revocations are the first one's
	Rate       float64   // certificates per second that are issued, over all CAs
	RevokeRate float64   // revocations per second at the same time
	Samples    int       // revocations, idle and again under load, at least 1
	Rounds     int       // takeovers of each kind, at least 1
	Out        io.Writer // progress and results
}

// StatusResult is what Status measured.
type StatusResult struct {
	Date     time.Time    `json:"date"`
	Rate     float64      `json:"issued_per_s"`  // asked for, in Loaded
	Revoked  float64      `json:"revoked_per_s"` // as above
	Idle     *StatusPhase `json:"idle"`          // one revocation at a time, nothing else
	Loaded   *StatusPhase `json:"loaded"`
	Takeover Takeover     `json:"takeover"`
}

// StatusPhase is revocations under one condition.
type StatusPhase struct {
	Acknowledged Timing            `json:"acknowledged"`       // from the call of the CA's API until it returns
	Everywhere   Timing            `json:"revoked_everywhere"` // from the call until the last organisation's responder says revoked
	Orgs         map[string]Timing `json:"revoked_at"`         // until that organisation's does
	Merge        Timing            `json:"merge_delay"`        // from the block of the change to the block of its integration
	Issued       *load.Result      `json:"issued,omitempty"`   // at the same time
	Failed       map[string]int64  `json:"revocations_failed"` // not among the samples
}

// Missed says which bounds were not kept; empty: all were.
func (r *StatusResult) Missed() (missed []string) {
	for _, c := range []struct {
		name  string
		phase *StatusPhase
	}{{"idle", r.Idle}, {"under load", r.Loaded}} {
		if c.phase != nil && c.phase.Merge.P99 > ms(MergeDelayBound) {
			missed = append(missed, fmt.Sprintf("merge delay %s: p99 %.0f ms, more than %v", c.name, c.phase.Merge.P99, MergeDelayBound))
		}
	}
	if d := r.Takeover.longest(); d > ms(TakeoverBound) {
		missed = append(missed, fmt.Sprintf("takeover: %.0f ms, more than %v", d, TakeoverBound))
	}
	return missed
}

func (p *StatusPhase) String() string {
	s := fmt.Sprintf("    revoke call until acknowledged      %s\n    until revoked at every OCSP         %s", p.Acknowledged.Latency, p.Everywhere.Latency)
	s += p.Everywhere.bars("      ")
	s += fmt.Sprintf("\n    merge delay of status changes       %s%s", p.Merge.Latency, p.Merge.bars("      "))
	if p.Issued != nil {
		s += fmt.Sprintf("\n    issued at the same time: %s", p.Issued)
	}
	for what, n := range p.Failed { // seldom more than one
		s += fmt.Sprintf("\n    %d revocations failed: %s", n, what)
	}
	return s
}

type statusBench struct {
	o   StatusOptions
	dir string
	res *StatusResult

	d        *deploy.Deployment
	api      *caapi.Client
	operator network.Ledger
	askers   []*client.Client // one for each organisation's responder
	watch    *mergeWatch
	certs    []*x509.Certificate // of the first CA, on the ledger and good; each is used once
}

func (b *statusBench) say(format string, args ...any) { fmt.Fprintf(b.o.Out, format+"\n", args...) }

// Status measures on a Fabric network of its own, which is gone when it returns, how soon revocations count: in the status log, when the
// organisation that should write it stops, and at every organisation's OCSP responder.
func Status(ctx context.Context, o StatusOptions) (res *StatusResult, err error) {
	if o.CAs < 1 || o.Samples < 1 || o.Rounds < 1 || !(o.Rate > 0) || !(o.RevokeRate > 0) {
		return nil, fmt.Errorf("CAs %d, samples %d, rounds %d, rates %v and %v: must be positive", o.CAs, o.Samples, o.Rounds, o.Rate, o.RevokeRate)
	}
	dir, err := os.MkdirTemp("", "certanchor-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &statusBench{o: o, dir: dir, watch: newMergeWatch(), res: &StatusResult{Date: time.Now().UTC(), Rate: o.Rate, Revoked: o.RevokeRate}}
	net, err := testnetwork.Up(ctx, testnetwork.Options{
		Dir: filepath.Join(dir, "network"), Executable: o.Executable, BasePort: testnetwork.AnyPort, Progress: o.Out,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Purge(context.WithoutCancel(ctx))) }()
	b.d, err = deploy.OnFabric(ctx, net, deploy.Options{Dir: filepath.Join(dir, "services"), Executable: o.Executable, CAs: o.CAs})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.d.StopAll(context.WithoutCancel(ctx))) }()
	if b.operator, err = b.d.Ledger(ctx, 1, testnetwork.Operator); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.operator.Close()) }()
	return b.res, b.watched(ctx)
}

// watched follows the last organisation's blocks while it measures.
func (b *statusBench) watched(ctx context.Context) (err error) {
	auditor, err := b.d.Auditor(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, auditor.Close()) }()
	following, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop(auditor.Blocks(following, 0, b.watch.apply)) // what is measured ends with it
	}()
	defer func() {
		stop(nil)
		<-ended
	}()
	if err := b.measure(following); err != nil {
		return errors.Join(err, context.Cause(following))
	}
	return nil
}

func (b *statusBench) measure(ctx context.Context) (err error) {
	if b.api, err = b.d.Client(); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 1024}
	for _, org := range b.d.Orgs {
		b.askers = append(b.askers, &client.Client{HTTP: &http.Client{Timeout: time.Minute, Transport: transport}, OCSPURL: org.OCSPURL(), NoNonce: true})
	}
	if err := b.prepare(ctx, 2*b.o.Samples+4*b.o.Rounds); err != nil {
		return err
	}
	b.say("  %d takeovers", 2*b.o.Rounds)
	if err := b.takeover(ctx); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	b.say("%s\n  %d revocations, idle, one at a time", b.res.Takeover, b.o.Samples)
	if b.res.Idle, err = b.idle(ctx); err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	b.say("%s\n  %d revocations, %.0f/s, while %.0f certificates/s are issued", b.res.Idle, b.o.Samples, b.o.RevokeRate, b.o.Rate)
	if b.res.Loaded, err = b.loaded(ctx); err != nil {
		return fmt.Errorf("under load: %w", err)
	}
	b.say("%s", b.res.Loaded)
	return nil
}

// prepare records n certificates of the first CA and waits until every responder knows the last one.
func (b *statusBench) prepare(ctx context.Context, n int) error {
	key, err := b.d.Key(&b.d.CAs[0])
	if err != nil {
		return err
	}
	ders, err := (&authority{cert: b.d.CACert, key: key}).sign(n)
	if err != nil {
		return err
	}
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		b.certs = append(b.certs, cert)
	}
	for len(ders) > 0 {
		batch := ders[:min(len(ders), benchBatch)]
		ders = ders[len(batch):]
		if err := untilApplied(ctx, func() error {
			_, err := b.operator.Submit(ctx, wire.FnIssue, wire.Encode(wire.NewIssueArg(b.d.CAID(), batch)))
			return err
		}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, asker := range b.askers {
		if _, err := deploy.AwaitStatus(ctx, asker, b.certs[n-1], b.d.CACert, client.Good); err != nil {
			return err
		}
	}
	return nil
}

func (b *statusBench) idle(ctx context.Context) (*StatusPhase, error) {
	got := make([]*revoked, b.o.Samples)
	certs := b.certs[:b.o.Samples]
	b.certs = b.certs[b.o.Samples:]
	for i, cert := range certs {
		got[i] = b.revoke(ctx, cert)
		if (i+1)%100 == 0 {
			b.say("  %5d revoked", i+1)
		}
	}
	return b.phase(ctx, got)
}

// loaded revokes at one rate while it issues at another, both whatever becomes of the earlier ones.
func (b *statusBench) loaded(ctx context.Context) (*StatusPhase, error) {
	const lead = 3 * time.Second // of the issuing
	lasts := time.Duration(float64(b.o.Samples)/b.o.RevokeRate*float64(time.Second)) + time.Millisecond
	issuing := &issueBench{o: IssueOptions{CAs: b.o.CAs, Rate: b.o.Rate, Duration: lasts + lead, Out: b.o.Out}}
	target, _, err := issuing.target(b.d)
	if err != nil {
		return nil, err
	}
	got := make([]*revoked, b.o.Samples)
	var issued *load.Result
	group, ctx2 := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		issued, err = load.Run(ctx2, load.Options{Rate: b.o.Rate, Duration: lasts + lead, Do: target, Progress: func(s load.Second) {
			b.say("  %3d s  issued %5d/s  failed %4d  open %5d  p99 %6.0f ms", s.At, s.OK, s.Bad, s.Open, s.P99)
		}})
		return err
	})
	group.Go(func() error {
		select {
		case <-time.After(lead):
		case <-ctx2.Done():
			return ctx2.Err()
		}
		_, err := load.Run(ctx2, load.Options{Rate: b.o.RevokeRate, Duration: lasts, Do: func(ctx context.Context, i int) string {
			got[i] = b.revoke(ctx, b.certs[i])
			return load.OK
		}})
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	p, err := b.phase(ctx, got)
	if p != nil {
		p.Issued = issued
	}
	return p, err
}

// revoked is one revocation.
type revoked struct {
	acknowledged time.Duration
	at           []time.Duration // by organisation
	err          error
}

// askEvery is how often a responder is asked whether it says revoked: what is measured is as coarse. More often would take time that
// the others on the machine need.
const askEvery = 5 * time.Millisecond

// revoke calls the CA's API and asks every organisation's responder from then on.
func (b *statusBench) revoke(ctx context.Context, cert *x509.Certificate) *revoked {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r := &revoked{at: make([]time.Duration, len(b.askers))}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return &revoked{err: err}
	}
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, asker := range b.askers {
		group.Go(func() (err error) {
			r.at[i], err = b.until(ctx, asker, cert, start)
			return err
		})
	}
	group.Go(func() error {
		change, acknowledged, err := b.api.Revoke(ctx, caapi.RevokeRequest{Serial: serial.String(), Reason: "keyCompromise"})
		if err == nil && !acknowledged {
			err = errors.New("not acknowledged: " + change.Detail)
		}
		r.acknowledged = time.Since(start)
		return err
	})
	r.err = group.Wait()
	return r
}

// until is how long after start a responder says revoked.
func (b *statusBench) until(ctx context.Context, asker *client.Client, cert *x509.Certificate, start time.Time) (time.Duration, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		a, err := asker.Status(ctx, cert, b.d.CACert)
		if err == nil && a.Status == client.Revoked {
			return time.Since(start), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// phase sums up, when all changes are in the status log.
func (b *statusBench) phase(ctx context.Context, got []*revoked) (*StatusPhase, error) {
	var acknowledged, everywhere []time.Duration
	at := make([][]time.Duration, len(b.d.Orgs))
	p := &StatusPhase{Orgs: map[string]Timing{}, Failed: map[string]int64{}}
	for _, r := range got {
		switch {
		case r == nil: // the time was up
			p.Failed["not sent"]++
			continue
		case r.err != nil:
			p.Failed[r.err.Error()]++
			continue
		}
		acknowledged = append(acknowledged, r.acknowledged)
		last := time.Duration(0)
		for i, d := range r.at {
			at[i] = append(at[i], d)
			last = max(last, d)
		}
		everywhere = append(everywhere, last)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	delays, err := b.watch.take(ctx, len(everywhere))
	if err != nil {
		return nil, fmt.Errorf("changes of status are still pending: %w", err)
	}
	p.Acknowledged, p.Everywhere, p.Merge = timing(acknowledged), timing(everywhere), timing(delays)
	for i, org := range b.d.Orgs {
		p.Orgs[org.MSPID] = timing(at[i])
	}
	return p, nil
}
