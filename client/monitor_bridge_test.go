package client_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
)

// TestMonitorFollowsABridge is about what a real one serves.
func TestMonitorFollowsABridge(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	keys, err := client.ParseLogKeys(w.bridge.VKey())
	if err != nil {
		t.Fatal(err)
	}
	var events []client.Event
	m, err := client.NewMonitor(client.MonitorConfig{
		URL: w.url, Match: []string{cert.DNSNames[0]}, LogKeys: keys, FromStart: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Deliver: func(_ context.Context, e []client.Event) error { events = append(events, e...); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || events[0].Kind != client.EventCertificate || events[0].Serial != cctest.Serial(t, cert).String() {
		t.Fatalf("events are %+v", events)
	}
	w.submit(wire.FnSetStatus, w.ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise}))
	// The bridge integrates the change within a second or so.
	look, limit := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for len(events) < 2 {
		select {
		case <-look.C:
		case <-limit:
			t.Fatal("the revocation is not reported")
		}
		if err := m.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if e := events[1]; e.Kind != client.EventStatus || e.Change != client.ChangeRevoked || e.Reason != "keyCompromise" || e.Serial != events[0].Serial {
		t.Errorf("event is %+v", e)
	}
}
