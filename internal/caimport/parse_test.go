package caimport

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport/importtest"
)

func millis(t testing.TB, s string) wire.Millis {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return wire.MillisOf(at)
}

func TestIndexLinesAreReadAsOpenSSLWritesThem(t *testing.T) {
	revoked := millis(t, "2026-11-20T18:42:43Z")
	for name, c := range map[string]struct {
		line string
		want Status
		kind byte
	}{
		"valid":      {"V\t271120184243Z\t\t01\tunknown\t/CN=a", Status{State: wire.CertValid}, 'V'},
		"expired":    {"E\t991120184243Z\t\t0A\tunknown\t/CN=a", Status{State: wire.CertValid}, 'E'},
		"revoked":    {"R\t271120184243Z\t261120184243Z\t01\tunknown\t/CN=a", Status{State: wire.CertRevoked, Revoked: revoked}, 'R'},
		"reason":     {"R\t271120184243Z\t261120184243Z,keyCompromise\t01\tunknown\t/CN=a", Status{State: wire.CertRevoked, Reason: wire.KeyCompromise, Revoked: revoked}, 'R'},
		"CA's":       {"R\t271120184243Z\t261120184243Z,CACompromise\t01\tunknown\t/CN=a", Status{State: wire.CertRevoked, Reason: wire.CACompromise, Revoked: revoked}, 'R'},
		"hold":       {"R\t271120184243Z\t261120184243Z,certificateHold\t01\tunknown\t/CN=a", Status{State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: revoked}, 'R'},
		"hold, more": {"R\t271120184243Z\t261120184243Z,holdInstruction,holdInstructionReject\t01\tunknown\t/CN=a", Status{State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: revoked}, 'R'},
		"key since": {
			"R\t271120184243Z\t261120184243Z,keyTime,20240101000000Z\t01\tunknown\t/CN=a",
			Status{State: wire.CertRevoked, Reason: wire.KeyCompromise, Revoked: revoked, Invalidity: millis(t, "2024-01-01T00:00:00Z")}, 'R',
		},
		"CA key since": {
			"R\t271120184243Z\t20261120184243Z,CAkeyTime,20240101000000Z\t01\tunknown\t/CN=a",
			Status{State: wire.CertRevoked, Reason: wire.CACompromise, Revoked: revoked, Invalidity: millis(t, "2024-01-01T00:00:00Z")}, 'R',
		},
		"generalized":     {"V\t20551120184243Z\t\t0102030405060708090A0B0C0D0E0F1011121314\tunknown\t/CN=a", Status{State: wire.CertValid}, 'V'},
		"no seconds":      {"V\t2711201842Z\t\t01\tunknown\t/CN=a", Status{State: wire.CertValid}, 'V'},
		"offset":          {"V\t271120194243+0100\t\t01\tunknown\t/CN=a", Status{State: wire.CertValid}, 'V'},
		"file name":       {"V\t271120184243Z\t\t01\tcerts/a.pem\t/CN=a", Status{State: wire.CertValid}, 'V'},
		"tab in subject":  {"V\t271120184243Z\t\t01\tunknown\t/CN=a\\\tb", Status{State: wire.CertValid}, 'V'},
		"subject is free": {"V\t271120184243Z\t\t01\tunknown\t/CN=\\xC3\\xA9/O=\"x\"", Status{State: wire.CertValid}, 'V'},
	} {
		e, b := parseIndexLine(Where{Source: "index.txt", Line: 1}, c.line)
		if b != nil {
			t.Errorf("%s: %v", name, b)
		} else if e.status != c.want || e.kind != c.kind {
			t.Errorf("%s: %c %+v, want %c %+v", name, e.kind, e.status, c.kind, c.want)
		}
	}
}

func TestIndexLinesThatAreRefusedNameFieldAndRule(t *testing.T) {
	for _, c := range []struct{ line, field string }{
		{"", "line"},
		{"V\t271120184243Z\t\t01\tunknown", "line"},
		{"V\t271120184243Z\t\t01\tunknown\t/CN=a\tmore", "line"},
		{"X\t271120184243Z\t\t01\tunknown\t/CN=a", "type"},
		{"VV\t271120184243Z\t\t01\tunknown\t/CN=a", "type"},
		{"V\t2711201842\t\t01\tunknown\t/CN=a", "expiration"},
		{"V\t271320184243Z\t\t01\tunknown\t/CN=a", "expiration"},
		{"V\t271120184243Zx\t\t01\tunknown\t/CN=a", "expiration"},
		{"V\t19401120184243Z\t\t01\tunknown\t/CN=a", "expiration"},
		{"V\t271120184243Z\t261120184243Z\t01\tunknown\t/CN=a", "revocation"},
		{"R\t271120184243Z\t\t01\tunknown\t/CN=a", "revocation.date"},
		{"R\t271120184243Z\t261120184243Z,\x00\t01\tunknown\t/CN=a", "revocation.reason"},
		{"R\t271120184243Z\t261120184243Z,keyCompromise,more\t01\tunknown\t/CN=a", "revocation.reason"},
		{"R\t271120184243Z\t261120184243Z,removeFromCRL\t01\tunknown\t/CN=a", "revocation.reason"},
		{"R\t271120184243Z\t261120184243Z,keyTime\t01\tunknown\t/CN=a", "revocation.time_of_compromise"},
		{"V\t271120184243Z\t\t\tunknown\t/CN=a", "serial"},
		{"V\t271120184243Z\t\t00\tunknown\t/CN=a", "serial"},
		{"V\t271120184243Z\t\t-01\tunknown\t/CN=a", "serial"},
		{"V\t271120184243Z\t\t0x01\tunknown\t/CN=a", "serial"},
		{"V\t271120184243Z\t\t" + strings.Repeat("11", 21) + "\tunknown\t/CN=a", "serial"},
	} {
		e, b := parseIndexLine(Where{Source: "index.txt", Line: 7}, c.line)
		switch {
		case b == nil:
			t.Errorf("%q is read as %+v", c.line, e)
		case b.Field != c.field || b.Where != "index.txt:7" || b.Rule == "":
			t.Errorf("%q: %v, want field %s", c.line, b, c.field)
		}
	}
}

func TestYearsOfTwoDigitsAreThoseOfRFC5280(t *testing.T) {
	for s, want := range map[string]int{"500101000000Z": 1950, "690101000000Z": 1969, "991231235959Z": 1999, "000101000000Z": 2000, "491231235959Z": 2049} {
		if at, err := parseASN1Time(s); err != nil || at.Year() != want {
			t.Errorf("%s is %v, %v", s, at, err)
		}
	}
}

// found is what a source finds.
type found struct {
	records []*Record
	bad     []*Bad
	skipped map[string]int
}

func (f *found) sink() *sink {
	f.skipped = map[string]int{}
	return &sink{
		record: func(r *Record) error { f.records = append(f.records, r); return nil },
		bad:    func(b *Bad) error { f.bad = append(f.bad, b); return nil },
		skip:   func(kind string) { f.skipped[kind]++ },
	}
}

func split(t testing.TB, data []byte) *found {
	t.Helper()
	f := new(found)
	if err := splitCerts(bytes.NewReader(data), "certs", f.sink()); err != nil {
		t.Fatal(err)
	}
	return f
}

func pemOf(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func TestCertificatesAreFoundInPEMAndInDER(t *testing.T) {
	ca := cctest.NewCA(t)
	ders := ca.IssueMany(t, 5)
	var asPEM, asDER []byte
	for _, der := range ders {
		asPEM = append(asPEM, "Certificate:\n    Data: - - -\n"...)
		asPEM = append(asPEM, pemOf("CERTIFICATE", der)...)
		asDER = append(asDER, der...)
	}
	crlf := bytes.ReplaceAll(asPEM, []byte("\n"), []byte("\r\n"))
	noEnd := bytes.TrimRight(asPEM, "\n")
	for name, data := range map[string][]byte{"PEM": asPEM, "DER": asDER, "CRLF": crlf, "no last line feed": noEnd} {
		f := split(t, data)
		if len(f.bad) > 0 || len(f.records) != len(ders) {
			t.Errorf("%s: %d records, %v", name, len(f.records), f.bad)
			continue
		}
		for i, r := range f.records {
			if !bytes.Equal(r.DER, ders[i]) {
				t.Errorf("%s: certificate %d is another", name, i)
			}
		}
	}
	if f := split(t, asDER); f.records[1].Where.Offset != int64(len(ders[0])) {
		t.Errorf("the second is at %v", f.records[1].Where)
	}
}

func TestWhatIsNoCertificateIsPassedByOrReported(t *testing.T) {
	ca := cctest.NewCA(t)
	der, _ := ca.Issue(t)
	one := pemOf("CERTIFICATE", der)
	trusted := pemOf("TRUSTED CERTIFICATE", append(bytes.Clone(der), 0x30, 0x03, 1, 2, 3))
	for name, c := range map[string]struct {
		data         []byte
		records, bad int
		skipped      string
	}{
		"a key between":       {append(pemOf("PRIVATE KEY", []byte("secret")), one...), 1, 0, "PEM PRIVATE KEY"},
		"openssl's trusted":   {trusted, 1, 0, ""},
		"nothing":             {nil, 0, 0, ""},
		"text":                {[]byte("hello\n"), 0, 0, ""},
		"no end":              {one[:len(one)-30], 0, 1, ""},
		"a second begin":      {append(bytes.Clone(one[:len(one)/2]), append([]byte("\n"), one...)...), 1, 1, ""},
		"another end":         {bytes.Replace(one, []byte("END CERTIFICATE"), []byte("END X509 CRL"), 1), 0, 1, ""},
		"no base64":           {bytes.Replace(one, []byte("\nMII"), []byte("\n?II"), 1), 0, 1, ""},
		"too big":             {pemOf("CERTIFICATE", make([]byte, 2*wire.MaxCertDER)), 0, 1, ""},
		"DER cut off":         {der[:len(der)-1], 0, 1, ""},
		"DER, then a line":    {append(bytes.Clone(der), '\n'), 1, 1, ""},
		"DER too big":         {[]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0}, 0, 1, ""},
		"DER indefinite":      {[]byte{0x30, 0x80, 0, 0}, 0, 0, ""},
		"DER length too long": {[]byte{0x30, 0x85, 1, 1, 1, 1, 1}, 0, 1, ""},
	} {
		f := split(t, c.data)
		if len(f.records) != c.records || len(f.bad) != c.bad || c.skipped != "" && f.skipped[c.skipped] != 1 {
			t.Errorf("%s: %d records, bad %v, skipped %v", name, len(f.records), f.bad, f.skipped)
		}
	}
	if f := split(t, trusted); !bytes.Equal(f.records[0].DER, der) {
		t.Error("what openssl adds to a trusted certificate is taken for part of it")
	}
}

func TestContentIsRecognised(t *testing.T) {
	ca := cctest.NewCA(t)
	der, _ := ca.Issue(t)
	crl := newCRL(t, ca, 1, nil)
	for name, c := range map[string]struct {
		data []byte
		want content
	}{
		"index":        {[]byte("V\t271120184243Z\t\t01\tunknown\t/CN=a\n"), isIndex},
		"DER":          {der, isCerts},
		"its start":    {der[:400], isCerts},
		"DER CRL":      {crl, isCRL},
		"PEM":          {pemOf("CERTIFICATE", der), isCerts},
		"PEM, text":    {append([]byte("Certificate:\n"), pemOf("CERTIFICATE", der)...), isCerts},
		"PEM CRL":      {pemOf("X509 CRL", crl), isCRL},
		"SQLite":       {[]byte("SQLite format 3\x00..."), isCertDB},
		"key":          {pemOf("PRIVATE KEY", der), isOther},
		"text":         {[]byte("V2"), isOther},
		"nothing":      {nil, isEmpty},
		"another DER":  {[]byte{0x30, 0x82, 0, 5, 2, 1, 1, 2, 1}, isOther},
		"DER no tbs":   {[]byte{0x30, 0x81, 0x80, 4, 0}, isOther},
		"DER, 1 octet": {[]byte{0x30}, isOther},
	} {
		if got := contentOf(c.data); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestRealIndexAndCRLSayTheSame holds both parsers to what openssl wrote about the same revocations.
func TestRealIndexAndCRLSayTheSame(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(9)
	ca.Revoke("01", "-crl_reason", "keyCompromise")
	ca.Revoke("02", "-crl_compromise", "20240101000000Z")
	ca.Revoke("03", "-crl_hold", "holdInstructionReject")
	ca.Revoke("04", "-crl_CA_compromise", "20240102000000Z")
	ca.Revoke("05", "-crl_reason", "certificateHold")
	ca.Revoke("06")
	for i, reason := range []string{"affiliationChanged", "superseded", "cessationOfOperation"} {
		ca.Revoke([]string{"07", "08", "09"}[i], "-crl_reason", reason)
	}
	byIndex, byCRL := new(found), new(found)
	if err := (&index{path: ca.Path("index.txt")}).read(byIndex.sink()); err != nil {
		t.Fatal(err)
	}
	authority := &Authority{ID: ca.ID, Certs: []*x509.Certificate{ca.Cert}}
	if err := (&crlFile{path: ca.CRL(), ca: authority}).read(byCRL.sink()); err != nil {
		t.Fatal(err)
	}
	if len(byIndex.bad)+len(byCRL.bad) > 0 || len(byIndex.records) != 9 || len(byCRL.records) != 9 {
		t.Fatalf("%d and %d records, bad %v %v", len(byIndex.records), len(byCRL.records), byIndex.bad, byCRL.bad)
	}
	for i, r := range byIndex.records {
		other := byCRL.records[i]
		if r.Serial.String() != other.Serial.String() || r.Status != other.Status {
			t.Errorf("index.txt says %s %+v, the CRL %s %+v", r.Serial, r.Status, other.Serial, other.Status)
		}
		if r.Status.State != wire.CertRevoked && r.Status.State != wire.CertHeld {
			t.Errorf("%s is in state %d", r.Serial, r.Status.State)
		}
	}
}

func TestTreesAreReadInOrderAndPassOtherFilesBy(t *testing.T) {
	ca := cctest.NewCA(t)
	ders := ca.IssueMany(t, 3)
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b/2.der", ders[1])
	write("a/1.pem", pemOf("CERTIFICATE", ders[0]))
	write("c.crt", pemOf("CERTIFICATE", ders[2]))
	write("a/key.pem", pemOf("PRIVATE KEY", []byte("secret")))
	write("a/crl.pem", pemOf("X509 CRL", newCRL(t, ca, 1, nil)))
	write("empty", nil)
	if err := os.Symlink(dir, filepath.Join(dir, "circle")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("c.crt", filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	f := new(found)
	if err := (&tree{path: dir}).read(f.sink()); err != nil {
		t.Fatal(err)
	}
	want := []int{0, 2, 1, 2} // a/1.pem, again, b/2.der, c.crt
	if len(f.records) != len(want) || len(f.bad) > 0 {
		t.Fatalf("%d records, bad %v", len(f.records), f.bad)
	}
	for i, w := range want {
		if !bytes.Equal(f.records[i].DER, ders[w]) {
			t.Errorf("record %d, %v, is another certificate than %d", i, f.records[i].Where, w)
		}
	}
	if f.skipped["CRL"] != 1 || f.skipped["empty file"] != 1 || f.skipped["file of another kind"] != 1 {
		t.Errorf("passed by: %v", f.skipped)
	}
}
