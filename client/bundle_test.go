package client_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/bundle/bundletest"
	"github.com/certanchor/certanchor/internal/policy"
)

func ExampleVerifyBundle() {
	file, err := os.ReadFile(filepath.Join("testdata", "consortium.policy"))
	if err != nil {
		log.Fatal(err)
	}
	// Compiled in, or from whoever administers this machine.
	const fingerprint = "bb1d042ee543b22ea8dc8ebb325553eb8b90e5a1247a4e700aa983e5be6ec82d"
	policy, err := client.LoadPolicy(file, fingerprint)
	if err != nil {
		log.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "revoked.bundle"))
	if err != nil {
		log.Fatal(err)
	}
	now := time.Date(2026, 5, 1, 12, 0, 30, 0, time.UTC) // time.Now(), usually
	v, err := client.VerifyBundle(policy, load("revoked.pem"), data, now)
	if err != nil {
		log.Fatal(err) // no status that can be relied on
	}
	switch {
	case v.Status == client.Good:
		fmt.Println("good at", v.AsOf)
	case v.OnHold:
		fmt.Println("on hold since", v.RevokedAt)
	default:
		fmt.Println("revoked at", v.RevokedAt, "for", v.Reason, "by", v.By)
	}
	fmt.Println("say", v.StatusCosigners)
	// Output:
	// revoked at 2026-05-01 12:00:07 +0000 UTC for keyCompromise by [ca]
	// say [Org1MSP Org2MSP Org3MSP Org4MSP]
}

// A bundle is fetched by whoever shows a certificate, and sent along with it.
func ExampleClient_FetchBundle() {
	cert, issuer := load("cert.pem"), load("issuer.pem")
	c := &client.Client{LogURL: "http://ocsp.org2.example"}
	data, err := c.FetchBundle(context.Background(), cert, issuer)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("cert"+client.BundleExtension, data, 0o644); err != nil {
		log.Fatal(err)
	}
}

var fourOrgs = []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}

// TestExampleBundleVerifies makes the example's files with -update.
func TestExampleBundleVerifies(t *testing.T) {
	if !*update {
		return
	}
	w := bundletest.New(t, 3, fourOrgs...)
	w.Issue()
	cert := w.Issue()
	w.Set(cert, wire.CertHeld, wire.CertificateHold)
	w.Tick()
	w.Set(cert, wire.CertRevoked, wire.KeyCompromise)
	w.Tick()
	signed, err := (&policy.Signed{Policy: w.Policy}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fingerprint %s", w.Policy.Fingerprint())
	for name, data := range map[string][]byte{
		"revoked.pem":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		"revoked.bundle":    w.Bundle(cert, false),
		"consortium.policy": signed,
	} {
		if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// loadPolicy is what a relying party does with w's policy.
func loadPolicy(t *testing.T, w *bundletest.World) *client.Policy {
	t.Helper()
	signed, err := (&policy.Signed{Policy: w.Policy}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := client.LoadPolicy(signed, w.Policy.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	if p.Channel() != bundletest.Channel || p.Version() != 1 || p.Quorum() != 3 || p.MaxAge() != 45*time.Second ||
		p.Fingerprint() != w.Policy.Fingerprint() || !slices.Equal(p.Organisations(), fourOrgs) {
		t.Errorf("policy is %+v", p)
	}
	if _, err := client.LoadPolicy(signed, strings.Repeat("0", 64)); !errors.Is(err, client.ErrPolicyFile) {
		t.Errorf("another fingerprint: %v", err)
	}
	return p
}

func TestBundleShowsTheStatus(t *testing.T) {
	w := bundletest.New(t, 3, fourOrgs...)
	p := loadPolicy(t, w)
	cert := w.Issue()
	logged := w.Now
	verdict := func() *client.Verdict {
		w.Tick()
		v, err := client.VerifyBundle(p, cert, w.Bundle(cert, true), w.Now)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := verdict()
	if v.Status != client.Good || v.OnHold || !v.Logged.Equal(logged) || v.Index != 0 || v.CAID != client.CAID(w.CA.Cert) || v.CASuspended ||
		!v.AsOf.Equal(w.Now) || len(v.LogCosigners) != 4 || len(v.StatusCosigners) != 4 || len(v.By) != 0 {
		t.Errorf("good: %+v", v)
	}
	w.Set(cert, wire.CertHeld, wire.CertificateHold)
	if v := verdict(); v.Status != client.Revoked || !v.OnHold || v.Reason != "certificateHold" {
		t.Errorf("on hold: %+v", v)
	}
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafCert, Serial: cctest.Serial(t, cert), Change: 2, State: uint(wire.CertRevoked), Reason: wire.KeyCompromise, Invalidity: wire.MillisOf(logged),
	})
	at := w.Now
	w.Change(wire.StatusLeaf{Kind: wire.LeafCA, Change: 2, State: uint(wire.CASuspended)})
	if v := verdict(); v.Status != client.Revoked || v.OnHold || v.Reason != "keyCompromise" || !v.RevokedAt.Equal(at) || !v.Invalidity.Equal(logged) ||
		!slices.Equal(v.By, []string{"ca"}) || !v.CASuspended {
		t.Errorf("revoked: %+v", v)
	}
	imported := w.Issue()
	w.Change(wire.StatusLeaf{
		Kind: wire.LeafCert, Serial: cctest.Serial(t, imported), Change: 1, State: uint(wire.CertRevoked), Imported: true, Asserted: wire.MillisOf(logged),
	})
	at = w.Now
	for _, newer := range []bool{true, false} {
		if v, err := client.VerifyBundle(p, imported, w.Bundle(imported, newer), w.Now); err != nil || v.Status != client.Revoked || !v.RevokedAt.Equal(at) || !v.Asserted.Equal(logged) {
			t.Errorf("imported: %+v, %v", v, err)
		}
		w.Tick()
	}
	precert := w.Cert()
	w.Log(precert, bundle.Precert)
	w.Tick()
	data := w.Bundle(precert, false)
	if v, err := client.VerifyBundle(p, precert, data, w.Now); err != nil || v.Index != 2 {
		t.Errorf("only a precertificate: %+v, %v", v, err)
	}
	for _, c := range []struct {
		what   string
		policy *client.Policy
		cert   *x509.Certificate
		data   []byte
		now    time.Time
		want   error
	}{
		{"a day later", p, precert, data, w.Now.Add(24 * time.Hour), client.ErrBundleStale},
		{"another certificate", p, cert, data, w.Now, client.ErrBundleNotIssued},
		{"cut", p, precert, data[:100], w.Now, client.ErrBundleFormat},
		{"another quorum", loadPolicy(t, bundletest.New(t, 3, fourOrgs...)), precert, data, w.Now, nil}, // the same keys, by name
		{"no policy", nil, precert, data, w.Now, errAny},
		{"no certificate", p, nil, data, w.Now, errAny},
	} {
		v, err := client.VerifyBundle(c.policy, c.cert, c.data, c.now)
		if (err == nil) != (c.want == nil) || c.want != nil && !errors.Is(c.want, errAny) && !errors.Is(err, c.want) || err != nil && v != nil {
			t.Errorf("%s: %+v, %v; want %v", c.what, v, err, c.want)
		}
	}
}

var errAny = errors.New("any")

func TestBundleIsFetched(t *testing.T) {
	w := bundletest.New(t, 3, fourOrgs...)
	p, cert := loadPolicy(t, w), w.Issue()
	w.Tick()
	data := w.Bundle(cert, false)
	want := "/logs/" + client.CAID(w.CA.Cert) + "/bundle?serial=" + cctest.Serial(t, cert).String()
	for _, c := range []struct {
		what   string
		answer http.HandlerFunc
		want   error
	}{
		{"bundle", func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.String() != want {
				t.Errorf("asks for %s, want %s", r.URL, want)
			}
			rw.Header().Set("Content-Type", client.BundleContentType)
			_, _ = rw.Write(data)
		}, nil},
		{"no such certificate", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(404) }, client.ErrNotLogged},
		{"not ready", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) }, client.ErrUnavailable},
		{"too much asked", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(429) }, client.ErrUnavailable},
		{"broken", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) }, client.ErrTransport},
		{"HTML", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") }, client.ErrTransport},
		{"endless", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", client.BundleContentType)
			_, _ = rw.Write(make([]byte, bundle.MaxSize+1))
		}, client.ErrTransport},
	} {
		server := httptest.NewServer(c.answer)
		got, err := (&client.Client{LogURL: server.URL}).FetchBundle(t.Context(), cert, w.CA.Cert)
		server.Close()
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
			continue
		}
		if c.want != nil {
			continue
		}
		if _, err := client.VerifyBundle(p, cert, got, w.Now); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestUnavailableSaysWhyAndUntilWhen: it is an answer, and its text does not deny that.
func TestUnavailableSaysWhyAndUntilWhen(t *testing.T) {
	w := bundletest.New(t, 3, fourOrgs...)
	cert := w.Issue()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Retry-After", "7")
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(rw, `{"detail":"the CA is not in the map before the next tick"}`)
	}))
	defer server.Close()
	c := &client.Client{LogURL: server.URL}
	for what, fetch := range map[string]func() error{
		"bundle": func() error { _, err := c.FetchBundle(t.Context(), cert, w.CA.Cert); return err },
		"proof":  func() error { _, err := c.FetchProof(t.Context(), cert, w.CA.Cert); return err },
		"keys":   func() error { _, err := c.ServedLogKeys(t.Context(), w.CA.Cert); return err },
	} {
		err := fetch()
		var not *client.UnavailableError
		if !errors.As(err, &not) || not.RetryAfter != 7*time.Second || not.Detail != "the CA is not in the map before the next tick" {
			t.Fatalf("%s: %#v", what, err)
		}
		if errors.Is(err, client.ErrTransport) || !errors.Is(err, client.ErrUnavailable) || strings.Contains(err.Error(), "no answer") || !strings.Contains(err.Error(), not.Detail) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
