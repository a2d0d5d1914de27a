package httpsig

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

var (
	noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	key  = []byte("0123456789abcdef0123456789abcdef")
)

// signed is a request as a server gets it.
func signed(t testing.TB, body string, change func(*http.Request)) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://CA.example:80/v1/revocations?x=1&y=%2F", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "one")
	if err := Sign(r, []byte(body), "alice", key, noon); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	return r
}

func check(r *http.Request, body string) error {
	s, err := Parse(r)
	if err != nil {
		return err
	}
	if !s.Verify(r, key) {
		return errors.New("another signature")
	}
	return s.CheckBody([]byte(body))
}

func TestWhatIsSignedIsWhatArrives(t *testing.T) {
	if err := check(signed(t, "body", nil), "body"); err != nil {
		t.Fatal(err)
	}
	if err := check(signed(t, "", nil), ""); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*http.Request){
		"method":              func(r *http.Request) { r.Method = http.MethodPut },
		"path":                func(r *http.Request) { r.URL.Path = "/v1/releases" },
		"encoding of path":    func(r *http.Request) { r.URL.RawPath = "/v1/%72evocations" },
		"query":               func(r *http.Request) { r.URL.RawQuery = "x=1" },
		"host":                func(r *http.Request) { r.Host = "ca.other" },
		"port":                func(r *http.Request) { r.Host = "ca.example:8888" },
		"content type":        func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"no content type":     func(r *http.Request) { r.Header.Del("Content-Type") },
		"idempotency key":     func(r *http.Request) { r.Header.Set("Idempotency-Key", "two") },
		"another one too":     func(r *http.Request) { r.Header.Add("Idempotency-Key", "two") },
		"no idempotency key":  func(r *http.Request) { r.Header.Del("Idempotency-Key") },
		"digest":              func(r *http.Request) { r.Header.Set("Content-Digest", "sha-256=:"+strings.Repeat("A", 43)+"=:") },
		"created":             edit("Signature-Input", ";created=", ";created=1"),
		"nonce":               edit("Signature-Input", `;nonce="`, `;nonce="A`),
		"key":                 edit("Signature-Input", `keyid="alice"`, `keyid="bob"`),
		"order of parameters": edit("Signature-Input", `;keyid="alice";alg="hmac-sha256"`, `;alg="hmac-sha256";keyid="alice"`),
		"signature":           edit("Signature", "sig=:", "sig=:A"),
	} {
		if err := check(signed(t, "body", change), "body"); err == nil {
			t.Errorf("%s was changed and nobody noticed", name)
		}
	}
	if err := check(signed(t, "body", nil), "bodY"); err == nil {
		t.Error("the body was changed and nobody noticed")
	}
}

func edit(header, old, with string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(header, strings.Replace(r.Header.Get(header), old, with, 1)) }
}

func TestHeadersThatAreNone(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"none":                       func(r *http.Request) { r.Header.Del("Signature-Input") },
		"no signature":               func(r *http.Request) { r.Header.Del("Signature") },
		"no digest":                  func(r *http.Request) { r.Header.Del("Content-Digest") },
		"two inputs":                 func(r *http.Request) { r.Header.Add("Signature-Input", r.Header.Get("Signature-Input")) },
		"two signatures":             func(r *http.Request) { r.Header.Add("Signature", r.Header.Get("Signature")) },
		"two in one header":          func(r *http.Request) { r.Header.Set("Signature", r.Header.Get("Signature")+", a=:AAAA:") },
		"two digests":                func(r *http.Request) { r.Header.Add("Content-Digest", r.Header.Get("Content-Digest")) },
		"another digest":             edit("Content-Digest", "sha-256", "sha-512"),
		"another label":              edit("Signature", "sig=", "gis="),
		"fewer components":           edit("Signature-Input", `"@path" `, ""),
		"more components":            edit("Signature-Input", `"@path"`, `"@path" "date"`),
		"another order":              edit("Signature-Input", `"@path" "@query"`, `"@query" "@path"`),
		"a component with parameter": edit("Signature-Input", `"@path"`, `"@path";req`),
		"no created":                 edit("Signature-Input", fmt.Sprintf(";created=%d", noon.Unix()), ""),
		"created twice":              edit("Signature-Input", ";created=", ";created=1;created="),
		"created a string":           edit("Signature-Input", fmt.Sprintf(";created=%d", noon.Unix()), `;created="1"`),
		"negative created":           edit("Signature-Input", ";created=", ";created=-"),
		"expires before":             edit("Signature-Input", ";nonce=", ";expires=1;nonce="),
		"algorithm":                  edit("Signature-Input", "hmac-sha256", "rsa-v1_5-sha256"),
		"algorithm a number":         edit("Signature-Input", `"hmac-sha256"`, "7"),
		"unknown parameter":          edit("Signature-Input", ";nonce=", `;tag="x";nonce=`),
		"short nonce":                func(r *http.Request) { setNonce(r, "abc") },
		"hostile nonce":              func(r *http.Request) { setNonce(r, "abcdefghijklmnop ") },
		"hostile key ID":             edit("Signature-Input", `keyid="alice"`, `keyid="../alice"`),
		"short signature":            func(r *http.Request) { r.Header.Set("Signature", "sig=:AAAA:") },
		"not base64":                 func(r *http.Request) { r.Header.Set("Signature", "sig=:====:") },
		"trailing":                   func(r *http.Request) { r.Header.Set("Signature", r.Header.Get("Signature")+";x") },
	} {
		r := signed(t, "body", change)
		if _, err := Parse(r); err == nil {
			t.Errorf("%s: taken: %v", name, r.Header)
		} else if we, ok := errors.AsType[*wire.Error](err); !ok || we.Field == "" || we.Rule == "" {
			t.Errorf("%s: %v names no field and rule", name, err)
		}
	}
}

func setNonce(r *http.Request, nonce string) {
	text := r.Header.Get("Signature-Input")
	from := strings.Index(text, `nonce="`) + len(`nonce="`)
	to := from + strings.Index(text[from:], `"`)
	r.Header.Set("Signature-Input", text[:from]+nonce+text[to:])
}

// RFC 9421 section 2.5, made by hand: the parameters in an order of the client's own, without alg, and OpenSSL's HMAC.
func TestSignatureOfAnotherProgram(t *testing.T) {
	digest := sum256(t, "{}")
	params := `("@method" "@authority" "@path" "@query" "content-digest" "content-type");keyid="alice";created=1777636800;expires=1777636860;nonce="AAAAAAAAAAAAAAAAAAAA"`
	base := "\"@method\": POST\n\"@authority\": ca.example:8888\n\"@path\": /v1/certificates\n\"@query\": ?\n\"content-digest\": sha-256=:" + digest +
		":\n\"content-type\": application/json\n\"@signature-params\": " + params
	cmd := exec.Command("openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(key), "-binary")
	cmd.Stdin = strings.NewReader(base)
	mac, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "http://ca.example:8888/v1/certificates", bytes.NewReader([]byte("{}")))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Digest", "sha-256=:"+digest+":")
	r.Header.Set("Signature-Input", "mine="+params)
	r.Header.Set("Signature", "mine=:"+base64.StdEncoding.EncodeToString(mac)+":")
	if err := check(r, "{}"); err != nil {
		t.Fatal(err)
	}
	s, err := Parse(r)
	if err != nil || s.KeyID != "alice" || !s.Created.Equal(noon) || !s.Expires.Equal(noon.Add(time.Minute)) {
		t.Fatalf("%+v, %v", s, err)
	}
}

func sum256(t *testing.T, text string) string {
	t.Helper()
	cmd := exec.Command("openssl", "dgst", "-sha256", "-binary")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out)
}

func TestKeysThatAreNone(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://x/", nil)
	if err := Sign(r, nil, "alice", key[:MinKey-1], noon); err == nil {
		t.Error("a short key is taken")
	}
	if err := Sign(r, nil, `a"b`, key, noon); err == nil {
		t.Error("a name with a quote is taken")
	}
}

func TestSignatureIsGoodOnceAndForAMinute(t *testing.T) {
	now := noon
	n := NewNonces(func() time.Time { return now })
	now = noon.Add(time.Hour)
	sign := func(at time.Time) *Signature {
		r := httptest.NewRequest(http.MethodPost, "http://x/", nil)
		if err := Sign(r, nil, "alice", key, at); err != nil {
			t.Fatal(err)
		}
		s, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for at, want := range map[time.Time]bool{
		now: true, now.Add(-Window): true, now.Add(-Window - time.Second): false, now.Add(Ahead): true, now.Add(Ahead + time.Second): false,
		now.Add(-time.Hour): false, now.Add(time.Hour): false,
	} {
		if err := n.CheckTime(sign(at), http.MethodPost); (err == nil) != want {
			t.Errorf("made at %v, now %v: %v", at, now, err)
		}
	}
	s := sign(now)
	if err := n.Use(s); err != nil {
		t.Fatal(err)
	}
	other := *s
	other.KeyID = "bob"
	if err := n.Use(&other); err != nil {
		t.Fatalf("another client's nonces are not this one's: %v", err)
	}
	// As long as it is in time, it is remembered.
	for now.Sub(noon.Add(time.Hour)) <= Window {
		if err := n.Use(s); err == nil {
			t.Fatalf("taken again at %v", now)
		}
		if err := n.Use(sign(now)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(7 * time.Second)
	}
	if err := n.CheckTime(s, http.MethodPost); err == nil {
		t.Fatal("still in time")
	}
	now = now.Add(-2 * time.Hour) // and not forgotten when the clock is set back
	if err := n.Use(sign(now)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2*time.Hour - time.Minute)
	if err := n.Use(s); err == nil {
		t.Fatal("taken again after the clock was set back")
	}
}

// What the process before may have taken is not taken again, though its nonces are gone.
func TestRestartOpensNoWindow(t *testing.T) {
	now := noon
	n := NewNonces(func() time.Time { return now })
	early := &Signature{KeyID: "alice", Nonce: "n", Created: noon.Add(Ahead)} // as far ahead as the one before could have taken
	if err := n.CheckTime(early, http.MethodGet); err != nil {
		t.Errorf("reading: %v", err)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if _, ok := errors.AsType[*NotYetError](n.CheckTime(early, method)); !ok {
			t.Errorf("%s: taken", method)
		}
	}
	now = noon.Add(Ahead + time.Second)
	if _, ok := errors.AsType[*NotYetError](n.CheckTime(early, http.MethodPost)); !ok {
		t.Error("taken later")
	}
	if err := n.CheckTime(&Signature{Created: now}, http.MethodPost); err != nil {
		t.Error(err)
	}
}

func TestNoncesAreBounded(t *testing.T) {
	n := NewNonces(func() time.Time { return noon })
	full := &seen{young: map[string]bool{}, turned: noon}
	for i := range maxNonces {
		full.young[fmt.Sprint(i)] = true
	}
	n.seen["alice"] = full
	if err := n.Use(&Signature{KeyID: "alice", Nonce: "more"}); err == nil {
		t.Fatal("taken")
	}
	if err := n.Use(&Signature{KeyID: "bob", Nonce: "more"}); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	r := signed(f, "body", nil)
	f.Add(r.Header.Get("Signature-Input"), r.Header.Get("Signature"), r.Header.Get("Content-Digest"))
	f.Add(`sig=("@method");created=1`, "sig=:AAAA:", "sha-256=::")
	f.Add(`sig=();created=1;nonce="\""`, "", "")
	f.Fuzz(func(t *testing.T, input, sig, digest string) {
		r := signed(t, "body", nil)
		r.Header.Set("Signature-Input", input)
		r.Header.Set("Signature", sig)
		r.Header.Set("Content-Digest", digest)
		s, err := Parse(r)
		if err != nil {
			return
		}
		if s.Created.IsZero() || len(s.Nonce) < 16 || s.KeyID == "" || strings.ContainsAny(s.KeyID+s.Nonce, "\"\\\n ") {
			t.Fatalf("%q: %+v", input, s)
		}
		if s.Verify(r, []byte("another key, also of 32 octets..")) {
			t.Fatalf("%q, %q: verified", input, sig)
		}
	})
}
