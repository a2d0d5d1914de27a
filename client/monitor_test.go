package client_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
)

func ExampleMonitor() {
	file, err := os.ReadFile("consortium.policy")
	if err != nil {
		fmt.Println(err)
		return
	}
	policy, err := client.LoadPolicy(file, "0123...") // a fingerprint from a source that is trusted
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := client.NewMonitor(client.MonitorConfig{
		URL: "https://log.org2.example", Match: []string{"example.org"}, Policy: policy, StateFile: "example.state",
		Deliver: func(_ context.Context, events []client.Event) error {
			for _, e := range events {
				fmt.Println(e.Kind, e.Names, e.ID)
			}
			return nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Run(context.Background()))
}

func TestMonitorReportsACertificatesWholeLife(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("old.example.org")
	x := w.watch(func(c *client.MonitorConfig) { c.FromStart = false })
	if got := x.catchUp(); len(got) != 0 {
		t.Fatalf("what was there already is reported: %+v", got)
	}
	w.issue("www.example.com")
	pre, precert, final := w.cas[0].Precert(t, named("www.example.org", "example.net"))
	w.log(w.cas[0], pre, true)
	at := w.now
	der, cert := final(cctest.SCTList())
	w.log(w.cas[0], der, false)

	got := x.catchUp()
	if len(got) != 2 {
		t.Fatalf("events are %+v", got)
	}
	sum := sha(pre)
	want := client.Event{
		ID: w.ca0() + "#2", Kind: client.EventPrecertificate, Time: at, Log: w.ca0(), Index: 2, CAID: w.cas[0].ID.String(),
		Serial: precert.SerialNumber.Text(16), Issuer: precert.Issuer.String(), Subject: precert.Subject.String(),
		Names: append(slices.Clone(precert.DNSNames), precert.Subject.CommonName), Matched: []string{"example.org"},
		NotBefore: cctest.LeafNotBefore, NotAfter: cctest.LeafNotAfter, SHA256: hex.EncodeToString(sum[:]),
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("event is\n%+v, want\n%+v", got[0], want)
	}
	if got[1].Kind != client.EventCertificate || got[1].ID != w.ca0()+"#3" || got[1].Serial != want.Serial {
		t.Errorf("event is %+v", got[1])
	}

	serial := cctest.Serial(t, cert)
	w.set(cert, wire.CertHeld, wire.CertificateHold)
	w.set(cert, wire.CertValid, wire.Unspecified)
	w.set(cert, wire.CertRevoked, wire.Superseded)
	spki := sha(cert.RawSubjectPublicKeyInfo)
	revocation := wire.StatusLeaf{Kind: wire.LeafRevocation, CAID: w.cas[0].ID, Serial: serial, Change: 1, State: uint(wire.CertRevoked), Reason: wire.KeyCompromise}
	holder, stranger, quorum := revocation, revocation, revocation
	holder.Source, holder.SPKIHash = wire.SourceHolder, spki[:]
	stranger.Source, stranger.SPKIHash = wire.SourceHolder, make([]byte, 32)
	quorum.Source = wire.SourceQuorum
	w.status(holder)
	w.status(stranger)
	w.status(quorum)
	rule := wire.StatusLeaf{Kind: wire.LeafRule, CAID: w.cas[0].ID, Change: 1, State: uint(wire.CertRevoked), Reason: wire.CACompromise,
		From: wire.MillisOf(at), To: wire.MillisOf(at) + 1}
	w.status(rule)
	w.status(wire.StatusLeaf{Kind: wire.LeafCA, CAID: w.cas[0].ID, Change: 3, State: uint(wire.CASuspended)})
	w.status(wire.StatusLeaf{Kind: wire.LeafCert, CAID: w.cas[0].ID, Serial: wire.Serial{9}, Change: 1, State: uint(wire.CertRevoked)})
	w.status(wire.StatusLeaf{Kind: wire.LeafCert, CAID: w.cas[0].ID, Serial: serial, Change: 4, State: uint(wire.CertRevoked), Imported: true, Asserted: wire.MillisOf(at)})

	got = x.catchUp()
	var told []string
	for _, e := range got {
		if len(e.Names) != 1 || e.Names[0] != "www.example.org" || e.CAID != w.cas[0].ID.String() {
			t.Errorf("event is %+v", e)
		}
		if e.Asserted.Equal(at) != (e.Index == 10) {
			t.Errorf("asserted at %s: %+v", e.Asserted, e)
		}
		told = append(told, strings.TrimSpace(fmt.Sprint(e.Index, " ", e.Kind, " ", e.Change, " ", e.Reason, " ", e.By, " ", e.Covers, " ", e.Detail != "")))
	}
	if want := []string{
		"1 status held certificateHold ca 0 false", "2 status released  ca 0 false", "3 status revoked superseded ca 0 false",
		"4 status revoked keyCompromise holder 0 false", "5 status revoked keyCompromise holder 0 true", "6 status revoked keyCompromise quorum 0 false",
		"7 ca revoked cACompromise rule 1 1 false", "8 ca suspended   1 false", "10 status revoked unspecified ca 0 false",
	}; !slices.Equal(told, want) {
		t.Errorf("events are\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if got := x.catchUp(); len(got) != 0 {
		t.Errorf("repeated: %+v", got)
	}
}

func TestMonitorReadsManyTilesFromTheStart(t *testing.T) {
	w := newLogsWorld(t)
	w.issue()
	proto, _ := w.cas[0].Issue(t, named("no.example"))
	hit, _ := w.cas[0].Issue(t, named("a.example.org"))
	var want []string
	const size = 33*256 + 7 // more than a batch
	for i := 1; i < size; i++ {
		der := proto
		if i%1000 == 0 || i == size-1 || i == 255 || i == 256 {
			der = hit
			want = append(want, fmt.Sprintf("%s#%d", w.ca0(), i))
		}
		w.log(w.cas[0], der, false)
	}
	var progress []client.MonitorProgress
	x := w.watch(func(c *client.MonitorConfig) {
		c.Progress = func(p client.MonitorProgress) { progress = append(progress, p) }
	})
	if got := ids(x.catchUp()); !slices.Equal(got, want) {
		t.Errorf("events are %v, want %v", got, want)
	}
	if len(progress) != 3 || progress[0].Next != 32*256 || progress[1].Next != size || progress[1].Size != size {
		t.Errorf("progress is %+v", progress)
	}
	// Another one is killed between two batches.
	_, state := stateIn(t)
	y := w.watch(state)
	killed := errors.New("killed")
	y.OnStep(func(step string) error {
		if step == "saved" {
			return killed
		}
		return nil
	})
	err := y.CatchUp(t.Context())
	first := ids(y.take())
	if rest := ids(w.watch(state).catchUp()); !slices.Equal(append(first, rest...), want) || len(rest) == 0 || len(first) == 0 {
		t.Errorf("killed with %v after %v, then %v; want %v", err, first, rest, want)
	}
	w.issue("b.example.org")
	w.locked(func() { w.requests = nil })
	if got := ids(x.catchUp()); !slices.Equal(got, []string{fmt.Sprintf("%s#%d", w.ca0(), size)}) {
		t.Errorf("events are %v", got)
	}
	if len(w.requests) > 12 {
		t.Errorf("one entry more costs %d requests: %q", len(w.requests), w.requests)
	}
}

func TestMonitorFindsEveryLog(t *testing.T) {
	w := newLogsWorld(t)
	_, state := stateIn(t)
	x := w.watch(state, func(c *client.MonitorConfig) { c.FromStart = false })
	x.catchUp()
	// A CA that comes later is read from the start, whatever the server had listed.
	later := w.addCA()
	w.hidden[later.ID.String()] = true
	w.issueBy(later, "x.example.org")
	if got := ids(x.catchUp()); !slices.Equal(got, []string{w.origin(later.ID.String()) + "#0"}) {
		t.Errorf("events are %v", got)
	}
	// One that the server makes up and takes back does no harm.
	invented := cctest.NewCA(t)
	w.locked(func() { w.cas, w.logs[invented.ID.String()] = append(w.cas, invented), merklelogtest.New() })
	w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, invented.ID.String()) {
			rw.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	if err := x.CatchUp(t.Context()); !errors.Is(err, client.ErrTransport) {
		t.Errorf("a log that is listed and not there: %v", err)
	}
	w.locked(func() { w.hidden[invented.ID.String()] = true })
	x.catchUp()
	// One that the server has not got, though the ledger has, is missed.
	gone := w.addCA()
	w.hidden[gone.ID.String()] = true
	delete(w.logs, gone.ID.String())
	if err := x.CatchUp(t.Context()); !errors.Is(err, client.ErrTransport) || !strings.Contains(err.Error(), gone.ID.String()) {
		t.Errorf("missing log: %v", err)
	}
}

// TestMonitorSeesARevocationBeforeItsCertificate: checkpoints of two logs are not of one moment.
func TestMonitorSeesARevocationBeforeItsCertificate(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("first.example.org")
	_, state := stateIn(t)
	x := w.watch(state)
	x.catchUp()
	der, cert := w.cas[0].Issue(t, named("early.example.org"))
	w.set(cert, wire.CertRevoked, wire.KeyCompromise)
	at := wire.MillisOf(w.now)
	w.status(wire.StatusLeaf{Kind: wire.LeafRule, CAID: w.cas[0].ID, Change: 1, State: uint(wire.CertRevoked), Reason: wire.CACompromise, From: at, To: at + 10_000})
	if got := x.catchUp(); len(got) != 1 || got[0].Covers != 0 || got[0].By != "rule 1" {
		t.Fatalf("events are %+v", got)
	}
	x = w.watch(state)
	w.log(w.cas[0], der, false)
	got := x.catchUp()
	if len(got) != 3 || got[1].Change != client.ChangeRevoked || got[1].ID != w.origin("status")+"#1" || got[2].By != "rule 1" ||
		got[2].ID != w.origin("status")+"#2/"+got[0].ID {
		t.Errorf("events are %+v", got)
	}
	w.set(cert, wire.CertRevoked, wire.KeyCompromise)
	if got := x.catchUp(); len(got) != 1 || got[0].Names[0] != "early.example.org" {
		t.Errorf("events are %+v", got)
	}
}

// TestMonitorLosesAndRepeatsNothingWhenKilled ends a run at each of its steps, and has another one go on.
func TestMonitorLosesAndRepeatsNothingWhenKilled(t *testing.T) {
	w := newLogsWorld(t)
	cert := w.issue("a.example.org")
	w.issue("b.example")
	w.set(cert, wire.CertHeld, wire.CertificateHold)
	other := w.addCA()
	w.issueBy(other, "c.example.org")
	undisturbed := w.watch()
	want := ids(undisturbed.catchUp())
	if len(want) != 3 {
		t.Fatalf("events are %v", want)
	}
	killed := errors.New("killed")
	for kill := 0; ; kill++ {
		_, state := stateIn(t)
		x := w.watch(state)
		steps, last := 0, ""
		x.OnStep(func(step string) error {
			if steps++; steps > kill {
				last = step
				return killed
			}
			return nil
		})
		err := x.CatchUp(t.Context())
		if err == nil {
			if kill < 10 {
				t.Errorf("only %d steps", kill)
			}
			return
		}
		if !errors.Is(err, killed) {
			t.Fatalf("kill %d: %v", kill, err)
		}
		before := x.take()
		after := ids(w.watch(state).catchUp())
		again := 0
		for _, id := range ids(before) {
			if slices.Contains(after, id) {
				again++
			}
		}
		all := append(ids(before), after...)
		slices.Sort(all)
		all = slices.Compact(all)
		sorted := slices.Clone(want)
		slices.Sort(sorted)
		if !slices.Equal(all, sorted) {
			t.Errorf("killed at step %d, %s: events are %v, want %v", kill, last, all, sorted)
		}
		// Only what was delivered, and not noted yet, may come again.
		if most := map[string]int{"delivered": 1, "save": 1}[last]; again > most {
			t.Errorf("killed at step %d, %s: %d events come again, want at most %d", kill, last, again, most)
		}
	}
}

func TestMonitorEndsWhenNothingCanBeDelivered(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("a.example.org")
	full := errors.New("disk full")
	_, state := stateIn(t)
	x := w.watch(state, func(c *client.MonitorConfig) { c.Deliver = func(context.Context, []client.Event) error { return full } })
	if err := x.Run(t.Context()); !errors.Is(err, full) {
		t.Errorf("Run: %v", err)
	}
	if got := w.watch(state).catchUp(); len(got) != 1 {
		t.Errorf("events are %+v", got)
	}
}

func TestMonitorReportsWhatCannotBeRead(t *testing.T) {
	w := newLogsWorld(t)
	w.log(w.cas[0], []byte("0 no certificate, but WWW.Example.ORG"), false)
	w.log(w.cas[0], []byte("0 no certificate at all"), false)
	w.locked(func() {
		w.logs["status"].Append(w.step(), merklelog.Entry{Kind: merklelog.Status, Leaf: []byte{0xa1, 0, 2}})
		w.logs["status"].Append(w.step(), merklelog.Entry{Kind: merklelog.Status, Leaf: wire.Encode(&wire.StatusLeaf{V: wire.Version, Kind: 77})})
	})
	got := w.watch().catchUp()
	if len(got) != 3 || got[0].Kind != client.EventUnparsable || got[0].Index != 0 || !slices.Equal(got[0].Matched, []string{"example.org"}) ||
		got[1].Kind != client.EventUnparsable || got[1].ID != w.origin("status")+"#1" || got[2].ID != w.origin("status")+"#2" {
		t.Errorf("events are %+v", got)
	}
}

// TestMonitorReadsLeavesWhereThereAreNoDataTiles: they have all but a precertificate's signature.
func TestMonitorReadsLeavesWhereThereAreNoDataTiles(t *testing.T) {
	w := newLogsWorld(t)
	pre, _, final := w.cas[0].Precert(t, named("a.example.org"))
	w.log(w.cas[0], pre, true)
	der, cert := final(cctest.SCTList())
	w.log(w.cas[0], der, false)
	w.issue("b.example")
	w.set(cert, wire.CertRevoked, wire.Superseded)
	with := w.watch().catchUp()
	w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/static/") {
			rw.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	with[0].SHA256 = ""
	if without := w.watch().catchUp(); !reflect.DeepEqual(without, with) || len(with) != 3 {
		t.Errorf("events are\n%+v, want\n%+v", without, with)
	}
}

func TestMonitorWithLogKeysNeedsOneSignature(t *testing.T) {
	w := newLogsWorld(t)
	w.issue("a.example.org")
	w.signers = w.Orgs[:1]
	keys := func(c *client.MonitorConfig) { c.Policy, c.LogKeys = nil, w.logKey() }
	if got := w.watch(keys).catchUp(); len(got) != 1 {
		t.Errorf("events are %+v", got)
	}
	if err := w.watch().CatchUp(t.Context()); !errors.Is(err, client.ErrCheckpoint) {
		t.Errorf("one signature under a policy that wants three: %v", err)
	}
	w.signers = w.Orgs[1:2]
	if err := w.watch(keys).CatchUp(t.Context()); !errors.Is(err, client.ErrCheckpoint) {
		t.Errorf("another organisation's signature: %v", err)
	}
}

// TestMonitorRunsUntilItsContextEnds also shows that a server's wish to be left alone counts.
func TestMonitorRunsUntilItsContextEnds(t *testing.T) {
	w := newLogsWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	var waits []time.Duration
	x := w.watch(func(c *client.MonitorConfig) {
		c.Sleep = func(ctx context.Context, d time.Duration) error {
			waits = append(waits, d)
			switch len(waits) {
			case 1:
				w.issue("a.example.org")
			case 2:
				w.locked(func() {
					w.tamper = func(rw http.ResponseWriter, r *http.Request) bool {
						rw.Header().Set("Retry-After", "90")
						rw.WriteHeader(http.StatusServiceUnavailable)
						return true
					}
				})
			case 3:
				cancel()
			}
			return w.sleep(ctx, d)
		}
	})
	if err := x.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if want := []time.Duration{15 * time.Second, 15 * time.Second, 90 * time.Second}; !slices.Equal(waits, want) || len(x.events) != 1 {
		t.Errorf("waits are %v, want %v; events are %+v", waits, want, x.events)
	}
}
