package anchor

import (
	"errors"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// AboutCaller reports whether a refusal is about the caller, the CA or the clock, which no part of the batch would change.
// Anything else that does not name an entry is tried in halves: entries that are recorded already succeed where new ones do not.
func AboutCaller(err error) bool {
	var we *wire.Error
	if !errors.As(err, &we) {
		return false
	}
	return we.Code == wire.PermissionDenied || we.Field == "ca_id" || we.Field == "time" || we.Field == "consortium"
}

// culprit finds which entry of the batch a refusal is about: the contract names it certs[3] or changes[3].serial.
func culprit(err error) (int, bool) {
	var we *wire.Error
	if !errors.As(err, &we) {
		return 0, false
	}
	_, i, _, ok := indexed(we.Field)
	return i, ok
}

// aboutOne takes the position in the batch out of a refusal: it means nothing to the caller of a single entry.
func aboutOne(err error) error {
	var we *wire.Error
	var rejected *network.RejectedError
	if !errors.As(err, &we) || !errors.As(err, &rejected) {
		return err
	}
	list, _, rest, ok := indexed(we.Field)
	if !ok {
		return err
	}
	one := *we
	one.Field = strings.TrimPrefix(rest, ".")
	if list == "certs" {
		one.Field = "certificate" + rest
	} else if one.Field == "" {
		one.Field = strings.TrimSuffix(list, "s")
	}
	return &network.RejectedError{Function: rejected.Function, Reason: &one}
}

// indexed splits list[i]rest.
func indexed(field string) (list string, i int, rest string, ok bool) {
	list, tail, ok := strings.Cut(field, "[")
	if !ok {
		return "", 0, "", false
	}
	digits, rest, ok := strings.Cut(tail, "]")
	if !ok {
		return "", 0, "", false
	}
	i, err := strconv.Atoi(digits)
	return list, i, rest, err == nil && i >= 0 && list != ""
}
