package caimport

import (
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/certdb"
	certsql "github.com/cloudflare/cfssl/certdb/sql"
	"github.com/jmoiron/sqlx"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// cfsslSchema is cfssl's certdb/sqlite/migrations, the first of which CAs of before 2020 have alone.
var cfsslSchema = []string{
	`CREATE TABLE certificates (
  serial_number            blob NOT NULL,
  authority_key_identifier blob NOT NULL,
  ca_label                 blob,
  status                   blob NOT NULL,
  reason                   int,
  expiry                   timestamp,
  revoked_at               timestamp,
  pem                      blob NOT NULL,
  PRIMARY KEY(serial_number, authority_key_identifier)
);`,
	`ALTER TABLE certificates ADD COLUMN "issued_at" timestamp;
ALTER TABLE certificates ADD COLUMN "not_before" timestamp;
ALTER TABLE certificates ADD COLUMN "metadata" text;
ALTER TABLE certificates ADD COLUMN "sans" text;
ALTER TABLE certificates ADD COLUMN "common_name" text;`,
}

// cfsslDB is a database that cfssl's own code writes, with times in the form that the driver of stock cfssl gives them.
type cfsslDB struct {
	path string
	certdb.Accessor
}

func newCFSSL(t testing.TB) *cfsslDB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certs #1.db") // a name that must be escaped in a URL
	uri := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "_pragma=synchronous(off)&_pragma=journal_mode(memory)&_timefmt=" + url.QueryEscape("2006-01-02 15:04:05.999999999-07:00")}
	db, err := sql.Open("sqlite3", uri.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, statement := range cfsslSchema {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	return &cfsslDB{path: path, Accessor: certsql.NewAccessor(sqlx.NewDb(db, "sqlite3"))}
}

// insert records a certificate as cfssl's signer does after signing it.
func (d *cfsslDB) insert(t testing.TB, cert *x509.Certificate) {
	t.Helper()
	if err := d.InsertCertificate(certdb.CertificateRecord{
		Serial: cert.SerialNumber.String(), AKI: hex.EncodeToString(cert.AuthorityKeyId), Status: "good", Expiry: cert.NotAfter,
		PEM: string(pemOf("CERTIFICATE", cert.Raw)),
	}); err != nil {
		t.Fatal(err)
	}
}

func (d *cfsslDB) revoke(t testing.TB, cert *x509.Certificate, reason int) {
	t.Helper()
	if err := d.RevokeCertificate(cert.SerialNumber.String(), hex.EncodeToString(cert.AuthorityKeyId), reason); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCFSSLRecordsIsRead(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	db := newCFSSL(t)
	const rows = 5
	certs := make([]*x509.Certificate, 3*rows+2) // several pages
	for i := range certs {
		_, certs[i] = ca.Issue(t)
		db.insert(t, certs[i])
	}
	_, foreign := other.Issue(t)
	db.insert(t, foreign)
	began := time.Now().Truncate(time.Second)
	db.revoke(t, certs[1], 1)
	db.revoke(t, certs[2], 6)
	db.revoke(t, certs[rows], 0)

	f := new(found)
	src := &certDB{path: db.path, ca: &Authority{ID: ca.ID, Certs: []*x509.Certificate{ca.Cert}}, rows: rows}
	if err := src.read(f.sink()); err != nil {
		t.Fatal(err)
	}
	if len(f.bad) > 0 || len(f.records) != 2*len(certs) || f.skipped["row of another CA"] != 1 {
		t.Fatalf("%d records, bad %v, skipped %v", len(f.records), f.bad, f.skipped)
	}
	want := map[int]Status{
		1: {State: wire.CertRevoked, Reason: wire.KeyCompromise}, 2: {State: wire.CertHeld, Reason: wire.CertificateHold}, rows: {State: wire.CertRevoked},
	}
	for i, cert := range certs {
		said, shown := f.records[2*i], f.records[2*i+1]
		if string(shown.DER) != string(cert.Raw) || said.Serial.Int().Cmp(cert.SerialNumber) != 0 || said.NotAfter != wire.MillisOf(cert.NotAfter) {
			t.Fatalf("certificate %d is read as %+v", i, said)
		}
		w, ok := want[i]
		if !ok {
			w.State = wire.CertValid
		} else if at := said.Status.Revoked.Time(); at.Before(began) || at.After(time.Now()) {
			t.Errorf("certificate %d was revoked at %s", i, at)
		}
		if w.Revoked = said.Status.Revoked; said.Status != w {
			t.Errorf("certificate %d is %+v, want %+v", i, said.Status, w)
		}
	}
}

func TestRowsThatAreRefused(t *testing.T) {
	for field, r := range map[string]dbRow{
		"serial_number": {serial: "abc", status: "good"},
		"status":        {serial: "1", status: "pending"},
		"expiry":        {serial: "1", status: "good", expiry: "soon"},
		"revoked_at":    {serial: "1", status: "revoked", at: "0001-01-01 00:00:00+00:00"},
		"reason":        {serial: "1", status: "revoked", at: "2026-01-01 00:00:00", reason: "8"},
	} {
		if rec, b := parseRow(Where{Source: "db", Entry: 3}, &r); b == nil || b.Field != field || b.Where != "db, entry 3" {
			t.Errorf("%s: %+v, %v", field, rec, b)
		}
	}
}

func TestADatabaseThatIsNoneIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, []byte("SQLite format 3\x00 but no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := cctest.NewCA(t)
	err := (&certDB{path: path, ca: &Authority{ID: ca.ID, Certs: []*x509.Certificate{ca.Cert}}}).read(new(found).sink())
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}
