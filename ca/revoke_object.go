package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// objectField is a field of parseObject that is an object itself.
type objectField struct {
	fields map[string]any
	seen   *bool // set when it is there
}

// parseObject reads objects whose fields, all of which may be absent, are strings (*string), booleans (*bool) and
// objects (*objectField).
func parseObject(body []byte, fields map[string]any) error {
	if !utf8.Valid(body) {
		return invalid("body", "", "must be UTF-8 (RFC 8259 section 8.1)")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := takeObject(dec, "", fields); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badJSON(errors.New("something follows it"))
	}
	return nil
}

func badJSON(err error) error {
	return invalid("body", "", "must be one JSON object (RFC 8259): %v", err)
}

func takeObject(dec *json.Decoder, prefix string, fields map[string]any) error {
	if t, err := dec.Token(); err != nil {
		return badJSON(err)
	} else if t != json.Delim('{') {
		if prefix == "" {
			return badJSON(fmt.Errorf("it begins with %v", t))
		}
		return invalid(strings.TrimSuffix(prefix, "."), fmt.Sprint(t), "must be an object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return badJSON(err)
		}
		name, _ := t.(string) // a decoder gives nothing else here
		dst, ok := fields[name]
		switch {
		case !ok && name == "":
			return invalid(prefix+`""`, "", "is not a name")
		case !ok:
			return invalid(prefix+name, "", "is not a field of this request, which has %s", known(fields))
		case seen[name]:
			return invalid(prefix+name, "", "must not occur twice")
		}
		seen[name] = true
		if err := takeValue(dec, prefix+name, dst); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return badJSON(err)
	}
	return nil
}

func takeValue(dec *json.Decoder, name string, dst any) error {
	if o, ok := dst.(*objectField); ok {
		*o.seen = true
		return takeObject(dec, name+".", o.fields)
	}
	v, err := dec.Token()
	if err != nil {
		return badJSON(err)
	}
	switch dst := dst.(type) {
	case *string:
		if s, ok := v.(string); ok {
			*dst = s
			return nil
		}
		return invalid(name, fmt.Sprint(v), "must be a string")
	case *bool:
		if b, ok := v.(bool); ok {
			*dst = b
			return nil
		}
		return invalid(name, fmt.Sprint(v), "must be true or false")
	}
	panic(fmt.Sprintf("ca: field %s has a destination of type %T", name, dst)) // a fault of the caller's
}
