package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/config"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/dual"
)

// cfsslAKI names the CA as cfssl's requests do.
func (w *world) cfsslAKI() string { return hex.EncodeToString(w.server.issuer.cert.SubjectKeyId) }

func TestRevokeOverCFSSLsAPI(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	issue := func() string {
		t.Helper()
		_, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil)
		return w.signed(r).SerialNumber.String()
	}
	for reason, want := range map[string]string{"superseded": "superseded", "KeyCompromise": "keyCompromise", "4": "superseded", "": "unspecified", "certificateHold": "certificateHold"} {
		serial := issue()
		code, r := w.cfssl("revoke", map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "reason": reason}, nil)
		if code != 200 || r.text("reason") != want || r.Result["block"].(float64) == 0 || len(r.Messages) != 0 {
			t.Fatalf("%q: %d %+v", reason, code, r)
		}
		s, err := decimalSerial(serial)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.client("operator").Get(t.Context(), s.String()); err != nil || got.Status.Reason != want {
			t.Fatalf("%q: the ledger has %+v, %v", reason, got, err)
		}
	}
	serial := issue()
	before := w.fingerprint()
	for name, tc := range map[string]struct {
		request any
		code    int
		want    string
	}{
		"unknown serial":      {map[string]any{"serial": "12345", "authority_key_id": w.cfsslAKI(), "reason": "superseded"}, 11200, "serial"},
		"serial absent":       {map[string]any{"authority_key_id": w.cfsslAKI()}, 400, "decimal"},
		"serial hexadecimal":  {map[string]any{"serial": "0xab", "authority_key_id": w.cfsslAKI()}, 400, "decimal"},
		"serial negative":     {map[string]any{"serial": "-1", "authority_key_id": w.cfsslAKI()}, 400, "decimal"},
		"serial zero":         {map[string]any{"serial": "0", "authority_key_id": w.cfsslAKI()}, 400, "positive"},
		"serial long":         {map[string]any{"serial": strings.Repeat("9", 50), "authority_key_id": w.cfsslAKI()}, 400, "49 digits"},
		"serial of 21 octets": {map[string]any{"serial": strings.Repeat("9", 49), "authority_key_id": w.cfsslAKI()}, 400, "20 octets"},
		"serial a number":     {`{"serial":5,"authority_key_id":""}`, 400, "a string"},
		"AKI absent":          {map[string]any{"serial": serial, "reason": "superseded"}, 400, "authority_key_id"},
		"AKI of another CA":   {map[string]any{"serial": serial, "authority_key_id": "a0b1c2d3e4f5", "reason": "superseded"}, 400, "authority_key_id"},
		"unknown reason":      {map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "reason": "bored"}, 400, "reason"},
		"reason out of range": {map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "reason": "7"}, 400, "reason"},
		"removeFromCRL":       {map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "reason": "removeFromCRL"}, 400, "/v1/releases"},
		"unknown field":       {map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "date": "x"}, 400, "date"},
	} {
		if code, r := w.cfssl("revoke", tc.request, nil); code != 400 || r.Errors[0].Code != tc.code || !strings.Contains(r.Errors[0].Message, tc.want) {
			t.Errorf("%s: %d %+v; want %d %q", name, code, r.Errors, tc.code, tc.want)
		}
	}
	if w.fingerprint() != before {
		t.Fatal("something was changed")
	}
}

func TestARevocationThatIsNotAcknowledgedSaysSo(t *testing.T) {
	w := newCFSSLWorld(t, func(c *Config) {
		c.Responders, c.Settings.AckTimeout = []Responder{&fakeResponder{name: "stuck"}}, 10*time.Millisecond
	})
	_, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil)
	_, r = w.cfssl("revoke", map[string]any{"serial": w.signed(r).SerialNumber.String(), "authority_key_id": w.cfsslAKI()}, nil)
	if !r.Success || len(r.Messages) != 1 || !strings.Contains(r.Messages[0].Message, "not acknowledged yet by stuck") || r.text("state") != "revoked" {
		t.Fatalf("%+v", r)
	}
}

func TestInfo(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	for request, want := range map[string]string{`{"label":"","profile":""}`: "168h client auth", `{"profile":"www"}`: "72h server auth", `{"label":"` + w.server.CAID().String() + `"}`: "168h client auth"} {
		_, r := w.cfssl("info", request, noCredential)
		if !r.Success || r.text("expiry")+" "+r.Result["usages"].([]any)[1].(string) != want || !parsePEM(t, r.text("certificate")).Equal(w.server.issuer.cert) {
			t.Errorf("%s: %+v", request, r)
		}
	}
	for request, want := range map[string]string{`{"profile":"x"}`: "profile", `{"label":"x"}`: "label", `{"profile":1}`: "profile", `{"a":1}`: "a ", `[]`: "JSON object"} {
		if code, r := w.cfssl("info", request, noCredential); code != 400 || !strings.Contains(r.Errors[0].Message, want) {
			t.Errorf("%s: %d %+v", request, code, r)
		}
	}
}

func TestCertInfo(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	_, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil)
	cert, text := w.signed(r), r.text("certificate")
	colons := strings.ToUpper(w.cfsslAKI()[:2]) + ":" + w.cfsslAKI()[2:]
	for _, request := range []any{
		map[string]any{"certificate": text}, map[string]any{"serial": cert.SerialNumber.String(), "authority_key_id": w.cfsslAKI()},
		map[string]any{"serial": cert.SerialNumber.String(), "authority_key_id": colons},
	} {
		_, r := w.cfssl("certinfo", request, as(w, "auditor"))
		if !r.Success || r.text("serial_number") != cert.SerialNumber.String() || r.text("pem") != text || r.Result["subject"].(map[string]any)["common_name"] != "host.example.org" {
			t.Errorf("%v: %+v", request, r)
		}
	}
	for name, tc := range map[string]struct{ request, want string }{
		"domain":         {`{"domain":"example.org"}`, "connects to nobody"},
		"nothing":        {`{}`, "must be given"},
		"both":           {`{"certificate":"x","serial":"1","authority_key_id":""}`, "serial"},
		"no certificate": {`{"certificate":"x"}`, "one certificate"},
		"unknown serial": {`{"serial":"99","authority_key_id":"` + w.cfsslAKI() + `"}`, "serial"},
		"AKI absent":     {`{"serial":"99"}`, "authority_key_id"},
		"AKI odd":        {`{"serial":"99","authority_key_id":"abc"}`, "authority_key_id"},
	} {
		if code, r := w.cfssl("certinfo", tc.request, nil); code != 400 || !strings.Contains(r.Errors[0].Message, tc.want) {
			t.Errorf("%s: %d %+v", name, code, r.Errors)
		}
	}
}

func TestCRLOverCFSSLsAPI(t *testing.T) {
	cw := newCRLWorld(t, 1, nil)
	cw.revoke(cw.issue(), "superseded")
	serial := cw.issue()
	cw.revoke(serial, "keyCompromise")
	cw.everywhere(fullFile, serial)
	code, _, b := cw.call("GET", cfsslPrefix+"crl", "", noCredential)
	var answer struct {
		Success bool
		Result  string
	}
	if err := json.Unmarshal(b, &answer); err != nil || code != 200 || !answer.Success {
		t.Fatalf("%d %s", code, b)
	}
	der, err := base64.StdEncoding.DecodeString(answer.Result)
	if err != nil {
		t.Fatal(err)
	}
	list, err := crl.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := list.Contents(cw.server.CAID()); err != nil || len(c.Entries) != 2 || c.Scope != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if code, _, b := cw.call("GET", cfsslPrefix+"crl?expiry=7200h", "", noCredential); code != 400 || !strings.Contains(string(b), "expiry") {
		t.Errorf("%d %s", code, b)
	}
	none := newWorld(t, nil)
	if code, _, b := none.call("GET", cfsslPrefix+"crl", "", noCredential); code != 400 || !strings.Contains(string(b), "ca.crl") {
		t.Errorf("%d %s", code, b)
	}
}

func TestHealthAndAnAbsentLedger(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	if _, r := w.cfssl("health", "", noCredential); r.Result["healthy"] != true {
		t.Fatalf("%+v", r)
	}
	w.ledger.Down(true)
	code, r := w.cfssl("health", "", noCredential)
	if code != 503 || r.Result["healthy"] != false || r.Errors[0].Message == "" {
		t.Fatalf("%d %+v", code, r)
	}
	w.server.reached.Store(0)
	before := w.fingerprint()
	code, h, b := w.call("POST", cfsslPrefix+"sign", body(t, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}), nil)
	if code != 503 || h.Get("Retry-After") == "" || !strings.Contains(string(b), `"success":false`) || w.fingerprint() != before {
		t.Fatalf("%d %v %s", code, h, b)
	}
}

func TestAnUnknownOutcomeNamesWhereToAsk(t *testing.T) {
	w := newCFSSLWorld(t, func(c *Config) { c.Settings.IssueTimeout, c.Settings.SubmitTimeout = 3*time.Second, time.Second })
	w.ledger.Plan(func(function string) anchortest.Fault {
		if function == wire.FnIssue {
			return anchortest.UnknownLost
		}
		return anchortest.None
	})
	q := authenticated(t, cfsslKey, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"})
	code, r := w.cfssl("authsign", q, noCredential)
	if code != 503 || !strings.Contains(r.Errors[0].Message, caapi.PathCertificates) {
		t.Fatalf("%d %+v", code, r)
	}
	w.ledger.Plan(nil)
	waitFor(t, "the outcome", func() bool { code, r = w.cfssl("authsign", q, noCredential); return code == 200 })
	if w.signed(r); w.logSize() != 1 {
		t.Fatal(w.logSize())
	}
}

func TestCFSSLKeysOfAConfiguration(t *testing.T) {
	t.Setenv("CERTANCHOR_TEST_AUTH_KEY", cfsslOther)
	t.Setenv("CERTANCHOR_TEST_EMPTY", "")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(cfsslKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	edit := func(old, repl string) []byte {
		t.Helper()
		if !strings.Contains(cfsslProfilesText, old) {
			t.Fatalf("no %q", old)
		}
		return []byte(strings.Replace(cfsslProfilesText, old, repl, 1))
	}
	p, err := parseProfiles(edit(`"key": "`+cfsslKey+`"`, fmt.Sprintf(`"key": "file:%s"`, file)))
	if err != nil {
		t.Fatal(err)
	}
	if k := p.cfssl.authKeys; hex.EncodeToString(k["web"]) != cfsslKey || hex.EncodeToString(k["other"]) != cfsslOther {
		t.Fatal(k)
	}
	if !p.cfssl.newKey["mail"] || p.cfssl.newKey["www"] || p.Profiles[defaultProfile] == nil {
		t.Fatal(p.cfssl.newKey)
	}
	for name, tc := range map[string]struct {
		text []byte
		want string
	}{
		"no such file":        {edit("env:CERTANCHOR_TEST_AUTH_KEY", "file:/absent"), `auth_keys.other.key "file:/absent"`},
		"variable not set":    {edit("CERTANCHOR_TEST_AUTH_KEY", "CERTANCHOR_TEST_EMPTY"), "auth_keys.other.key (env:CERTANCHOR_TEST_EMPTY)"},
		"unknown place":       {edit("env:CERTANCHOR_TEST_AUTH_KEY", "vault:x"), "env:NAME or file:PATH"},
		"short key":           {edit(cfsslKey, "00"), "auth_keys.web.key"},
		"not hexadecimal":     {edit(cfsslKey, strings.Repeat("x", 32)), "auth_keys.web.key"},
		"other provider":      {edit(`"type": "standard"`, `"type": "ip"`), `auth_keys.web.type "ip"`},
		"unknown auth_key":    {edit(`"auth_key": "web"`, `"auth_key": "x"`), `signing.profiles.www.auth_key "x"`},
		"unknown prev":        {edit(`"prev_auth_key": "older"`, `"prev_auth_key": "x"`), `signing.profiles.www.prev_auth_key "x"`},
		"remotes":             {edit(`"signing": {`, `"remotes": {"ca": "host:8888"}, "signing": {`), `remotes.ca "host:8888"`},
		"remote":              {edit(`"auth_key": "web"`, `"remote": "ca"`), "signing.profiles.www.remote"},
		"auth_remote":         {edit(`"auth_key": "web"`, `"auth_remote": {"remote": "ca", "auth_key": "web"}`), "signing.profiles.www.remote"},
		"ocsp":                {edit(`"signing": {`, `"ocsp": {}, "signing": {`), "ocsp"},
		"null":                {[]byte("null"), "signing"},
		"null profile":        {edit(`"profiles": {`, `"profiles": {"none": null,`), "signing.profiles.none"},
		"new_key a string":    {edit(`"new_key": true`, `"new_key": "yes"`), "signing.profiles.mail.new_key"},
		"new_key null":        {edit(`"new_key": true`, `"new_key": null`), "signing.profiles.mail.new_key"},
		"default's whitelist": {edit(`"CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true}}`, `"CSRWhitelist": {"Subject": true}}`), "signing.profiles.default.CSRWhitelist"},
	} {
		if _, err := parseProfiles(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), cfsslKey) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
	}
	if _, err := authKey("k", config.AuthKey{Type: "standard", Key: strings.Repeat("00", maxAuthKey+1)}); err == nil {
		t.Error("a long key was taken")
	}
}

func FuzzCFSSLRequests(f *testing.F) {
	for _, s := range []string{
		`{"certificate_request":"x","profile":"www","hosts":["a"],"subject":{"CN":"x","names":[{"C":"DE"}],"SerialNumber":"1"},"bundle":true,"label":""}`,
		`{"hostname":"a,b","certificate_request":"x","hosts":null,"metadata":{},"NotBefore":"0001-01-01T00:00:00Z"}`,
		`{"token":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","request":"e30=","timestamp":1,"remote_address":null}`,
		`{"request":{"CN":"x","hosts":["a"],"names":[{"O":"x"}],"key":{"algo":"rsa","size":2048}},"profile":"www"}`,
		`{"serial":"123","authority_key_id":"ab:cd","reason":"superseded"}`, `{"certificate":"x"}`, `{"label":"","profile":"x"}`,
		`{"a":1,"a":2}`, `[[[[[[[[[]]]]]]]]]`, `{}{}`, "\xff", `{"hosts":[null]}`, `{"subject":{"names":[{}]}}`, ``, `null`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := parseSignRequest(data); err == nil {
			checkLikeCFSSL(t, data, q)
		} else if _, ok := err.(*wire.Error); !ok { //nolint:errorlint // not wrapped
			t.Fatalf("%T: %v", err, err)
		}
		if a, err := parseAuthRequest(data); err == nil && (len(a.token) != tokenSize || len(a.request) == 0) {
			t.Fatalf("%+v", a)
		}
		if q, err := parseNewCertRequest(data); err == nil && !newKeySizes(q.request.KeyRequest.A, int64(q.request.KeyRequest.S)) {
			t.Fatalf("%+v", q.request.KeyRequest)
		}
		if q, err := parseCFSSLRevocation(data); err == nil && q.serial.Check() != nil {
			t.Fatalf("%+v", q)
		}
		if q, err := parseCertInfoRequest(data); err == nil && (q.certificate == "") == (q.serial == nil) {
			t.Fatalf("%+v", q)
		}
		_, _ = parseInfoRequest(data)
	})
}

// checkLikeCFSSL: what is taken here, cfssl reads alike.
func checkLikeCFSSL(t *testing.T, data []byte, q *signRequest) {
	t.Helper()
	var v struct { // as cfssl's signhandler has it
		Hostname string   `json:"hostname"`
		Hosts    []string `json:"hosts"`
		Request  string   `json:"certificate_request"`
		Subject  *struct {
			CN           string
			SerialNumber string
		} `json:"subject"`
		Profile string `json:"profile"`
		Label   string `json:"label"`
		Bundle  bool   `json:"bundle"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	if v.Hostname != "" {
		v.Hosts = strings.Split(v.Hostname, ",")
	}
	if v.Request != q.csr || v.Profile != q.profile || v.Label != q.label || v.Bundle != q.bundle || strings.Join(v.Hosts, "\n") != strings.Join(q.over.hosts, "\n") {
		t.Fatalf("%q: %+v, cfssl: %+v", data, q, v)
	}
	if (v.Subject == nil) != (q.over.subject == nil) || v.Subject != nil && (v.Subject.CN != q.over.subject.CN || v.Subject.SerialNumber != q.over.subject.SerialNumber) {
		t.Fatalf("%q: %+v, cfssl: %+v", data, q.over.subject, v.Subject)
	}
}

func TestARevocationUnderDualControlIsNotOneYet(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	_, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil)
	serial := w.signed(r).SerialNumber.String()
	var people []map[string]string
	for _, name := range []string{"alice", "bob"} {
		der, err := x509.MarshalPKIXPublicKey(ecKey(t, elliptic.P256()).Public())
		if err != nil {
			t.Fatal(err)
		}
		people = append(people, map[string]string{"name": name, "role": "administrator", "public_key": pemOf("PUBLIC KEY", der)})
	}
	policy := body(t, map[string]any{"version": 1, "need": 2, "operators": people, "rules": map[string]any{"revoke_more_than": 0}})
	if err := dual.Adopt(w.dir, []byte(policy)); err != nil {
		t.Fatal(err)
	}
	if err := w.server.dual.use(); err != nil {
		t.Fatal(err)
	}
	code, h, b := w.call("POST", cfsslPrefix+"revoke", body(t, map[string]any{"serial": serial, "authority_key_id": w.cfsslAKI(), "reason": "superseded"}), nil)
	var answer cfsslResult
	if err := json.Unmarshal(b, &answer); err != nil || code != 202 || answer.Success || !strings.Contains(answer.Errors[0].Message, "approve "+h.Get("Location")) || answer.Result["operation"] == nil {
		t.Fatalf("%d %s", code, b)
	}
	s, err := decimalSerial(serial)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.client("operator").Get(t.Context(), s.String()); err != nil || got.Status.State != "valid" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestReadersDoNotSeeKeysInProfiles(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	if code, _, b := w.call("GET", caapi.PathProfiles, "", as(w, "auditor")); code != 403 || strings.Contains(string(b), cfsslKey) {
		t.Errorf("an auditor: %d %s", code, b)
	}
	if code, _, b := w.call("GET", caapi.PathProfiles, "", nil); code != 200 || string(b) != cfsslProfilesText {
		t.Errorf("an operator: %d %s", code, b)
	}
	plain := newWorld(t, nil)
	if code, _, _ := plain.call("GET", caapi.PathProfiles, "", as(plain, "auditor")); code != 200 {
		t.Errorf("an auditor, without keys: %d", code)
	}
}

func TestTheOperatorsLogTellsOfCFSSLsRequests(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	_, r := w.cfssl("authsign", authenticated(t, cfsslKey, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}), noCredential)
	cert := w.signed(r)
	serial := hex.EncodeToString(cert.SerialNumber.Bytes())
	w.cfssl("authsign", authenticated(t, cfsslOther, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}), noCredential)
	w.cfssl("revoke", map[string]any{"serial": cert.SerialNumber.String(), "authority_key_id": w.cfsslAKI(), "reason": "superseded"}, as(w, "requester"))
	w.cfssl("revoke", map[string]any{"serial": cert.SerialNumber.String(), "authority_key_id": w.cfsslAKI(), "reason": "superseded"}, nil)
	entries, outcomes := w.told()
	want := []struct{ actor, how, action, target, outcome string }{
		{"(auth_key)web", "hmac", "POST /api/v1/cfssl/authsign", serial, "done"},
		{"(auth_key)other", "hmac", "POST /api/v1/cfssl/authsign", "", "refused: profile"},
		{"requester", "token", "POST /api/v1/cfssl/revoke", "", "refused: role"},
		{"operator", "token", "POST /api/v1/cfssl/revoke", serial, "done"},
	}
	if len(entries) != len(want) {
		t.Fatalf("%d entries, want %d", len(entries), len(want))
	}
	for i, e := range entries {
		x, outcome, target := want[i], e.Outcome, e.Target
		if end := outcomes[e.Seq]; end != nil {
			outcome = end.Outcome
			if end.Target != "" {
				target = end.Target
			}
		}
		if e.Actor != x.actor || e.How != x.how || e.Action != x.action || target != x.target || !strings.HasPrefix(outcome, x.outcome) {
			t.Errorf("%+v, %s %s; want %+v", e, target, outcome, x)
		}
	}
}
