package anchor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/network"
)

func TestFullQueueIsUnavailable(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	ledger.Plan(func(string) anchortest.Fault { return anchortest.Hang })
	o := fast
	o.MaxQueue, o.SubmitTimeout = 2, time.Minute
	l := start(t, ledger, ca, o)
	ctx, cancel := context.WithCancel(t.Context())
	certs := ca.IssueMany(t, 4)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = l.Issue(ctx, certs[i]) })
		if i == 0 {
			waitFor(t, func() bool { return ledger.Sent() == 1 })
		}
	}
	waitFor(t, func() bool { return queued(l) == 2 })
	if _, _, err := l.Issue(t.Context(), certs[3]); !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), "too many") {
		t.Fatalf("got %v", err)
	}
	cancel()
	wg.Wait()
	// The one in flight cannot know; those that waited do.
	if !errors.Is(errs[0], network.ErrUnknownOutcome) || !errors.Is(errs[1], network.ErrUnavailable) || !errors.Is(errs[2], network.ErrUnavailable) {
		t.Fatalf("got %v", errs)
	}
}

func TestBatchesKeepToTheByteLimit(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	certs := ca.IssueMany(t, 300)
	o := Options{MaxBytes: wire.MaxCertDER, MaxBatch: wire.MaxBatch}
	for i, err := range issueTogether(t, ledger, ca, o, certs) {
		if err != nil {
			t.Fatalf("certificate %d: %v", i, err)
		}
	}
	onLedger(t, ledger, ca, certs)
	if want := len(certs) * len(certs[0]) / wire.MaxCertDER; ledger.Sent() < want {
		t.Fatalf("%d transactions, want at least %d", ledger.Sent(), want)
	}
}

// A refusal after an attempt of unknown outcome does not say that nothing was written.
func TestRefusalAfterUnknownStaysUnknown(t *testing.T) {
	node := openLedger(t)
	_, ledger := setup(t, node)
	stranger := cctest.NewCA(t) // not registered: refused
	first := true
	ledger.Plan(func(string) anchortest.Fault {
		defer func() { first = false }()
		if first {
			return anchortest.UnknownLost
		}
		return anchortest.None
	})
	l := start(t, ledger, stranger, fast)
	der, _ := stranger.Issue(t)
	_, _, err := l.Issue(t.Context(), der)
	if unk, ok := errors.AsType[*network.UnknownOutcomeError](err); !ok || unk.TxID != "lost" || !network.IsRejected(err) {
		t.Fatalf("got %v", err)
	}
}

func TestDownFollowsTheLedger(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	l := start(t, ledger, ca, fast)
	ledger.Down(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	der, _ := ca.Issue(t)
	go func() {
		_, _, err := l.Issue(ctx, der)
		done <- err
	}()
	waitFor(t, func() bool { return l.Down() != nil })
	ledger.Down(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	cancel()
}

func TestCloseAnswersEveryone(t *testing.T) {
	node := openLedger(t)
	ca, ledger := setup(t, node)
	ledger.Plan(func(string) anchortest.Fault { return anchortest.Hang })
	l := start(t, ledger, ca, fast)
	certs := ca.IssueMany(t, 20)
	errs := make(chan error, len(certs))
	for _, der := range certs {
		go func() {
			_, _, err := l.Issue(context.Background(), der)
			errs <- err
		}()
	}
	waitFor(t, func() bool { return ledger.Sent() > 0 })
	l.Close()
	for range certs {
		if err := <-errs; !errors.Is(err, network.ErrUnavailable) && !errors.Is(err, network.ErrUnknownOutcome) {
			t.Fatalf("got %v", err)
		}
	}
	if _, _, err := l.Issue(t.Context(), certs[0]); !errors.Is(err, network.ErrUnavailable) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{MaxBatch: -1}, {MaxBatch: wire.MaxBatch + 1}, {MaxBytes: 100}, {MaxBytes: wire.MaxArgBytes}, {MaxQueue: -1},
		{SubmitTimeout: -1}, {MinBackoff: time.Hour},
	} {
		var we *wire.Error
		if _, err := New(nil, wire.CAID{}, o); !errors.As(err, &we) || we.Field == "" {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestArgumentsAreCheckedBeforeTheyQueue(t *testing.T) {
	l := &Log{}
	if _, _, err := l.Issue(t.Context(), make([]byte, wire.MaxCertDER+1)); err == nil {
		t.Error("a certificate that is too large was taken")
	}
	if _, _, err := l.SetStatus(t.Context(), wire.StatusChange{Serial: wire.Serial{0}}); err == nil {
		t.Error("a serial with a leading zero was taken")
	}
}
