package policy_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/policy/policytest"
)

const channel = "testchannel"

var (
	four = []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}
	at   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
)

func now() time.Time { return at }

func consortium(t testing.TB) *policytest.Consortium {
	return policytest.New(t, channel, 3, 45*time.Second, now, four...)
}

func TestPolicyComesBackAsItWas(t *testing.T) {
	p := consortium(t).Policy
	got, err := policy.Parse(p.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if got.Channel() != channel || got.Version() != 1 || got.Quorum() != 3 || got.MaxAge() != 45*time.Second || !slices.Equal(got.Orgs(), p.Orgs()) || got.Fingerprint() != p.Fingerprint() {
		t.Errorf("%s comes back as %s", p.Marshal(), got.Marshal())
	}
	if len(p.Fingerprint()) != 64 {
		t.Errorf("fingerprint is %q", p.Fingerprint())
	}
}

func TestUnsafePoliciesAreRefused(t *testing.T) {
	c := consortium(t)
	orgs := c.Policy.Orgs()
	change := func(f func(o []policy.Org) []policy.Org) []policy.Org { return f(slices.Clone(orgs)) }
	foreign := policytest.NewOrg(t, "otherchannel", "Org1MSP", "", now)
	// The same public key in another organisation's name: one holder would count twice.
	parts := strings.SplitN(orgs[0].LogKey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	twin, err := note.NewEd25519VerifierKey(channel+"/Org2MSP", raw[1:])
	if err != nil {
		t.Fatal(err)
	}
	many := make([]policy.Org, policy.MaxOrgs+1)
	for _, c := range []struct {
		what, want string
		channel    string
		version    uint64
		quorum     int
		maxAge     time.Duration
		orgs       []policy.Org
	}{
		{"quorum of a half", "more than half", channel, 1, 2, time.Minute, orgs},
		{"quorum 0", "more than half", channel, 1, 0, time.Minute, orgs},
		{"quorum above all", "at most all", channel, 1, 5, time.Minute, orgs},
		{"no organisation", "0 organisations", channel, 1, 1, time.Minute, nil},
		{"too many", "33 organisations", channel, 1, 20, time.Minute, many},
		{"version 0", "count from 1", channel, 0, 3, time.Minute, orgs},
		{"no age", "max-age", channel, 1, 3, 0, orgs},
		{"parts of a second", "whole seconds", channel, 1, 3, 1500 * time.Millisecond, orgs},
		{"a month", "max-age", channel, 1, 3, 30 * 24 * time.Hour, orgs},
		{"channel with a space", "channel is", "a b", 1, 3, time.Minute, orgs},
		{"channel with a slash", "channel is", "a/b", 1, 3, time.Minute, orgs},
		{"keys of another channel", "key name is", channel, 1, 3, time.Minute, change(func(o []policy.Org) []policy.Org { o[0] = foreign.Org; return o })},
		{"organisation twice", "twice", channel, 1, 4, time.Minute, append(slices.Clone(orgs), orgs[0])},
		{"cosigner key as log key", "log key", channel, 1, 3, time.Minute, change(func(o []policy.Org) []policy.Org { o[0].LogKey = o[0].CosignerKey; return o })},
		{"log key as cosigner key", "cosigner key", channel, 1, 3, time.Minute, change(func(o []policy.Org) []policy.Org { o[0].CosignerKey = o[0].LogKey; return o })},
		{"one key under two names", "same public key", channel, 1, 3, time.Minute, change(func(o []policy.Org) []policy.Org { o[1].LogKey = twin; return o })},
		{"MSP ID with a line end", "organisation is", channel, 1, 3, time.Minute, change(func(o []policy.Org) []policy.Org { o[0].MSPID = "a\nb"; return o })},
	} {
		if _, err := policy.New(c.channel, c.version, c.quorum, c.maxAge, c.orgs...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.what, err, c.want)
		}
	}
}

func TestOnlyTheOneFormOfAPolicyIsRead(t *testing.T) {
	good := string(consortium(t).Policy.Marshal())
	lines := strings.SplitAfter(good, "\n")
	swapped := slices.Clone(lines)
	swapped[5], swapped[6] = swapped[6], swapped[5]
	for what, text := range map[string]string{
		"empty": "", "no newline": strings.TrimSuffix(good, "\n"), "empty line": good + "\n", "carriage returns": strings.ReplaceAll(good, "\n", "\r\n"),
		"leading zero": strings.Replace(good, "version 1", "version 01", 1), "plus sign": strings.Replace(good, "quorum 3", "quorum +3", 1),
		"another duration": strings.Replace(good, "45s", "45000ms", 1), "no duration": strings.Replace(good, "45s", "soon", 1),
		"unsorted": strings.Join(swapped, ""), "two spaces": strings.Replace(good, "org Org1MSP", "org  Org1MSP", 1),
		"another header": strings.Replace(good, "v1", "v2", 1), "a field missing": strings.Replace(good, "quorum 3\n", "", 1),
	} {
		if _, err := policy.Parse([]byte(text)); err == nil {
			t.Errorf("%s: read", what)
		}
	}
}

// chain is a policy file of three versions: Org4MSP leaves, then Org5MSP joins.
func chain(t testing.TB) (versions []*policy.Signed, file []byte, c *policytest.Consortium) {
	t.Helper()
	c = consortium(t)
	orgs := c.Policy.Orgs()
	second, err := policy.New(channel, 2, 2, time.Minute, orgs[:3]...)
	if err != nil {
		t.Fatal(err)
	}
	third, err := policy.New(channel, 3, 3, time.Minute, append(orgs[:3:3], policytest.NewOrg(t, channel, "Org5MSP", "", now).Org)...)
	if err != nil {
		t.Fatal(err)
	}
	versions = []*policy.Signed{{Policy: c.Policy}, {Policy: second}, {Policy: third}}
	for i, signers := range [][]note.Signer{nil, {c.Orgs[3].Log, c.Orgs[0].Log, c.Orgs[1].Log}, {c.Orgs[1].Log, c.Orgs[2].Log}} {
		if err := versions[i].Sign(signers...); err != nil {
			t.Fatal(err)
		}
	}
	return versions, marshal(t, versions...), c
}

func marshal(t testing.TB, versions ...*policy.Signed) []byte {
	t.Helper()
	var file []byte
	for _, v := range versions {
		signed, err := v.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, signed...)
	}
	return file
}

func TestSuccessionLeadsFromThePinToTheNewest(t *testing.T) {
	versions, file, _ := chain(t)
	for i, v := range versions { // whichever version is pinned, and with or without what came before
		for _, file := range [][]byte{file, marshal(t, versions[i:]...)} {
			p, err := policy.Load(file, v.Policy.Fingerprint())
			if err != nil || p.Version() != 3 {
				t.Errorf("pinned version %d: %v, %v", i+1, p, err)
			}
		}
	}
	p, err := policy.Load(file, strings.ToUpper(versions[0].Policy.Fingerprint()))
	if err != nil || p.Fingerprint() != versions[2].Policy.Fingerprint() {
		t.Errorf("fingerprint in upper case: %v", err)
	}
	// Signatures are added one by one, by whoever gets the file next.
	if again, err := policy.ParseFile(file); err != nil || !bytes.Equal(marshal(t, again...), file) {
		t.Errorf("file comes back otherwise: %v", err)
	}
}

func TestASuccessorWithoutAQuorumIsRefused(t *testing.T) {
	versions, file, c := chain(t)
	pin := versions[0].Policy.Fingerprint()
	sign := func(p *policy.Policy, signers ...note.Signer) *policy.Signed {
		s := &policy.Signed{Policy: p}
		if err := s.Sign(signers...); err != nil {
			t.Fatal(err)
		}
		return s
	}
	impostor := policytest.NewOrg(t, channel, "Org3MSP", "impostor", now)
	log := func(i int) note.Signer { return c.Orgs[i].Log }
	second, third := versions[1].Policy, versions[2].Policy
	repeated := sign(second, log(0), log(1))
	repeated.Sigs = append(repeated.Sigs, repeated.Sigs...)
	damaged := sign(second, log(0), log(1), log(2))
	damaged.Sigs[2].Base64 = damaged.Sigs[1].Base64
	otherChannel, err := policy.New("other", 2, 1, time.Minute, policytest.NewOrg(t, "other", "Org1MSP", "", now).Org)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		file []byte
		want error
	}{
		{"two of four", marshal(t, versions[0], sign(second, log(0), log(1))), policy.ErrSuccession},
		{"one key repeated", marshal(t, versions[0], repeated), policy.ErrSuccession},
		{"an impostor", marshal(t, versions[0], sign(second, log(0), log(1), impostor.Log)), policy.ErrSuccession},
		{"cosigner keys", marshal(t, versions[0], sign(second, log(0), log(1), c.Orgs[2].Cosigner, c.Orgs[3].Cosigner)), policy.ErrSuccession},
		{"no signature", marshal(t, versions[0], sign(second)), policy.ErrSuccession},
		{"a version left out", marshal(t, versions[0], sign(third, log(0), log(1), log(2))), policy.ErrSuccession},
		{"keys of the version before the last", marshal(t, versions[0], versions[1], sign(third, log(2), log(3))), policy.ErrSuccession},
		{"the same again", marshal(t, versions[0], versions[0]), policy.ErrSuccession},
		{"backwards", marshal(t, versions[1], versions[0]), policy.ErrSuccession},
		{"another channel", marshal(t, versions[0], sign(otherChannel, log(0), log(1), log(2))), policy.ErrSuccession},
		{"another pin", marshal(t, versions[1], versions[2]), policy.ErrFingerprint},
		{"nothing", nil, nil},
		{"cut", file[:len(file)-1], nil},
		{"cut in the text", file[:100], nil},
		{"text after the end", append(slices.Clone(file), "hello\n"...), nil},
		{"a second empty line", bytes.Replace(file, []byte("\n\n"), []byte("\n\n\n"), 1), nil},
	} {
		p, err := policy.Load(c.file, pin)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.what, p, err, c.want)
		}
	}
	if err := damaged.Policy.VerifySuccessor(damaged); err == nil {
		t.Error("a damaged signature is accepted")
	}
}

func FuzzLoad(f *testing.F) {
	versions, file, _ := chain(f)
	f.Add(file)
	f.Add(marshal(f, versions[0]))
	f.Add([]byte("certanchor policy v1\n\n\u2014 x y\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := policy.ParseFile(file)
		if err != nil {
			return
		}
		for _, s := range all {
			again, err := policy.Parse(s.Policy.Marshal())
			if err != nil || again.Fingerprint() != s.Policy.Fingerprint() {
				t.Fatalf("%s: %v", s.Policy.Marshal(), err)
			}
		}
		// Only versions 2 and 3 have the quorum's signatures.
		if p, err := policy.Load(file, versions[0].Policy.Fingerprint()); err == nil {
			if v := p.Version(); v > 3 || p.Fingerprint() != versions[v-1].Policy.Fingerprint() {
				t.Fatalf("a policy nobody signed is loaded:\n%s", p.Marshal())
			}
		}
	})
}
