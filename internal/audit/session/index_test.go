package session_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// silent keeps the store's log out of the tests'.
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// edit changes the bridge's index while the bridge is down.
func (w *world) edit(change func(key, value []byte) []byte) {
	w.t.Helper()
	db, err := pebble.Open(filepath.Join(w.dir, "bridge", "index"), &pebble.Options{FormatMajorVersion: pebble.FormatTableFormatV6, Logger: silent{}})
	must(w.t, err)
	it, err := db.NewIter(nil)
	must(w.t, err)
	changed := 0
	for ok := it.First(); ok; ok = it.Next() {
		if next := change(it.Key(), bytes.Clone(it.Value())); next != nil {
			must(w.t, db.Set(bytes.Clone(it.Key()), next, pebble.Sync))
			changed++
		}
	}
	must(w.t, it.Close())
	must(w.t, db.Close())
	if changed == 0 {
		w.t.Error("nothing to change")
	}
}

// TestAFlippedBitInABridgesIndexIsFound: of each kind of what a bridge derives and serves. The bridge notices most of it itself and does
// not answer; that is a difference too. What has no checksum of its own, a certificate's record, is found by what it makes OCSP say.
func TestAFlippedBitInABridgesIndexIsFound(t *testing.T) {
	for name, change := range map[string]func(w *world) func(key, value []byte) []byte{
		"a hash":            func(w *world) func(_, _ []byte) []byte { return w.flip('n', "\x00\x00\x00\x00\x00\x00\x00\x00\x64") },
		"an entry":          func(w *world) func(_, _ []byte) []byte { return w.flip('x', "\x00\x00\x00\x00\x00\x00\x00\x64") },
		"values of the map": func(*world) func(_, _ []byte) []byte { return flipAll('y') },
		"nodes of the map":  func(*world) func(_, _ []byte) []byte { return flipAll('m') },
		"a record": func(w *world) func(_, _ []byte) []byte {
			at := append(append([]byte{'c'}, w.ca.ID[:]...), cctest.Serial(w.t, w.revoked)...)
			return func(key, value []byte) []byte {
				if !bytes.Equal(key, at) {
					return nil
				}
				var rec wire.CertRecord
				must(w.t, wire.Decode(value, &rec))
				rec.State = wire.CertValid
				return wire.Encode(&rec)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(t.TempDir())
			agrees(t, w.audit(o))
			w.stop()
			w.edit(change(w))
			if err := w.start(); err != nil {
				if name != "nodes of the map" { // all of which are read at the start
					t.Error(err)
				}
				return
			}
			o.Bridges[0] = w.url
			o.Dir = t.TempDir()
			if r := w.audit(o); len(r.Differences) == 0 {
				t.Errorf("nothing found: %+v, %+v", r.Report, r.Bridges[0])
			}
		})
	}
}

// flip changes what is about the CA and ends like this.
func (w *world) flip(tag byte, end string) func(key, value []byte) []byte {
	at := string(tag) + string(w.ca.ID[:]) + end
	all := flipAll(tag)
	return func(key, value []byte) []byte {
		if string(key) != at {
			return nil
		}
		return all(key, value)
	}
}

func flipAll(tag byte) func(key, value []byte) []byte {
	return func(key, value []byte) []byte {
		if key[0] != tag || len(value) == 0 {
			return nil
		}
		value[len(value)/2] ^= 1
		return value
	}
}
