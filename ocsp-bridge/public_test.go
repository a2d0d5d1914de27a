package ocspbridge_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// What clients ask for over plain HTTP is served at an address of its own, and nothing else there.
func TestPublicAddressServesOCSPAndCRLsAlone(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	w.integrate()
	w.nextTick()
	b := w.start("bridge", nil).ready()
	public := httptest.NewServer(b.PublicHandler())
	defer public.Close()
	ask := func(method, path, contentType string, body []byte) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, public.URL+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp, readAll(t, resp)
	}

	req := request(t, w.ca.Cert, nil, cert)
	for _, c := range []struct {
		method, path string
		body         []byte
	}{{"POST", "/ocsp", req}, {"GET", "/ocsp/" + base64.StdEncoding.EncodeToString(req), nil}, {"GET", "//ocsp//" + base64.StdEncoding.EncodeToString(req), nil}} {
		contentType := ""
		if c.body != nil {
			contentType = "application/ocsp-request"
		}
		resp, der := ask(c.method, c.path, contentType, c.body)
		if status, _, err := ocspwire.ParseResponse(der); err != nil || status != ocspwire.Successful || resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %d, %v, %v", c.method, c.path, resp.StatusCode, status, err)
		}
	}

	contents, err := b.CRLContents(w.ca.ID, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: new(big.Int).SetUint64(contents.Number), ThisUpdate: contents.ThisUpdate, NextUpdate: contents.ThisUpdate.Add(time.Hour),
	}, w.ca.Cert, w.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	at := "/crl/" + w.ca.ID.String()
	if resp, body := ask("POST", at, "application/pkix-crl", crl); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a CRL is taken: %d, %s", resp.StatusCode, body)
	}
	resp, err := http.Post(b.url+at, "application/pkix-crl", bytes.NewReader(crl))
	if err != nil {
		t.Fatal(err)
	}
	if body := readAll(t, resp); resp.StatusCode != http.StatusOK {
		t.Fatalf("the CRL is not taken: %d, %s", resp.StatusCode, body)
	}
	if resp, body := ask("GET", at+"/full.crl", "", nil); resp.StatusCode != http.StatusOK || !bytes.Equal(body, crl) {
		t.Errorf("CRL: %d, %d octets of %d", resp.StatusCode, len(body), len(crl))
	}

	serial := cctest.Serial(t, cert).String()
	for _, path := range []string{
		"/", "/logs", "/logs/status/checkpoint", "/logs/" + w.ca.ID.String() + "/ct/v1/get-sth", "/log_list.json", "/policy", "/metrics", "/healthz", "/readyz",
		"/v1/status/" + w.ca.ID.String() + "/" + serial, "/v1/bundle/" + w.ca.ID.String() + "/" + serial, "/v1/applied?block=0", "/v1/heads", "/v1/alarms",
		"/v1/events", "/v1/crl/contents/" + w.ca.ID.String(), "/v1/revocations", "/witness/add-checkpoint", "/logs/" + w.ca.ID.String() + "/ct/v1/add-chain",
	} {
		for _, method := range []string{"GET", "POST"} {
			if resp, body := ask(method, path, "", nil); resp.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "over TLS") {
				t.Errorf("%s %s: %d, %s", method, path, resp.StatusCode, body)
			}
		}
	}
}
