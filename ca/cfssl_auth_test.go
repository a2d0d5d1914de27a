package ca

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
)

func TestAuthSign(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	req := map[string]any{"certificate_request": newCSR(t, nil), "profile": "www", "hosts": []string{"a.example.org"}}
	for _, key := range []string{cfsslKey, cfsslPrevious} {
		_, r := w.cfssl("authsign", authenticated(t, key, req), noCredential)
		if cert := w.signed(r); !slices.Equal(cert.DNSNames, []string{"a.example.org"}) {
			t.Fatal(cert.DNSNames)
		}
	}
	if w.logSize() != 2 {
		t.Fatal(w.logSize())
	}
	_, r := w.cfssl("authinfo", authenticated(t, cfsslOther, `{"label":"","profile":"www"}`), noCredential)
	if !r.Success || r.text("expiry") != "72h" {
		t.Fatalf("%+v", r)
	}
}

// A client of the clients file may do with its key what its role allows.
func TestAuthSignTakesTheKeysOfHMACClients(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	for _, role := range []Role{RoleRequester, RoleAuditor} {
		if _, err := MakeClient(w.dir, NewClient{Name: "hmac-" + string(role), Role: role, HMAC: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.server.clients.reload(true); err != nil {
		t.Fatal(err)
	}
	key := func(name string) string {
		k, ok := w.server.clients.hmacKey(name)
		if !ok {
			t.Fatalf("%s has no key", name)
		}
		return hex.EncodeToString(k)
	}
	req := map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}
	_, r := w.cfssl("authsign", authenticated(t, key("hmac-requester"), req), noCredential)
	cert := w.signed(r)
	if code, _ := w.cfssl("authsign", authenticated(t, key("hmac-auditor"), req), noCredential); code != 403 || w.logSize() != 1 {
		t.Errorf("an auditor: %d", code)
	}
	// Another client's certificate for the same request is its own.
	_, r = w.cfssl("authsign", authenticated(t, cfsslKey, req), noCredential)
	if w.signed(r).Equal(cert) {
		t.Error("two clients got one certificate")
	}
}

func TestFailedTokensAreCountedAgainstTheAddress(t *testing.T) {
	w := newCFSSLWorld(t, func(c *Config) { c.Settings.Rate.FailuresPerMinute = 3 })
	q := authenticated(t, "ffffffffffffffffffffffffffffffff", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"})
	for range 3 {
		if code, _ := w.cfssl("authsign", q, noCredential); code != 401 {
			t.Fatal(code)
		}
	}
	if code, r := w.cfssl("authsign", q, noCredential); code != 429 {
		t.Fatalf("%d %+v", code, r)
	}
}

func TestARepeatedAuthSignGetsTheSameCertificate(t *testing.T) {
	var later atomic.Int64
	w := newCFSSLWorld(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) } })
	q := authenticated(t, cfsslKey, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"})
	_, r := w.cfssl("authsign", q, noCredential)
	first := w.signed(r)
	before := w.fingerprint()
	for _, change := range []map[string]any{{}, {"timestamp": 1}, {"remote_address": []byte{192, 0, 2, 1}}} { // not under the HMAC
		again := maps.Clone(q)
		maps.Copy(again, change)
		if _, r := w.cfssl("authsign", again, noCredential); !w.signed(r).Equal(first) {
			t.Fatalf("%v: another certificate", change)
		}
	}
	// Over Idempotency-Key nothing comes near.
	if _, r := w.cfssl("authsign", q, map[string]string{caapi.IdempotencyKey: "x", "Authorization": ""}); !w.signed(r).Equal(first) {
		t.Fatal("another certificate")
	}
	if w.fingerprint() != before {
		t.Fatal("something was signed")
	}
	if _, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: hex.EncodeToString(first.SerialNumber.Bytes()), Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	if _, r := w.cfssl("authsign", q, noCredential); !w.signed(r).Equal(first) || w.logSize() != 1 {
		t.Fatal("a revoked certificate was replaced")
	}
	later.Store(int64(100 * time.Hour))
	code, r := w.cfssl("authsign", q, noCredential)
	if code != 400 || !strings.Contains(r.Errors[0].Message, "token") || !strings.Contains(r.Errors[0].Message, "a new certificate takes a new CSR") || w.logSize() != 1 {
		t.Fatalf("after its life: %d %+v", code, r.Errors)
	}
}

func TestAuthSignRefusesWhatNoKeyOfTheProfileMade(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	req := map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}
	good := authenticated(t, cfsslKey, req)
	with := func(changes map[string]any) map[string]any {
		q := maps.Clone(good)
		maps.Copy(q, changes)
		return q
	}
	tampered := body(t, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"})
	before := w.fingerprint()
	for name, tc := range map[string]struct {
		request any
		status  int
		want    string
	}{
		"wrong key":              {authenticated(t, "ffffffffffffffffffffffffffffffff", req), 401, "token"},
		"empty key":              {authenticated(t, "", req), 401, "token"},
		"tampered":               {with(map[string]any{"request": []byte(tampered)}), 401, "token"},
		"token absent":           {with(map[string]any{"token": nil}), 400, "token"},
		"token short":            {with(map[string]any{"token": []byte("short")}), 400, "32 bytes"},
		"token not base64":       {with(map[string]any{"token": "***"}), 400, "base64"},
		"token a number":         {with(map[string]any{"token": 7}), 400, "a string"},
		"request absent":         {with(map[string]any{"request": nil}), 400, "request"},
		"request not base64":     {with(map[string]any{"request": "{}"}), 400, "base64"},
		"timestamp a string":     {with(map[string]any{"timestamp": "now"}), 400, "timestamp"},
		"timestamp negative":     {with(map[string]any{"timestamp": -1}), 400, "timestamp"},
		"remote_address long":    {with(map[string]any{"remote_address": make([]byte, 257)}), 400, "remote_address"},
		"unknown field":          {with(map[string]any{"nonce": "x"}), 400, "nonce"},
		"bundle outside":         {with(map[string]any{"bundle": true}), 400, "bundle"},
		"key of another profile": {authenticated(t, cfsslOther, req), 403, "auth_key or prev_auth_key"},
		"profile without a key":  {authenticated(t, cfsslKey, map[string]any{"certificate_request": newCSR(t, nil), "profile": "open"}), 403, "profile"},
		"not JSON inside":        {authenticated(t, cfsslKey, "x"), 400, "JSON"},
		"not JSON":               {"x", 400, "JSON"},
		"too large":              {`{"token":"` + strings.Repeat("x", maxCFSSLBody) + `"}`, 413, "at most"},
	} {
		code, r := w.cfssl("authsign", tc.request, noCredential)
		if code != tc.status || !strings.Contains(r.Errors[0].Message, tc.want) {
			t.Errorf("%s: %d %+v; want %d %q", name, code, r.Errors, tc.status, tc.want)
		}
	}
	// A token of the clients file does not stand in for the HMAC.
	if code, _ := w.cfssl("authsign", with(map[string]any{"token": make([]byte, 32)}), nil); code != 401 {
		t.Errorf("bearer token and a wrong HMAC: %d", code)
	}
	if w.fingerprint() != before {
		t.Fatal("something was changed")
	}
}
