package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// maxBody leaves room for a request of maxCSR bytes with many of them escaped, so that a larger one is refused by name.
const maxBody = 4 * maxCSR

// readFields reads the body of a request: one JSON object whose values are strings. fields says which names there may be and where
// their values go; a name stands for a required field unless it ends with "?".
func readFields(w http.ResponseWriter, r *http.Request, fields map[string]*string) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return problem.New(http.StatusUnsupportedMediaType, string(wire.InvalidArgument), "Content-Type", r.Header.Get("Content-Type"), "must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return err
		}
		return invalid("body", "", "could not be read: %v", err)
	}
	return parseFields(body, fields)
}

// parseFields is stricter than encoding/json: an unknown or repeated name, another spelling of a name, a value that is not a
// string, bytes that are not UTF-8 and anything after the object are errors, because a request that can be read in two ways
// will be.
func parseFields(body []byte, fields map[string]*string) error {
	if !utf8.Valid(body) {
		return invalid("body", "", "must be UTF-8 (RFC 8259 section 8.1)")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	syntax := func(err error) error {
		return invalid("body", "", "must be one JSON object (RFC 8259): %v", err)
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return syntax(fmt.Errorf("it begins with %v", t))
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return syntax(err)
		}
		name, ok := t.(string)
		if !ok {
			return syntax(fmt.Errorf("%v stands for a name", t))
		}
		dst := fields[name]
		if dst == nil {
			dst = fields[name+"?"]
		}
		if dst == nil || strings.HasSuffix(name, "?") {
			return invalid(name, "", "is not a field of this request, which has %s", known(fields))
		}
		if seen[name] {
			return invalid(name, "", "must not occur twice")
		}
		seen[name] = true
		v, err := dec.Token()
		if err != nil {
			return syntax(err)
		}
		s, ok := v.(string)
		if !ok {
			return invalid(name, fmt.Sprint(v), "must be a string")
		}
		*dst = s
	}
	if _, err := dec.Token(); err != nil {
		return syntax(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return syntax(errors.New("something follows it"))
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasSuffix(name, "?") && *fields[name] == "" {
			return invalid(name, "", "must be given and not be empty")
		}
	}
	return nil
}

func known(fields map[string]*string) string {
	names := slices.Sorted(maps.Keys(fields))
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, "?")
	}
	return strings.Join(names, ", ")
}
