package anchor

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/metrics"
)

// Options of a Log. A zero field takes its default.
type Options struct {
	MaxBatch      int               // entries in one transaction, at most wire.MaxBatch; default 1000
	MaxBytes      int               // bytes of certificates in one transaction, at most 4 MiB; default 2 MiB
	MaxQueue      int               // entries that may wait in each lane, beside those in flight; default 4096
	MaxQueueBytes int               // and their bytes; default 32 MiB
	MaxWait       time.Duration     // for others, of a certificate: one that would wait longer is turned away at once. Default 2 s, negative: no bound
	QuietTime     time.Duration     // how long a gap between callers ends a batch (lane.gather); default 2 ms, negative: no waiting
	SubmitTimeout time.Duration     // of one attempt; default 20 s
	MinBackoff    time.Duration     // between attempts, doubled each time and jittered; default 5 ms
	MaxBackoff    time.Duration     // default 1 s
	Metrics       *metrics.Registry // default: none are kept
	Logger        *slog.Logger      // default slog.Default
	Now           func() time.Time  // default time.Now
}

const (
	// A batch holds what came in during the flight before it. Each transaction costs a Fabric network tens of milliseconds of CPU,
	// whatever it holds, so a limit near what comes in at capacity would lower the capacity (docs/benchmarks.md).
	defaultBatch      = wire.MaxBatch
	defaultBytes      = 2 << 20
	defaultQueue      = 4096
	defaultQueueBytes = 32 << 20
	maxBatchBytes     = wire.MaxArgBytes / 2
)

// Validate refuses options that are out of range. Errors are *wire.Error and name the option.
func (o Options) Validate() error { return o.fill() }

func (o *Options) fill() error {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&o.MaxBatch, defaultBatch)
	orInt(&o.MaxBytes, defaultBytes)
	orInt(&o.MaxQueue, defaultQueue)
	orInt(&o.MaxQueueBytes, defaultQueueBytes)
	orTime(&o.MaxWait, 2*time.Second)
	orTime(&o.QuietTime, 2*time.Millisecond)
	orTime(&o.SubmitTimeout, 20*time.Second)
	orTime(&o.MinBackoff, 5*time.Millisecond)
	orTime(&o.MaxBackoff, time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, c := range []struct {
		ok    bool
		field string
		value any
		rule  string
	}{
		{o.MaxBatch >= 1 && o.MaxBatch <= wire.MaxBatch, "max_batch", o.MaxBatch, fmt.Sprintf("must be 1 to %d", wire.MaxBatch)},
		{o.MaxBytes >= wire.MaxCertDER && o.MaxBytes <= maxBatchBytes, "max_batch_bytes", o.MaxBytes, fmt.Sprintf("must be %d (one certificate) to %d", wire.MaxCertDER, maxBatchBytes)},
		{o.MaxQueue >= 1, "max_queue", o.MaxQueue, "must be at least 1"},
		{o.MaxQueueBytes >= wire.MaxCertDER, "max_queue_bytes", o.MaxQueueBytes, fmt.Sprintf("must be at least %d (one certificate)", wire.MaxCertDER)},
		{o.QuietTime <= time.Second, "quiet_time", o.QuietTime, "must be at most 1s"},
		{o.SubmitTimeout > 0, "submit_timeout", o.SubmitTimeout, "must be positive"},
		{o.MinBackoff > 0 && o.MaxBackoff >= o.MinBackoff, "max_backoff", o.MaxBackoff, "must not be less than min_backoff, which must be positive"},
	} {
		if !c.ok {
			return wire.Errorf(wire.InvalidArgument, c.field, fmt.Sprint(c.value), "%s", c.rule)
		}
	}
	return nil
}
