package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
)

const authSections = `
ca:
  dir: ca
  passphrase: {file: pass}
  tls: {cert: s.pem, key: s-key.pem}
  operators: {msp: org1/msp, roles: {operator: revoker}}
  rate: {per_second: 50, burst: 60, failures_per_minute: -1}
client:
  hmac_key_file: desk.hmac
  hmac_name: desk
  ca_tls: {ca: root.pem, cert: alice.pem, key: alice-key.pem}
`

func TestCredentialsAndRatesAreRead(t *testing.T) {
	f, err := Parse("c.yaml", []byte(authSections))
	if err != nil {
		t.Fatal(err)
	}
	f.resolve("/dir")
	c, err := f.NeedCA()
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Operators; o.MSP != filepath.Join("/dir", "org1/msp") || o.Roles["operator"] != ca.RoleRevoker {
		t.Errorf("%+v", o)
	}
	if c.Rate != (ca.RateSettings{PerSecond: 50, Burst: 60, FailuresPerMinute: -1}) {
		t.Errorf("%+v", c.Rate)
	}
	client, err := f.NeedClient()
	if err != nil {
		t.Fatal(err)
	}
	if client.HMACKeyFile != "/dir/desk.hmac" || client.HMACName != "desk" || *client.CATLS != (ClientTLS{CA: "/dir/root.pem", Cert: "/dir/alice.pem", Key: "/dir/alice-key.pem"}) {
		t.Errorf("%+v", client)
	}
	for text, want := range map[string]string{
		"ca: {dir: ca, passphrase: {file: pass}, operators: {msp: x}}":                                           "ca.operators",
		"ca: {dir: ca, passphrase: {file: pass}, tls: {cert: a, key: b}, operators: {}}":                         "ca.operators.msp",
		"ca: {dir: ca, passphrase: {file: pass}, tls: {cert: a, key: b}, operators: {msp: x, roles: {a: boss}}}": "ca.operators.roles.a",
		"ca: {dir: ca, passphrase: {file: pass}, rate: {burst: -1}}":                                             "ca.rate.burst",
		"client: {ca_tls: {cert: a}}": "client.ca_tls",
		"ca: {dir: ca, passphrase: {file: pass}, tls: {cert: a, key: b}, operators: {msp: x}}\nclient: {ca_tls: {key: 'pkcs11:x'}}": "client.ca_tls.key",
	} {
		f, err := Parse("c.yaml", []byte(text))
		if err == nil && f.CA != nil {
			_, err = f.NeedCA()
		}
		if err == nil && f.Client != nil {
			_, err = f.NeedClient()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
