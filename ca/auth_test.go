package ca

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/problem"
)

// settled has the server believe that it has run for a while, so that it takes signed requests at once.
func (w *world) settled() *world {
	first := true
	w.server.clients.nonces = httpsig.NewNonces(func() time.Time {
		if first {
			first = false
			return time.Now().Add(-time.Minute)
		}
		return time.Now()
	})
	return w
}

// hmacWorld is a CA with a client "robot" that signs its requests.
func hmacWorld(t *testing.T, role Role) (*world, string) {
	t.Helper()
	dir, _ := newDir(t)
	file, err := MakeClient(dir, NewClient{Name: "robot", Role: role, HMAC: true})
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil).settled()
	register(t, w.node, dir)
	return w, file
}

func hmacKeyOf(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signedRequest is one that has not been sent.
func (w *world) signedRequest(key []byte, at time.Time, method, path, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if err := httpsig.Sign(r, []byte(body), "robot", key, at); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) do(r *http.Request) (int, http.Header, []byte) {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

func TestSignedRequestsIssue(t *testing.T) {
	w, file := hmacWorld(t, RoleRequester)
	c, err := caapi.New(caapi.Config{URL: w.url, HMAC: caapi.HMAC{KeyFile: file}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := c.Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), cert.Serial); err != nil {
		t.Fatal(err)
	}
	var p *problem.Problem
	if _, _, err := c.Revoke(t.Context(), caapi.RevokeRequest{Serial: cert.Serial, Reason: "superseded"}); !errors.As(err, &p) || p.Status != http.StatusForbidden {
		t.Fatalf("a requester revokes: %v", err)
	}
	if key, ok := w.server.clients.hmacKey("robot"); !ok || string(key) != string(hmacKeyOf(t, file)) {
		t.Error("another key for authsign")
	}
	for _, name := range []string{"operator", "nobody", ""} {
		if _, ok := w.server.clients.hmacKey(name); ok {
			t.Errorf("%q has an HMAC key", name)
		}
	}
}

func TestSignedRequestIsGoodOnce(t *testing.T) {
	w, file := hmacWorld(t, RoleOperator)
	key := hmacKeyOf(t, file)
	const release = `{"serial":"01"}`
	first := w.signedRequest(key, time.Now(), http.MethodPost, caapi.PathReleases, release)
	again := first.Clone(t.Context())
	again.Body = io.NopCloser(strings.NewReader(release))
	if code, _, body := w.do(first); code != http.StatusNotFound {
		t.Fatalf("%d %s", code, body)
	}
	if code, _, body := w.do(again); code != http.StatusUnauthorized || !strings.Contains(asProblem(t, body).Rule, "nonce was used already") {
		t.Fatalf("%d %s", code, body)
	}
	before := w.fingerprint()
	for name, c := range map[string]struct {
		request *http.Request
		want    string
	}{
		"an hour late":    {w.signedRequest(key, time.Now().Add(-time.Hour), http.MethodPost, caapi.PathReleases, release), "at most 1m0s ago"},
		"an hour early":   {w.signedRequest(key, time.Now().Add(time.Hour), http.MethodPost, caapi.PathReleases, release), "at most 5s ahead"},
		"another key":     {w.signedRequest(make([]byte, 32), time.Now(), http.MethodPost, caapi.PathReleases, release), "is not one of this client's key"},
		"another body":    {withBody(w.signedRequest(key, time.Now(), http.MethodPost, caapi.PathReleases, release), `{"serial":"02"}`), "is not that of the body"},
		"another path":    {withPath(w.signedRequest(key, time.Now(), http.MethodPost, caapi.PathReleases, release), caapi.PathRevocations), "is not one of this client's key"},
		"a token as well": {withToken(w.signedRequest(key, time.Now(), http.MethodPost, caapi.PathReleases, release), w.token("operator")), "must be one"},
	} {
		if code, _, body := w.do(c.request); code != http.StatusUnauthorized || !strings.Contains(asProblem(t, body).Rule, c.want) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if w.fingerprint() != before {
		t.Error("a refused request changed something")
	}
}

func withBody(r *http.Request, body string) *http.Request {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

func withPath(r *http.Request, path string) *http.Request {
	r.URL.Path = path
	return r
}

func withToken(r *http.Request, token string) *http.Request {
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// A server that has just started cannot know what the one before took, and says when to come again; reading goes on.
func TestRestartRefusesWhatMayBeARepetition(t *testing.T) {
	dir, _ := newDir(t)
	file, err := MakeClient(dir, NewClient{Name: "robot", Role: RoleOperator, HMAC: true})
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	key := hmacKeyOf(t, file)
	code, header, body := w.do(w.signedRequest(key, time.Now(), http.MethodPost, caapi.PathReleases, `{"serial":"01"}`))
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || asProblem(t, body).Field != "Signature-Input" {
		t.Fatalf("%d %s", code, body)
	}
	if code, _, body := w.do(w.signedRequest(key, time.Now(), http.MethodGet, caapi.PathCA, "")); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
}

func TestOneTokenOnly(t *testing.T) {
	w := newWorld(t, nil)
	req, err := http.NewRequest(http.MethodGet, w.url+caapi.PathCA, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer " + w.token("auditor"), "Bearer " + w.token("operator")}
	if code, _, body := w.do(req); code != http.StatusUnauthorized || !strings.Contains(string(body), "once") {
		t.Fatalf("%d %s", code, body)
	}
}

// A token that was stolen is cut off, and a client let in, without a restart; a file that cannot be read changes nothing.
func TestClientsFileIsReadAgain(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Settings.Rate.FailuresPerMinute = -1 })
	status := func(name string) int {
		code, _, _ := w.call(http.MethodGet, caapi.PathCA, "", map[string]string{"Authorization": "Bearer " + name})
		return code
	}
	auditor := w.token("auditor")
	if _, err := AddClient(w.dir, "late", RoleAuditor); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new client", func() bool { return status(w.token("late")) == http.StatusOK })
	if err := RemoveClient(w.dir, "auditor"); err != nil {
		t.Fatal(err)
	}
	if err := RemoveClient(w.dir, "auditor"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	waitFor(t, "the removed one", func() bool { return status(auditor) == http.StatusUnauthorized })

	path := filepath.Join(w.dir, clientsFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func() float64 {
		return metric(t, w, `certanchor_ca_auth_reloads_total{file="clients",outcome="refused"}`)
	}
	for _, bad := range []string{"late auditor nonsense\n", string(good) + "late auditor " + strings.Repeat("00", 32) + "\n"} {
		if err := keyfile.Replace(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		before := refused()
		w.server.Reload() // as at SIGHUP
		waitFor(t, "refusal", func() bool { return refused() > before })
		if status(w.token("late")) != http.StatusOK || status(auditor) != http.StatusUnauthorized {
			t.Fatal("a bad file is in force")
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	before := refused()
	w.server.Reload()
	waitFor(t, "refusal", func() bool { return refused() > before })
	if status(w.token("operator")) != http.StatusOK {
		t.Fatal("an absent file is in force")
	}
}

// metric is the value of a sample.
func metric(t *testing.T, w *world, sample string) float64 {
	t.Helper()
	_, _, text := w.call(http.MethodGet, caapi.PathMetrics, "", nil)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, sample+" "); ok {
			var f float64
			if _, err := fmt.Sscan(v, &f); err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

func TestClientOverItsRateWaitsAlone(t *testing.T) {
	dir, _ := newDir(t)
	if _, err := MakeClient(dir, NewClient{Name: "hasty", Role: RoleAuditor, Rate: "0.001/3"}); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, func(c *Config) { c.Settings.Rate = RateSettings{PerSecond: 0.001, Burst: 5, FailuresPerMinute: 2} })
	get := func(token string) (int, http.Header, []byte) {
		return w.call(http.MethodGet, caapi.PathCA, "", map[string]string{"Authorization": "Bearer " + token})
	}
	expect := func(token string, want ...int) {
		t.Helper()
		for i, code := range want {
			if got, _, body := get(token); got != code {
				t.Fatalf("request %d: %d %s", i, got, body)
			}
		}
	}
	expect(w.token("hasty"), 200, 200, 200, 429)
	code, header, body := get(w.token("hasty"))
	if p := asProblem(t, body); code != 429 || header.Get("Retry-After") == "" || p.Code != problem.CodeTooMany || p.Value != "hasty" {
		t.Fatalf("%d %v %s", code, header, body)
	}
	expect(w.token("auditor"), 200, 200, 200, 200, 200, 429)
	// Failures are counted by address; who has a credential is served from there all the same.
	expect("wrong", 401, 401, 429, 429)
	expect(w.token("operator"), 200, 200)
	if n := metric(t, w, `certanchor_ca_auth_limited_total{client="hasty"}`); n != 2 {
		t.Errorf("%v requests of hasty counted as turned away", n)
	}
}

func TestAddressesAreCountedByNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1000": "192.0.2.1", "[::ffff:192.0.2.1]:1000": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64", "@": "@",
	} {
		if got := addressOf(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
	l := newLimits(RateSettings{FailuresPerMinute: 1}, time.Now)
	for i := range maxBuckets + maxBuckets/4 {
		l.failed(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff))
	}
	if n := len(l.addresses.all); n > maxBuckets+1 {
		t.Errorf("%d buckets", n)
	}
}

func TestClientLines(t *testing.T) {
	key, hash := strings.Repeat("ab", 32), strings.Repeat("00", 32)
	for line, want := range map[string]string{
		"a operator hmac:" + key + " rate=1/2": "", "a revoker " + hash + " rate=none": "", "a administrator hmac:" + key[:32]: "", "a operator " + hash + " rate=0.5/1": "",
		"a operator hmac:": "HMAC key", "a operator hmac:zz": "HMAC key", "a operator hmac:" + key[:30]: "HMAC key", "a operator hmac:" + key + key + "00": "HMAC key",
		"a operator " + hash + " rate=": "rate", "a operator " + hash + " rate=1": "rate", "a operator " + hash + " rate=0/1": "rate", "a operator " + hash + " rate=1/0": "rate",
		"a operator " + hash + " rate=NaN/1": "rate", "a operator " + hash + " rate=Inf/1": "rate", "a operator " + hash + " speed=1/1": "rate", "a operator " + hash + " rate=1/1 x": "must be: name",
	} {
		_, err := parseClients([]byte(line))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "ab") {
			t.Errorf("%q: the key is in the error: %v", line, err)
		}
	}
	dir, _ := newDir(t)
	if _, err := MakeClient(dir, NewClient{Name: "robot", Role: RoleRequester, HMAC: true, Key: make([]byte, 15)}); err == nil {
		t.Error("a short key is taken")
	}
	if _, err := MakeClient(dir, NewClient{Name: "robot", Role: RoleRequester, HMAC: true}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, clientsFile)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadClients(path); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("others may read keys: %v", err)
	}
}

// TestLeastPrivilege is docs/operators.md's table.
func TestLeastPrivilege(t *testing.T) {
	for role, want := range map[Role]string{
		RoleOperator: "read issue revoke enrol describe approve", RoleAdministrator: "read describe export keys profiles approve",
		RoleRevoker: "read revoke describe approve", RoleRequester: "read issue describe", RoleResponder: "enrol describe", RoleAuditor: "read describe",
	} {
		var got []string
		for act, name := range []string{"read", "issue", "revoke", "enrol", "describe", "export", "keys", "profiles", "approve"} {
			if allowed[role][action(act)] {
				got = append(got, name)
			}
			if action(act).String() == "" {
				t.Errorf("%s has no words", name)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s may %s, want %s", role, s, want)
		}
	}
}

func FuzzClients(f *testing.F) {
	f.Add([]byte("# who\na operator " + strings.Repeat("00", 32) + "\nb requester hmac:" + strings.Repeat("ab", 32) + " rate=1/2\n"))
	f.Add([]byte("a operator hmac:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cs, err := parseClients(data)
		if err != nil {
			return
		}
		for i := range cs {
			c := &cs[i]
			if cs.find(c.name) != c || allowed[c.role] == nil || c.how == howHMAC && httpsig.CheckKey(c.key) != nil || c.how == howToken && c.key != nil {
				t.Fatalf("%q: %+v", data, c)
			}
		}
	})
}

// The commands in docs/operators.md, run by a shell: openssl and curl sign a request that the CA takes.
func TestDocumentedSignature(t *testing.T) {
	dir, _ := newDir(t)
	if _, err := MakeClient(dir, NewClient{Name: "desk", Role: RoleRevoker, HMAC: true}); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, nil).settled()
	register(t, w.node, dir)
	text, err := os.ReadFile(filepath.Join("..", "docs", "operators.md"))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for line := range strings.Lines(string(text)) {
		if code, ok := strings.CutPrefix(line, "    "); ok && (script.Len() > 0 || strings.HasPrefix(code, "body=")) {
			script.WriteString(code)
		} else if script.Len() > 0 {
			break
		}
	}
	commands := strings.NewReplacer("https://ca.example:8888", w.url, "ca.example:8888", strings.TrimPrefix(w.url, "http://"), "curl ", "curl -s ").Replace(script.String())
	cmd := exec.Command("bash", "-e", "-c", commands)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, commands)
	}
	if p := asProblem(t, out); p.Status != http.StatusNotFound || p.Value != "4f0c" {
		t.Fatalf("%s\n%s", out, commands)
	}
}
