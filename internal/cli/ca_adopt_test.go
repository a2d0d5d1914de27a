package cli

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
)

const plainProfiles = `{"signing": {"profiles": {"www": {"usages": ["signing", "server auth"], "expiry": "72h"}}}}`

// adoptable makes a CA whose key is in a token, and returns its certificate's file and the URI.
func adoptable(t *testing.T) (cert, uri string) {
	t.Helper()
	token, dir := hsmtest.New(t), filepath.Join(t.TempDir(), "made")
	if code, _, errs := runCLI("ca", "init", "--dir", dir, "--subject", "CN=In Use", "--key", token.URI("ca")); code != exitOK {
		t.Fatal(errs)
	}
	return filepath.Join(dir, "ca.pem"), token.URI("ca")
}

func TestCAAdoptTakesAKeyInAToken(t *testing.T) {
	cert, uri := adoptable(t)
	tmp := t.TempDir()
	profiles, dir := filepath.Join(tmp, "config.json"), filepath.Join(tmp, "ca")
	if err := os.WriteFile(profiles, []byte(plainProfiles), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := runCLI("ca", "adopt", "--dir", dir, "--cert", cert, "--key", uri, "--profiles", profiles, "--json")
	var printed struct {
		CAID  string `json:"ca_id"`
		Token string `json:"operator_token"`
		Notes []string
	}
	if err := json.Unmarshal([]byte(out), &printed); err != nil || code != exitOK || len(printed.CAID) != 64 || len(printed.Notes) < 3 {
		t.Fatalf("exit status %d: %v %s%s", code, err, out, errs)
	}
	for _, note := range printed.Notes {
		if !strings.Contains(errs, note) {
			t.Errorf("%q is not on standard error", note)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil || string(text) != uri+"\n" {
		t.Errorf("ca.key is %q, %v", text, err)
	}
	if _, err := ca.OpenKey(dir, func() ([]byte, error) { t.Error("asked for a passphrase"); return nil, nil }); err != nil {
		t.Error(err)
	}
}

func TestCAAdoptRefuses(t *testing.T) {
	cert, uri := adoptable(t)
	tmp := t.TempDir()
	at := func(name string) string { return filepath.Join(tmp, name) }
	for name, text := range map[string]string{
		"pass": "correct horse battery\n", "remotes.json": strings.Replace(plainProfiles, "{", `{"remotes": {"a": "b"}, `, 1), "profiles.json": plainProfiles,
		"other.pem": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0}})),
	} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--cert", cert}, exitUsage, "key-file"},
		{[]string{"--cert", cert, "--key", uri, "--key-file", at("other.pem")}, exitUsage, "key-file"},
		{[]string{"--cert", cert, "--key", uri, "--passphrase-file", at("pass")}, exitUsage, "--passphrase-file"},
		{[]string{"--cert", cert, "--key", "ca.key"}, exitUsage, "--key"},
		{[]string{"--key", uri}, exitUsage, "cert"},
		{[]string{"--cert", at("absent"), "--key", uri}, exitFailure, "--cert"},
		{[]string{"--cert", cert, "--key", strings.Replace(uri, "object=ca", "object=none", 1)}, exitFailure, "none"},
		{[]string{"--cert", cert, "--key-file", at("other.pem"), "--passphrase-file", at("pass")}, exitFailure, "--key-file"},
		{[]string{"--cert", cert, "--key", uri, "--profiles", at("absent")}, exitFailure, "--profiles"},
		{[]string{"--cert", cert, "--key", uri, "--profiles", at("remotes.json")}, exitFailure, "remotes.a"},
		{[]string{"--cert", cert, "--key", uri, "--profiles", at("profiles.json"), "--crl-shards", "5"}, exitFailure, "crl_url"},
	} {
		code, _, errs := runCLI(append([]string{"ca", "adopt", "--dir", at("ca")}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit status %d: %s; want %d, %q", c.args, code, errs, c.code, c.want)
		}
		if _, err := os.Stat(at("ca")); err == nil {
			t.Fatalf("%v: a directory was made", c.args)
		}
	}
}
