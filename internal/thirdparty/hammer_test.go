package thirdparty

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestHammerFindsNoErrors runs certificate-transparency-go's load tester against a bridge: every endpoint that it knows, several at once,
// one request in five wrong on purpose, duplicates among the rest. It checks each SCT, head, inclusion and consistency proof, and
// ends at the first answer that is not as it must be.
//
// Its certificates come from a log of the same CA on another ledger, with which it reads get-roots and get-entries, too. Those
// that it makes by itself all have one serial number, which no CA may do (RFC 5280 section 4.1.2.2) and the ledger refuses. It has
// a flag for get-entry-and-proof, but no test behind it; package ctapi/interop has one.
func TestHammerFindsNoErrors(t *testing.T) {
	const operations, supply = 400, 350
	authority := newCA(t)
	source, target := serve(t, authority), serve(t, authority)
	source.submit(t, supply)

	asked := newCounter(t, target.bridge)
	out, err := hammer(t, source, asked.url, target.key(t), operations,
		"--add_chain=4", "--add_pre_chain=4", "--get_sth=3", "--get_sth_consistency=3", "--get_proof_by_hash=3", "--get_entries=3", "--get_roots=1",
		"--max_parallel_chains=3", "--invalid_chance=5", "--duplicate_chance=5", "--oversized_get_entries", "-v=2")
	if err != nil || !strings.Contains(out, "no errors; done") {
		t.Fatalf("%v\n%s", err, end(out))
	}
	for _, done := range []string{"Uploaded NewCert cert", "Uploaded FirstCert cert", "Uploaded NewCert pre-cert", "Uploaded FirstCert pre-cert", "Got STH consistency proof"} {
		if !strings.Contains(out, done) {
			t.Errorf("it never says %q:\n%s", done, end(out))
		}
	}
	scts := strings.Count(out, "Uploaded NewCert")
	if size := target.listed(t, authority.ID.String()).Size; scts < operations/4 || size != uint64(1+scts) {
		t.Errorf("the log has %d entries after %d SCTs for new certificates and the responder's certificate", size, scts)
	}
	for _, endpoint := range []string{"add-chain", "add-pre-chain", "get-sth", "get-sth-consistency", "get-proof-by-hash", "get-entries", "get-roots"} {
		if asked.count(endpoint, 2) == 0 {
			t.Errorf("%s was never answered: %v", endpoint, asked)
		}
		wrong := asked.count(endpoint, 4)
		if never := endpoint == "get-sth" || endpoint == "get-roots"; (wrong == 0) != never { // there is no wrong way to ask for these
			t.Errorf("%s was refused %d times", endpoint, wrong)
		}
		if n := asked.count(endpoint, 5); n != 0 {
			t.Errorf("%s failed %d times", endpoint, n)
		}
	}
	t.Log(asked)
}

// TestHammerFindsAWrongKey: it would see an SCT that is not this log's.
func TestHammerFindsAWrongKey(t *testing.T) {
	authority := newCA(t)
	source, target := serve(t, authority), serve(t, authority)
	source.submit(t, 20)
	out, err := hammer(t, source, target.bridge, source.key(t), 20, "--invalid_chance=0")
	if err == nil || !strings.Contains(out, "signature") {
		t.Fatalf("%v\n%s", err, end(out))
	}
}

// hammer submits certificates of the source's log to the log of the same CA at a bridge, whose key it takes to be key. What it got an SCT for
// must be proven included 300 ms later.
func hammer(t *testing.T, source *service, bridge string, key []byte, operations int, flags ...string) (output string, err error) {
	t.Helper()
	dir := t.TempDir()
	roots, conf := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "log.cfg")
	write(t, roots, encode(source.ca.Chain...))
	write(t, conf, fmt.Appendf(nil, "config { log_id: 1 prefix: %q roots_pem_file: %q public_key: { der: \"%s\" } }\n",
		"logs/"+source.ca.ID.String(), roots, octal(key)))
	return run(t, "ct_hammer", append([]string{"--logtostderr", "--banner=false", "--log_config=" + conf, "--ct_http_servers=" + bridge,
		"--src_log_uri=" + source.prefix(), "--mmd=300ms", fmt.Sprintf("--operations=%d", operations)}, flags...)...)
}

// counter is a proxy that counts answers.
type counter struct {
	url string

	mu   sync.Mutex
	seen map[string]int // by endpoint and status
}

func newCounter(t *testing.T, upstream string) *counter {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{seen: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(r *http.Response) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[fmt.Sprintf("%s %d", path.Base(r.Request.URL.Path), r.StatusCode)]++
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *counter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.seen)
}

// count is how many answers of an endpoint had a status of that hundred.
func (c *counter) count(endpoint string, hundred int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, times := range c.seen {
		if strings.HasPrefix(what, fmt.Sprintf("%s %d", endpoint, hundred)) {
			n += times
		}
	}
	return n
}

// octal writes bytes as protobuf's text format has them.
func octal(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\%03o`, c)
	}
	return s.String()
}

// end is the end of a program's output.
func end(out string) string { return out[max(0, len(out)-4000):] }
