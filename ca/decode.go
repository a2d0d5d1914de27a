package ca

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

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
	values := make(map[string]any, len(fields))
	for name, dst := range fields {
		values[strings.TrimSuffix(name, "?")] = dst
	}
	if err := parseObject(body, values); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasSuffix(name, "?") && *fields[name] == "" {
			return invalid(name, "", "must be given and not be empty")
		}
	}
	return nil
}

// known lists the names of fields.
func known[T any](fields map[string]T) string {
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}
