package ca

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/config"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

// FuzzBulkList: a list that is taken means one thing: written down again in the other form it is the same list.
func FuzzBulkList(f *testing.F) {
	for _, seed := range []string{
		"01,superseded\n02,keyCompromise,2020-01-01T00:00:00Z\n", "serial,reason,invalidity_date\n0a,,\n", "reason,serial\nsuperseded,0B:0c\n", "\ufeffserial\n1\n\n2\n",
		"\"01\",\"superseded\"\r\n", "01,superseded,,\n", "serial,serial\n", "\"01\n", "01\n1\n",
	} {
		f.Add(true, []byte(seed))
	}
	for _, seed := range []string{`{"serial":"01"}`, "{\"serial\":\"01\",\"reason\":\"superseded\"}\n\n{\"serial\":\"0x02\",\"invalidity_date\":\"2020-01-01T00:00:00Z\"}\n", `{"serial":1}`, `{"serial":"1","serial":"2"}`, `[]`} {
		f.Add(false, []byte(seed))
	}
	s := &Server{now: time.Now}
	f.Fuzz(func(t *testing.T, asCSV bool, data []byte) {
		kind := caapi.TypeJSONLines
		if asCSV {
			kind = caapi.TypeCSV
		}
		list, lines, err := parseList(kind, data)
		if err != nil {
			namedField(t, err)
			return
		}
		if len(list) == 0 || len(list) != len(lines) || len(list) > caapi.MaxBulk {
			t.Fatalf("%d certificates in %d lines", len(list), len(lines))
		}
		common := wire.StatusChange{Op: wire.OpRevoke}
		items, err := s.listed(&bulkRequest{BulkRequest: caapi.BulkRequest{Reason: "superseded"}, list: list, lines: lines}, common)
		if err != nil {
			namedField(t, err)
			return
		}
		seen := map[string]bool{}
		var again strings.Builder
		enc := json.NewEncoder(&again)
		for n, i := range items {
			c := i.change()
			if c.Serial.Check() != nil || seen[i.Serial] || !c.Reason.Known() || (c.Op == wire.OpHold) != (c.Reason == wire.CertificateHold) || c.Invalidity < 0 {
				t.Fatalf("%+v", i)
			}
			seen[i.Serial] = true
			if err := enc.Encode(list[n]); err != nil {
				t.Fatal(err)
			}
		}
		second, _, err := parseList(caapi.TypeJSONLines, []byte(again.String()))
		if err != nil || len(second) != len(list) {
			t.Fatalf("%q is a list, and %q is none: %v", data, again.String(), err)
		}
		for n := range list {
			if list[n] != second[n] {
				t.Fatalf("%+v, then %+v", list[n], second[n])
			}
		}
	})
}

// namedField: a refusal says which field of which line, and which rule.
func namedField(t *testing.T, err error) {
	t.Helper()
	we, ok := err.(*wire.Error)
	if !ok || we.Field == "" || we.Rule == "" || we.Code != wire.InvalidArgument {
		t.Fatalf("%v", err)
	}
}

// FuzzBulkSelection: a request that is taken selects in one way.
func FuzzBulkSelection(f *testing.F) {
	for _, seed := range []string{
		`{"query":{"name":"*.example.org","state":"valid"},"reason":"superseded"}`, `{"spki":"` + strings.Repeat("ab", 32) + `","reason":"keyCompromise","dry_run":true}`,
		`{"key":"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}`, `{"query":{"issued_from":"2026-01-01T00:00:00Z","issued_to":"2027-01-01T00:00:00Z"}}`,
		`{"query":{"query":{}}}`, `{"dry_run":1}`, `{"query":[]}`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	s := &Server{now: time.Now, issuer: &issuer{policy: &profiles{Signing: &config.Signing{}}}, book: newBook()}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := s.parseSelection(data)
		if err != nil {
			namedField(t, err)
			return
		}
		if (b.query == nil) == (b.key == nil) || b.Key != "" || b.list != nil {
			t.Fatalf("%+v", b)
		}
		var std caapi.BulkRequest
		if err := json.Unmarshal(data, &std); err != nil || std.Reason != b.Reason || std.Operation != b.Operation || std.DryRun != b.DryRun {
			t.Fatalf("%+v, encoding/json: %+v, %v", b.BulkRequest, std, err)
		}
	})
}
