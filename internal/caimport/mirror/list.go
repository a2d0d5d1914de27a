package mirror

import (
	"bytes"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
)

// skew is how far the CA's clock may be from this one.
const skew = 5 * time.Minute

// RefusedError: a CRL was read that must not be believed. Nothing was done.
type RefusedError struct{ Field, Value, Rule string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("CRL refused: %s %q: %s", e.Field, e.Value, e.Rule)
}

func refused(field, value, rule string, args ...any) error {
	return &RefusedError{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// accept reads a CRL that was fetched, and says whether it is one to go by: the CA's, complete, in force, and not older than the last.
// last is that one; nil: there is none. same: it is the last one again.
func (m *Mirror) accept(data []byte, last *caimport.List) (list *caimport.List, same bool, err error) {
	if list, err = caimport.ParseCRL(data); err != nil {
		return nil, false, refused("CRL", "", "%v", err)
	}
	if err := list.Verify(m.cfg.CA.Certs); err != nil {
		return nil, false, refused("CRL", "", "%v", err)
	}
	now := m.cfg.Now()
	switch {
	case list.Base != nil:
		return nil, false, refused("deltaCRLIndicator", list.Base.String(), "must be absent: name the URL of the complete CRL, which has all that its deltas have")
	case list.ThisUpdate.After(now.Add(skew)):
		return nil, false, refused("thisUpdate", stamp(list.ThisUpdate), "must not be in the future; it is %s here", stamp(now))
	case !list.NextUpdate.IsZero() && list.NextUpdate.Before(now.Add(-skew)):
		return nil, false, refused("nextUpdate", stamp(list.NextUpdate), "must not have passed; it is %s here", stamp(now))
	}
	if last == nil {
		return list, false, nil
	}
	if bytes.Equal(list.TBS(), last.TBS()) {
		return list, true, nil
	}
	return list, false, notOlder(list, last)
}

// notOlder: RFC 5280 section 5.2.3, the number goes up with each CRL. CAs that give none have only the date.
func notOlder(list, last *caimport.List) error {
	switch {
	case !bytes.Equal(list.Scope, last.Scope):
		return refused("issuingDistributionPoint", fmt.Sprintf("%x", list.Scope), "must be that of the last CRL, %x: what is not on a CRL of another scope says nothing", last.Scope)
	case last.Number != nil && list.Number == nil:
		return refused("cRLNumber", "none", "must be above the last one, %s (RFC 5280 section 5.2.3)", last.Number)
	case last.Number != nil && list.Number.Cmp(last.Number) <= 0:
		return refused("cRLNumber", list.Number.String(), "must be above the last one, %s (RFC 5280 section 5.2.3)", last.Number)
	case list.ThisUpdate.Before(last.ThisUpdate):
		return refused("thisUpdate", stamp(list.ThisUpdate), "must not be before that of the last CRL, %s", stamp(last.ThisUpdate))
	case last.Number == nil && !list.ThisUpdate.After(last.ThisUpdate):
		return refused("thisUpdate", stamp(list.ThisUpdate), "must be after that of the last CRL, %s, as CRLs without number have no other order", stamp(last.ThisUpdate))
	}
	return nil
}

// entries are a CRL's, by serial number. An entry that cannot be read stands there with state 0: it is neither imported nor absent.
func (m *Mirror) entries(list *caimport.List) (map[string]caimport.Status, error) {
	all := map[string]caimport.Status{}
	if list == nil {
		return all, nil
	}
	faults := 0
	err := list.Each(func(n int, serial wire.Serial, st caimport.Status, err error) error {
		if err != nil {
			if faults++; faults <= shownFaults {
				m.cfg.Log.Warn("an entry of the CRL cannot be read, and is left out", "entry", n, "serial", serial.String(), "error", err)
			}
			st = caimport.Status{}
		}
		if serial != nil {
			all[string(serial)] = st
		}
		return nil
	})
	return all, err
}

const shownFaults = 20
