package caimport

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// newCRL signs a CRL of crypto/x509's making.
func newCRL(t testing.TB, ca *cctest.CA, number int64, entries []x509.RevocationListEntry, more ...pkix.Extension) []byte {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour), RevokedCertificateEntries: entries, ExtraExtensions: more,
	}, ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func entryOf(serial int64, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: time.Now().Add(-time.Hour).Truncate(time.Second), ReasonCode: reason}
}

func deltaOf(t testing.TB, base int64) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(big.NewInt(base))
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidDelta, Critical: true, Value: der}
}

func issuingPoint(content ...byte) pkix.Extension {
	return pkix.Extension{Id: oidIssuingPoint, Critical: true, Value: append([]byte{0x30, byte(len(content))}, content...)}
}

func TestCRLsThatAreRefused(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	noSign := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithTemplate(func(c *x509.Certificate) {
		c.RawSubject, c.Subject, c.KeyUsage = nil, ca.Cert.Subject, x509.KeyUsageCertSign
	}))
	broken := newCRL(t, ca, 1, nil)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		der     []byte
		issuers []*x509.Certificate
		want    string
	}{
		"another CA's":          {newCRL(t, other, 1, nil), nil, "issuer"},
		"a broken signature":    {broken, nil, "signature"},
		"no cRLSign":            {newCRL(t, ca, 1, nil), []*x509.Certificate{noSign.Cert}, "cRLSign"},
		"indirect":              {newCRL(t, ca, 1, nil, issuingPoint(0x84, 1, 0xff)), nil, "indirect"},
		"attributes":            {newCRL(t, ca, 1, nil, issuingPoint(0x85, 1, 0xff)), nil, "onlyContainsAttributeCerts"},
		"critical, unknown":     {newCRL(t, ca, 1, nil, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}), nil, "1.2.3"},
		"no CRL":                {[]byte("hello"), nil, "PEM"},
		"a certificate":         {ca.DER, nil, "CRL"},
		"something after it":    {append(newCRL(t, ca, 1, nil), 0), nil, "SEQUENCE"},
		"a number of 21 octets": {newCRL(t, ca, 1, nil, pkix.Extension{Id: oidDelta, Critical: true, Value: append([]byte{2, 21}, make([]byte, 20)...)}), nil, "INTEGER"},
	} {
		if c.issuers == nil {
			c.issuers = []*x509.Certificate{ca.Cert}
		}
		l, err := ParseCRL(c.der)
		if err == nil {
			err = l.Verify(c.issuers)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAScopeMakesACRLPartial(t *testing.T) {
	ca := cctest.NewCA(t)
	for _, c := range []struct {
		der  []byte
		want bool
	}{{newCRL(t, ca, 1, nil), false}, {newCRL(t, ca, 1, nil, issuingPoint(0x81, 1, 0xff)), true}} {
		l, err := ParseCRL(c.der)
		if err != nil || l.Partial != c.want {
			t.Errorf("partial %v, %v", l.Partial, err)
		}
	}
}

func TestADeltaNeedsItsBase(t *testing.T) {
	ca := cctest.NewCA(t)
	authority := &Authority{ID: ca.ID, Certs: []*x509.Certificate{ca.Cert}}
	dir := t.TempDir()
	file := func(name string, der []byte) *crlFile {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, der, 0o600); err != nil {
			t.Fatal(err)
		}
		return &crlFile{path: path, ca: authority}
	}
	base4, base5 := file("4", newCRL(t, ca, 4, nil)), file("5", newCRL(t, ca, 5, []x509.RevocationListEntry{entryOf(7, 6)}))
	delta := file("delta", newCRL(t, ca, 6, []x509.RevocationListEntry{entryOf(7, 8)}, deltaOf(t, 5)))
	if err := orderCRLs([]source{delta}); err == nil || !strings.Contains(err.Error(), "deltaCRLIndicator") {
		t.Errorf("a delta alone: %v", err)
	}
	if err := orderCRLs([]source{delta, base4}); err == nil {
		t.Error("a delta is taken with a CRL older than its base")
	}
	all := []source{delta, base5, base4}
	if err := orderCRLs(all); err != nil || all[2] != source(delta) {
		t.Errorf("order %v, %v", all, err)
	}
}

func TestEntriesThatCannotBeReadDoNotHideOthers(t *testing.T) {
	ca := cctest.NewCA(t)
	unknown := entryOf(2, 0)
	unknown.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	indirect := entryOf(3, 0)
	indirect.ExtraExtensions = []pkix.Extension{{Id: oidCertIssuer, Critical: true, Value: []byte{0x30, 0}}}
	l, err := ParseCRL(newCRL(t, ca, 1, []x509.RevocationListEntry{entryOf(1, 1), unknown, indirect, entryOf(4, 8), entryOf(5, 7), entryOf(6, 6)}))
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]wire.CertState{}
	faults := 0
	err = l.Each(func(_ int, serial wire.Serial, st Status, err error) error {
		if err != nil {
			faults++
			return nil
		}
		states[serial.String()] = st.State
		return nil
	})
	if err != nil || faults != 4 || len(states) != 2 || states["01"] != wire.CertRevoked || states["06"] != wire.CertHeld {
		t.Errorf("%v, %d faults, %v", states, faults, err)
	}
}
