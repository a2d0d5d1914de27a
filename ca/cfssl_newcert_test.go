package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
)

func TestNewCertOnlyWhereTheProfileAllowsIt(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	request := map[string]any{"CN": "Someone", "names": []any{map[string]any{"O": "Example", "C": "DE"}}, "hosts": []string{"someone@example.org"}, "key": map[string]any{"algo": "ecdsa", "size": 384}}
	_, r := w.cfssl("newcert", map[string]any{"request": request, "profile": "mail", "bundle": true}, as(w, "requester"))
	cert := w.signed(r)
	block, _ := pem.Decode([]byte(r.text("private_key")))
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) || key.Params().BitSize != 384 || cert.Subject.String() != "CN=Someone,O=Example,C=DE" || len(cert.EmailAddresses) != 1 {
		t.Fatalf("%v: %v %v", err, cert.Subject, cert.EmailAddresses)
	}
	if sums := r.Result["sums"].(map[string]any)["certificate"].(map[string]any); len(sums["sha-256"].(string)) != 64 {
		t.Fatal(sums)
	}
	if b := r.Result["bundle"].(map[string]any); b["crt"] != strings.TrimSpace(r.text("certificate")) || b["key_type"] != "384-bit ECDSA" || b["subject"] != "/Country=DE/Organization=Example/CommonName=Someone" {
		t.Fatal(b)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	// Nothing of the key stays.
	err = filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, secret) || strings.Contains(string(data), "EC PRIVATE KEY") {
			t.Errorf("%s holds the private key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := w.fingerprint()
	in := func(profile string, changes map[string]any) map[string]any {
		q := maps.Clone(request)
		maps.Copy(q, changes)
		return map[string]any{"request": q, "profile": profile}
	}
	for name, tc := range map[string]struct {
		request any
		header  map[string]string
		status  int
		want    string
	}{
		"profile without new_key": {in("www", nil), nil, 403, "new_key"},
		"default profile":         {in("", nil), nil, 403, "new_key"},
		"no request":              {map[string]any{"profile": "mail"}, nil, 400, "request"},
		"small RSA":               {in("mail", map[string]any{"key": map[string]any{"algo": "rsa", "size": 1024}}), nil, 400, "request.key"},
		"huge RSA":                {in("mail", map[string]any{"key": map[string]any{"algo": "rsa", "size": 16384}}), nil, 400, "request.key"},
		"Ed25519":                 {in("mail", map[string]any{"key": map[string]any{"algo": "ed25519", "size": 0}}), nil, 400, "request.key"},
		"CA":                      {in("mail", map[string]any{"ca": map[string]any{"expiry": "1h"}}), nil, 400, "CA certificates"},
		"extensions":              {in("mail", map[string]any{"extensions": []any{1}}), nil, 400, "request.extensions"},
		"crl_url":                 {in("mail", map[string]any{"crl_url": "http://x/"}), nil, 400, "request.crl_url"},
		"delegation":              {in("mail", map[string]any{"delegation_enabled": true}), nil, 400, "request.delegation_enabled"},
		"names for mail":          {in("mail", map[string]any{"hosts": []string{"a.example.org"}}), nil, 400, "csr.dns_names"},
		"mail address in subject": {in("mail", map[string]any{"names": []any{map[string]any{"E": "a@example.org"}}}), nil, 400, "emailAddress"},
		"Idempotency-Key":         {in("mail", nil), map[string]string{caapi.IdempotencyKey: "k"}, 400, caapi.IdempotencyKey},
	} {
		if code, r := w.cfssl("newcert", tc.request, tc.header); code != tc.status || !strings.Contains(r.Errors[0].Message, tc.want) {
			t.Errorf("%s: %d %+v; want %d %q", name, code, r.Errors, tc.status, tc.want)
		}
	}
	if w.fingerprint() != before {
		t.Fatal("something was changed")
	}
}

func TestOtherMethodsAndEndpointsAreRefusedInCFSSLsForm(t *testing.T) {
	w := newWorld(t, nil)
	for path, want := range map[string]string{"bundle": "bundle: true", "init_ca": "certanchor ca init", "gencrl": "GET crl", "scan": "connects to nobody", "x": "is not an endpoint"} {
		if code, r := w.cfssl(path, "{}", nil); code != http.StatusNotFound || !strings.Contains(r.Errors[0].Message, want) {
			t.Errorf("%s: %d %+v", path, code, r)
		}
	}
	code, h, b := w.call("GET", cfsslPrefix+"sign", "", nil)
	if code != http.StatusMethodNotAllowed || h.Get("Allow") != "POST" || !strings.Contains(string(b), `"success":false`) {
		t.Errorf("%d %v %s", code, h, b)
	}
	off := newWorld(t, func(c *Config) { c.Settings.CFSSL = &CFSSLSettings{Disabled: true} })
	if code, h, _ := off.call("GET", cfsslPrefix+"health", "", nil); code != http.StatusNotFound || h.Get("Content-Type") != "application/problem+json" {
		t.Errorf("disabled: %d", code)
	}
}
