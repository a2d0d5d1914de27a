package oplog

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certanchor/certanchor/internal/framelog"
)

// FuzzEntry: whatever a request brings, the record is small, printable, and reads back as it was written.
func FuzzEntry(f *testing.F) {
	f.Add("operator", "POST /v1/revocations", "reason", "superseded")
	f.Add("a\nb\x00", "\x1b[2J", "\xff\xfe", "\u202e"+strings.Repeat("é", 400))
	f.Add(`\n`, `\\`, "", strings.Repeat("\u200b", 300))
	f.Fuzz(func(t *testing.T, actor, action, key, value string) {
		e := Entry{Actor: actor, How: value, Source: key, Action: action, Target: value, Detail: map[string]string{key: value, value: key}, Outcome: value}
		r := e.record(time.UnixMilli(1))
		r.Prev = noRecord
		data := encode(r)
		if len(data) > MaxRecord {
			t.Fatalf("%d bytes", len(data))
		}
		texts := []string{r.Actor, r.How, r.Source, r.Action, r.Target, r.Outcome}
		for k, v := range r.Detail {
			texts = append(texts, k, v)
		}
		for _, s := range texts {
			if len(s) > MaxText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Fatalf("%q", s)
			}
		}
		back, err := decode(data)
		if err != nil || !bytes.Equal(encode(back), data) {
			t.Fatalf("%+v, %v", back, err)
		}
	})
}

// FuzzRecord: what is read is what would be written, and nothing panics.
func FuzzRecord(f *testing.F) {
	e := Entry{Actor: "a", Action: "b", Detail: map[string]string{"c": "d"}}
	r := e.record(time.UnixMilli(1))
	r.Prev = noRecord
	f.Add(encode(r))
	f.Add(encode(&Record{V: recordVersion, Kind: Begins, Prev: noRecord, CAID: noRecord}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newChain(nil, 0)
		if r, err := decode(data); err == nil {
			if again, err := decode(encode(r)); err != nil || again.Seq != r.Seq || again.Kind != r.Kind {
				t.Fatalf("%+v, %v", again, err)
			}
		}
		for range 2 {
			if _, err := c.add(data, framelog.Position{}); err != nil {
				return
			}
		}
		t.Fatal("one record follows itself")
	})
}
