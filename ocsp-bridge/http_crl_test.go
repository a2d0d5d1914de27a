package ocspbridge_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// crlContents asks a bridge what a CRL must say, as the CA's bridge does.
func (b *bridge) crlContents(scope string, base uint64) *crl.Contents {
	b.w.t.Helper()
	path := "/v1/crl/contents/" + b.w.ca.ID.String() + "?scope=" + scope
	if base != 0 {
		path += fmt.Sprintf("&base=%d", base)
	}
	resp, err := http.Get(b.url + path)
	if err != nil {
		b.w.t.Fatal(err)
	}
	body := readAll(b.w.t, resp)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != crl.ContentType || resp.Header.Get("Cache-Control") != "no-store" {
		b.w.t.Fatalf("%s: %s %s: %s", path, resp.Status, resp.Header, body)
	}
	c, err := crl.ReadContents(bytes.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	return c
}

func (w *world) signCRL(c *crl.Contents, life time.Duration) []byte {
	w.t.Helper()
	der, err := crl.Build(c, crl.Form{Issuer: w.ca.Cert, NextUpdate: c.ThisUpdate.Add(life)}, w.ca.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// publish offers a CRL and returns status and problem or answer.
func (b *bridge) publish(der []byte) (int, map[string]any) {
	b.w.t.Helper()
	resp, err := http.Post(b.url+"/crl/"+b.w.ca.ID.String(), "application/pkix-crl", bytes.NewReader(der))
	if err != nil {
		b.w.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(readAll(b.w.t, resp), &out); err != nil {
		b.w.t.Fatal(err)
	}
	return resp.StatusCode, out
}

// crl fetches one.
func (b *bridge) crl(method, name string, header ...string) (*http.Response, []byte) {
	b.w.t.Helper()
	req, err := http.NewRequest(method, b.url+"/crl/"+b.w.ca.ID.String()+"/"+name, nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return resp, readAll(b.w.t, resp)
}

const shard = "http://crl.example/one.crl"

// From contents to a served CRL over HTTP: complete, delta and sharded; two organisations' bridges; what relying parties then read.
func TestCRLsArePublishedAndServed(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(3)
	der, sharded := w.ca.Issue(t, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{shard} })
	w.submit(wire.FnIssue, w.ca.IssueArg(der))
	w.revoke(certs[0], wire.Superseded)
	w.revoke(sharded, wire.KeyCompromise)
	w.change(wire.StatusChange{Serial: cctest.Serial(t, certs[1]), Op: wire.OpHold, Reason: wire.CertificateHold})
	own, other := w.start("own", nil).ready(), w.start("other", nil).ready()

	full := own.crlContents("", 0)
	one := own.crlContents(shard, 0)
	r := w.change(wire.StatusChange{Serial: cctest.Serial(t, certs[1]), Op: wire.OpRelease})
	own.applied(r)
	other.applied(r)
	delta := own.crlContents("", full.Number)
	if len(full.Entries) != 3 || len(one.Entries) != 1 || len(delta.Entries) != 1 || !delta.Entries[0].Remove {
		t.Fatalf("%+v\n%+v\n%+v", full, one, delta)
	}
	for _, b := range []*bridge{own, other} {
		for name, c := range map[string]*crl.Contents{"full.crl": full, "one.crl": one} {
			signed := w.signCRL(c, time.Hour)
			if code, out := b.publish(signed); code != http.StatusOK || out["taken"] != true || out["name"] != name {
				t.Fatal(code, out)
			}
			if code, out := b.publish(signed); code != http.StatusOK || out["taken"] != false {
				t.Error("again:", code, out)
			}
			resp, got := b.crl(http.MethodGet, name)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(got, signed) {
				t.Errorf("%s: %s", name, resp.Status)
			}
		}
		if code, out := b.publish(w.signCRL(delta, time.Hour)); code != http.StatusOK || out["name"] != "delta.crl" {
			t.Error(code, out)
		}
		_, got := b.crl(http.MethodGet, "delta.crl")
		list, err := x509.ParseRevocationList(got)
		if err != nil || list.CheckSignatureFrom(w.ca.Cert) != nil || list.RevokedCertificateEntries[0].ReasonCode != 8 {
			t.Error(err, list)
		}
	}
}

func TestCRLOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.revoke(w.issue(1)[0], wire.Superseded)
	b := w.start("bridge", func(c *ocspbridge.Config) { c.CRL.MaxBytes = 4096 }).ready()
	c := b.crlContents("", 0)
	signed := w.signCRL(c, 30*time.Second)
	if code, out := b.publish(signed); code != http.StatusOK {
		t.Fatal(code, out)
	}
	resp, _ := b.crl(http.MethodGet, "full.crl")
	h := resp.Header
	etag, modified := h.Get("ETag"), h.Get("Last-Modified")
	var maxAge int
	if _, err := fmt.Sscanf(h.Get("Cache-Control"), "public, no-transform, must-revalidate, max-age=%d", &maxAge); err != nil || maxAge < 1 || maxAge > 30 {
		t.Errorf("Cache-Control %q, %v: must not outlive nextUpdate, 30s away", h.Get("Cache-Control"), err)
	}
	if h.Get("Content-Type") != "application/pkix-crl" || len(etag) < 10 || etag[0] != '"' || modified == "" || h.Get("Content-Length") != fmt.Sprint(len(signed)) {
		t.Errorf("%v", h)
	}
	for name, tc := range map[string]struct {
		method, path string
		header       []string
		want         int
		empty        bool
	}{
		"HEAD":                   {"HEAD", "full.crl", nil, 200, true},
		"the same ETag":          {"GET", "full.crl", []string{"If-None-Match", etag}, 304, true},
		"a list of ETags":        {"GET", "full.crl", []string{"If-None-Match", `"x", W/` + etag}, 304, true},
		"another ETag":           {"GET", "full.crl", []string{"If-None-Match", `"x"`, "If-Modified-Since", modified}, 200, false},
		"not modified since":     {"GET", "full.crl", []string{"If-Modified-Since", modified}, 304, true},
		"a range":                {"GET", "full.crl", []string{"Range", "bytes=0-9"}, 206, false},
		"no such CRL":            {"GET", "other.crl", nil, 404, false},
		"PUT":                    {"PUT", "full.crl", nil, 405, false},
		"no indirect configured": {"GET", "../indirect.crl", nil, 404, false},
	} {
		resp, body := b.crl(tc.method, tc.path, tc.header...)
		if resp.StatusCode != tc.want || (len(body) == 0) != tc.empty {
			t.Errorf("%s: %s, %d octets; want %d", name, resp.Status, len(body), tc.want)
		}
	}
	w.clock.Advance(31 * time.Second)
	w.tickIfDue()
	resp, body := b.crl(http.MethodGet, "full.crl")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "nextUpdate") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("past nextUpdate: %s: %s", resp.Status, body)
	}
}

func TestCRLRefusalsOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.revoke(w.issue(1)[0], wire.Superseded)
	b := w.start("bridge", func(c *ocspbridge.Config) { c.CRL.MaxBytes = 4096 }).ready()
	less := b.crlContents("", 0)
	less.Entries = nil
	code, out := b.publish(w.signCRL(less, time.Hour))
	if code != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(out["detail"]), "missing") {
		t.Error(code, out)
	}
	ahead := b.crlContents("", 0)
	ahead.Number += 100
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, out = b.publish(w.signCRL(ahead, time.Hour))
	}()
	b.until("it gives up waiting for blocks", func() (bool, string) {
		w.clock.Advance(time.Second)
		select {
		case <-done:
			return true, ""
		default:
			return false, "still waiting"
		}
	})
	if code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(out["detail"]), "ahead") {
		t.Error(code, out)
	}
	post := func(path, contentType string, body io.Reader) (int, problem.Problem) {
		resp, err := http.Post(b.url+path, contentType, body)
		if err != nil {
			t.Fatal(err)
		}
		var p problem.Problem
		if err := json.Unmarshal(readAll(t, resp), &p); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, p
	}
	path := "/crl/" + w.ca.ID.String()
	for name, tc := range map[string]struct {
		path, contentType string
		body              io.Reader
		want              int
	}{
		"no CRL":            {path, "application/pkix-crl", strings.NewReader("x"), 400},
		"another type":      {path, "application/json", strings.NewReader("{}"), 415},
		"too long":          {path, "application/pkix-crl", bytes.NewReader(make([]byte, 4097)), 413},
		"too long, chunked": {path, "application/pkix-crl", io.MultiReader(bytes.NewReader(make([]byte, 4097))), 413},
		"unknown CA":        {"/crl/" + strings.Repeat("00", 32), "application/pkix-crl", strings.NewReader("x"), 404},
		"no CA":             {"/crl/x", "application/pkix-crl", strings.NewReader("x"), 400},
	} {
		if code, p := post(tc.path, tc.contentType, tc.body); code != tc.want || p.Rule == "" {
			t.Errorf("%s: %d %+v, want %d", name, code, p, tc.want)
		}
	}
	for query, want := range map[string]int{"?base=x": 400, "?base=0": 400, "?base=99999999": 400, "?scope=x": 400} {
		if code, body := b.get("/v1/crl/contents/"+w.ca.ID.String()+query, nil); code != want {
			t.Errorf("contents%s: %d %s, want %d", query, code, body, want)
		}
	}
	_, text := b.get("/metrics", nil)
	for _, want := range []string{
		`certanchor_crl_offered_total{ca="` + w.ca.ID.String() + `",outcome="refused"} 1`,
		`certanchor_crl_offered_total{ca="` + w.ca.ID.String() + `",outcome="malformed"} 1`, `certanchor_crl_offered_total{ca="` + w.ca.ID.String() + `",outcome="failed"} 1`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics do not say %s", want)
		}
	}
}

// No contents are given to be signed from a view that is not fresh.
func TestStaleViewGivesNoCRLContents(t *testing.T) {
	w := newWorld(t)
	w.issue(1)
	b := w.start("bridge", nil).ready()
	b.crlContents("", 0)
	w.clock.Advance(10 * tick)
	code, body := b.get("/v1/crl/contents/"+w.ca.ID.String(), nil)
	if code != http.StatusServiceUnavailable || !strings.Contains(string(body), "old") {
		t.Errorf("%d %s", code, body)
	}
}

func TestCRLSettingsAreChecked(t *testing.T) {
	w := newWorld(t)
	for want, set := range map[string]ocspbridge.CRLSettings{
		"crl.max_age":       {MaxAge: time.Millisecond},
		"crl.max_bytes":     {MaxBytes: 1},
		"crl.indirect.cert": {Indirect: &ocspbridge.IndirectCRL{Cert: "absent"}},
	} {
		_, err := ocspbridge.New(t.Context(), ocspbridge.Config{Dir: t.TempDir(), CRL: set, Log: quiet()}, w.conn)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error about %s", err, want)
		}
	}
}

// An organisation that was asked to signs an indirect CRL for a CA, and follows its changes.
func TestIndirectCRL(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	w.revoke(certs[0], wire.CACompromise)
	set, cert := crlIssuer(t, w)
	b := w.start("bridge", func(c *ocspbridge.Config) { c.CRL.Indirect = set }).ready()
	fetch := func() *crl.List {
		resp, body := b.crl(http.MethodGet, "../indirect.crl")
		if resp.StatusCode != http.StatusOK {
			return nil
		}
		l, err := crl.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Verify([]*x509.Certificate{cert}); err != nil {
			t.Fatal(err)
		}
		return l
	}
	lists := func(n int) func() (bool, string) {
		return func() (bool, string) {
			w.clock.Advance(time.Second)
			w.tickIfDue()
			l := fetch()
			return l != nil && l.Indirect && len(l.Groups) == 1 && bytes.Equal(l.Groups[0].Name, w.ca.Cert.RawSubject) && len(l.Groups[0].Entries) == n, fmt.Sprintf("%+v", l)
		}
	}
	b.until("signed", lists(1))
	first := fetch().Number
	w.revoke(certs[1], wire.CACompromise)
	b.until("signed again", lists(2))
	if second := fetch().Number; second <= first {
		t.Errorf("number %d after %d", second, first)
	}
}

// crlIssuer makes a certificate for an indirect CRL, and the files.
func crlIssuer(t *testing.T, w *world) (*ocspbridge.IndirectCRL, *x509.Certificate) {
	t.Helper()
	key := cctest.NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "Org1 CRL issuer"}, KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3},
		NotBefore: w.clock.Now().Add(-time.Hour), NotAfter: w.clock.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	set := &ocspbridge.IndirectCRL{Cert: filepath.Join(t.TempDir(), "cert.pem"), Key: filepath.Join(t.TempDir(), "key.pem"), CAs: []string{w.ca.ID.String()}}
	writeBlock(t, set.Cert, "CERTIFICATE", der)
	writeBlock(t, set.Key, "PRIVATE KEY", pkcs8Of(t, key))
	return set, cert
}

func pkcs8Of(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writeBlock(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Connections that send nothing keep nobody from publishing.
func TestIdleConnectionsDoNotBlockPublication(t *testing.T) {
	w := newWorld(t)
	w.revoke(w.issue(1)[0], wire.Superseded)
	b := w.start("bridge", nil).ready()
	addr := strings.TrimPrefix(b.url, "http://")
	for range 8 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		// 100-continue tells that the bridge reads the body, and so holds whatever it holds for it.
		if _, err := fmt.Fprintf(conn, "POST /crl/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", w.ca.ID); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, "100") {
			t.Fatal(line, err)
		}
	}
	if code, out := b.publish(w.signCRL(b.crlContents("", 0), time.Hour)); code != http.StatusOK || out["taken"] != true {
		t.Error(code, out)
	}
}

// A CRL too long for memory goes through a file.
func TestLongCRLIsReadWhole(t *testing.T) {
	w := newWorld(t)
	w.revoke(w.issue(1)[0], wire.Superseded)
	b := w.start("bridge", nil).ready()
	c := b.crlContents("", 0)
	for i := range 3000 {
		c.Entries = append(c.Entries, crl.Entry{Serial: wire.Serial{1, byte(i >> 8), byte(i)}, Time: c.Entries[0].Time})
	}
	crl.Sort(c.Entries)
	der := w.signCRL(c, time.Hour)
	if len(der) <= 64<<10 {
		t.Fatalf("%d octets are not long", len(der))
	}
	if code, out := b.publish(der); code != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(out["detail"]), "must not be listed") {
		t.Error("it was not read whole:", code, out)
	}
	der[len(der)-1] ^= 1
	if code, out := b.publish(der); code != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(out["detail"]), "signature") {
		t.Error(code, out)
	}
}

// TestLongCRLIsTaken: one that goes through a file is served octet for octet.
func TestLongCRLIsTaken(t *testing.T) {
	w := newWorld(t)
	certs := append(w.issue(900), w.issue(900)...)
	for _, c := range certs {
		w.revoke(c, wire.Superseded)
	}
	b := w.start("bridge", nil).ready()
	der := w.signCRL(b.crlContents("", 0), time.Hour)
	if len(der) <= 64<<10 {
		t.Fatalf("%d octets are not long", len(der))
	}
	if code, out := b.publish(der); code != http.StatusOK {
		t.Fatal(code, out)
	}
	if resp, got := b.crl(http.MethodGet, "full.crl"); resp.StatusCode != http.StatusOK || !bytes.Equal(got, der) {
		t.Errorf("status %d, %d octets of %d", resp.StatusCode, len(got), len(der))
	}
}
