package fabric

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestRoleIsWhatTheContractSees(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	withAttributes := func(value string) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
		if value != "" {
			c.ExtraExtensions = []pkix.Extension{{Id: attributesOID, Value: []byte(value)}}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for _, c := range []struct {
		cert []byte
		want string
	}{
		{withAttributes(`{"attrs":{"certanchor.role":"operator","other":"x"}}`), wire.RoleOperator},
		{withAttributes(`{"attrs":{"other":"operator"}}`), ""},
		{withAttributes(`{"attrs":["certanchor.role"]}`), ""},
		{withAttributes(""), ""},
		{[]byte("no certificate"), ""},
		{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30}}), ""},
	} {
		if got := roleOf(c.cert); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	b, err := parseBlock(realBlock(t, "issue-1.block"), "certanchor")
	if err != nil || b.Txs[0].Role != wire.RoleOperator {
		t.Errorf("of a real block: %+v, %v", b, err)
	}
}
