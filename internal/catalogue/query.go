package catalogue

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Get returns a certificate, nil if the ledger had none with the serial number at the store's height.
func (s *Store) Get(serial wire.Serial) (*Cert, error) { return get(s.db, serial) }

// WithKey returns the certificates that have a key, in the order of their serial numbers, and the height at which these were all.
func (s *Store) WithKey(k Key) (certs []*Cert, height uint64, err error) {
	height, err = s.snapshot(func(r reader) error {
		prefix := append([]byte{keyTag}, k[:]...)
		return s.scan(r, prefix, func(key, _ []byte) error {
			c, err := get(r, append(wire.Serial{}, key[len(prefix):]...))
			if err == nil && c == nil {
				err = errors.New("a certificate that is listed with its key is not there")
			}
			certs = append(certs, c)
			return err
		})
	})
	return certs, height, err
}

// All calls fn with every certificate in the order of their serial numbers, and returns the height at which these were all.
func (s *Store) All(fn func(*Cert) error) (height uint64, err error) {
	return s.snapshot(func(r reader) error {
		return s.scan(r, []byte{certTag}, func(key, value []byte) error {
			c := &Cert{Serial: append(wire.Serial{}, key[1:]...)}
			if err := dec.Unmarshal(value, c); err != nil {
				return err
			}
			return fn(c)
		})
	})
}

type reader = pebble.Reader

// snapshot calls fn with the store as it is at one moment.
func (s *Store) snapshot(fn func(reader) error) (height uint64, err error) {
	snap := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	b, err := readFrom(snap, positionKey)
	if err != nil {
		return 0, err
	}
	var at position
	if b != nil {
		if err := dec.Unmarshal(b, &at); err != nil {
			return 0, err
		}
	}
	return at.Next, fn(snap)
}

// Pattern matches a name: all of it, or, if it begins with an asterisk, its end: *.example.org matches every name below example.org, that of
// a wildcard too. Letters match in both cases.
type Pattern string

// Match reports whether name is one that p means.
func (p Pattern) Match(name string) bool {
	want, name := strings.ToLower(string(p)), strings.ToLower(name)
	if end, ok := strings.CutPrefix(want, "*"); ok {
		return strings.HasSuffix(name, end) && len(name) > len(end)
	}
	return name == want
}
