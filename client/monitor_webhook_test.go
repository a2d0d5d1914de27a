package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/client"
)

// receiver is a webhook that refuses some requests first.
type receiver struct {
	*httptest.Server
	refuse   []func(http.ResponseWriter, *http.Request)
	accepted [][]client.Event
}

func newReceiver(t *testing.T, refuse ...func(http.ResponseWriter, *http.Request)) *receiver {
	r := &receiver{refuse: refuse}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if len(r.refuse) > 0 {
			r.refuse[0](w, req)
			r.refuse = r.refuse[1:]
			return
		}
		var body struct {
			Events []client.Event `json:"events"`
		}
		dec := json.NewDecoder(req.Body)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&body); err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s, %q: %v", req.Method, req.Header.Get("Content-Type"), err)
		}
		r.accepted = append(r.accepted, body.Events)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(r.Close)
	return r
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestWebhookIsTriedUntilItAccepts(t *testing.T) {
	r := newReceiver(t,
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "20")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/elsewhere", http.StatusTemporaryRedirect)
		},
	)
	w := newLogsWorld(t)
	w.issue("a.example.org")
	var waits []time.Duration
	hook := client.Webhook{URL: r.URL, Log: quiet(), Sleep: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}}
	_, state := stateIn(t)
	if got := w.watch(state, func(c *client.MonitorConfig) { c.Deliver = hook.Deliver }).catchUp(); len(got) != 0 {
		t.Errorf("delivered elsewhere: %+v", got)
	}
	if want := []time.Duration{time.Second, 20 * time.Second, 4 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("waits are %v, want %v", waits, want)
	}
	if len(r.accepted) != 1 || len(r.accepted[0]) != 1 || r.accepted[0][0].ID != w.ca0()+"#0" || r.accepted[0][0].Names[0] != "a.example.org" {
		t.Errorf("accepted %+v", r.accepted)
	}
	if got := w.watch(state).catchUp(); len(got) != 0 {
		t.Errorf("delivered again: %+v", got)
	}
}

func TestWebhookGetsBatches(t *testing.T) {
	r := newReceiver(t)
	events := make([]client.Event, 250)
	for i := range events {
		events[i].ID = fmt.Sprint(i)
	}
	if err := (&client.Webhook{URL: r.URL}).Deliver(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if got := slices.Concat(r.accepted...); len(r.accepted) != 3 || !slices.Equal(ids(got), ids(events)) {
		t.Errorf("%d requests, %d events", len(r.accepted), len(got))
	}
}

func TestWebhookThatNeverAcceptsEndsWithTheContextOrGiveUp(t *testing.T) {
	refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	never := make([]func(http.ResponseWriter, *http.Request), 1000)
	for i := range never {
		never[i] = refuse
	}
	r := newReceiver(t, never...)
	now := time.Unix(0, 0)
	hook := client.Webhook{URL: r.URL, GiveUp: time.Minute, Log: quiet(), Now: func() time.Time { return now },
		Sleep: func(_ context.Context, d time.Duration) error { now = now.Add(d); return nil }}
	if err := hook.Deliver(t.Context(), make([]client.Event, 1)); !errors.Is(err, client.ErrTransport) || !strings.Contains(err.Error(), "403") {
		t.Errorf("Deliver: %v", err)
	}
	if took := now.Sub(time.Unix(0, 0)); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hook.GiveUp, hook.Sleep = 0, func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if err := hook.Deliver(ctx, make([]client.Event, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Deliver: %v", err)
	}
	if err := (&client.Webhook{URL: "mailto:x"}).Check(); err == nil {
		t.Error("a URL that is not HTTP passes")
	}
}
