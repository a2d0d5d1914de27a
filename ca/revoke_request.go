package ca

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/problem"
)

// bulkRequest is a request that has been read: exactly one of list, query and key is set.
type bulkRequest struct {
	caapi.BulkRequest
	list  []caapi.ListedCertificate
	lines []int // of list: where each is
	query *query
	key   *catalogue.Key
}

// readBulk reads a request: a JSON object, or a list with the rest in the URL.
func (s *Server) readBulk(w http.ResponseWriter, r *http.Request) (*bulkRequest, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	known := kind == "application/json" || kind == caapi.TypeCSV || kind == caapi.TypeJSONLines
	if err != nil || !known || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return nil, problem.New(http.StatusUnsupportedMediaType, string(wire.InvalidArgument), "Content-Type", r.Header.Get("Content-Type"),
			"must be application/json for a query or a key, "+caapi.TypeCSV+" or "+caapi.TypeJSONLines+" for a list")
	}
	most := int64(caapi.MaxBulkBody)
	if kind == "application/json" {
		most = maxBody
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, err
	} else if err != nil {
		return nil, invalid("body", "", "could not be read: %v", err)
	}
	if kind == "application/json" {
		if r.URL.RawQuery != "" {
			return nil, invalid("url.query", r.URL.RawQuery, "must be empty: with application/json every field is in the body")
		}
		return s.parseSelection(body)
	}
	b := &bulkRequest{}
	if err := readURL(r.URL, &b.BulkRequest); err != nil {
		return nil, err
	}
	b.list, b.lines, err = parseList(kind, body)
	return b, err
}

// readURL takes the fields beside a list.
func readURL(u *url.URL, b *caapi.BulkRequest) error {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return invalid("url.query", u.RawQuery, "must be a query string: %v", err)
	}
	dry := ""
	fields := map[string]*string{"operation": &b.Operation, "reason": &b.Reason, "invalidity_date": &b.InvalidityDate, "dry_run": &dry}
	for name, v := range values {
		dst := fields[name]
		if dst == nil {
			return invalid(name, v[0], "is not a field of this request, which has %s", known(fields))
		}
		if len(v) > 1 {
			return invalid(name, v[1], "must not occur twice")
		}
		*dst = v[0]
	}
	switch dry {
	case "", "false":
	case "true":
		b.DryRun = true
	default:
		return invalid("dry_run", dry, "must be true or false")
	}
	return nil
}

// parseSelection reads a request by query or key.
func (s *Server) parseSelection(body []byte) (*bulkRequest, error) {
	b := &bulkRequest{}
	var q caapi.Query
	asked := false
	err := parseObject(body, map[string]any{
		"operation": &b.Operation, "reason": &b.Reason, "invalidity_date": &b.InvalidityDate, "spki": &b.SPKI, "key": &b.Key, "dry_run": &b.DryRun,
		"query": &objectField{seen: &asked, fields: map[string]any{
			"profile": &q.Profile, "client": &q.Client, "name": &q.Name, "subject": &q.Subject, "issued_from": &q.IssuedFrom, "issued_to": &q.IssuedTo,
			"expires_from": &q.ExpiresFrom, "expires_to": &q.ExpiresTo, "state": &q.State,
		}},
	})
	if err != nil {
		return nil, err
	}
	n := 0
	for _, given := range []bool{asked, b.SPKI != "", b.Key != ""} {
		if given {
			n++
		}
	}
	if n != 1 {
		return nil, invalid("query", "", "exactly one of query, spki and key must be given; a list is sent as %s or %s", caapi.TypeCSV, caapi.TypeJSONLines)
	}
	switch {
	case asked:
		b.Query = &q
		b.query, err = s.parseQuery(&q)
	case b.SPKI != "":
		var k catalogue.Key
		k, err = catalogue.ParseKey(b.SPKI)
		b.key = &k
	default:
		var k catalogue.Key
		k, err = keyIn(b.Key)
		b.key, b.Key, b.SPKI = &k, "", k.String()
	}
	return b, err
}

// keyIn finds the key in a PEM certificate, request or public key.
func keyIn(text string) (k catalogue.Key, err error) {
	fail := func(rule string, args ...any) (catalogue.Key, error) {
		value := "no PEM"
		if block, _ := pem.Decode([]byte(text)); block != nil {
			value = block.Type
		}
		return k, invalid("key", value, rule, args...)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0 {
		return fail("must be one PEM block: CERTIFICATE, CERTIFICATE REQUEST or PUBLIC KEY")
	}
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fail("must be an X.509 certificate: %v", err)
		}
		return catalogue.KeyOf(c.RawSubjectPublicKeyInfo), nil
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		c, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return fail("must be a PKCS #10 request: %v", err)
		}
		return catalogue.KeyOf(c.RawSubjectPublicKeyInfo), nil
	case "PUBLIC KEY":
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return fail("must be a SubjectPublicKeyInfo: %v", err)
		}
		return catalogue.KeyOf(block.Bytes), nil
	}
	return fail("must be CERTIFICATE, CERTIFICATE REQUEST or PUBLIC KEY; never send a private key")
}

// parseList reads a list of certificates. Errors name the line, from 1, and the field.
func parseList(kind string, body []byte) (list []caapi.ListedCertificate, lines []int, err error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if !utf8.Valid(body) {
		return nil, nil, invalid("body", "", "must be UTF-8")
	}
	take := func(line int, c caapi.ListedCertificate) error {
		if len(list) == caapi.MaxBulk {
			return invalid(fmt.Sprintf("line %d", line), "", "a list must have at most %d certificates; split it", caapi.MaxBulk)
		}
		list, lines = append(list, c), append(lines, line)
		return nil
	}
	if kind == caapi.TypeCSV {
		err = parseCSV(body, take)
	} else {
		err = parseLines(body, take)
	}
	if err == nil && len(list) == 0 {
		err = invalid("body", "", "must name one certificate at least")
	}
	return list, lines, err
}

// maxLine bounds one JSON object of a list.
const maxLine = 4 << 10

func parseLines(body []byte, take func(int, caapi.ListedCertificate) error) error {
	scan := bufio.NewScanner(bytes.NewReader(body))
	scan.Buffer(make([]byte, maxLine), maxLine)
	n := 1
	for ; scan.Scan(); n++ {
		line := bytes.TrimSpace(scan.Bytes())
		if len(line) == 0 {
			continue
		}
		var c caapi.ListedCertificate
		if err := parseFields(line, map[string]*string{"serial": &c.Serial, "reason?": &c.Reason, "invalidity_date?": &c.InvalidityDate}); err != nil {
			return onLine(n, err)
		}
		if err := take(n, c); err != nil {
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return invalid(fmt.Sprintf("line %d", n), "", "must be one JSON object of at most %d bytes: %v", maxLine, err)
	}
	return nil
}

// parseCSV reads RFC 4180. The first line may name the columns.
func parseCSV(body []byte, take func(int, caapi.ListedCertificate) error) error {
	r := csv.NewReader(bytes.NewReader(body))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	columns := []string{"serial", "reason", "invalidity_date"}
	for first := true; ; first = false {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if bad := new(csv.ParseError); errors.As(err, &bad) {
			return invalid(fmt.Sprintf("line %d", bad.Line), "", "must be CSV (RFC 4180): %v", bad.Err)
		} else if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if first && strings.EqualFold(strings.TrimSpace(row[0]), "serial") || first && len(row) > 1 && strings.EqualFold(strings.TrimSpace(row[1]), "serial") {
			if columns, err = header(row); err != nil {
				return err
			}
			continue
		}
		if len(row) > len(columns) {
			return invalid(fmt.Sprintf("line %d", line), row[len(columns)], "must have at most %d columns: %s", len(columns), strings.Join(columns, ", "))
		}
		var c caapi.ListedCertificate
		for i, v := range row {
			*column(&c, columns[i]) = strings.TrimSpace(v)
		}
		if c.Serial == "" {
			return invalid(fmt.Sprintf("line %d.serial", line), "", "must be given and not be empty")
		}
		if err := take(line, c); err != nil {
			return err
		}
	}
}

// header reads the names of the columns.
func header(row []string) ([]string, error) {
	var columns []string
	for _, name := range row {
		name = strings.ToLower(strings.TrimSpace(name))
		if column(&caapi.ListedCertificate{}, name) == nil {
			return nil, invalid("line 1", name, "is not a column: there are serial, reason and invalidity_date")
		}
		for _, other := range columns {
			if other == name {
				return nil, invalid("line 1", name, "must not occur twice")
			}
		}
		columns = append(columns, name)
	}
	return columns, nil
}

func column(c *caapi.ListedCertificate, name string) *string {
	switch name {
	case "serial":
		return &c.Serial
	case "reason":
		return &c.Reason
	case "invalidity_date":
		return &c.InvalidityDate
	}
	return nil
}

// onLine puts the line before the field that an error names.
func onLine(n int, err error) error {
	we, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return fmt.Errorf("line %d: %w", n, err)
	}
	at := *we
	at.Field = strings.TrimSuffix(fmt.Sprintf("line %d.%s", n, we.Field), ".")
	return &at
}
