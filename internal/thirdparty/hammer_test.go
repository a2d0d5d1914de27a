package thirdparty

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
	const operations, supply = 800, 700
	authority := newCA(t)
	source, target := serve(t, authority), serve(t, authority)
	source.submit(t, supply)

	out, err := hammer(t, source, target, target.key(t), operations,
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
	heads := regexp.MustCompile(`Got STH\(.*size=(\d+)\)`).FindAllStringSubmatch(out, -1)
	if len(heads) == 0 {
		t.Fatalf("it got no head:\n%s", end(out))
	}
	if size, err := strconv.Atoi(heads[len(heads)-1][1]); err != nil || size == 0 {
		t.Errorf("its last head has size %d, %v", size, err)
	}
}

// TestHammerFindsAWrongKey: it would see an SCT that is not this log's.
func TestHammerFindsAWrongKey(t *testing.T) {
	authority := newCA(t)
	source, target := serve(t, authority), serve(t, authority)
	source.submit(t, 20)
	out, err := hammer(t, source, target, source.key(t), 20, "--invalid_chance=0")
	if err == nil || !strings.Contains(out, "signature") {
		t.Fatalf("%v\n%s", err, end(out))
	}
}

// hammer submits certificates of the source's log to the target, whose key it takes to be key.
func hammer(t *testing.T, source, target *service, key []byte, operations int, flags ...string) (output string, err error) {
	t.Helper()
	dir := t.TempDir()
	roots, conf := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "log.cfg")
	write(t, roots, encode(target.ca.Chain...))
	write(t, conf, fmt.Appendf(nil, "config { log_id: 1 prefix: %q roots_pem_file: %q public_key: { der: \"%s\" } }\n",
		"logs/"+target.ca.ID.String(), roots, octal(key)))
	return run(t, "ct_hammer", append([]string{"--logtostderr", "--banner=false", "--log_config=" + conf, "--ct_http_servers=" + target.bridge,
		"--src_log_uri=" + source.prefix(), "--mmd=1s", fmt.Sprintf("--operations=%d", operations)}, flags...)...)
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
