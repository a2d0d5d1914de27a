package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// The judge is openssl: it makes the requests and verifies the certificates.
func TestCertificatesForRequestsMadeByOpenSSL(t *testing.T) {
	w := newWorld(t, nil)
	caFile := filepath.Join(w.dir, certFile)
	for _, tc := range []struct {
		name    string
		newkey  []string
		subject string
		ext     string
		profile string
		purpose string
	}{
		{"RSA-2048 server", []string{"-newkey", "rsa:2048"}, "/CN=www.example.org/O=Example/C=DE", "subjectAltName=DNS:www.example.org,DNS:*.example.org,IP:192.0.2.1,IP:2001:db8::1", "server", "sslserver"},
		{"P-256 server", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}, "/CN=ec.example.org", "subjectAltName=DNS:ec.example.org", "server", "sslserver"},
		{"P-384 client", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"}, "/CN=Jördis Ünal/O=Example", "subjectAltName=email:j@example.org,URI:spiffe://example.org/j", "client", "sslclient"},
		{"RSA-3072 peer, common name only", []string{"-newkey", "rsa:3072"}, "/CN=peer.example.org", "", "peer", "sslclient"},
		{"no subject", []string{"-newkey", "rsa:2048"}, "/", "subjectAltName=DNS:anon.example.org", "server", "sslserver"},
		{"asks for usages it does not get", []string{"-newkey", "rsa:2048"}, "/CN=u.example.org", "extendedKeyUsage=codeSigning", "server", "sslserver"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keyPath := filepath.Join(t.TempDir(), "key.pem")
			args := append([]string{"req", "-new", "-nodes", "-keyout", keyPath, "-subj", tc.subject, "-utf8"}, tc.newkey...)
			if tc.ext != "" {
				args = append(args, "-addext", tc.ext)
			}
			csr := openssl(t, "", args...)
			got, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: tc.profile}, "")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "cert.pem")
			if err := os.WriteFile(path, []byte(got.Certificate), 0o600); err != nil {
				t.Fatal(err)
			}
			openssl(t, "", "verify", "-x509_strict", "-CAfile", caFile, "-purpose", tc.purpose, path)
			if a, b := openssl(t, "", "x509", "-in", path, "-noout", "-pubkey"), openssl(t, "", "pkey", "-in", keyPath, "-pubout"); a != b {
				t.Fatal("the certificate has another key")
			}
			checkIssued(t, w, got, tc.profile)
		})
	}
}

func checkIssued(t *testing.T, w *world, got *caapi.Certificate, profile string) {
	t.Helper()
	cert := parsePEM(t, got.Certificate)
	mustLint(t, cert.Raw, map[string]bool{
		"w_ext_subject_key_identifier_missing_sub_cert": true,
		"w_subject_common_name_included":                true,
	})
	ca := w.server.issuer.cert
	if cert.IsCA || cert.NotBefore.Before(ca.NotBefore) || cert.NotAfter.After(ca.NotAfter) || cert.SerialNumber.BitLen() < 64 {
		t.Errorf("%+v", cert)
	}
	if ocsp := profile != ResponderProfile; ocsp != (len(cert.OCSPServer) == 1 && cert.OCSPServer[0] == testOCSP) {
		t.Errorf("AIA %v", cert.OCSPServer)
	}
	if len(got.Chain) != 1 || !parsePEM(t, got.Chain[0]).Equal(ca) || got.CAID != w.server.CAID().String() {
		t.Errorf("chain %v", got.Chain)
	}
	if at, err := time.Parse(time.RFC3339, got.Timestamp); err != nil || time.Since(at).Abs() > time.Minute || got.TxID == "" {
		t.Errorf("timestamp %q, tx %q", got.Timestamp, got.TxID)
	}
	if got.LogIndex+1 != w.logSize() {
		t.Errorf("log index %d, the log has %d", got.LogIndex, w.logSize())
	}
}

func TestLifeOfACertificate(t *testing.T) {
	w := newWorld(t, nil)
	op := w.client("operator")
	cert, err := op.Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(state, reason string) {
		t.Helper()
		got, err := w.client("auditor").Get(t.Context(), strings.ToUpper(cert.Serial))
		if err != nil || got.Certificate != cert.Certificate || got.LogIndex != cert.LogIndex || got.Block != cert.Block {
			t.Fatalf("%+v, %v", got, err)
		}
		if got.Status == nil || got.Status.State != state || got.Status.Reason != reason {
			t.Fatalf("status %+v, want %s %s", got.Status, state, reason)
		}
	}
	expect("valid", "")
	revoke := func(reason string) *caapi.StatusChange {
		t.Helper()
		c, acked, err := op.Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: reason})
		if err != nil || !acked {
			t.Fatalf("%s: %+v, %t, %v", reason, c, acked, err)
		}
		return c
	}
	held := revoke("certificateHold")
	expect("held", "certificateHold")
	if c, acked, err := op.Release(t.Context(), cert.Serial); err != nil || !acked || c.State != "valid" || c.RevocationTime != "" || c.Change != 2 {
		t.Fatalf("%+v, %t, %v", c, acked, err)
	}
	expect("valid", "")
	first := revoke("superseded")
	if held.Change != 1 || first.Change != 3 || !first.Changed {
		t.Fatalf("%+v, %+v", held, first)
	}
	again := revoke("superseded")
	if again.Changed || again.RevocationTime != first.RevocationTime {
		t.Fatalf("a repetition moved the date: %+v, %+v", first, again)
	}
	worse := revoke("keyCompromise")
	if !worse.Changed || worse.Reason != "keyCompromise" || worse.RevocationTime != first.RevocationTime {
		t.Fatalf("%+v", worse)
	}
	expect("revoked", "keyCompromise")
}

func TestResponderCertificate(t *testing.T) {
	w := newWorld(t, nil)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "OCSP responder of Org1MSP"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, enrol := range map[string]func() ([]byte, error){
		"over HTTP": func() ([]byte, error) {
			return w.client("responder").EnrollResponder(t.Context(), w.server.CAID(), der)
		},
		"in this process": func() ([]byte, error) { return w.server.EnrollResponder(t.Context(), w.server.CAID(), der) },
	} {
		t.Run(name, func(t *testing.T) {
			before := w.logSize()
			raw, err := enrol()
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			// RFC 6960 4.2.2.2
			if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || cert.NotAfter.Sub(cert.NotBefore) > maxResponderLife {
				t.Errorf("%+v", cert)
			}
			nocheck := false
			for _, e := range cert.Extensions {
				nocheck = nocheck || e.Id.String() == "1.3.6.1.5.5.7.48.1.5"
			}
			if !nocheck || w.logSize() != before+1 {
				t.Errorf("id-pkix-ocsp-nocheck %t, log grew by %d", nocheck, w.logSize()-before)
			}
			mustLint(t, raw, nil)
		})
	}
	var other [32]byte
	if _, err := w.server.EnrollResponder(t.Context(), other, der); err == nil {
		t.Error("enrolled with another CA")
	}
}

func TestSameKeySameCertificate(t *testing.T) {
	w := newWorld(t, nil)
	csr := newCSR(t, nil)
	var wg sync.WaitGroup
	serials := make([]string, 10)
	for i := range serials {
		wg.Go(func() {
			c, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, "k1")
			if err != nil {
				t.Error(err)
				return
			}
			serials[i] = c.Serial
		})
	}
	wg.Wait()
	for _, s := range serials {
		if s != serials[0] {
			t.Fatalf("different certificates for one key: %v", serials)
		}
	}
	if w.logSize() != 1 {
		t.Fatalf("%d certificates on the ledger", w.logSize())
	}
	before := w.fingerprint()
	for _, req := range []caapi.IssueRequest{{CSR: newCSR(t, nil), Profile: "server"}, {CSR: csr, Profile: "client"}} {
		code, _, b := w.call("POST", caapi.PathCertificates, body(t, req), map[string]string{caapi.IdempotencyKey: "k1", "Authorization": "Bearer " + w.token("requester")})
		if p := asProblem(t, b); code != http.StatusUnprocessableEntity || p.Field != caapi.IdempotencyKey {
			t.Fatalf("%d %s", code, b)
		}
	}
	if w.fingerprint() != before {
		t.Fatal("a refused repetition left traces")
	}
	// Another client's keys are its own, and no key at all means another certificate.
	for _, name := range []string{"operator", "requester"} {
		key := map[string]string{"operator": "k1", "requester": ""}[name]
		c, err := w.client(name).Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, key)
		if err != nil || c.Serial == serials[0] {
			t.Fatalf("%+v, %v", c, err)
		}
	}
}

func TestDescriptionAndHealth(t *testing.T) {
	w := newWorld(t, nil)
	ca, err := w.client("responder").CA(t.Context())
	if err != nil || ca.CAID != w.server.CAID().String() || !parsePEM(t, ca.Certificate).Equal(w.server.issuer.cert) || len(ca.Profiles) != 4 {
		t.Fatalf("%+v, %v", ca, err)
	}
	for _, path := range []string{caapi.PathHealth, caapi.PathReady} {
		code, _, b := w.call("GET", path, "", map[string]string{"Authorization": ""})
		var v map[string]any
		if err := json.Unmarshal(b, &v); code != 200 || err != nil {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
}
