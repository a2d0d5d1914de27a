package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/certanchor/certanchor/network"
)

// Names of the logs that are no CA's, as in paths.
const (
	StatusLog = "status"
	MapLog    = "map"
)

var (
	hasher = rfc6962.DefaultHasher
	ranges = compact.RangeFactory{Hash: hasher.HashChildren}
)

// derivation is what follows from a block beside the contract's state: entries of logs, and the revocation map. It is written for
// auditors and shares no code with what bridges derive, so that one mistake is not made on both sides.
type derivation struct {
	a      *Auditor
	next   *position
	writes map[string][]byte // keys of the store
}

func entryKey(log string, index uint64) []byte {
	key := append([]byte{entryPrefix}, log...)
	return binary.BigEndian.AppendUint64(append(key, '/'), index)
}

// tx takes a transaction that was executed. x has the state before it, and its writes.
func (d *derivation) tx(tx *network.Tx, x *execution) error {
	if err := d.noteChanges(tx, x); err != nil {
		return err
	}
	switch tx.Function {
	case wire.FnIssue:
		return d.issue(tx, x)
	case wire.FnImport:
		return d.imported(tx, x)
	case wire.FnIntegrate:
		return d.integrate(tx, x)
	case wire.FnTick:
		return d.tick(tx, x)
	}
	return nil
}

// noteChanges remembers when a status changed: until then another answer was right. That a certificate is recorded as valid is no change.
func (d *derivation) noteChanges(tx *network.Tx, x *execution) error {
	for key, value := range x.writes {
		if strings.HasPrefix(key, wire.CertPrefix) {
			before, err := x.Get(key)
			if err != nil {
				return err
			}
			if before == nil && tx.Function == wire.FnIssue {
				continue // as most are
			}
			changed, err := changesStatus(before, value)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
		} else if !strings.HasPrefix(key, wire.RevokePrefix) && !strings.HasPrefix(key, wire.RulePrefix) {
			continue
		}
		d.writes[string(changedKey(key))] = binary.BigEndian.AppendUint64(nil, uint64(d.next.Time))
	}
	return nil
}

// changesStatus reports whether a certificate's record changes what is answered about it: its own status, or that it is one. before is nil for a
// new record.
func changesStatus(before, after []byte) (bool, error) {
	var was, is wire.CertRecord
	if before != nil {
		if err := wire.Decode(before, &was); err != nil {
			return false, err
		}
	}
	if err := wire.Decode(after, &is); err != nil {
		return false, err
	}
	return was.Change != is.Change || before != nil && was.SerialOnly() != is.SerialOnly(), nil
}

func changedKey(key string) []byte { return append([]byte{changedPrefix}, key...) }

// issue appends certificates.
func (d *derivation) issue(tx *network.Tx, x *execution) error {
	var (
		arg    wire.IssueArg
		result wire.IssueResult
	)
	if err := errors.Join(wire.Decode(tx.Arg, &arg), wire.Decode(tx.Result, &result)); err != nil {
		return err
	}
	certs, err := arg.Certs()
	if err != nil {
		return err
	}
	return d.entries(x, arg.CAID, certs, result.Entries)
}

// imported appends the certificates of an Import.
func (d *derivation) imported(tx *network.Tx, x *execution) error {
	var (
		arg    wire.ImportArg
		result wire.ImportResult
		places []wire.LogEntry
	)
	if err := errors.Join(wire.Decode(tx.Arg, &arg), wire.Decode(tx.Result, &result)); err != nil {
		return err
	}
	certs, err := arg.Certs()
	if err != nil || len(certs) == 0 {
		return err
	}
	for i := range arg.Items {
		if arg.Items[i].HasCert {
			places = append(places, *result.Entries[i].Log)
		}
	}
	return d.entries(x, arg.CAID, certs, places)
}

// entries adds certificates at their places in a CA's log. What the log has already is a repetition.
func (d *derivation) entries(x *execution, id wire.CAID, certs [][]byte, places []wire.LogEntry) error {
	var head wire.LogHead
	value, err := x.Get(wire.LogHeadKey(id))
	if err == nil {
		err = wire.Decode(value, &head)
	}
	if err != nil {
		return err
	}
	for i, der := range certs {
		e := &places[i]
		key := string(entryKey(id.String(), e.Index))
		if e.Index < head.Size || d.writes[key] != nil {
			continue
		}
		kind := merklelog.X509
		pre, err := ctleaf.IsPrecert(der)
		if err != nil {
			return err
		}
		if pre {
			kind = merklelog.Precert
		}
		d.writes[key] = append(binary.BigEndian.AppendUint64([]byte{byte(kind)}, uint64(e.Time)), der...)
	}
	return nil
}

// integrate appends pending changes to the status log, in the order of the argument.
func (d *derivation) integrate(tx *network.Tx, x *execution) error {
	var arg wire.IntegrateArg
	if err := wire.Decode(tx.Arg, &arg); err != nil {
		return err
	}
	for i, hash := range arg.Leaves {
		leaf, err := x.Get(wire.PendingKey([sha256.Size]byte(hash)))
		if err != nil {
			return err
		}
		d.writes[string(entryKey(StatusLog, arg.Size+uint64(i)))] = append([]byte{byte(merklelog.Status)}, leaf...)
	}
	return nil
}

// tick takes what is new in the status log into the revocation map, and appends to the map log.
func (d *derivation) tick(tx *network.Tx, x *execution) error {
	var result wire.TickResult
	if err := wire.Decode(tx.Result, &result); err != nil {
		return err
	}
	status := wire.StatusHead{Root: hasher.EmptyRoot()}
	value, err := x.Get(wire.StatusHeadKey)
	if err == nil && value != nil {
		err = wire.Decode(value, &status)
	}
	if err != nil {
		return err
	}
	root, err := d.fold(status.Size)
	if err != nil {
		return fmt.Errorf("revocation map: %w", err)
	}
	leaf := wire.Encode(&wire.MapLeaf{
		V: wire.Version, Epoch: result.Epoch, Time: result.Time, StatusSize: status.Size, StatusRoot: status.Root, MapRoot: root[:],
	})
	tree, err := ranges.NewRange(0, d.next.NTicks, d.next.Ticks)
	if err == nil {
		err = tree.Append(hasher.HashLeaf(leaf), nil)
	}
	if err != nil {
		return err
	}
	d.writes[string(entryKey(MapLog, d.next.NTicks))] = append([]byte{byte(merklelog.Map)}, leaf...)
	d.next.NTicks, d.next.Ticks = tree.End(), slices.Clone(tree.Hashes())
	return nil
}

// get reads the store as of the block's transactions so far.
func (d *derivation) get(key []byte) ([]byte, error) {
	if value, ok := d.writes[string(key)]; ok {
		return value, nil
	}
	return d.a.read(key)
}

// mapStore is where package revmap keeps its nodes.
type mapStore struct{ d *derivation }

func mapNodeKey(key []byte) []byte { return append([]byte{mapNodePrefix}, key...) }

// Get implements revmap.Reader.
func (m mapStore) Get(key []byte) ([]byte, error) { return m.d.get(mapNodeKey(key)) }

// Set implements revmap.Store.
func (m mapStore) Set(key, value []byte) error {
	m.d.writes[string(mapNodeKey(key))] = bytes.Clone(value)
	return nil
}

// Delete implements revmap.Store.
func (m mapStore) Delete(key []byte) error {
	m.d.writes[string(mapNodeKey(key))] = nil
	return nil
}

var _ revmap.Store = mapStore{}

// flush adds everything to a batch.
func (d *derivation) flush(batch *pebble.Batch, next *position) error {
	for _, key := range slices.Sorted(maps.Keys(d.writes)) {
		value := d.writes[key]
		if key[0] == mapNodePrefix || key[0] == mapValuePrefix {
			before, err := d.a.read([]byte(key))
			if err != nil {
				return err
			}
			if before != nil {
				next.Map.toggle(key, before)
			}
			if value != nil {
				next.Map.toggle(key, value)
			}
		}
		err := batch.Set([]byte(key), value, nil)
		if value == nil {
			err = batch.Delete([]byte(key), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
