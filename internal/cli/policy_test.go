package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/policy"
)

// founder is an organisation with keys in files.
type founder struct{ id, logKey, flag string }

func found(t *testing.T, dir, id string) founder {
	t.Helper()
	path := dir + "/" + id + "/" + logkey.File
	k, err := logkey.LoadOrCreate(path, "ch/"+id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := logkey.LoadOrCreateCosigner(dir+"/"+id+"/"+logkey.CosignerFile, "ch/"+id+"/cosigner", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return founder{id, path, id + "=" + k.VKey + "," + c.VKey()}
}

func readPolicies(t *testing.T, path string) []*policy.Signed {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := policy.ParseFile(data)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func must0(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := runCLI(args...)
	if code != exitOK {
		t.Fatalf("%v: exit %d, %s", args, code, errs)
	}
	return out
}

// TestPolicySuccession: from the first version to one with another organisation, signed one by one.
func TestPolicySuccession(t *testing.T) {
	dir := t.TempDir()
	a, b, c, d := found(t, dir, "AMSP"), found(t, dir, "BMSP"), found(t, dir, "CMSP"), found(t, dir, "DMSP")
	first, next := dir+"/policy.txt", dir+"/next.txt"
	out := must0(t, "policy", "create", "--channel", "ch", "--quorum", "2", "--max-age", "1m30s", "--org", c.flag, "--org", a.flag, "--org", b.flag, "-o", first)
	v1 := readPolicies(t, first)[0].Policy
	contains(t, "create", out, "version 1 of ch: 2 of 3, max-age 1m30s", v1.Fingerprint(), "AMSP")
	if code, _, errs := runCLI("policy", "create", "--channel", "ch", "--quorum", "2", "--org", a.flag, "--org", b.flag, "-o", first); code != exitFailure || !strings.Contains(errs, "not replaced") {
		t.Errorf("written over: exit %d, %s", code, errs)
	}
	out = must0(t, "policy", "succeed", "--policy", first, "--remove", "CMSP", "--org", d.flag, "--max-age", "45s", "-o", next)
	contains(t, "succeed", out, "version 2 of ch: 2 of 3, max-age 45s", "nobody: 0 of the 2 that version 1 wants; it does not count yet", "DMSP")
	v2 := readPolicies(t, next)[1].Policy

	// Until a quorum has signed, it is shown and not accepted.
	must0(t, "policy", "show", next)
	if code, out, errs := runCLI("policy", "show", next, "--policy-fingerprint", v1.Fingerprint()); code != exitFailure || !strings.Contains(errs, "not signed by a quorum") || out == "" {
		t.Errorf("show of what does not count: exit %d, %s", code, errs)
	}
	if code, out, errs := runCLI("policy", "show", first, "--policy-fingerprint", strings.Repeat("0", 64)); code != exitFailure || !strings.Contains(errs, "pinned fingerprint") || out != "" {
		t.Errorf("show of another file: exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := runCLI("policy", "succeed", "--policy", next, "--max-age", "46s", "-o", dir+"/third.txt"); code != exitFailure || !strings.Contains(errs, "does not count yet") {
		t.Errorf("successor of what does not count: exit %d, %s", code, errs)
	}
	out = must0(t, "policy", "sign", "--policy", next, "--key", c.logKey, "--fingerprint", v2.Fingerprint())
	contains(t, "sign", out, "CMSP: 1 of the 2", "does not count yet")
	again := must0(t, "policy", "sign", "--policy", next, "--key", c.logKey)
	if again != out {
		t.Errorf("the same signature again:\n%s\n%s", again, out)
	}
	out = must0(t, "policy", "sign", "--policy", next, "--key", a.logKey)
	contains(t, "sign", out, "AMSP, CMSP: 2 of the 2")
	shown := fieldsOf(t, must0(t, "policy", "show", next, "--json", "--policy-fingerprint", v1.Fingerprint()))
	if versions, ok := shown["versions"].([]any); !ok || len(versions) != 2 {
		t.Errorf("show: %v", shown)
	}
	// Version 1 may be signed as well, by its own; and whoever pins version 2 needs no version 1.
	contains(t, "sign", must0(t, "policy", "sign", "--policy", first, "--key", b.logKey), "signed by    BMSP; the first in the file")
	must0(t, "policy", "show", next, "--policy-fingerprint", v2.Fingerprint())
	must0(t, "policy", "succeed", "--policy", next, "--quorum", "3", "-o", dir+"/third.txt")
}

func TestPolicyCommandsRefuse(t *testing.T) {
	dir := t.TempDir()
	a, b, c, d := found(t, dir, "AMSP"), found(t, dir, "BMSP"), found(t, dir, "CMSP"), found(t, dir, "DMSP")
	file, next, out := dir+"/policy.txt", dir+"/next.txt", dir+"/out.txt"
	must0(t, "policy", "create", "--channel", "ch", "--quorum", "2", "--org", a.flag, "--org", b.flag, "--org", c.flag, "-o", file)
	must0(t, "policy", "succeed", "--policy", file, "--org", d.flag, "--quorum", "3", "-o", next)
	alone := dir + "/alone.txt"
	if err := os.WriteFile(alone, policyFile(t, readPolicies(t, next)[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	cosigner := strings.Replace(a.logKey, logkey.File, logkey.CosignerFile, 1)
	open := dir + "/open.key"
	key, err := os.ReadFile(a.logKey)
	if err == nil {
		err = os.WriteFile(open, key, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	create := []string{"policy", "create", "--channel", "ch", "-o", out, "--org", a.flag, "--org", b.flag}
	succeed := []string{"policy", "succeed", "--policy", file, "-o", out}
	sign := []string{"policy", "sign", "--policy", next}
	zeros := strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		base, more []string
		code       int
		want       string
	}{
		"quorum of half":           {create, []string{"--quorum", "1"}, exitFailure, "more than half"},
		"max-age of half a second": {create, []string{"--quorum", "2", "--max-age", "500ms"}, exitFailure, "max-age"},
		"org without keys":         {create, []string{"--quorum", "2", "--org", "CMSP"}, exitUsage, "MSPID=LOGVKEY,COSIGNERVKEY"},
		"org twice":                {create, []string{"--quorum", "2", "--org", a.flag}, exitFailure, "twice"},
		"org with another's keys":  {create, []string{"--quorum", "2", "--org", strings.Replace(c.flag, "CMSP=", "EMSP=", 1)}, exitFailure, "key name"},
		"nothing changes":          {succeed, nil, exitUsage, "nothing changes"},
		"the same organisation":    {succeed, []string{"--org", a.flag}, exitUsage, "nothing changes"},
		"remove a stranger":        {succeed, []string{"--remove", "DMSP"}, exitUsage, "--remove"},
		"remove too many":          {succeed, []string{"--remove", "AMSP", "--remove", "BMSP"}, exitFailure, "quorum"},
		"sign with a new key":      {sign, []string{"--key", d.logKey}, exitFailure, "organisation of version 1"},
		"sign with a cosigner key": {sign, []string{"--key", cosigner}, exitFailure, "log.key"},
		"sign with an open key":    {sign, []string{"--key", open}, exitFailure, "0600"},
		"sign without a key file":  {sign, []string{"--key", dir + "/none"}, exitFailure, "--key"},
		"sign what was not agreed": {sign, []string{"--key", a.logKey, "--fingerprint", zeros}, exitFailure, "not signed"},
		"sign, half a fingerprint": {sign, []string{"--key", a.logKey, "--fingerprint", "00"}, exitUsage, "64 hexadecimal"},
		"sign without the before":  {[]string{"policy", "sign", "--policy", alone}, []string{"--key", a.logKey}, exitFailure, "version before"},
		"show what is not one":     {[]string{"policy", "show", a.logKey}, nil, exitFailure, "empty line"},
		"show with another pin":    {[]string{"policy", "show", file, "--policy-fingerprint", zeros}, nil, exitFailure, "pinned fingerprint"},
		"show nothing":             {[]string{"policy", "show"}, nil, exitUsage, "the policy file"},
	} {
		code, _, errs := runCLI(append(append([]string{}, c.base...), c.more...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: a file was written", name)
		}
	}
}

func TestPolicyFetchSaysThatAServerProvesNothing(t *testing.T) {
	p := newParty(t)
	file, err := os.ReadFile(p.path("policy.txt"))
	if err != nil {
		t.Fatal(err)
	}
	bridge, without := p.bridge(file), p.bridge(nil)
	out := p.path("fetched.txt")
	code, text, errs := runCLI("policy", "fetch", "--bridge", bridge.URL, "-o", out)
	if code != exitOK {
		t.Fatalf("exit %d, %s", code, errs)
	}
	contains(t, "fetch", text, "version 1 of testchannel: 3 of 4", p.Policy.Fingerprint())
	contains(t, "fetch", errs, "not pinned: compare this fingerprint", p.Policy.Fingerprint())
	if code, _, errs := runCLI("policy", "fetch", "--bridge", bridge.URL, "-o", out, "--policy-fingerprint", p.Policy.Fingerprint()); code != exitOK || errs != "" {
		t.Errorf("pinned: exit %d, %s", code, errs)
	}
	got, err := os.ReadFile(out)
	if err != nil || string(got) != string(file) {
		t.Errorf("wrote %q, %v", got, err)
	}
	other := p.path("other.txt")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"another":   {[]string{"--bridge", bridge.URL, "--policy-fingerprint", strings.Repeat("0", 64)}, exitFailure, "pinned fingerprint"},
		"none":      {[]string{"--bridge", without.URL}, exitFailure, "has no policy"},
		"not a URL": {[]string{"--bridge", "ftp://bridge"}, exitUsage, "absolute http or https URL"},
	} {
		if code, _, errs := runCLI(append([]string{"policy", "fetch", "-o", other}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		if _, err := os.Stat(other); err == nil {
			t.Fatalf("%s: the file was written", name)
		}
	}
}
