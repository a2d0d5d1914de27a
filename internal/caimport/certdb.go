package caimport

import (
	"bytes"
	"cmp"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver" // SQLite without cgo, in a sandbox: the file is somebody else's
	_ "github.com/ncruces/go-sqlite3/embed"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// certDB is cfssl's database of certificates in SQLite.
type certDB struct {
	path string
	ca   *Authority
	rows int // that one statement reads; default rowsAtOnce
}

func (d *certDB) name() string { return d.path }
func (d *certDB) kind() string { return "certdb" }

// rowsAtOnce is few, because the database is locked while a statement reads. Between two the CA goes on issuing.
const rowsAtOnce = 500

// The casts undo cfssl's declared types, so that what is stored is seen and not what a driver makes of it.
const selectRows = `SELECT rowid, CAST(serial_number AS TEXT), CAST(authority_key_identifier AS TEXT), CAST(status AS TEXT), CAST(coalesce(reason, '') AS TEXT),
	CAST(coalesce(expiry, '') AS TEXT), CAST(coalesce(revoked_at, '') AS TEXT), CAST(coalesce(pem, '') AS TEXT)
	FROM certificates WHERE rowid > ? ORDER BY rowid LIMIT ?`

// dbRow is a row of the table certificates, as text.
type dbRow struct {
	id                                                        int64
	serial, authorityKeyID, status, reason, expiry, at, certs string
}

func (d *certDB) read(s *sink) (err error) {
	abs, err := filepath.Abs(d.path)
	if err != nil {
		return err
	}
	uri := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs), RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite3", uri.String())
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	for last := int64(math.MinInt64); ; {
		rows, err := d.page(db, last)
		if err != nil {
			return fmt.Errorf("%s: table certificates: %w", d.path, err)
		}
		if len(rows) == 0 {
			return nil
		}
		for i := range rows {
			if err := d.row(s, &rows[i]); err != nil {
				return err
			}
		}
		last = rows[len(rows)-1].id
	}
}

func (d *certDB) page(db *sql.DB, after int64) (page []dbRow, err error) {
	rows, err := db.Query(selectRows, after, cmp.Or(d.rows, rowsAtOnce))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r dbRow
		if err := rows.Scan(&r.id, &r.serial, &r.authorityKeyID, &r.status, &r.reason, &r.expiry, &r.at, &r.certs); err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

func (d *certDB) row(s *sink, r *dbRow) error {
	if !d.ours(r.authorityKeyID) {
		s.skip("row of another CA")
		return nil
	}
	w := Where{Source: d.path, Entry: int(r.id)}
	rec, b := parseRow(w, r)
	if b != nil {
		return s.bad(b)
	}
	if err := s.record(rec); err != nil || r.certs == "" {
		return err
	}
	n := 0
	return splitCerts(strings.NewReader(r.certs), w.String(), &sink{
		record: func(c *Record) error {
			if n++; n > 1 {
				return nil // what follows the certificate is its chain
			}
			if serial := serialIn(c.DER); serial != nil && !bytes.Equal(serial, rec.Serial) {
				return s.bad(bad(w, "pem.serial", serial.String(), "must be that of the row, %s", rec.Serial))
			}
			return s.record(&Record{Where: w, DER: c.DER})
		},
		bad: s.bad, skip: s.skip,
	})
}

// ours: one database may have the certificates of several CAs.
func (d *certDB) ours(authorityKeyID string) bool {
	for _, c := range d.ca.Certs {
		if strings.EqualFold(authorityKeyID, hex.EncodeToString(c.SubjectKeyId)) {
			return true
		}
	}
	return false
}

// maxDecimal is how many digits a serial number of 20 octets has at most.
const maxDecimal = 49

// parseRow reads what cfssl's certdb.CertificateRecord has of a certificate's status. The serial number is decimal.
func parseRow(w Where, r *dbRow) (*Record, *Bad) {
	n, ok := new(big.Int), len(r.serial) <= maxDecimal
	if ok {
		_, ok = n.SetString(r.serial, 10)
	}
	serial, err := wire.SerialOf(n)
	if !ok || err != nil {
		return nil, bad(w, "serial_number", r.serial, "must be a positive decimal number of at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	rec := &Record{Where: w, Serial: serial}
	if t, err := parseDBTime(r.expiry); err == nil && t.UnixMilli() > 0 {
		rec.NotAfter = wire.MillisOf(t)
	} else if r.expiry != "" && err != nil {
		return nil, bad(w, "expiry", r.expiry, "%v", err).about(serial)
	}
	switch r.status {
	case "good":
		rec.Status.State = wire.CertValid
		return rec, nil
	case "revoked":
	default:
		return nil, bad(w, "status", r.status, "must be good or revoked").about(serial)
	}
	at, err := parseDBTime(r.at)
	if err != nil || at.UnixMilli() <= 0 {
		return nil, bad(w, "revoked_at", r.at, "must be when it was revoked, such as 2026-01-31 12:00:00").about(serial)
	}
	reason, err := strconv.ParseUint(cmp.Or(r.reason, "0"), 10, 8)
	if err != nil || !wire.Reason(reason).Known() {
		return nil, bad(w, "reason", r.reason, "must be the number of a reason of RFC 5280 section 5.3.1, but not removeFromCRL (8)").about(serial)
	}
	rec.Status = Status{State: stateOf(wire.Reason(reason)), Reason: wire.Reason(reason), Revoked: wire.MillisOf(at)}
	return rec, nil
}

// The forms of SQLite's CURRENT_TIMESTAMP, which is in UTC, and of what drivers of Go write.
var dbTimes = []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05-07:00", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05 -0700 MST"}

func parseDBTime(s string) (time.Time, error) {
	for _, layout := range dbTimes {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("must be a time such as 2026-01-31 12:00:00")
}
