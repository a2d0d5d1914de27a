package thirdparty

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// entries of each log: several tiles of entries, the last one partial, and two levels of hashes.
const entries = 300

// TestFsckFindsTheStatusLogWhole runs tessera's fsck over the status log (C2SP tlog-tiles). A bit flipped in any resource that it fetches
// is found; what it says is in its log, for its exit status is always 0. One that has a single worker waits for ever after the
// first difference, in v1.0.4, so this one has several.
func TestFsckFindsTheStatusLogWhole(t *testing.T) {
	s := serve(t, newCA(t))
	s.revoke(t, s.submit(t, entries))
	var log listed
	eventually(t, func() error { // the first one is the CA's registration
		if log = s.listed(t, "status"); log.Size != 1+entries {
			return fmt.Errorf("%d changes are in the status log", log.Size)
		}
		return nil
	})
	everyFlipIsFound(t, s.bridge+"/logs/status/", func(url string) (string, bool) { return tesseraFsck(t, url, log) })
	// The same interface has the issuance log.
	log = s.listed(t, s.ca.ID.String())
	if out, whole := tesseraFsck(t, s.prefix()+"/", log); !whole || log.Size != 1+2*entries {
		t.Errorf("issuance log of size %d: %s", log.Size, out)
	}
}

// tesseraFsck checks a log, whose size must be the one listed.
func tesseraFsck(t *testing.T, url string, log listed) (output string, whole bool) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, []byte(log.VKey))
	out, err := run(t, "fsck", "--storage_url="+url, "--public_key="+key, "--origin="+log.Origin, "--N=4", "--ui=false", "--logtostderr")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole, broken := strings.Contains(out, fmt.Sprintf("Successfully fsck'd log with size %d ", log.Size)), strings.Contains(out, "fsck failed")
	if whole == broken {
		t.Fatalf("it does not say whether the log is whole:\n%s", out)
	}
	return out, whole
}

// TestFsckFindsAnIssuanceLogWhole does the same with an issuance log (C2SP static-ct-api).
func TestFsckFindsAnIssuanceLogWhole(t *testing.T) {
	s := serve(t, newCA(t))
	s.submit(t, entries/2)
	origin, key := strings.TrimPrefix(s.prefix(), "http://"), base64.StdEncoding.EncodeToString(s.key(t))
	everyFlipIsFound(t, s.prefix()+"/static/", func(url string) (string, bool) {
		out, err := run(t, "static-fsck", "--monitoring_url="+url, "--origin="+origin, "--public_key="+key)
		if want := fmt.Sprintf("%d entries and 2 issuers are whole\n", 1+entries); err == nil && !strings.HasSuffix(out, want) {
			t.Fatalf("it says %q, want %q", out, want)
		}
		return out, err == nil
	})
}

// everyFlipIsFound: fsck finds the log at upstream whole, and not when one bit of anything that it fetches is another.
func everyFlipIsFound(t *testing.T, upstream string, fsck func(url string) (output string, whole bool)) {
	t.Helper()
	p := &proxy{t: t, upstream: upstream, seen: map[string]int{}}
	server := httptest.NewServer(p)
	defer server.Close()
	if out, whole := fsck(server.URL + "/"); !whole {
		t.Fatalf("a whole log is said to be broken:\n%s", out)
	}
	resources := p.resources()
	for _, kind := range []string{"checkpoint", "tile/0/000", "tile/0/001.p/", "tile/1/000.p/"} {
		if !slices.ContainsFunc(resources, func(r string) bool { return strings.HasPrefix(r, kind) }) {
			t.Errorf("it never fetched %s: %q", kind, resources)
		}
	}
	for _, resource := range resources {
		size := p.seen[resource]
		at := []int{0, size / 2, size - 1}
		if resource == "checkpoint" {
			at = []int{0, 20} // the end is other organisations' signatures, which others check
		}
		for _, i := range at {
			p.flip(resource, i)
			if _, whole := fsck(server.URL + "/"); whole {
				t.Errorf("%s: a flipped bit in octet %d of %d is not found", resource, i, size)
			}
		}
	}
	p.flip("", 0)
	if out, whole := fsck(server.URL + "/"); !whole {
		t.Errorf("the log is whole again, and it says:\n%s", out)
	}
}

// proxy serves what upstream serves, but for one bit.
type proxy struct {
	t        *testing.T
	upstream string

	mu       sync.Mutex     // guards what follows
	seen     map[string]int // resources that were there, and how long they are
	resource string         // where a bit is flipped: the lowest one of the octet at
	at       int
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := strings.TrimPrefix(r.URL.Path, "/")
	resp, err := http.Get(p.upstream + resource)
	if err != nil {
		p.t.Error(err)
		return
	}
	status := resp.StatusCode
	if status != http.StatusOK { // fsck asks for tiles that are not there
		resp.Body.Close()
		http.Error(w, resp.Status, status)
		return
	}
	body, err := answer(resp, nil)
	if err != nil {
		p.t.Error(err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[resource] = len(body)
	if resource == p.resource && p.at < len(body) {
		body = bytes.Clone(body)
		body[p.at] ^= 1
	}
	_, _ = w.Write(body) // fsck may have ended at a difference
}

func (p *proxy) flip(resource string, at int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resource, p.at = resource, at
}

func (p *proxy) resources() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for r := range p.seen {
		all = append(all, r)
	}
	slices.Sort(all)
	return all
}
