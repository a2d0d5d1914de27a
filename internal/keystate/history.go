package keystate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Limits.
const (
	maxBy   = 200 // octets
	maxWhy  = 500
	maxFile = 16 << 20
)

// ParseHistory reads a file of records about key, oldest first. A last line without its end is one that was being written when the process died and
// that nobody was told about: whole is the length of what comes before it. Errors: a line that is not a record, one that does not follow from the one before (hash,
// sequence, state), or that is about another key.
func ParseHistory(data []byte, key string) (history []Record, whole int, err error) {
	var last Record
	var before State
	prev := ""
	for {
		n := bytes.IndexByte(data[whole:], '\n')
		if n < 0 {
			return history, whole, nil
		}
		line := data[whole : whole+n]
		r, err := parseLine(line)
		at := len(history) + 1
		switch {
		case err != nil:
			return nil, 0, fmt.Errorf("record %d: %w", at, err)
		case r.Key != key:
			return nil, 0, fmt.Errorf("record %d: is about the key %.80q: must be about %s", at, r.Key, key)
		case r.Seq != uint64(at) || r.From != last.To || r.Prev != prev:
			return nil, 0, fmt.Errorf("record %d: does not follow the one before: records were changed or taken away", at)
		}
		if err := check(last.To, before, r.To); err != nil {
			return nil, 0, fmt.Errorf("record %d: %w", at, err)
		}
		if r.To == Suspended {
			before = r.From
		}
		history, last, prev = append(history, *r), *r, hashOf(line)
		whole += n + 1
	}
}

func parseLine(line []byte) (*Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	if again, err := json.Marshal(&r); err != nil || !bytes.Equal(again, line) {
		return nil, errors.New("is not in the form in which records are written")
	}
	return &r, checkText(r.By, r.How, r.Why)
}

// checkText refuses what would not stay on its line, or says nothing.
func checkText(by, how, why string) error {
	for _, f := range []struct {
		field, value string
		most         int
	}{{"by", by, maxBy}, {"how", how, maxBy}, {"why", why, maxWhy}} {
		if f.value == "" || len(f.value) > f.most || !utf8.ValidString(f.value) || bytes.ContainsFunc([]byte(f.value), func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return wire.Errorf(wire.InvalidArgument, f.field, f.value, "must be 1 to %d octets of UTF-8 without control characters", f.most)
		}
	}
	return nil
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
