package pemcert

import (
	"encoding/pem"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
)

func TestCertificatesAndNothingElse(t *testing.T) {
	ca := cctest.NewCA(t)
	one := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.DER}))
	certs, err := Parse([]byte("a comment\n" + one + one))
	if err != nil || len(certs) != 2 || !certs[1].Equal(ca.Cert) {
		t.Errorf("got %d certificates, %v", len(certs), err)
	}
	for name, c := range map[string]struct{ data, want string }{
		"empty":      {"", "no PEM certificate"},
		"text":       {"hello", "no PEM certificate"},
		"a key":      {one + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PRIVATE KEY"},
		"a bad cert": {one + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 2"},
	} {
		if _, err := Parse([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if certs, err := Parse(data); (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates, %v", len(certs), err)
		}
	})
}
