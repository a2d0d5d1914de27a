package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tiles"
)

// watched is a bridge with one CA's log, which a monitor reads.
type watched struct {
	*policytest.Consortium
	t   *testing.T
	ca  *cctest.CA
	url string
	dir string

	server *httptest.Server

	mu                sync.Mutex // guards what follows
	issuance, changes *merklelogtest.Memory
}

func newWatched(t *testing.T) *watched {
	w := &watched{t: t, ca: cctest.NewCA(t), issuance: merklelogtest.New(), changes: merklelogtest.New(), dir: t.TempDir()}
	w.Consortium = policytest.New(t, "channel", 2, time.Minute, time.Now, "Org1MSP", "Org2MSP", "Org3MSP")
	server := newServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	w.url, w.server = server.URL, server
	signed, err := (&policy.Signed{Policy: w.Policy}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file("policy"), signed, 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) file(name string) string { return filepath.Join(w.dir, name) }

func (w *watched) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/logs" {
		fmt.Fprintf(rw, `[{"name":%q,"ca_id":%q},{"name":"status"},{"name":"map"}]`, w.ca.ID, w.ca.ID)
		return
	}
	name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/logs/"), "/")
	log, origin := w.changes, lognames.Status("channel")
	if name != "status" {
		log, origin = w.issuance, lognames.Issuance("channel", w.ca.ID)
	}
	conf := tiles.Config{Log: log, Logger: slog.New(slog.DiscardHandler), Checkpoint: func(context.Context) ([]byte, error) {
		return policytest.Checkpoint(w.t, log, origin, log.Head().Size, w.Orgs...), nil
	}}
	if rest, ok := strings.CutPrefix(path, "static/"); ok {
		path, conf.Static = rest, &tiles.Static{Chain: [][]byte{w.ca.DER}}
	}
	h, err := tiles.New(conf)
	if err != nil {
		w.t.Error(err)
		return
	}
	r.URL.Path = "/" + path
	h.ServeHTTP(rw, r)
}

func (w *watched) issue(names ...string) *x509.Certificate {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	der, cert := w.ca.Issue(w.t, func(c *x509.Certificate) { c.DNSNames = names })
	at := wire.MillisOf(time.Now())
	leaf, err := ctleaf.X509(w.issuance.Head().Size, at, der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.issuance.Append(at, merklelog.Entry{Kind: merklelog.X509, Time: at, Leaf: leaf, DER: der})
	return cert
}

func (w *watched) revoke(cert *x509.Certificate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaf := wire.StatusLeaf{V: wire.Version, Kind: wire.LeafCert, CAID: w.ca.ID, Serial: cctest.Serial(w.t, cert), Change: 1,
		State: uint(wire.CertRevoked), Reason: wire.KeyCompromise, Time: wire.MillisOf(time.Now())}
	w.changes.Append(leaf.Time, merklelog.Entry{Kind: merklelog.Status, Leaf: wire.Encode(&leaf)})
}

func (w *watched) monitor(args ...string) (int, string, string) {
	w.t.Helper()
	return runCLI(append([]string{"monitor", "--bridge", w.url, "--match", "example.org"}, args...)...)
}

func TestMonitorCommandReportsOnceAndGoesOnWhereItEnded(t *testing.T) {
	w := newWatched(t)
	pinned := []string{"--policy", w.file("policy"), "--policy-fingerprint", w.Policy.Fingerprint(), "--state", w.file("state"), "--once"}
	cert := w.issue("www.example.org", "evil\x1b[2J.example.net")
	w.issue("www.example.com")
	code, out, errs := w.monitor(append(pinned, "--from-start")...)
	if code != exitOK || errs != "2 logs, 2 entries verified, 1 reported\n" {
		t.Fatalf("exit %d, %s", code, errs)
	}
	for _, want := range []string{"certificate", "www.example.org", "0 of channel/issuance/" + w.ca.ID.String(), cert.SerialNumber.Text(16), cert.Issuer.String(), "2045-01-01"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Count(out, "sha256") != 1 {
		t.Errorf("output is\n%q", out)
	}
	w.revoke(cert)
	code, out, errs = w.monitor(append(pinned, "--json")...)
	var e client.Event
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != exitOK {
		t.Fatalf("exit %d, %s: %v in\n%s", code, errs, err, out)
	}
	if e.Kind != client.EventStatus || e.Change != client.ChangeRevoked || e.Reason != "keyCompromise" || e.ID != "channel/status#0" || e.By != "ca" {
		t.Errorf("event is %+v", e)
	}
	if code, out, errs := w.monitor(pinned...); code != exitOK || out != "" || errs != "2 logs, 0 entries verified, 0 reported\n" {
		t.Errorf("nothing new: exit %d, %s%s", code, out, errs)
	}
	// Another history.
	w.mu.Lock()
	w.issuance = merklelogtest.New()
	w.mu.Unlock()
	w.issue("www.example.org")
	w.issue("www.example.org")
	code, out, errs = w.monitor(pinned...)
	if code != exitFailure || !strings.Contains(out, "ALARM fork") || strings.Count(out, "evidence") != 2 || !strings.Contains(errs, "fork") {
		t.Errorf("fork: exit %d, %s\n%s", code, out, errs)
	}
	if code, out, _ := w.monitor(pinned...); code != exitFailure || out != "" {
		t.Errorf("fork again: exit %d, %s", code, out)
	}
}

func TestMonitorCommandPostsWhatItPrints(t *testing.T) {
	w := newWatched(t)
	w.issue("www.example.org")
	var got []string
	hook := newServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var body struct{ Events []client.Event }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		for _, e := range body.Events {
			got = append(got, e.ID)
		}
	}))
	defer hook.Close()
	code, out, errs := w.monitor("--log-key", w.Orgs[0].LogKey, "--once", "--from-start", "--webhook", hook.URL)
	if code != exitOK || len(got) != 1 || strings.Count(out, "sha256") != 1 {
		t.Errorf("exit %d, %s\n%s\nposted %q", code, out, errs, got)
	}
}

func TestMonitorCommandRefusesWhatProvesNothing(t *testing.T) {
	w := newWatched(t)
	key := w.Orgs[0].LogKey
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--policy, or --log-key"},
		{[]string{"--policy", w.file("policy"), "--log-key", key}, exitUsage, "not both"},
		{[]string{"--policy-fingerprint", strings.Repeat("0", 64)}, exitUsage, "--policy"},
		{[]string{"--policy", w.file("policy"), "--policy-fingerprint", strings.Repeat("0", 64)}, exitFailure, "fingerprint"},
		{[]string{"--policy", w.file("none")}, exitFailure, "--policy"},
		{[]string{"--log-key", "x"}, exitFailure, "log key"},
		{[]string{"--log-key", key, "--once"}, exitUsage, "--once needs"},
		{[]string{"--log-key", key, "--webhook", "mailto:x"}, exitUsage, "--webhook"},
		{[]string{"--log-key", key, "--match", "bücher.example"}, exitUsage, "A-labels"},
		{[]string{"--log-key", key, "--client-cert", "x"}, exitUsage, "--client-key"},
		{[]string{"--log-key", key, "--tls-ca", w.file("none")}, exitFailure, "--tls-ca"},
		{[]string{"--log-key", key, "extra"}, exitUsage, "usage"},
	} {
		if code, _, errs := w.monitor(c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %s; want %d, %q", c.args, code, errs, c.code, c.want)
		}
	}
}
