package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/auth"

	"github.com/certanchor/certanchor/internal/caapi"
)

// Keys of auth_keys in cfsslProfilesText.
const (
	cfsslKey      = "0123456789abcdef0123456789abcdef"
	cfsslPrevious = "fedcba9876543210fedcba9876543210"
	cfsslOther    = "00112233445566778899aabbccddeeff"
)

// cfsslProfilesText is a configuration as a cfssl server has it, with CSRWhitelist and the responder's profile added.
const cfsslProfilesText = `{
  "auth_keys": {
    "web":   {"type": "standard", "key": "` + cfsslKey + `"},
    "older": {"type": "standard", "key": "` + cfsslPrevious + `"},
    "other": {"type": "standard", "key": "env:CERTANCHOR_TEST_AUTH_KEY"}
  },
  "signing": {
    "default": {"usages": ["signing", "client auth"], "expiry": "168h", "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true}},
    "profiles": {
      "www": {
        "usages": ["signing", "server auth"], "expiry": "72h", "auth_key": "web", "prev_auth_key": "older",
        "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true, "DNSNames": true, "IPAddresses": true}
      },
      "mail": {
        "usages": ["signing", "email protection"], "expiry": "72h", "auth_key": "other", "new_key": true,
        "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true, "EmailAddresses": true}
      },
      "open": {
        "usages": ["signing", "server auth"], "expiry": "1h", "wildcards": false,
        "CSRWhitelist": {"PublicKey": true, "PublicKeyAlgorithm": true, "DNSNames": true}
      },
      "ocsp-responder": {
        "usages": ["signing", "ocsp signing"], "expiry": "24h", "ocsp_no_check": true,
        "CSRWhitelist": {"Subject": true, "PublicKey": true, "PublicKeyAlgorithm": true}
      }
    }
  }
}`

// newCFSSLWorld starts a registered CA with these profiles.
func newCFSSLWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	t.Setenv("CERTANCHOR_TEST_AUTH_KEY", cfsslOther)
	dir, _ := newDir(t)
	if err := os.WriteFile(filepath.Join(dir, profilesFile), []byte(cfsslProfilesText), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, change)
	register(t, w.node, dir)
	return w
}

// cfsslResult is cfssl's envelope as a client sees it.
type cfsslResult struct {
	Success  bool
	Result   map[string]any
	Errors   []cfsslMessage
	Messages []cfsslMessage
}

// cfssl makes a request to an endpoint; body is a string or something to marshal.
func (w *world) cfssl(endpoint string, request any, header map[string]string) (int, *cfsslResult) {
	w.t.Helper()
	text, ok := request.(string)
	if !ok {
		text = body(w.t, request)
	}
	method := "POST"
	if endpoint == "health" {
		method = "GET"
	}
	code, h, b := w.call(method, cfsslPrefix+endpoint, text, header)
	var r cfsslResult
	if err := json.Unmarshal(b, &r); err != nil || h.Get("Content-Type") != "application/json" || r.Errors == nil || r.Messages == nil {
		w.t.Fatalf("%s: %d %s %s", endpoint, code, h.Get("Content-Type"), b)
	}
	if r.Success != (code == 200) || r.Success != (len(r.Errors) == 0) {
		w.t.Fatalf("%s: %d %s", endpoint, code, b)
	}
	return code, &r
}

func (r *cfsslResult) text(name string) string {
	s, _ := r.Result[name].(string)
	return s
}

func (w *world) signed(r *cfsslResult) *x509.Certificate {
	w.t.Helper()
	if !r.Success {
		w.t.Fatalf("%+v", r.Errors)
	}
	return parsePEM(w.t, r.text("certificate"))
}

// authenticated wraps a sign request as cfssl's client does.
func authenticated(t testing.TB, key string, request any) map[string]any {
	t.Helper()
	text, ok := request.(string)
	if !ok {
		text = body(t, request)
	}
	p, err := auth.New(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.Token([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"token": token, "request": []byte(text), "timestamp": time.Now().Unix(), "remote_address": nil}
}

var noCredential = map[string]string{"Authorization": ""}

func TestSignAnchorsWhatItGives(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	// As cfssl's client marshals its SignRequest.
	_, r := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www", "hosts": nil, "crl_override": "", "label": "",
		"NotBefore": time.Time{}, "NotAfter": time.Time{}, "ReturnPrecert": false, "metadata": nil}, nil)
	cert := w.signed(r)
	if _, h, _ := w.call("POST", cfsslPrefix+"sign", body(t, map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}), nil); !strings.HasPrefix(h.Get("Location"), caapi.PathCertificates+"/") {
		t.Errorf("location %q", h.Get("Location"))
	}
	if got, err := w.client("operator").Get(t.Context(), hex.EncodeToString(cert.SerialNumber.Bytes())); err != nil || got.Status.State != "valid" || got.TxID == "" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !slices.Equal(cert.DNSNames, []string{"host.example.org"}) || cert.Subject.CommonName != "host.example.org" || w.logSize() != 2 {
		t.Fatalf("%v, %d in the log", cert.Subject, w.logSize())
	}
}

func TestHostsAndSubjectTakeThePlaceOfTheCSRs(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	csr := newCSR(t, nil, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"In The CSR"} })
	_, r := w.cfssl("sign", map[string]any{"certificate_request": csr, "profile": "www", "label": testSubject.CommonName,
		"hosts":   []string{"a.example.org", "192.0.2.7", "*.b.example.org", "2001:db8::1"},
		"subject": map[string]any{"CN": "a.example.org", "names": []any{map[string]any{"C": "DE", "OU": "Web"}}, "SerialNumber": "7"}}, nil)
	cert := w.signed(r)
	want := pkix.Name{CommonName: "a.example.org", Organization: []string{"In The CSR"}, Country: []string{"DE"}, OrganizationalUnit: []string{"Web"}, SerialNumber: "7"}
	if cert.Subject.String() != want.String() || !slices.Equal(cert.DNSNames, []string{"a.example.org", "*.b.example.org"}) ||
		len(cert.IPAddresses) != 2 || cert.IPAddresses[0].String() != "192.0.2.7" || cert.IPAddresses[1].String() != "2001:db8::1" {
		t.Fatalf("%v %v %v", cert.Subject, cert.DNSNames, cert.IPAddresses)
	}
	// The oldest spelling.
	_, r = w.cfssl("sign", map[string]any{"certificate_request": csr, "profile": "www", "hostname": "c.example.org,d.example.org"}, nil)
	if cert := w.signed(r); !slices.Equal(cert.DNSNames, []string{"c.example.org", "d.example.org"}) {
		t.Fatal(cert.DNSNames)
	}
	_, r = w.cfssl("sign", map[string]any{"certificate_request": csr, "profile": "mail", "hosts": []string{"someone@example.org"}}, nil)
	if cert := w.signed(r); !slices.Equal(cert.EmailAddresses, []string{"someone@example.org"}) || cert.DNSNames != nil {
		t.Fatal(cert.EmailAddresses, cert.DNSNames)
	}
}

func TestNoProfileIsTheDefaultOne(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	csr := newCSR(t, nil, func(r *x509.CertificateRequest) { r.DNSNames = nil })
	_, r := w.cfssl("sign", map[string]any{"certificate_request": csr}, nil)
	if cert := w.signed(r); !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Fatal(cert.ExtKeyUsage)
	}
	// A default that says nothing about usages is none, as in what Init makes.
	plain := newWorld(t, nil)
	code, r := plain.cfssl("sign", map[string]any{"certificate_request": csr}, nil)
	if code != 400 || !strings.Contains(r.Errors[0].Message, "must be given, as one of client, peer, server") || r.Errors[0].Code != 5400 {
		t.Fatalf("%d %+v", code, r.Errors)
	}
}

func TestSignNeedsCredentialsUnlessTheProfileIsOpen(t *testing.T) {
	w := newCFSSLWorld(t, func(c *Config) { c.Settings.CFSSL = &CFSSLSettings{OpenProfiles: []string{"open"}} })
	csr := newCSR(t, nil, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} })
	_, r := w.cfssl("sign", map[string]any{"certificate_request": csr, "profile": "open"}, noCredential)
	w.signed(r)
	for _, tc := range []struct {
		endpoint string
		request  any
		header   map[string]string
		status   int
	}{
		{"sign", map[string]any{"certificate_request": csr, "profile": "www"}, noCredential, 401},
		{"sign", map[string]any{"certificate_request": csr}, noCredential, 401},
		{"sign", "{", noCredential, 401},
		{"sign", map[string]any{"certificate_request": csr, "profile": "open"}, map[string]string{"Authorization": "Bearer x"}, 401},
		{"sign", map[string]any{"certificate_request": csr, "profile": "open"}, as(w, "auditor"), 403},
		{"newcert", map[string]any{"request": map[string]any{"CN": "x"}, "profile": "open"}, noCredential, 401},
		{"newcert", map[string]any{"request": map[string]any{"CN": "x"}, "profile": "mail"}, as(w, "auditor"), 403},
		{"revoke", map[string]any{"serial": "1"}, noCredential, 401},
		{"revoke", map[string]any{"serial": "1"}, as(w, "requester"), 403},
		{"certinfo", map[string]any{"serial": "1"}, noCredential, 401},
		{"certinfo", map[string]any{"serial": "1"}, as(w, "responder"), 403},
		{"sign", map[string]any{"certificate_request": csr, "profile": "open"}, map[string]string{"Origin": "https://evil.example"}, 403},
	} {
		before := w.fingerprint()
		if code, r := w.cfssl(tc.endpoint, tc.request, tc.header); code != tc.status || w.fingerprint() != before {
			t.Errorf("%s %v %v: %d %+v", tc.endpoint, tc.request, tc.header, code, r)
		}
	}
}

func TestOpenProfilesAreCheckedAtStart(t *testing.T) {
	t.Setenv("CERTANCHOR_TEST_AUTH_KEY", cfsslOther)
	for profile, want := range map[string]string{"absent": "must be a profile of this CA", "ocsp-responder": "other than", "www": "without auth_key"} {
		dir, key := newDir(t)
		if err := os.WriteFile(filepath.Join(dir, profilesFile), []byte(cfsslProfilesText), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{Dir: dir, Key: key, Settings: Settings{CFSSL: &CFSSLSettings{OpenProfiles: []string{profile}}}}, nil)
		if err == nil || !strings.Contains(err.Error(), "cfssl.open_profiles") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", profile, err)
		}
	}
}

func TestBadSignRequestsAreRefusedAndChangeNothing(t *testing.T) {
	w := newCFSSLWorld(t, nil)
	csr := newCSR(t, nil)
	with := func(more map[string]any) map[string]any {
		q := map[string]any{"certificate_request": csr, "profile": "www"}
		maps.Copy(q, more)
		return q
	}
	hosts := func(names ...string) map[string]any { return with(map[string]any{"hosts": names}) }
	many := slices.Repeat([]string{"a.example.org"}, 10_000)
	titled := newCSR(t, nil, func(r *x509.CertificateRequest) {
		r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 12}, Value: "Dr."}}
	})
	nameless := newCSR(t, nil, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} })
	before := w.fingerprint()
	for name, tc := range map[string]struct {
		request any
		code    int
		want    string
	}{
		"no CSR":                  {with(map[string]any{"certificate_request": ""}), 9300, "certificate_request"},
		"garbage CSR":             {with(map[string]any{"certificate_request": "x"}), 9300, "csr"},
		"CSR a number":            {with(map[string]any{"certificate_request": 1}), 9300, "a string"},
		"unknown profile":         {with(map[string]any{"profile": "root"}), 5400, "must be one of default, mail, open, www"},
		"responder's profile":     {with(map[string]any{"profile": ResponderProfile}), 5400, "/v1/responders"},
		"profile a list":          {with(map[string]any{"profile": []string{"www"}}), 5400, "a string"},
		"unknown label":           {with(map[string]any{"label": "primary"}), 400, "label"},
		"serial":                  {with(map[string]any{"serial": 5}), 400, "serial numbers are random"},
		"serial_sequence":         {with(map[string]any{"serial_sequence": "ab"}), 400, "serial numbers are random"},
		"crl_override":            {with(map[string]any{"crl_override": "http://x/"}), 400, "crl_url"},
		"extensions":              {with(map[string]any{"extensions": []any{map[string]any{"id": "1.2.3", "value": "00"}}}), 400, "extensions"},
		"NotBefore":               {with(map[string]any{"NotBefore": time.Now()}), 400, "backdate"},
		"NotAfter":                {with(map[string]any{"NotAfter": time.Now()}), 400, "expiry"},
		"ReturnPrecert":           {with(map[string]any{"ReturnPrecert": true}), 400, "ReturnPrecert"},
		"metadata":                {with(map[string]any{"metadata": map[string]any{"a": 1}}), 400, "metadata"},
		"bundle a string":         {with(map[string]any{"bundle": "yes"}), 400, "bundle"},
		"unknown field":           {with(map[string]any{"days": 3}), 400, "days"},
		"other spelling":          {with(map[string]any{"Profile": "www"}), 400, "Profile"},
		"field twice":             {`{"profile":"www","profile":"open","certificate_request":"x"}`, 5400, "twice"},
		"list":                    {`[]`, 400, "JSON object"},
		"deep":                    {strings.Repeat("[", 20), 400, "8 deep"},
		"two values":              {`{}{}`, 400, "follows"},
		"not UTF-8":               {"{\"profile\":\"\xff\"}", 400, "UTF-8"},
		"hosts empty":             {hosts([]string{}...), 5300, "empty list"},
		"hosts a string":          {with(map[string]any{"hosts": "a.example.org"}), 5300, "list of strings"},
		"hosts with null":         {with(map[string]any{"hosts": []any{nil}}), 5300, "hosts[0]"},
		"hosts and hostname":      {with(map[string]any{"hosts": []string{"a.example.org"}, "hostname": "b.example.org"}), 5300, "hostname"},
		"too many hosts":          {hosts(many[:101]...), 9300, "at most 100 names"},
		"far too many hosts":      {hosts(many...), 5300, "at most 1000"},
		"empty host":              {hosts("a.example.org", ""), 5300, "hosts[1]"},
		"NUL in host":             {hosts("a.example.org\x00.evil.example"), 5300, "hosts[0]"},
		"newline in host":         {hosts("a.example.org\n"), 5300, "hosts[0]"},
		"wildcard inside":         {hosts("a.*.example.org"), 5300, "hosts[0]"},
		"IDN":                     {hosts("bücher.example.org"), 5300, "hosts[0]"},
		"space around":            {hosts(" a.example.org"), 5300, "hosts[0]"},
		"path":                    {hosts("/etc/passwd"), 5300, "hosts[0]"},
		"mailbox with a name":     {hosts("A <a@example.org>"), 5300, "hosts[0]"},
		"mailbox":                 {hosts("a@example.org"), 5300, "does not take names of kind rfc822Name"},
		"URI":                     {hosts("https://example.org/"), 5300, "uniformResourceIdentifier"},
		"IP for mail":             {with(map[string]any{"profile": "mail", "hosts": []string{"192.0.2.1"}}), 5300, "iPAddress"},
		"name for mail":           {with(map[string]any{"profile": "mail", "hosts": []string{"a.example.org"}}), 5300, "dNSName"},
		"wildcard forbidden":      {map[string]any{"certificate_request": nameless, "profile": "open", "hosts": []string{"*.example.org"}}, 9300, "wildcard"},
		"subject a string":        {with(map[string]any{"subject": "CN=x"}), 5300, "JSON object"},
		"subject's E":             {with(map[string]any{"subject": map[string]any{"CN": "x", "names": []any{map[string]any{"E": "a@b"}}}}), 5300, "subject.names[0].E"},
		"subject's OID":           {with(map[string]any{"subject": map[string]any{"CN": "x", "names": []any{map[string]any{"OID": map[string]string{"1.2.3": "x"}}}}}), 5300, "subject.names[0].OID"},
		"subject's unknown field": {with(map[string]any{"subject": map[string]any{"cn": "x"}}), 5300, "subject.cn"},
		"subject's names twice":   {with(map[string]any{"subject": json.RawMessage(`{"CN":"x","CN":"y"}`)}), 5300, "subject.CN"},
		"control in subject":      {with(map[string]any{"subject": map[string]any{"CN": "a\nb"}}), 5300, "control"},
		"country":                 {with(map[string]any{"subject": map[string]any{"CN": "x", "names": []any{map[string]any{"C": "Germany"}}}}), 5300, "two upper-case"},
		"long CN":                 {with(map[string]any{"subject": map[string]any{"CN": strings.Repeat("x", 65)}}), 5300, "64"},
		"the CA's name": {map[string]any{"certificate_request": newCSR(t, nil, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} }), "profile": "www",
			"subject": map[string]any{"CN": testSubject.CommonName, "names": []any{map[string]any{"C": "DE", "O": "certanchor"}}}}, 9300, "CA's own"},
		"subject not taken": {with(map[string]any{"profile": "open", "subject": map[string]any{"CN": "x"}}), 5300, "does not take a subject"},
		"attribute lost":    {map[string]any{"certificate_request": titled, "profile": "www", "subject": map[string]any{"CN": "x"}}, 9300, "get lost"},
		"too large":         {`{"profile":"` + strings.Repeat("x", maxCFSSLBody) + `"}`, 413, "at most"},
	} {
		code, r := w.cfssl("sign", tc.request, nil)
		if r.Success || r.Errors[0].Code != tc.code || !strings.Contains(r.Errors[0].Message, tc.want) || code != 400 && code != 413 {
			t.Errorf("%s: %d %+v; want %d %q", name, code, r.Errors, tc.code, tc.want)
		}
	}
	if w.fingerprint() != before {
		t.Fatal("something was changed")
	}
}
