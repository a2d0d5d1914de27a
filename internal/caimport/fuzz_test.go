package caimport

import (
	"bytes"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// sound says whether a status is one that the contract could take, dates aside.
func sound(t *testing.T, st Status) {
	t.Helper()
	ok := st.Reason.Known()
	switch st.State {
	case wire.CertValid:
		ok = ok && st.Reason == 0 && st.Revoked == 0 && st.Invalidity == 0
	case wire.CertHeld:
		ok = ok && st.Reason == wire.CertificateHold && st.Invalidity == 0
	case wire.CertRevoked:
		ok = ok && st.Reason != wire.CertificateHold
	default:
		ok = false
	}
	if !ok {
		t.Errorf("status %+v", st)
	}
}

// testdata is what openssl has written.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzIndexLine(f *testing.F) {
	for _, s := range []string{
		"V\t271120184243Z\t\t01\tunknown\t/CN=a", "R\t271120184243Z\t261120184243Z,keyTime,20240101000000Z\t02\tunknown\t/CN=a",
		"R\t20551120184243Z\t261120184243Z,holdInstruction,holdInstructionReject\t03\tunknown\t/CN=a", "E\t991120184243Z\t\tFF\tx.pem\t/CN=a\\\tb", "\t\t\t\t\t", "#",
	} {
		f.Add(s)
	}
	for line := range strings.Lines(string(testdata(f, "index.txt"))) {
		f.Add(strings.TrimRight(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, b := parseIndexLine(Where{Source: "index.txt", Line: 1}, line)
		if b != nil {
			if e != nil || len(b.Value) > maxShown+3 || b.Field == "" || b.Rule == "" {
				t.Errorf("%+v with %+v", e, b)
			}
			return
		}
		sound(t, e.status)
		if e.serial.Check() != nil || e.notAfter.Year() < 1950 || (e.kind == 'R') != (e.status.State != wire.CertValid) {
			t.Errorf("%q is %+v", line, e)
		}
		if !strings.EqualFold(strings.TrimLeft(e.text, "0"), strings.TrimLeft(e.serial.String(), "0")) {
			t.Errorf("serial %s is read as %s", e.text, e.serial)
		}
	})
}

func FuzzSplitCerts(f *testing.F) {
	ca := cctest.NewCA(f)
	der, _ := ca.Issue(f)
	f.Add(der)
	f.Add(testdata(f, "01.pem"))
	f.Add(append(bytes.Clone(der), ca.DER...))
	f.Add(pemOf("CERTIFICATE", der))
	f.Add(append(pemOf("TRUSTED CERTIFICATE", der), pemOf("PRIVATE KEY", der)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		got := new(found)
		if err := splitCerts(bytes.NewReader(data), "fuzz", got.sink()); err != nil {
			t.Fatal(err) // there is no other error than the reader's
		}
		total := 0
		for _, r := range got.records {
			total += len(r.DER)
			serialIn(r.DER)
		}
		if total > len(data) {
			t.Errorf("%d octets of certificates out of %d", total, len(data))
		}
		// How the reader cuts what it reads must not matter.
		again := new(found)
		if err := splitCerts(iotest{bytes.NewReader(data)}, "fuzz", again.sink()); err != nil {
			t.Fatal(err)
		}
		if len(again.records) != len(got.records) || len(again.bad) != len(got.bad) {
			t.Errorf("%d and %d records, %d and %d faults", len(got.records), len(again.records), len(got.bad), len(again.bad))
		}
		contentOf(data)
	})
}

// iotest reads one octet at a time.
type iotest struct{ r io.Reader }

func (o iotest) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

// FuzzCRL holds the parser to crypto/x509: what both take has the same entries.
func FuzzCRL(f *testing.F) {
	ca := cctest.NewCA(f)
	f.Add(testdata(f, "crl.pem"))
	f.Add(newCRL(f, ca, 1, nil))
	f.Add(newCRL(f, ca, 2, []x509.RevocationListEntry{entryOf(1, 1), entryOf(2, 6), entryOf(3, 0)}))
	f.Add(newCRL(f, ca, 3, []x509.RevocationListEntry{entryOf(1, 8)}, deltaOf(f, 2)))
	f.Add(newCRL(f, ca, 3, nil, issuingPoint(0x81, 1, 0xff)))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseCRL(data)
		if err != nil {
			return
		}
		_ = l.Verify([]*x509.Certificate{ca.Cert})
		var serials []string
		whole := true
		err = l.Each(func(_ int, serial wire.Serial, st Status, err error) error {
			if err != nil {
				whole = false
				return nil
			}
			sound(t, st)
			serials = append(serials, serial.String())
			return nil
		})
		theirs, theirErr := x509.ParseRevocationList(data)
		if err != nil || theirErr != nil || !whole {
			return
		}
		if len(theirs.RevokedCertificateEntries) != len(serials) {
			t.Fatalf("%d entries, crypto/x509 has %d", len(serials), len(theirs.RevokedCertificateEntries))
		}
		for i, e := range theirs.RevokedCertificateEntries {
			if s, err := wire.SerialOf(e.SerialNumber); err != nil || s.String() != serials[i] {
				t.Errorf("entry %d is %s, crypto/x509 has %s, %v", i, serials[i], e.SerialNumber.Text(16), err)
			}
		}
		if theirs.Number != nil && (l.Number == nil || l.Number.Cmp(theirs.Number) != 0) || !l.ThisUpdate.Equal(theirs.ThisUpdate) {
			t.Errorf("number %v of %s, crypto/x509 has %v of %s", l.Number, l.ThisUpdate, theirs.Number, theirs.ThisUpdate)
		}
	})
}

func FuzzCertDBRow(f *testing.F) {
	f.Add("123456789", "good", "", "2026-01-02 03:04:05+00:00", "0001-01-01 00:00:00+00:00")
	f.Add("1461501637330902918203684832716283019655932542975", "revoked", "1", "2026-01-02T03:04:05Z", "2026-01-01 03:04:05")
	f.Add("-1", "revoked", "8", "", "")
	f.Fuzz(func(t *testing.T, serial, status, reason, expiry, at string) {
		rec, b := parseRow(Where{Source: "db", Entry: 1}, &dbRow{serial: serial, status: status, reason: reason, expiry: expiry, at: at})
		if b != nil {
			if rec != nil || b.Field == "" || b.Rule == "" {
				t.Errorf("%+v with %+v", rec, b)
			}
			return
		}
		sound(t, rec.Status)
		if rec.Serial.Int().String() != strings.TrimLeft(strings.TrimPrefix(serial, "+"), "0") || rec.NotAfter < 0 || rec.Status.State != wire.CertValid && rec.Status.Revoked <= 0 {
			t.Errorf("%q %q %q %q %q is %+v", serial, status, reason, expiry, at, rec)
		}
	})
}
