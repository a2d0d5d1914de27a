package caimport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maxLine bounds a line of index.txt. Names are the longest part.
const maxLine = 64 << 10

// indexEntry is a line of openssl's index.txt.
type indexEntry struct {
	kind     byte // V, R or E
	status   Status
	notAfter time.Time
	serial   wire.Serial
	text     string // of the serial, as the file name in newcerts has it
	file     string // "unknown", or a file name
}

// parseIndexLine reads one line of the database of `openssl ca`: six fields between tabs, which are type, notAfter, revocation, serial, file
// and subject. w is for errors.
func parseIndexLine(w Where, line string) (*indexEntry, *Bad) {
	f := strings.SplitN(line, "\t", 6)
	if len(f) != 6 {
		return nil, bad(w, "line", line, "must have 6 fields with tabs between, it has %d", len(f))
	}
	// TXT_DB writes a tab inside a field with a backslash before it; only the last one, the subject, can have any.
	if rest := strings.ReplaceAll(f[5], "\\\t", ""); strings.Contains(rest, "\t") {
		return nil, bad(w, "line", line, "must have 6 fields with tabs between, it has more")
	}
	e := &indexEntry{text: f[3], file: f[4]}
	var err error
	if e.serial, err = parseIndexSerial(f[3]); err != nil {
		return nil, bad(w, "serial", f[3], "must be 2 to 40 hexadecimal digits of a positive number (RFC 5280 section 4.1.2.2)")
	}
	if len(f[0]) != 1 || !strings.Contains("VRE", f[0]) {
		return nil, bad(w, "type", f[0], "must be V (valid), R (revoked) or E (expired)").about(e.serial)
	}
	e.kind = f[0][0]
	if e.notAfter, err = parseASN1Time(f[1]); err != nil {
		return nil, bad(w, "expiration", f[1], "%v", err).about(e.serial)
	}
	switch {
	case e.kind == 'R':
		var b *Bad
		if e.status, b = parseIndexRevocation(w, f[2]); b != nil {
			return nil, b.about(e.serial)
		}
	case f[2] != "":
		return nil, bad(w, "revocation", f[2], "must be empty in a line of type %c", e.kind).about(e.serial)
	default:
		e.status.State = wire.CertValid
	}
	return e, nil
}

func parseIndexSerial(s string) (wire.Serial, error) {
	for _, c := range []byte(s) {
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
			return nil, errors.New("no hexadecimal number")
		}
	}
	return wire.ParseSerial(s)
}

// parseIndexRevocation reads "date[,reason[,more]]". openssl has three reasons beside RFC 5280's, which say more: holdInstruction with an
// object identifier, keyTime and CAkeyTime with the time of the compromise.
func parseIndexRevocation(w Where, s string) (st Status, _ *Bad) {
	date, rest, _ := strings.Cut(s, ",")
	at, err := parseASN1Time(date)
	if err != nil {
		return st, bad(w, "revocation.date", date, "%v", err)
	}
	st.Revoked, st.State = wire.MillisOf(at), wire.CertRevoked
	if rest == "" {
		return st, nil
	}
	name, more, hasMore := strings.Cut(rest, ",")
	switch lower := strings.ToLower(name); lower {
	case "holdinstruction": // what to do meanwhile is nothing that the ledger keeps
		st.Reason = wire.CertificateHold
	case "keytime", "cakeytime":
		if st.Reason = wire.KeyCompromise; lower == "cakeytime" {
			st.Reason = wire.CACompromise
		}
		since, err := parseASN1Time(more)
		if err != nil {
			return st, bad(w, "revocation.time_of_compromise", more, "%v", err)
		}
		st.Invalidity = wire.MillisOf(since)
	case "removefromcrl":
		return st, bad(w, "revocation.reason", name, "is for delta CRLs: a certificate that is no longer on hold must be of type V")
	default:
		var known bool
		if st.Reason, known = reasons[lower]; !known || hasMore {
			return st, bad(w, "revocation.reason", rest, "must be a reason of RFC 5280 section 5.3.1, or openssl's holdInstruction, keyTime or CAkeyTime")
		}
	}
	st.State = stateOf(st.Reason)
	return st, nil
}

// parseASN1Time reads UTCTime or GeneralizedTime as openssl has them as text: seconds may be absent, as in certificates older than RFC 5280, and
// there is Z or an offset.
func parseASN1Time(s string) (time.Time, error) {
	bad := errors.New("must be UTCTime YYMMDDHHMMSSZ or GeneralizedTime YYYYMMDDHHMMSSZ")
	digits := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		return time.Time{}, bad
	}
	layout := map[int]string{10: "0601021504", 12: "060102150405", 14: "20060102150405"}[digits]
	if layout == "" {
		return time.Time{}, bad
	}
	t, err := time.Parse(layout+"Z0700", s)
	if err != nil {
		return time.Time{}, bad
	}
	// RFC 5280 section 4.1.2.5.1: years from 50 on are of the last century. time.Parse turns the page at 69.
	if digits < 14 && t.Year() >= 2050 {
		t = t.AddDate(-100, 0, 0)
	}
	if t.Year() < 1950 {
		return time.Time{}, bad
	}
	return t.UTC(), nil
}

// index is index.txt, with the certificates of its directory if there is one.
type index struct {
	path     string
	newcerts string // "": there is none
}

func (x *index) name() string { return x.path }
func (x *index) kind() string { return "index" }

func (x *index) read(s *sink) (err error) {
	f, err := os.Open(x.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		w := Where{Source: x.path, Line: n}
		line, tooLong, err := readLine(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.line(s, w, string(line), tooLong); err != nil {
			return err
		}
	}
}

// readLine returns a line without its end; io.EOF after the last. Of one that is longer than r's buffer it returns the beginning.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	line, err = r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line, tooLong = bytes.Clone(line), true
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), tooLong, err
}

func (x *index) line(s *sink, w Where, line string, tooLong bool) error {
	if tooLong {
		return s.bad(bad(w, "line", line, "must have at most %d octets", maxLine))
	}
	if line == "" || line[0] == '#' {
		return nil
	}
	e, b := parseIndexLine(w, line)
	if b != nil {
		return s.bad(b)
	}
	rec := &Record{Where: w, Serial: e.serial, Status: e.status, NotAfter: wire.MillisOf(e.notAfter), Expired: e.kind == 'E'}
	if err := s.record(rec); err != nil {
		return err
	}
	return x.certificate(s, w, e)
}

// certificate reads the line's certificate, if its file is there; Plan says whose certificates are missing. openssl calls each
// newcerts/SERIAL.pem, and writes "unknown" for the name.
func (x *index) certificate(s *sink, w Where, e *indexEntry) error {
	var path string
	switch {
	case e.file != "unknown" && e.file != "":
		if path = e.file; !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(x.path), path)
		}
	case x.newcerts != "":
		path = filepath.Join(x.newcerts, e.text+".pem")
	default:
		return nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	found := 0
	err = splitCerts(f, path, &sink{
		record: func(r *Record) error {
			if found++; found > 1 {
				return s.bad(bad(r.Where, "certificate", fmt.Sprint(found), "must be the only one in the file"))
			}
			if serial := serialIn(r.DER); serial != nil && string(serial) != string(e.serial) {
				return s.bad(bad(r.Where, "serial", serial.String(), "must be %s, as %s says", e.serial, w))
			}
			return s.record(r)
		},
		bad: s.bad, skip: s.skip,
	})
	return errors.Join(err, f.Close())
}
