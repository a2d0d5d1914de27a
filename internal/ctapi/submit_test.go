package ctapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/network"
)

func TestDuplicateGetsTheSameSCTByteForByte(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	one, other := newLog(t, c), newLog(t, c) // another server with the same key
	for name, chain := range map[string][][]byte{
		"add-chain": ledger.Chain(t), "add-pre-chain": ledger.Chain(t, ctapitest.Poison),
	} {
		first := ask(one, name, ctapitest.Body(chain...))
		if first.Code != http.StatusOK || first.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: status %d: %s", name, first.Code, first.Body)
		}
		ledger.Fill(t, 3)
		for _, l := range []*Log{one, other} {
			// The chain is no part of what is logged: a shorter one is the same submission.
			for n := 1; n <= 3; n++ {
				if again := ask(l, name, ctapitest.Body(chain[:n]...)); again.Body.String() != first.Body.String() {
					t.Errorf("%s again with %d certificates: %s, want %s", name, n, again.Body, first.Body)
				}
			}
		}
	}
	if size := ledger.Head().Size; size != 8 {
		t.Errorf("the log has %d entries, want 8", size)
	}
}

func TestErrorsOfTheLedgerTellClientsWhetherToRetry(t *testing.T) {
	refused := wire.Errorf(wire.AlreadyExists, "certs[0].serial", "0a", "another certificate of this CA has this serial number")
	for name, c := range map[string]struct {
		err    error
		status int
		words  []string
	}{
		"refused":                  {&network.RejectedError{Function: wire.FnIssue, Reason: refused}, 400, []string{"serial", "0a", "another certificate"}},
		"refused in other words":   {&network.RejectedError{Function: wire.FnIssue, Reason: errors.New("chaincode is tired")}, 400, []string{"chaincode is tired"}},
		"not taken":                {refused, 400, []string{"serial"}},
		"damaged state":            {&network.RejectedError{Reason: wire.Errorf(wire.Internal, "state", "x", "must decode")}, 500, nil},
		"unavailable":              {&network.UnavailableError{Stage: "endorse", Err: errors.New("x")}, 503, []string{"nothing was changed"}},
		"unknown outcome":          {&network.UnknownOutcomeError{TxID: "a", Err: errors.New("x")}, 503, []string{"outcome is not known"}},
		"refused after an unknown": {fmt.Errorf("%w", &network.UnknownOutcomeError{Err: refused}), 503, []string{"outcome is not known"}},
		"conflict":                 {&network.ConflictError{}, 503, []string{"ask again"}},
		"anything else":            {errors.New("secret"), 500, []string{"internal error"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, ledger := fixture(t)
			ledger.Before = func(context.Context) error { return c.err }
			refusal(t, l, "add-chain", ctapitest.Body(ledger.Chain(t)...), c.status, c.words...)
		})
	}
}

// A submission whose client was told 503 can be repeated: the first attempt may have been recorded.
func TestRetryAfterUnknownOutcomeGetsTheSCTOfTheFirstAttempt(t *testing.T) {
	l, ledger := fixture(t)
	chain := ledger.Chain(t)
	entry, err := ledger.Submit(t.Context(), chain[0])
	if err != nil {
		t.Fatal(err)
	}
	ledger.Before = func(context.Context) error { return &network.UnknownOutcomeError{Err: errors.New("peer gone")} }
	refusal(t, l, "add-chain", ctapitest.Body(chain...), http.StatusServiceUnavailable)
	ledger.Before = nil
	var got addAnswer
	decode(t, ask(l, "add-chain", ctapitest.Body(chain...)), &got)
	if got.Time != int64(entry.Time) || ledger.Head().Size != 1 {
		t.Errorf("SCT of %d, want %d; %d entries", got.Time, entry.Time, ledger.Head().Size)
	}
}

func TestSubmissionEndsInTime(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	c.SubmitTimeout = time.Millisecond
	ledger.Before = func(ctx context.Context) error {
		<-ctx.Done()
		return &network.UnknownOutcomeError{Err: ctx.Err()}
	}
	refusal(t, newLog(t, c), "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusServiceUnavailable, "outcome")
}

// What is refused for overload is over: it does not wait, and is not in the log afterwards.
func TestAviator2016OverloadIsRefusedAtOnceAndNeverMergedLate(t *testing.T) {
	const most, extra = 4, 20
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	c.MaxPending = most
	l := newLog(t, c)
	arrived, release := make(chan struct{}), make(chan struct{})
	ledger.Before = func(context.Context) error {
		arrived <- struct{}{}
		<-release
		return nil
	}
	var group sync.WaitGroup
	for range most {
		chain := ledger.Chain(t)
		group.Go(func() {
			if w := ask(l, "add-chain", ctapitest.Body(chain...)); w.Code != http.StatusOK {
				t.Errorf("one of the first %d: status %d: %s", most, w.Code, w.Body)
			}
		})
	}
	for range most {
		<-arrived
	}
	if now, limit := l.Pending(); now != most || limit != most {
		t.Errorf("%d of %d pending, want %d of %d", now, limit, most, most)
	}
	var late [][]byte
	for range extra { // each returns although nothing moves: it did not wait for a place
		chain := ledger.Chain(t)
		late = append(late, chain[0])
		refusal(t, l, "add-chain", ctapitest.Body(chain...), http.StatusServiceUnavailable, "submissions", "4")
	}
	// Reads are not affected.
	if w := ask(l, "get-sth", nil); w.Code != http.StatusOK {
		t.Errorf("get-sth under load: status %d", w.Code)
	}
	close(release)
	group.Wait()
	if ledger.Calls() != most || ledger.Head().Size != most {
		t.Errorf("%d submissions reached the ledger and %d are in the log, want %d", ledger.Calls(), ledger.Head().Size, most)
	}
	if now, _ := l.Pending(); now != 0 {
		t.Errorf("%d places are still taken", now)
	}
	ledger.Before = nil
	if w := ask(l, "add-chain", ctapitest.Body(late[0], ledger.CA.DER)); w.Code != http.StatusOK {
		t.Errorf("afterwards: status %d: %s", w.Code, w.Body)
	}
}

func TestNoSCTForAnEntryThatIsAnother(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	c.Submitter = wrong{ledger}
	refusal(t, newLog(t, c), "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusInternalServerError)
}

// wrong says an index that is not the entry's.
type wrong struct{ *ctapitest.Ledger }

func (w wrong) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	e, err := w.Ledger.Submit(ctx, der)
	e.Index++
	return e, err
}

func TestBodiesThatAreRefused(t *testing.T) {
	l, ledger := fixture(t)
	leaf := base64.StdEncoding.EncodeToString(ledger.Chain(t)[0])
	for text, word := range map[string]string{
		"":                             "JSON",
		"chain":                        "JSON",
		"[]":                           "JSON",
		`{"chain": "` + leaf + `"}`:    "JSON",
		`{"chain": [1]}`:               "JSON",
		`{"chain": ["` + leaf + `"]}x`: "JSON",
		`{"chain": ["` + leaf + `"`:    "JSON",
		"{}":                           "1 to 10",
		"null":                         "1 to 10",
		`{"chain": null}`:              "1 to 10",
		`{"chain": []}`:                "1 to 10",
		`{"chain": [""]}`:              fmt.Sprintf("1 to %d bytes", wire.MaxCertDER),
		`{"chain": ["*"]}`:             "base64",
		`{"chain": ["` + strings.TrimRight(leaf, "=") + `A"]}`:           "chain[0]",
		`{"chain": ["` + leaf + `", "-"]}`:                               "chain[1]",
		`{"chain": [` + strings.Repeat(`"AA==",`, maxChain) + `"AA=="]}`: "11 certificates",
	} {
		for _, name := range []string{"add-chain", "add-pre-chain"} {
			refusal(t, l, name, []byte(text), http.StatusBadRequest, word)
		}
	}
	refusal(t, l, "add-chain", make([]byte, maxBody+1), http.StatusRequestEntityTooLarge, fmt.Sprint(maxBody))
	if ledger.Calls() != 0 {
		t.Errorf("%d of them reached the ledger", ledger.Calls())
	}
}

func TestFieldsThatTheRFCDoesNotNameAreIgnored(t *testing.T) {
	l, ledger := fixture(t)
	leaf := base64.StdEncoding.EncodeToString(ledger.Chain(t)[0])
	if w := ask(l, "add-chain", []byte(` {"v": 2, "chain": ["`+leaf+`"], "more": {}} `)); w.Code != http.StatusOK {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// FuzzAddChain sends any body, and, where that is empty, a good one with one octet changed: keys are new in each process, so stored
// bodies are always another CA's.
func FuzzAddChain(f *testing.F) {
	ledger := ctapitest.New(f)
	l := newLog(f, config(f, ledger))
	names := map[bool]string{false: "add-chain", true: "add-pre-chain"}
	good := map[bool][]byte{false: ctapitest.Body(ledger.Chain(f)...), true: ctapitest.Body(ledger.Chain(f, ctapitest.Poison)...)}
	for _, seed := range [][]byte{nil, good[false], good[true][:100], []byte(`{"chain":[]}`), []byte(`{"chain":["MAA="]}`), []byte(`{"chain":[null]}`), []byte("\xff")} {
		f.Add(seed, false, uint(0), byte(0))
		f.Add(seed, true, uint(50), byte(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, pre bool, at uint, flip byte) {
		if len(in) == 0 {
			in = bytes.Clone(good[pre])
			in[at%uint(len(in))] ^= flip
		}
		switch w := ask(l, names[pre], in); w.Code {
		case http.StatusOK:
			var got addAnswer
			decode(t, w, &got)
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
