package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const whole = `
ledger:
  engine: fabric
  fabric:
    endpoint: 127.0.0.1:7051
    tls_ca: tls.pem
    msp_id: Org1MSP
    cert: cert.pem
    key: /abs/key.pem
    channel: certanchor
    chaincode: certanchor
    fallback_peers: [{msp_id: Org3MSP, endpoint: "127.0.0.1:7053", tls_ca: org3-tls.pem}]
    fallback_after: 30s
    genesis_block: genesis.block
ca:
  dir: ca
  passphrase: {file: pass}
  responders: ["http://127.0.0.1:8889"]
  ack_timeout: 4s
  crl: {publish: ["http://127.0.0.1:8889", "https://org3.example"], full_every: 2h, tls_ca: org2-ca.pem, delta_url: "http://org1.example/crl/{ca}/delta.crl"}
  ct: {key_file: bridge/ct/x.pem, public_url: "https://ca.example"}
  fronts:
    - {log_list: org2-logs.json, tls_ca: org2-ca.pem}
    - {url: "https://org3.example/logs/00", key: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtx8ngmjphtdl+Y976grmpSrGNHh5uVSWRoG95GRPYqZfaqkMw+8pq7JqfrD3rI366m6ACZZXsGq1TPF5aDEI8w=="}
ocsp_bridge:
  dir: bridge
  listen: 0.0.0.0:9999
  http_address: 0.0.0.0:80
  not_issued: unknown
  enrol:
    - {issuer: ca.pem, url: "http://127.0.0.1:8888", token_file: org2.token}
  policy: policy
  policy_fingerprint: 00ff
  peers:
    - {msp_id: Org2MSP, url: "https://org2.example", log_key: k2, cosigner_key: c2, tls_ca: org2-ca.pem}
  submit:
    - {issuer: ca2.pem, url: "https://ca.org2.example", tls_ca: org2-ca.pem}
  crl: {max_age: 5m, indirect: {cert: crl.pem, key: crl-key.pem, cas: ["00"]}}
  tls: {cert: s.pem, key: s-key.pem, client_ca: members.pem}
  logs_access: members
  no_integrator: true
client:
  issuer: ca.pem
  policy: policy
  policy_fingerprint: 00ff
  tls: {ca: org2-ca.pem, cert: me.pem, key: me-key.pem}
`

func TestConfigurationIsReadWithDefaultsAndPathsBesideIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := f.NeedCA()
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := f.NeedOCSPBridge()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Ledger.Check(path); err != nil {
		t.Fatal(err)
	}
	client, err := f.NeedClient()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"fabric.tls_ca", f.Ledger.Fabric.TLSCA, filepath.Join(dir, "tls.pem")},
		{"fabric.key", f.Ledger.Fabric.Key, "/abs/key.pem"},
		{"fabric.genesis_block", f.Ledger.Fabric.GenesisBlock, filepath.Join(dir, "genesis.block")},
		{"fabric.fallback_peers[0].tls_ca", f.Ledger.Fabric.FallbackPeers[0].TLSCA, filepath.Join(dir, "org3-tls.pem")},
		{"ca.dir", ca.Dir, filepath.Join(dir, "ca")},
		{"ca.listen", ca.Listen, DefaultCAListen},
		{"ca.passphrase.file", ca.Passphrase.File, filepath.Join(dir, "pass")},
		{"ca.ack_timeout", ca.AckTimeout.String(), (4 * time.Second).String()},
		{"ocsp_bridge.listen", bridge.Listen, "0.0.0.0:9999"},
		{"ocsp_bridge.http_address", bridge.HTTPAddress, "0.0.0.0:80"},
		{"ocsp_bridge.not_issued", bridge.NotIssued, "unknown"},
		{"ocsp_bridge.max_age", bridge.MaxAge.String(), (5 * time.Second).String()},
		{"ocsp_bridge.policy", bridge.Policy, filepath.Join(dir, "policy")},
		{"ocsp_bridge.peers.tls_ca", bridge.Peers[0].TLSCA, filepath.Join(dir, "org2-ca.pem")},
		{"ocsp_bridge.submit.issuer", bridge.Submit[0].Issuer, filepath.Join(dir, "ca2.pem")},
		{"ocsp_bridge.submit.tls_ca", bridge.Submit[0].TLSCA, filepath.Join(dir, "org2-ca.pem")},
		{"ocsp_bridge.tls.client_ca", bridge.TLS.ClientCA, filepath.Join(dir, "members.pem")},
		{"ca.crl.tls_ca", ca.CRL.TLSCA, filepath.Join(dir, "org2-ca.pem")},
		{"ca.crl.full_every", ca.CRL.FullEvery.String(), (2 * time.Hour).String()},
		{"ocsp_bridge.crl.max_age", bridge.CRL.MaxAge.String(), (5 * time.Minute).String()},
		{"ocsp_bridge.crl.indirect.key", bridge.CRL.Indirect.Key, filepath.Join(dir, "crl-key.pem")},
		{"client.issuer", client.Issuer, filepath.Join(dir, "ca.pem")},
		{"client.policy", client.Policy, filepath.Join(dir, "policy")},
		{"client.policy_fingerprint", client.PolicyFingerprint, "00ff"},
		{"client.tls.ca", client.TLS.CA, filepath.Join(dir, "org2-ca.pem")},
		{"client.tls.cert", client.TLS.Cert, filepath.Join(dir, "me.pem")},
		{"client.tls.key", client.TLS.Key, filepath.Join(dir, "me-key.pem")},
		{"ca.fronts[0].log_list", ca.Fronts[0].LogList, filepath.Join(dir, "org2-logs.json")},
		{"ca.fronts[0].tls_ca", ca.Fronts[0].TLSCA, filepath.Join(dir, "org2-ca.pem")},
		{"ca.ct.key_file", ca.CT.KeyFile, filepath.Join(dir, "bridge/ct/x.pem")},
		{"ocsp_bridge.enrol.token_file", bridge.Enrol[0].TokenFile, filepath.Join(dir, "org2.token")},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
}

// TestPlainHTTPNeedsALoopbackAddressOrAWord: and what is not a loopback address but an empty host, or a name.
func TestPlainHTTPNeedsALoopbackAddressOrAWord(t *testing.T) {
	for _, c := range []struct {
		listen   string
		insecure bool
		fine     bool
	}{
		{"127.0.0.1:1", false, true}, {"[::1]:1", false, true}, {"localhost:1", false, true}, {"127.9.9.9:1", true, true},
		{":1", false, false}, {"0.0.0.0:1", false, false}, {"[::]:1", false, false}, {"192.0.2.1:1", false, false}, {"host.example:1", false, false},
		{"127.0.0.1.example:1", false, false}, {"127.0.0.1", false, false},
		{":1", true, true}, {"192.0.2.1:1", true, true},
	} {
		text := fmt.Sprintf("ocsp_bridge: {dir: x, listen: %q, insecure_http: %t}", c.listen, c.insecure)
		f, err := Parse("c.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.NeedOCSPBridge(); (err == nil) != c.fine {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestBadConfigurationNamesKeyValueAndRule(t *testing.T) {
	check := func(f *File) error {
		if err := f.Ledger.Check(f.Path); err != nil {
			return err
		}
		if f.CA != nil {
			if _, err := f.NeedCA(); err != nil {
				return err
			}
		}
		if f.Client != nil {
			if _, err := f.NeedClient(); err != nil {
				return err
			}
		}
		_, err := f.NeedOCSPBridge()
		return err
	}
	for name, c := range map[string]struct{ yaml, key, want string }{
		"unknown key":               {strings.Replace(whole, "dir: ca", "dirr: ca", 1), "dirr", "not a key"},
		"unknown key in bridge":     {strings.Replace(whole, "not_issued", "notissued", 1), "notissued", "not a key"},
		"plain HTTP on a network":   {strings.NewReplacer("  tls: {cert: s.pem, key: s-key.pem, client_ca: members.pem}\n", "", "  logs_access: members\n", "").Replace(whole), "ocsp_bridge.listen", "insecure_http: true"},
		"TLS and plain HTTP":        {strings.Replace(whole, "  http_address", "  insecure_http: true\n  http_address", 1), "ocsp_bridge.insecure_http", "must not be set with tls"},
		"plain address, no port":    {strings.Replace(whole, "0.0.0.0:80", "0.0.0.0", 1), "ocsp_bridge.http_address", "host:port"},
		"client key alone":          {strings.Replace(whole, ", cert: me.pem", "", 1), "client.tls", "belong together"},
		"client pin alone":          {strings.Replace(whole, "issuer: ca.pem\n  policy: policy\n", "issuer: ca.pem\n", 1), "client.policy_fingerprint", "needs policy"},
		"unknown key of client TLS": {strings.Replace(whole, "{ca: org2-ca.pem", "{roots: org2-ca.pem", 1), "roots", "not a key"},
		"unknown key at the top":    {whole + "\nclients: {}\n", "clients", "not a key"},
		"wrong type":                {strings.Replace(whole, "ack_timeout: 4s", "ack_timeout: soon", 1), "", "soon"},
		"wrong type, list":          {strings.Replace(whole, `responders: ["http://127.0.0.1:8889"]`, "responders: 7", 1), "responders", "int was used"},
		"duplicate key":             {strings.Replace(whole, "dir: bridge", "dir: bridge\n  dir: b2", 1), "", "already defined"},
		"not YAML":                  {"ledger: [", "", ""},
		"two documents":             {whole + "\n---\nledger: {}\n", "document", "one YAML document"},
		"unknown engine":            {strings.Replace(whole, "engine: fabric", "engine: sql", 1), "ledger.engine", "embedded or fabric"},
		"engine without section":    {strings.Replace(whole, "engine: fabric", "engine: embedded", 1), "ledger.embedded", "either dir"},
		"no passphrase source":      {strings.Replace(whole, "passphrase: {file: pass}", "passphrase: {}", 1), "ca.passphrase", "exactly one"},
		"rule of a setting":         {strings.Replace(whole, "not_issued: unknown", "not_issued: maybe", 1), "ocsp_bridge", "not_issued"},
		"front without a key":       {strings.Replace(whole, ", key: \"MFkw", ", keys: \"MFkw", 1), "keys", "not a key"},
		"front with a bad key":      {strings.Replace(whole, "key: \"MFkw", "key: \"MFkx", 1), "ca.fronts[1].key", "base64"},
		"front without a URL":       {strings.Replace(whole, "url: \"https://org3.example/logs/00\", ", "", 1), "ca.fronts[1]", "needs url"},
		"front, both forms":         {strings.Replace(whole, "{log_list: org2-logs.json,", "{log_list: org2-logs.json, url: \"https://x.example\",", 1), "ca.fronts[0]", "either"},
		"incomplete enrolment":      {strings.Replace(whole, "issuer: ca.pem, ", "", 1), "ocsp_bridge.enrol", "issuer"},
		"unknown access":            {strings.Replace(whole, "logs_access: members", "logs_access: closed", 1), "ocsp_bridge.logs_access", "open or members"},
		"members without client CA": {strings.Replace(whole, ", client_ca: members.pem", "", 1), "ocsp_bridge.logs_access", "needs tls.client_ca"},
		"policy without pin":        {strings.Replace(whole, "policy_fingerprint: 00ff", "", 1), "ocsp_bridge.policy_fingerprint", "must be set with policy"},
		"pin without policy":        {strings.Replace(whole, "policy: policy\n  ", "", 1), "ocsp_bridge.policy_fingerprint", "only with it"},
		"peer without a key":        {strings.Replace(whole, "cosigner_key: c2, ", "", 1), "ocsp_bridge.peers[0]", "cosigner_key"},
		"peer without a scheme":     {strings.Replace(whole, "https://org2.example", "org2.example", 1), "ocsp_bridge.peers[0]", "url"},
		"submission without issuer": {strings.Replace(whole, "issuer: ca2.pem, ", "", 1), "ocsp_bridge.submit[0]", "issuer"},
		"public URL with a query":   {strings.Replace(whole, "policy: policy\n", "policy: policy\n  public_url: https://x/?a=b\n", 1), "ocsp_bridge.public_url", "without query"},
		"CRLs run out":              {strings.Replace(whole, "full_every: 2h", "full_every: 2h, validity: 2h", 1), "ca.crl.validity", "must be more than full_every"},
		"CRLs too rarely":           {strings.Replace(whole, "full_every: 2h", "full_every: 25h, validity: 48h", 1), "ca.crl.full_every", "24h0m0s"},
		"CRLs nobody serves":        {strings.Replace(whole, `publish: ["http://127.0.0.1:8889", "https://org3.example"]`, "publish: []", 1), "ca.crl.publish", "1 to 64"},
		"CRLs from nowhere":         {strings.Replace(whole, `responders: ["http://127.0.0.1:8889"]`, "responders: []", 1), "ca.crl.contents", "must name an OCSP bridge"},
		"CRL target twice":          {strings.Replace(whole, `"https://org3.example"]`, `"http://127.0.0.1:8889"]`, 1), "ca.crl.publish[1]", "occurs twice"},
		"CRL target without scheme": {strings.Replace(whole, `"https://org3.example"]`, `"org2.example"]`, 1), "ca.crl.publish[1]", "absolute http or https"},
		"CRL target with a query":   {strings.Replace(whole, `"https://org3.example"]`, `"https://org2.example?a=b"]`, 1), "ca.crl.publish[1]", "without query"},
		"contents without scheme":   {strings.Replace(whole, "full_every: 2h", "contents: x", 1), "ca.crl.contents", "absolute http or https"},
		"long-lived CRLs":           {strings.Replace(whole, "full_every: 2h", "validity: 241h", 1), "ca.crl.validity", "240h"},
		"negative validity":         {strings.Replace(whole, "full_every: 2h", "validity: -1h", 1), "ca.crl.validity", "240h"},
		"delta longer than all":     {strings.Replace(whole, "full_every: 2h", "delta_validity: 25h", 1), "ca.crl.delta_validity", "24h"},
		"deltas too rarely":         {strings.Replace(whole, "full_every: 2h", "delta_every: 40m", 1), "ca.crl.delta_every", "30m"},
		"polls too often":           {strings.Replace(whole, "full_every: 2h", "poll_every: 1ms", 1), "ca.crl.poll_every", "100ms"},
		"clocks too far apart":      {strings.Replace(whole, "full_every: 2h", "clock_tolerance: 2m", 1), "ca.crl.clock_tolerance", "1m"},
		"stale for too long":        {strings.Replace(whole, "full_every: 2h", "staleness: 24h", 1), "ca.crl.staleness", "less than validity"},
		"delta URL with a shard":    {strings.Replace(whole, "{ca}/delta.crl", "{shard}/delta.crl", 1), "ca.crl.delta_url", "must not contain {shard}"},
		"delta URL without scheme":  {strings.Replace(whole, "http://org1.example/crl", "org1.example/crl", 1), "ca.crl.delta_url", "absolute http or https"},
		"unknown key of CRLs":       {strings.Replace(whole, "full_every: 2h", "every: 2h", 1), "every", "not a key"},
		"log without its key":       {strings.Replace(whole, "key_file: bridge/ct/x.pem, ", "", 1), "ca.ct", "key_file"},
		"no bridge section":         {whole[:strings.Index(whole, "ocsp_bridge")], "ocsp_bridge", "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("c.yaml", []byte(c.yaml))
			if err == nil {
				err = check(f)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if !strings.Contains(e.Key, c.key) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "c.yaml") {
				t.Errorf("got %v; want key %q and %q", err, c.key, c.want)
			}
		})
	}
}

// ca serve asks for a list and takes an empty one; nothing is not the same.
func TestEmptyListOfRespondersIsAList(t *testing.T) {
	f, err := Parse("c.yaml", []byte(strings.Replace(whole, `responders: ["http://127.0.0.1:8889"]`, "responders: []", 1)))
	if err != nil || f.CA.Responders == nil || len(f.CA.Responders) != 0 {
		t.Errorf("got %v, %v", f, err)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.yaml")
	var e *Error
	if _, err := Load(path); !errors.As(err, &e) || e.Value != path {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("ledger: {engine: embedded, embedded: {dir: x}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("f.yaml", data)
		if (file == nil) == (err == nil) {
			t.Fatalf("got %v and %v", file, err)
		}
	})
}

const tokenKey = "pkcs11:token=t;object=o?module-path=/lib/p11.so&pin-source=file:/run/pin"

func TestKeysInTokensStandWhereTheyMayAndNowhereElse(t *testing.T) {
	for old, c := range map[string]struct{ with, key string }{
		"ct: {key_file: bridge/ct/x.pem,":                   {"ct: {key_file: \"" + tokenKey + "\",", "ca.ct.sct_file"},
		"ct: {key_file: bridge/ct/x.pem":                    {"ct: {key_file: x.pem, sct_file: x.scts", "ca.ct.sct_file"},
		"not_issued: unknown":                               {"responder_key: key.pem", "ocsp_bridge.responder_key"},
		"not_issued: unknown\n":                             {"log_keys: [{issuer: ca.pem, key: key.pem}]\n", "ocsp_bridge.log_keys[0]"},
		"  tls: {cert: s.pem, key: s-key.pem,":              {"  tls: {cert: s.pem, key: \"" + tokenKey + "\",", "ocsp_bridge.tls.key"},
		"key: /abs/key.pem":                                 {"key: \"" + tokenKey + "\"", "ledger.fabric.key"},
		"tls: {ca: org2-ca.pem, cert: me.pem, key: me-key.": {"tls: {ca: org2-ca.pem, cert: me.pem, key: \"" + tokenKey + "\"} #", "client.tls.key"},
	} {
		f, err := Parse("f.yaml", []byte(strings.Replace(whole, old, c.with, 1)))
		if err == nil {
			_, err = f.NeedCA()
		}
		if err == nil {
			_, err = f.NeedOCSPBridge()
		}
		var e *Error
		if !errors.As(err, &e) || e.Key != c.key || e.Rule == "" {
			t.Errorf("%s: got %v, want an error about %s", c.with, err, c.key)
		}
	}
	text := strings.Replace(whole, "ct: {key_file: bridge/ct/x.pem,", "ct: {key_file: \""+tokenKey+"\", sct_file: x.scts,", 1)
	text = strings.Replace(text, "key: crl-key.pem", "key: \""+tokenKey+"\"", 1)
	text = strings.Replace(text, "not_issued: unknown", "log_keys: [{issuer: ca.pem, key: \""+tokenKey+"\"}]\n  responders: [{cert: r.pem, key: \""+tokenKey+"\"}]", 1)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(filepath.Join(dir, "c.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if f.CA.CT.SCTFile != filepath.Join(dir, "x.scts") || f.OCSPBridge.LogKeys[0].Issuer != filepath.Join(dir, "ca.pem") {
		t.Errorf("paths: %s, %s", f.CA.CT.SCTFile, f.OCSPBridge.LogKeys[0].Issuer)
	}
	for name, key := range map[string]string{"ct": f.CA.CT.KeyFile, "indirect": f.OCSPBridge.CRL.Indirect.Key, "log": f.OCSPBridge.LogKeys[0].Key, "responder": f.OCSPBridge.Responders[0].KeyFile} {
		if key != tokenKey {
			t.Errorf("%s: the URI became %s", name, key)
		}
	}
}
