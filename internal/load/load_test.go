package load

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStallIsChargedToEveryRequestThatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		res, err := Run(t.Context(), Options{Rate: 100, Duration: 10 * time.Second, Do: func(ctx context.Context, i int) string {
			// The system answers nothing from second 2 to second 4, and at once otherwise.
			if since := time.Since(begin); since >= 2*time.Second && since < 4*time.Second {
				<-time.After(4*time.Second - since)
			}
			return OK
		}})
		if err != nil {
			t.Fatal(err)
		}
		if res.Sent != 1000 || res.Outcomes[OK] != 1000 {
			t.Fatalf("%+v", res)
		}
		// A fifth of all requests waited, half of those for more than a second.
		if res.P50 > 5 || res.P90 < 900 || res.P90 > 1100 || res.Max < 1990 || res.Max > 2010 {
			t.Errorf("%s", res)
		}
	})
}

func TestRequestsPastTheLimitAreCountedNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, err := Run(t.Context(), Options{Rate: 10, Duration: 2 * time.Second, MaxOpen: 5, Do: func(context.Context, int) string {
			<-time.After(time.Minute)
			return "too late"
		}})
		if err != nil {
			t.Fatal(err)
		}
		if res.Outcomes[Shed] != 15 || res.Outcomes["too late"] != 5 || res.Sent != 20 || res.Rate != 0 {
			t.Errorf("%+v", res)
		}
		if f := res.Failures(); len(f) != 2 || f[0] != Shed {
			t.Errorf("failures are %q", f)
		}
	})
}

func TestARunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var seconds int
		res, err := Run(ctx, Options{
			Rate: 50, Duration: time.Hour, Do: func(context.Context, int) string { return OK },
			Progress: func(s Second) { seconds = s.At },
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		if res.Sent < 100 || res.Sent > 151 || seconds < 3 {
			t.Errorf("%d sent, %d seconds", res.Sent, seconds)
		}
	})
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("a run without a rate began")
	}
}
