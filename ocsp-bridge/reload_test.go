package ocspbridge_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/policy"
)

// logKey is an organisation's log key.
func (c *consortium) logKey(i int) note.Signer {
	c.w.t.Helper()
	key, err := logkey.LoadOrCreate(c.w.dir+"/"+c.orgs[i].dir+"/"+logkey.File, c.w.conn.Channel()+"/"+c.orgs[i].MSPID)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return key
}

// version appends a version to a policy file, of some of the organisations, signed by some of them.
func (c *consortium) version(file []byte, n uint64, quorum int, members, signers []int) []byte {
	c.w.t.Helper()
	var orgs []policy.Org
	for _, i := range members {
		orgs = append(orgs, c.orgs[i].Org)
	}
	p, err := policy.New(c.w.conn.Channel(), n, quorum, 3*tick, orgs...)
	if err != nil {
		c.w.t.Fatal(err)
	}
	s := &policy.Signed{Policy: p}
	var keys []note.Signer
	for _, i := range signers {
		keys = append(keys, c.logKey(i))
	}
	if err := s.Sign(keys...); err != nil {
		c.w.t.Fatal(err)
	}
	text, err := s.Marshal()
	if err != nil {
		c.w.t.Fatal(err)
	}
	return slices.Concat(file, text)
}

func TestPolicyIsReloadedOnlyAlongItsSignedSuccession(t *testing.T) {
	w := newWorld(t)
	c := newConsortium(w, 2, mspID, "Org2MSP", "Org3MSP")
	one := c.start(0).ready()
	c.start(1).ready()
	c.start(2).ready()
	w.nextTick()
	c.awaitQuorate(one, "map", 1)
	pin, first := c.trust.Policy.Fingerprint(), c.trust.File
	all := []int{0, 1, 2}
	second := c.version(first, 2, 3, all, []int{0, 1})
	third := c.version(second, 3, 2, all, all)

	refused := func(what string, file []byte, want string) {
		t.Helper()
		_, before := one.get("/policy", nil)
		if err := one.ReloadPolicy(file, pin); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if _, now := one.get("/policy", nil); !bytes.Equal(now, before) {
			t.Errorf("%s: it is in force:\n%s", what, now)
		}
		if got := metric(t, one, "certanchor_policy_file_refused"); got != "1" {
			t.Errorf("%s: the metric is %s", what, got)
		}
	}
	refused("nothing", nil, "is empty")
	refused("unsigned", c.version(first, 2, 2, all, nil), "has no signature")
	refused("too few signatures", c.version(first, 2, 2, all, []int{1}), "must be")
	refused("another first version", c.version(nil, 1, 3, all, nil), "pinned fingerprint")
	refused("without a peer that is configured", c.version(first, 2, 2, []int{0, 1}, all), `peers[1]: "Org3MSP"`)
	refused("without this organisation", c.version(first, 2, 2, []int{1, 2}, all), "must have this organisation")

	if err := one.ReloadPolicy(second, pin); err != nil {
		t.Fatal(err)
	}
	if code, body := one.get("/policy", nil); code != http.StatusOK || !bytes.Equal(body, second) {
		t.Errorf("policy: %d %s", code, body)
	}
	if refused, version := metric(t, one, "certanchor_policy_file_refused"), metric(t, one, "certanchor_policy_version"); refused != "0" || version != "2" {
		t.Errorf("metrics: refused %s, version %s", refused, version)
	}
	one.until("three cosignatures", func() (bool, string) { // what two had cosigned is not served as a quorum's any more
		var info struct {
			Quorum int
			Logs   []struct{ Quorate *struct{ Cosigners []string } }
		}
		_, body := one.get("/v1/heads", &info)
		for _, l := range info.Logs {
			if l.Quorate == nil {
				return false, string(body)
			}
			if len(l.Quorate.Cosigners) != 3 {
				t.Fatalf("served as a quorum's: %s", body)
			}
		}
		return info.Quorum == 3, string(body)
	})

	refused("the version before", first, "must be at least 2")
	refused("another second version", c.version(first, 2, 2, all, all), "which is in force, must be in the file")
	if err := one.ReloadPolicy(third, pin); err != nil {
		t.Fatal(err)
	}
	if version := metric(t, one, "certanchor_policy_version"); version != "3" {
		t.Errorf("version %s", version)
	}
	if err := one.ReloadPolicy(third, pin); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

func TestWithoutAPolicyNoneIsReloaded(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	c := newConsortium(w, 1, mspID)
	if err := b.ReloadPolicy(c.trust.File, c.trust.Policy.Fingerprint()); err == nil || !strings.Contains(err.Error(), "must be configured at the start") {
		t.Error(err)
	}
}

// metric is the value of a metric without labels.
func metric(t *testing.T, b *bridge, name string) string {
	t.Helper()
	_, body := b.get("/metrics", nil)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}
