package bench

import (
	"testing"
	"time"
)

func TestPercentilesAreNearestRanks(t *testing.T) {
	samples := make([]time.Duration, 0, 100)
	for i := 100; i >= 1; i-- {
		samples = append(samples, time.Duration(i)*time.Millisecond)
	}
	if l := summarize(samples); l != (Latency{Samples: 100, P50: 50, P99: 99, Max: 100}) {
		t.Errorf("of 1..100 ms: %+v", l)
	}
	if l := summarize(samples[99:]); l != (Latency{Samples: 1, P50: 1, P99: 1, Max: 1}) {
		t.Errorf("of 1 ms: %+v", l)
	}
	if l := summarize(nil); l != (Latency{}) {
		t.Errorf("of nothing: %+v", l)
	}
}
