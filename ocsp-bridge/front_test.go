package ocspbridge_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// submitFunc is a CA in this process.
type submitFunc func(context.Context, []byte) (wire.LogEntry, error)

func (f submitFunc) SubmitCertificate(ctx context.Context, der []byte) (wire.LogEntry, error) {
	return f(ctx, der)
}

func (w *world) takesSubmissions(cfg *ocspbridge.Config) {
	cfg.PublicURL = "https://org1.example"
	cfg.Submit = func(id wire.CAID) ocspbridge.Submitter {
		if id != w.ca.ID {
			return nil
		}
		return submitFunc(func(ctx context.Context, der []byte) (wire.LogEntry, error) {
			r, err := w.conn.Submit(ctx, wire.FnIssue, w.ca.IssueArg(der))
			if err != nil {
				return wire.LogEntry{}, err
			}
			var res wire.IssueResult
			err = wire.Decode(r.Result, &res)
			return res.Entries[0], err
		})
	}
}

// addChain submits to a bridge's front.
func (b *bridge) addChain(der []byte) (int, []byte) {
	b.w.t.Helper()
	body, err := json.Marshal(map[string][]string{"chain": {
		base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(b.w.ca.Cert.Raw),
	}})
	if err != nil {
		b.w.t.Fatal(err)
	}
	resp, err := http.Post(b.url+"/logs/"+b.w.ca.ID.String()+"/ct/v1/add-chain", "application/json", bytes.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	return resp.StatusCode, readAll(b.w.t, resp)
}

// Any organisation's front takes chains of registered CAs.
func TestFrontsTakeSubmissionsAndForwardThem(t *testing.T) {
	w := newWorld(t)
	one := w.start("one", w.takesSubmissions).ready()
	two := w.start("two", func(cfg *ocspbridge.Config) {
		cfg.PublicURL = "https://org2.example"
		cfg.Forwards = []ocspbridge.Forward{{CAID: w.ca.ID, URL: one.url + "/logs/" + w.ca.ID.String()}}
	}).ready()
	three := w.start("three", func(cfg *ocspbridge.Config) { cfg.PublicURL = "https://org3.example" }).ready()
	der, _ := w.ca.Issue(t)
	var scts []string
	for _, b := range []*bridge{one, two, one} {
		code, body := b.addChain(der)
		if code != http.StatusOK {
			t.Fatalf("add-chain: %d %s", code, body)
		}
		scts = append(scts, string(body))
	}
	if scts[0] != scts[2] || scts[0] == scts[1] {
		t.Errorf("SCTs are %s", scts)
	}
	if code, body := three.addChain(der); code != http.StatusNotFound {
		t.Errorf("a front without a way to the CA: %d %s", code, body)
	}
	id := w.ca.ID.String()
	for _, b := range []*bridge{one, two, three} {
		for _, path := range []string{"/ct/v1/get-sth", "/ct/v1/get-roots", "/static/checkpoint", "/static/tile/0/000.p/1", "/static/tile/data/000.p/1"} {
			if code, body := b.get("/logs/"+id+path, nil); code != http.StatusOK {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if code, body := b.get("/log_list.json", nil); code != http.StatusOK || !strings.Contains(string(body), id) {
			t.Errorf("log list: %d %s", code, body)
		}
	}
}

func TestTilesOfAllLogs(t *testing.T) {
	w := newWorld(t)
	w.issue(2)
	w.integrate()
	w.nextTick()
	b := w.start("bridge", nil).ready()
	noRedirect := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	id := w.ca.ID.String()
	for path, want := range map[string]int{
		"/logs/" + id + "/tile/0/000.p/2":       200,
		"/logs/" + id + "/tile/entries/000.p/2": 200,
		"/logs/status/checkpoint":               200,
		"/logs/status/tile/0/000.p/1":           200,
		"/logs/status/tile/entries/000.p/1":     200,
		"/logs/status/proof?index=0":            200,
		"/logs/map/tile/0/000.p/1":              200,
		"/logs/map/tile/entries/000.p/1":        200,
		"/logs/map/proof?index=0":               200,
		"/logs/map/proof?serial=01":             400,
		"/logs/map/proof?index=1":               404,
		"/logs/map/tile/0/000":                  404, // beyond the head
		"/logs/map/tile/0/000.p/2":              404,
		"/logs/map/tile/0/00%30.p/1":            400,
		"/logs/map//tile/0/000.p/1":             404, // not cleaned
		"/logs/map/../map/checkpoint":           404,
		"/logs/map/x":                           404,
		"/logs/map":                             404,
		"/logs/" + id + "/ct/v1/get-sth":        404, // no public_url
		"/logs/map/ct/v1/get-sth":               400,
		"/log_list.json":                        404,
	} {
		req, err := http.NewRequest(http.MethodGet, b.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = "//" + req.URL.Host + path
		resp, err := noRedirect.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if body := readAll(t, resp); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d: %s", path, resp.StatusCode, want, body)
		}
	}
}

func TestLogsForMembersOnly(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", func(cfg *ocspbridge.Config) {
		w.takesSubmissions(cfg)
		cfg.MembersOnly = true
	}).ready()
	w.integrate()
	b.applied(w.nextTick())
	server := httptest.NewUnstartedServer(b.Handler())
	members := cctest.NewCA(t)
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	server.TLS.ClientCAs.AddCert(members.Cert)
	server.StartTLS()
	t.Cleanup(server.Close)

	stranger := server.Client()
	member := &http.Client{Transport: stranger.Transport.(*http.Transport).Clone()}
	member.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{memberCert(t, members)}
	id := w.ca.ID.String()
	ocsp := base64.StdEncoding.EncodeToString(request(t, w.ca.Cert, nil, cert))
	for _, tc := range []struct {
		path       string
		restricted bool
	}{
		{"/logs", true}, {"/log_list.json", true}, {"/logs/" + id + "/checkpoint", true}, {"/logs/map/tile/0/000.p/1", true},
		{"/logs/" + id + "/proof?index=0", true}, {"/logs/" + id + "/ct/v1/get-sth", true}, {"/logs/" + id + "/static/checkpoint", true},
		{"/v1/bundle/" + id + "/" + cctest.Serial(t, cert).String(), true},
		{"/ocsp/" + ocsp, false}, {"/healthz", false}, {"/readyz", false}, {"/v1/alarms", false}, {"/policy", false}, {"/metrics", false},
	} {
		for _, who := range []struct {
			client *http.Client
			want   int
		}{{stranger, map[bool]int{true: http.StatusForbidden, false: http.StatusOK}[tc.restricted]}, {member, http.StatusOK}} {
			resp, err := who.client.Get(server.URL + tc.path)
			if err != nil {
				t.Fatal(err)
			}
			body := readAll(t, resp)
			if resp.StatusCode != who.want || who.want == http.StatusForbidden && !strings.Contains(string(body), "tls.client_ca") {
				t.Errorf("%s: %d, want %d: %s", tc.path, resp.StatusCode, who.want, body)
			}
		}
	}
	// Submissions are not reads: a certificate of the CA speaks for itself.
	resp, err := stranger.Post(server.URL+"/logs/"+id+"/ct/v1/add-chain", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if body := readAll(t, resp); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("add-chain: %d %s", resp.StatusCode, body)
	}
	// A client of plain HTTP is no member.
	if code, _ := b.get("/logs", nil); code != http.StatusForbidden {
		t.Errorf("plain HTTP: %d", code)
	}
}

func memberCert(t testing.TB, ca *cctest.CA) tls.Certificate {
	t.Helper()
	key := cctest.NewKey(t)
	der, err := x509.CreateCertificate(nil, &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "member"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
