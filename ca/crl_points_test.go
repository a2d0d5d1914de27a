package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

const (
	testCRL   = "http://org1.example/crl/{ca}/{shard}.crl"
	testCRL2  = "http://org2.example/crl/{ca}/{shard}.crl"
	fullCRL   = "http://org1.example/crl/{ca}/full.crl"
	quarterly = `"expiry": "2160h",`
)

// inServer puts keys into the default profiles' profile server.
func inServer(keys string) []byte {
	def := string(defaultProfiles(&InitOptions{}, DefaultValidity))
	return []byte(strings.Replace(def, quarterly, quarterly+" "+keys+",", 1))
}

func TestProfileWithBadDistributionPointIsRefused(t *testing.T) {
	long := `"http://x/` + strings.Repeat("a", maxCRLURL) + `"`
	many := `["http://x/0"` + strings.Repeat(`,"http://x/1"`, maxCRLURLs) + `]`
	for name, tc := range map[string]struct{ keys, want string }{
		"no URL":                      {`"crl_url": "x"`, `crl_url "x": must be an absolute http or https URL`},
		"another scheme":              {`"crl_url": "ldap://x/y"`, "absolute http or https"},
		"no host":                     {`"crl_url": "http:///y"`, "absolute http or https"},
		"user":                        {`"crl_url": "http://u:p@x/y"`, "without user and fragment"},
		"fragment":                    {`"crl_url": "http://x/y#z"`, "without user and fragment"},
		"empty fragment":              {`"crl_url": "http://x/y#"`, "without user and fragment"},
		"space":                       {`"crl_url": "http://x/a b"`, "ASCII characters that a URL may have"},
		"not ASCII":                   {`"crl_url": "http://x/ä"`, "ASCII characters that a URL may have"},
		"unknown placeholder":         {`"crl_url": "http://x/{caid}"`, "{ca} and {shard} its only placeholders"},
		"too long":                    {`"crl_url": ` + long, "at most 1024 octets"},
		"shards without a URL":        {`"crl_shards": 4`, "signing.profiles.server.crl_url: must be set with"},
		"mirrors without a URL":       {`"crl_mirrors": ["http://x/y"]`, "signing.profiles.server.crl_url: must be set with"},
		"shards that are no number":   {`"crl_url": "http://x/{shard}", "crl_shards": "4"`, "server.crl_shards \"4\": must be a number"},
		"half a shard":                {`"crl_url": "http://x/{shard}", "crl_shards": 1.5`, "server.crl_shards 1.5: must be a number"},
		"negative":                    {`"crl_url": "http://x/y", "crl_shards": -1`, "server.crl_shards -1: must be 0 to 1024"},
		"too many shards":             {`"crl_url": "http://x/{shard}", "crl_shards": 1025`, "server.crl_shards 1025: must be 0 to 1024"},
		"shards that look alike":      {`"crl_url": "http://x/y", "crl_shards": 2`, "must contain {shard}"},
		"shard without shards":        {`"crl_url": "http://x/{shard}"`, "must not contain {shard} without crl_shards"},
		"name that is not served":     {`"crl_url": "http://x/{shard}", "crl_shards": 2`, "must end in a name"},
		"name that is taken":          {`"crl_url": "http://x/{shard}/full.crl", "crl_shards": 2`, "must end in a name"},
		"mirrors that are no list":    {`"crl_url": "http://x/y", "crl_mirrors": "http://z/y"`, "server.crl_mirrors \"http://z/y\": must be a list"},
		"bad mirror":                  {`"crl_url": "http://x/y", "crl_mirrors": ["http://z/y", "z"]`, "server.crl_mirrors[1]"},
		"mirror without shard":        {`"crl_url": "http://x/{shard}.crl", "crl_shards": 2, "crl_mirrors": ["http://z/y"]`, "server.crl_mirrors[0]"},
		"mirror is the URL":           {`"crl_url": "http://x/y", "crl_mirrors": ["http://x/y"]`, "occurs twice"},
		"too many mirrors":            {`"crl_url": "http://x/y", "crl_mirrors": ` + many, "must be at most 15"},
		"key that only looks like it": {`"crl_shard": 4`, "crl_shard"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseProfiles(inServer(tc.keys)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
	bad := strings.Replace(string(defaultProfiles(&InitOptions{}, DefaultValidity)), `"default": {`, `"default": { "crl_url": "x",`, 1)
	if _, err := parseProfiles([]byte(bad)); err == nil || !strings.Contains(err.Error(), "signing.default.crl_url") {
		t.Fatalf("default: %v", err)
	}
}

func TestProfileInheritsDistributionPointWhole(t *testing.T) {
	text := strings.Replace(string(inServer(`"crl_url": "http://x/y"`)), `"default": {`, `"default": { "crl_url": "http://d/{shard}.crl", "crl_shards": 3,`, 1)
	p, err := parseProfiles([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.points["server"]; got.shards != 0 || got.urls[0] != "http://x/y" {
		t.Errorf("server: %+v", got)
	}
	if got := p.points["client"]; got == nil || got.shards != 3 || got.urls[0] != "http://d/{shard}.crl" {
		t.Errorf("client: %+v", got)
	}
	if got := p.scopes(wire.CAID{}); !slices.Equal(got, []string{"http://d/0.crl", "http://d/1.crl", "http://d/2.crl"}) {
		t.Errorf("scopes: %v", got)
	}
}

// distributionPoint reads the names in a certificate's one distribution point, and fails if there is anything else.
func distributionPoint(t *testing.T, cert *x509.Certificate) []string {
	t.Helper()
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidCRLPoint) {
			continue
		}
		var dps []struct {
			Name struct {
				Full []asn1.RawValue `asn1:"optional,tag:0"`
			} `asn1:"optional,tag:0"`
		}
		rest, err := asn1.Unmarshal(e.Value, &dps)
		if err != nil || len(rest) > 0 || len(dps) != 1 || e.Critical {
			t.Fatalf("%d distribution points, critical %v, %d octets left: %v", len(dps), e.Critical, len(rest), err)
		}
		var urls []string
		for _, n := range dps[0].Name.Full {
			urls = append(urls, string(n.Bytes))
		}
		return urls
	}
	return nil
}

// TestCertificateNamesItsShardAtEveryOrganisation: zlint has passed it, openssl reads it, and the shard follows from the serial.
func TestCertificateNamesItsShardAtEveryOrganisation(t *testing.T) {
	dir, key := newDir(t)
	init := InitOptions{CRLURLs: []string{testCRL, testCRL2}, CRLShards: 7}
	if err := os.WriteFile(filepath.Join(dir, profilesFile), defaultProfiles(&init, DefaultValidity), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, dir, func(c *Config) { c.Key = key })
	register(t, w.node, dir)
	got, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range w.server.Describe().Profiles {
		if stamped := p.Name != ResponderProfile; stamped != slices.Equal(p.CRLURLs, init.CRLURLs) || stamped != (p.CRLShards == 7) {
			t.Errorf("the CA describes %+v", p)
		}
	}
	cert := parsePEM(t, got.Certificate)
	shard := new(big.Int).Mod(cert.SerialNumber, big.NewInt(7))
	var want []string
	for _, tmpl := range init.CRLURLs {
		want = append(want, strings.NewReplacer("{ca}", w.server.CAID().String(), "{shard}", shard.String()).Replace(tmpl))
	}
	if urls := distributionPoint(t, cert); !slices.Equal(urls, want) {
		t.Fatalf("the certificate names %v, want %v", urls, want)
	}
	text := openssl(t, got.Certificate, "x509", "-noout", "-ext", "crlDistributionPoints")
	if strings.Count(text, "Full Name:") != 1 || !strings.Contains(text, "URI:"+want[0]) || !strings.Contains(text, "URI:"+want[1]) {
		t.Fatalf("openssl reads\n%s", text)
	}
}

func TestCompleteListNeedsNoShard(t *testing.T) {
	p, err := parseProfiles(inServer(`"crl_url": "` + fullCRL + `"`))
	if err != nil {
		t.Fatal(err)
	}
	id := wire.CAID{1}
	if got := p.points["server"].of(id, big.NewInt(5)); !slices.Equal(got, []string{strings.Replace(fullCRL, "{ca}", id.String(), 1)}) {
		t.Errorf("got %v", got)
	}
	if got := p.scopes(id); len(got) != 0 {
		t.Errorf("scopes %v", got)
	}
	if ext, err := p.extension("client", id, big.NewInt(5)); err != nil || ext != nil {
		t.Errorf("a profile without a URL got %v, %v", ext, err)
	}
}

// TestShardsGetEqualShares: chi-squared over 16 shards; 60 is exceeded once in two million runs.
func TestShardsGetEqualShares(t *testing.T) {
	pt := &points{urls: []string{"http://x/{shard}"}, shards: 16}
	const n = 16 * 500
	count := map[string]float64{}
	for range n {
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		if serial.Sign() <= 0 || serial.BitLen() > 159 {
			t.Fatalf("serial %v", serial)
		}
		count[pt.of(wire.CAID{}, serial)[0]]++
	}
	sum := 0.0
	for _, c := range count {
		sum += (c - n/16) * (c - n/16) / (n / 16)
	}
	if len(count) != 16 || sum > 60 {
		t.Fatalf("%v: chi-squared %v", count, sum)
	}
}

// FuzzProfiles: whatever is accepted expands to URLs that fit into a certificate, whatever the shard.
func FuzzProfiles(f *testing.F) {
	f.Add(inServer(`"crl_url": "`+testCRL+`", "crl_shards": 16, "crl_mirrors": ["`+testCRL2+`"]`), []byte{7})
	f.Add(inServer(`"crl_url": "`+fullCRL+`"`), []byte{1})
	f.Add([]byte(`{"signing":{"default":{"crl_shards":1e3},"profiles":{"x":null}}}`), []byte{})
	f.Fuzz(func(t *testing.T, data, serial []byte) {
		p, err := parseProfiles(data)
		if err != nil {
			return
		}
		for name, pt := range p.points {
			for _, u := range pt.of(wire.CAID{}, new(big.Int).SetBytes(serial)) {
				if parsed, err := url.Parse(u); err != nil || parsed.Host == "" || len(u) > maxCRLURL {
					t.Fatalf("profile %s gives %q: %v", name, u, err)
				}
			}
			ext, err := p.extension(name, wire.CAID{}, new(big.Int).SetBytes(serial))
			if err != nil || len(ext) != 1 || bytes.ContainsAny([]byte(ext[0].Value), "{}") {
				t.Fatalf("profile %s: %v, %v", name, ext, err)
			}
		}
	})
}
