package ca

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// object reads one JSON object, as strictly as parseFields does and for the same reason: cfssl itself takes the last of two values for a
// name, takes names in any spelling of upper and lower case, and skips names that it does not know.
//
// The first fault is kept; what is read after it is zero. Faults are *wire.Error and name the field by its path.
type object struct {
	path   string // of the object, with a dot at its end; empty for the body
	fields map[string]json.RawMessage
	read   map[string]bool // names asked for
	err    *error          // shared with the objects inside
}

// maxDepth is more than any request of cfssl's needs.
const maxDepth = 8

func readObject(body []byte) *object {
	o := &object{read: map[string]bool{}, err: new(error)}
	if !utf8.Valid(body) {
		*o.err = invalid("body", "", "must be UTF-8 (RFC 8259 section 8.1)")
		return o
	}
	if err := checkDepth(body); err != nil {
		*o.err = err
		return o
	}
	o.parse(body)
	return o
}

// checkDepth also finds syntax errors, and whatever follows the first value.
func checkDepth(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	depth := 0
	for first := true; ; first = false {
		t, err := dec.Token()
		switch {
		case errors.Is(err, io.EOF) && !first && depth == 0:
			return nil
		case err != nil:
			return invalid("body", "", "must be one JSON object (RFC 8259): %v", err)
		case !first && depth == 0:
			return invalid("body", "", "must be one JSON object (RFC 8259): something follows it")
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxDepth {
			return invalid("body", "", "must be nested at most %d deep", maxDepth)
		}
	}
}

func (o *object) name() string {
	if o.path == "" {
		return "body"
	}
	return strings.TrimSuffix(o.path, ".")
}

func (o *object) fail(err error) {
	if *o.err == nil {
		*o.err = err
	}
}

func (o *object) parse(raw []byte) {
	o.fields = map[string]json.RawMessage{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		o.fail(invalid(o.name(), string(raw), "must be a JSON object"))
		return
	}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		var value json.RawMessage
		if err == nil && ok {
			err = dec.Decode(&value)
		}
		if err != nil || !ok {
			o.fail(invalid(o.name(), "", "must be a JSON object: %v", err))
			return
		}
		if _, twice := o.fields[name]; twice {
			o.fail(invalid(o.path+name, "", "must not occur twice"))
			return
		}
		o.fields[name] = value
	}
}

// value is nil for a field that is absent or null, which is how Go's encoder writes an absent list or object.
func (o *object) value(name string) json.RawMessage {
	o.read[name] = true
	if v := o.fields[name]; string(v) != "null" {
		return v
	}
	return nil
}

// end refuses fields that nobody asked for, and returns the first fault.
func (o *object) end() error {
	for _, name := range slices.Sorted(maps.Keys(o.fields)) {
		if !o.read[name] {
			o.fail(invalid(o.path+name, "", "is not a field of this request, which has %s", strings.Join(slices.Sorted(maps.Keys(o.read)), ", ")))
		}
	}
	return *o.err
}

// take decodes a field into dst; what says what it must be.
func (o *object) take(name, what string, dst any) (given bool) {
	v := o.value(name)
	if v == nil || *o.err != nil {
		return false
	}
	if err := json.Unmarshal(v, dst); err != nil {
		o.fail(invalid(o.path+name, string(v), "must be %s", what))
		return false
	}
	return true
}

func (o *object) text(name string) (s string) {
	o.take(name, "a string", &s)
	return s
}

func (o *object) flag(name string) (b bool) {
	o.take(name, "true or false", &b)
	return b
}

func (o *object) integer(name string) (n int64, given bool) {
	given = o.take(name, "a whole number", &n)
	return n, given
}

// texts returns nil for a list that is absent, and another one for a list that is empty.
func (o *object) texts(name string) []string {
	var items []*string
	if !o.take(name, "a list of strings", &items) {
		return nil
	}
	out := make([]string, len(items))
	for i, s := range items {
		if s == nil {
			o.fail(invalid(fmt.Sprintf("%s%s[%d]", o.path, name, i), "null", "must be a string"))
			return nil
		}
		out[i] = *s
	}
	return out
}

// bytes reads base64, which Go's encoder makes of octets.
func (o *object) bytes(name string) []byte {
	s := o.text(name)
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		o.fail(invalid(o.path+name, s, "must be base64 (RFC 4648 section 4): %v", err))
		return nil
	}
	return b
}

// object returns nil for one that is absent.
func (o *object) object(name string) *object {
	v := o.value(name)
	if v == nil || *o.err != nil {
		return nil
	}
	in := &object{path: o.path + name + ".", read: map[string]bool{}, err: o.err}
	in.parse(v)
	return in
}

// objects reads a list of objects.
func (o *object) objects(name string) []*object {
	var items []json.RawMessage
	if !o.take(name, "a list of objects", &items) {
		return nil
	}
	out := make([]*object, len(items))
	for i, raw := range items {
		out[i] = &object{path: fmt.Sprintf("%s%s[%d].", o.path, name, i), read: map[string]bool{}, err: o.err}
		out[i].parse(raw)
	}
	return out
}

// none refuses a field that says anything: absent, null, and what Go's encoder writes for a value that nobody set, say nothing.
func (o *object) none(name, rule string) {
	switch v := o.value(name); string(bytes.TrimSpace(v)) {
	case "", `""`, "{}", "[]", "false", `"0001-01-01T00:00:00Z"`:
	default:
		o.fail(invalid(o.path+name, string(v), "%s", rule))
	}
}
