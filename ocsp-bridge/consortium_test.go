package ocspbridge_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// asOrg is the ledger as another organisation's bridge sees it: its own name for itself, the same blocks.
type asOrg struct {
	network.Ledger
	mspID string
}

func (a asOrg) MSPID() string { return a.mspID }

// org is an organisation with an address and keys that outlive its bridge.
type org struct {
	policy.Org
	w      *world
	dir    string
	url    string
	handle atomic.Pointer[http.Handler] // what answers at url
}

// consortium is organisations with bridges on one ledger.
type consortium struct {
	w     *world
	trust *ocspbridge.Trust
	orgs  []*org
}

// newConsortium makes keys, addresses and a policy that wants quorum cosignatures. Nothing answers yet.
func newConsortium(w *world, quorum int, mspIDs ...string) *consortium {
	w.t.Helper()
	c := &consortium{w: w}
	var members []policy.Org
	for _, id := range mspIDs {
		o := &org{w: w, dir: "bridge-" + id}
		dir := filepath.Join(w.dir, o.dir)
		log, err := logkey.LoadOrCreate(filepath.Join(dir, logkey.File), lognames.Key(channel, id))
		if err != nil {
			w.t.Fatal(err)
		}
		cosigner, err := logkey.LoadOrCreateCosigner(filepath.Join(dir, logkey.CosignerFile), lognames.Cosigner(channel, id), w.clock.Now)
		if err != nil {
			w.t.Fatal(err)
		}
		o.Org = policy.Org{MSPID: id, LogKey: log.VKey, CosignerKey: cosigner.VKey()}
		o.dead()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*o.handle.Load()).ServeHTTP(w, r) }))
		w.t.Cleanup(server.Close)
		o.url = server.URL
		c.orgs, members = append(c.orgs, o), append(members, o.Org)
	}
	p, err := policy.New(channel, 1, quorum, 3*tick, members...)
	if err != nil {
		w.t.Fatal(err)
	}
	file, err := (&policy.Signed{Policy: p}).Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	if c.trust, err = ocspbridge.LoadTrust(file, p.Fingerprint()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// answer has h answer at the organisation's address.
func (o *org) answer(h http.Handler) { o.handle.Store(&h) }

// dead has nobody answer there.
func (o *org) dead() {
	o.answer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
}

// start starts an organisation's bridge with all others as peers.
func (c *consortium) start(i int, tweaks ...func(*ocspbridge.Config)) *bridge {
	c.w.t.Helper()
	o := c.orgs[i]
	b := c.w.startOn(o.dir, &faulty{Ledger: asOrg{c.w.conn, o.MSPID}}, func(cfg *ocspbridge.Config) {
		cfg.Trust = c.trust
		for k, p := range c.orgs {
			if k != i {
				cfg.Peers = append(cfg.Peers, ocspbridge.Peer{
					MSPID: p.MSPID, URL: p.url, LogKey: p.LogKey, CosignerKey: p.CosignerKey, HTTP: &http.Client{Timeout: time.Second},
				})
			}
		}
		for _, tweak := range tweaks {
			tweak(cfg)
		}
	})
	o.answer(b.Handler())
	return b
}

// origins of all logs, by name.
func (w *world) origins() map[string]string {
	return map[string]string{
		w.ca.ID.String(): lognames.Issuance(channel, w.ca.ID), "status": lognames.Status(channel), "map": lognames.Map(channel),
	}
}

// nextTick moves the ledger's clock by one epoch.
func (w *world) nextTick() network.Receipt {
	w.t.Helper()
	w.clock.Advance(tick)
	return w.tick()
}

// quorate opens the checkpoint of a log that a bridge serves, as its policy wants it.
func (c *consortium) quorate(b *bridge, name string) (*policy.Checkpoint, error) {
	_, signed := b.get("/logs/"+name+"/checkpoint", nil)
	return c.trust.Policy.OpenCheckpoint(signed, c.w.origins()[name], true)
}

// awaitQuorate waits until a bridge serves a quorum's checkpoint of a size.
func (c *consortium) awaitQuorate(b *bridge, name string, size uint64) *policy.Checkpoint {
	c.w.t.Helper()
	var cp *policy.Checkpoint
	b.until("a cosigned checkpoint of "+name, func() (bool, string) {
		got, err := c.quorate(b, name)
		if err != nil {
			return false, err.Error()
		}
		cp = got
		return cp.Size == size, "another size"
	})
	return cp
}

func TestEveryLogIsCosignedByAQuorum(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	c := newConsortium(w, 2, mspID, "Org2MSP")
	one, two := c.start(0).ready(), c.start(1).ready()
	w.revoke(certs[0], wire.KeyCompromise)
	w.integrate()
	r := w.nextTick()
	one.applied(r)
	two.applied(r)
	for name, size := range map[string]uint64{w.ca.ID.String(): 5, "status": 2, "map": 1} {
		for _, b := range []*bridge{one, two} {
			cp := c.awaitQuorate(b, name, size)
			if strings.Join(cp.Cosigners, " ") != mspID+" Org2MSP" {
				t.Errorf("%s: cosigned by %v", name, cp.Cosigners)
			}
		}
	}
	var info struct {
		Quorum int
		Logs   []struct {
			Name    string
			Size    uint64
			Quorate struct {
				Size      uint64
				Cosigners []string
			}
		}
		Peers []struct{ Error string }
	}
	one.until("the peer compared", func() (bool, string) {
		w.clock.Advance(time.Second)
		info.Peers = nil
		_, body := one.get("/v1/heads", &info)
		return strings.Contains(string(body), `"compared":"`) && info.Peers[0].Error == "", string(body)
	})
	if info.Quorum != 2 || len(info.Logs) != 3 || len(info.Logs[0].Quorate.Cosigners) != 2 || info.Logs[0].Quorate.Size != 5 || info.Peers[0].Error != "" {
		t.Errorf("heads are %+v", info)
	}
	if code, body := one.get("/policy", nil); code != http.StatusOK || string(body) != string(c.trust.File) {
		t.Errorf("policy: %d %s", code, body)
	}
}

// A fresh head at every tick: the cosignatures of a log that does not grow are renewed.
func TestTickRenewsCosignatures(t *testing.T) {
	w := newWorld(t)
	c := newConsortium(w, 2, mspID, "Org2MSP")
	one, two := c.start(0).ready(), c.start(1).ready()
	w.nextTick()
	before := c.awaitQuorate(one, "status", 0)
	r := w.nextTick()
	one.applied(r)
	two.applied(r)
	one.until("renewed", func() (bool, string) {
		cp, err := c.quorate(one, "status")
		return err == nil && !cp.Oldest.Before(before.Oldest.Add(tick)), "as before"
	})
}

func TestDeadPeerStopsNeitherServingNorOCSP(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	c := newConsortium(w, 2, mspID, "Org2MSP")
	one, two := c.start(0).ready(), c.start(1).ready()
	w.nextTick()
	name := w.ca.ID.String()
	c.awaitQuorate(one, name, 5)
	c.awaitQuorate(one, "map", 1)
	c.orgs[1].dead()
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	_, r := w.issueIn(1)
	one.applied(r)

	one.until("the round fails", func() (bool, string) {
		_, body := one.get("/v1/heads", nil)
		one.get("/logs/"+name+"/checkpoint", nil)
		return strings.Contains(string(body), "too few"), string(body)
	})
	began := time.Now()
	if cp, err := c.quorate(one, name); err != nil || cp.Size != 5 {
		t.Errorf("checkpoint %+v, %v", cp, err)
	}
	if took := time.Since(began); took > 400*time.Millisecond {
		t.Errorf("took %v", took)
	}
	one.want(certs[0], "good")
	// A proof of what nobody else has cosigned is given with what there is.
	if code, body := one.get("/logs/"+name+"/proof?index=5", nil); code != http.StatusOK {
		t.Errorf("proof: %d %s", code, body)
	}
	w.nextTick() // the map log grows, and cannot be cosigned
	one.until("no bundle", func() (bool, string) {
		resp, err := http.Get(one.url + "/v1/bundle/" + name + "/" + certs[0].SerialNumber.Text(16))
		if err != nil {
			t.Fatal(err)
		}
		body := readAll(t, resp)
		return resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "", string(body)
	})

	// What a quorum has cosigned is still there after a restart, while the peer is away.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	one = c.start(0).ready()
	if cp, err := c.quorate(one, name); err != nil || cp.Size != 5 {
		t.Errorf("after a restart: checkpoint %+v, %v", cp, err)
	}
	two = c.start(1).ready()
	w.nextTick()
	c.awaitQuorate(one, name, 6)
	c.awaitQuorate(two, name, 6)
}

func TestPolicyAndPeersThatDoNotFitAreRefused(t *testing.T) {
	w := newWorld(t)
	c := newConsortium(w, 2, mspID, "Org2MSP", "Org3MSP")
	stranger := newConsortium(w, 1, "Org4MSP").orgs[0]
	peer := func(o *org) ocspbridge.Peer {
		return ocspbridge.Peer{MSPID: o.MSPID, URL: o.url, LogKey: o.LogKey, CosignerKey: o.CosignerKey}
	}
	for name, tc := range map[string]struct {
		change func(*ocspbridge.Config)
		want   string
	}{
		"peer outside the policy": {func(cfg *ocspbridge.Config) { cfg.Peers = append(cfg.Peers, peer(stranger)) }, `"Org4MSP": must be an organisation of the policy`},
		"peer with another key": {func(cfg *ocspbridge.Config) {
			cfg.Peers[0].LogKey = strings.Replace(c.orgs[2].LogKey, "Org3MSP", "Org2MSP", 1)
		}, "peers[0].log_key"},
		"peer twice":                 {func(cfg *ocspbridge.Config) { cfg.Peers[1] = cfg.Peers[0] }, "peers[1].msp_id"},
		"itself as peer":             {func(cfg *ocspbridge.Config) { cfg.Peers[0].MSPID = mspID }, "peers[0].msp_id"},
		"peer without URL":           {func(cfg *ocspbridge.Config) { cfg.Peers[0].URL = "localhost:1" }, "peers[0].url"},
		"cosigner key for a log key": {func(cfg *ocspbridge.Config) { cfg.Peers[0].CosignerKey = cfg.Peers[0].LogKey }, "peers[0].cosigner_key"},
		"too few for the quorum":     {func(cfg *ocspbridge.Config) { cfg.Peers = nil }, "quorum, 2"},
		"not in the policy itself":   {func(cfg *ocspbridge.Config) { cfg.Dir = filepath.Join(w.dir, "others-keys") }, "must have this organisation, " + mspID},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ocspbridge.Config{
				Dir: filepath.Join(w.dir, c.orgs[0].dir), Log: quiet(), Now: w.clock.Now, Trust: c.trust,
				Peers: []ocspbridge.Peer{peer(c.orgs[1]), peer(c.orgs[2])},
			}
			tc.change(&cfg)
			b, err := ocspbridge.New(t.Context(), cfg, w.conn)
			if err == nil {
				t.Fatal("accepted", b.Close())
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// askAs has a bridge tell its peers who asks.
func askAs(mspID string) func(*ocspbridge.Config) {
	return func(cfg *ocspbridge.Config) {
		for i := range cfg.Peers {
			cfg.Peers[i].HTTP.Transport = named(mspID)
		}
	}
}

type named string

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Asked-By", string(n))
	return http.DefaultTransport.RoundTrip(r)
}

func writeJSON(t testing.TB, w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}
