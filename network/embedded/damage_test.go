package embedded

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// damaged makes a ledger, changes its store, and opens it again.
func damaged(t *testing.T, change func(*pebble.DB, uint64) error) (*Node, error) {
	t.Helper()
	o := Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	node := open(t, o)
	s := newStory(t, 4)
	if err := s.tell(t.Context(), node.Connect(wire.RoleAdministrator), node.Connect(wire.RoleOperator)); err != nil {
		t.Fatal(err)
	}
	height, err := node.height()
	if err == nil {
		err = node.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	o, err = o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	db, err := openStore(o, func(err error) { t.Error(err) })
	if err == nil {
		err = errors.Join(change(db, height), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return Open(o)
}

func TestADamagedEndIsNoticedWhenOpening(t *testing.T) {
	rewrite := func(db *pebble.DB, number uint64, change func(*record)) error {
		encoded, err := get(db, blockKey(number))
		if err != nil {
			return err
		}
		r, err := decodeRecord(number, encoded)
		if err != nil {
			return err
		}
		change(r)
		return db.Set(blockKey(number), encode(r), pebble.Sync)
	}
	flip := func(r *record) { r.Data[len(r.Data)/2] ^= 1 }
	for _, c := range []struct {
		name   string
		change func(*pebble.DB, uint64) error
		says   string
	}{
		{"the last block is gone", func(db *pebble.DB, h uint64) error { return db.Delete(blockKey(h-1), pebble.Sync) }, "missing"},
		{"the last block was changed", func(db *pebble.DB, h uint64) error { return rewrite(db, h-1, flip) }, "damaged"},
		{"the block before it was changed", func(db *pebble.DB, h uint64) error { return rewrite(db, h-2, flip) }, "damaged"},
		{"the last block is another's", func(db *pebble.DB, h uint64) error {
			return rewrite(db, h-1, func(r *record) { r.PrevHash[0] ^= 1 })
		}, "predecessor"},
		{"the head is an older one", func(db *pebble.DB, h uint64) error {
			encoded, err := get(db, blockKey(h-2))
			if err != nil {
				return err
			}
			r, err := decodeRecord(h-2, encoded)
			if err != nil {
				return err
			}
			return db.Set(headKey, encode(head{V: formatVersion, Height: h - 1, Hash: r.hash()}), pebble.Sync)
		}, "there is a block"},
		{"the head is gone", func(db *pebble.DB, _ uint64) error { return db.Delete(headKey, pebble.Sync) }, "head"},
	} {
		t.Run(c.name, func(t *testing.T) {
			node, err := damaged(t, c.change)
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), node.Close()))
			}
			if !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want it to say damaged and %q", err, c.says)
			}
		})
	}
}

func TestADamagedMiddleIsNoticedWhenRead(t *testing.T) {
	node, err := damaged(t, func(db *pebble.DB, _ uint64) error {
		return db.Set(blockKey(2), encode(record{V: formatVersion, Number: 2, PrevHash: make([]byte, 32), Data: encode([]txRecord{})}), pebble.Sync)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if _, _, err := node.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged: block 2") {
		t.Errorf("verify: %v", err)
	}
	err = node.Connect(wire.RoleAuditor).Blocks(t.Context(), 0, func(*network.Block) error { return nil })
	if !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("blocks: %v, want ErrUnavailable", err)
	}
}

func TestOpenRefusesWhatDiffers(t *testing.T) {
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	node, err := Open(Options{Dir: dir, Channel: "pki", MSPID: "AcmeMSP", TickInterval: 5 * time.Second, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Log: quiet}); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{Dir: dir, Channel: "other"}, "channel: the ledger was created with pki, asked for other"},
		{Options{Dir: dir, MSPID: "OtherMSP"}, "MSP ID: the ledger was created with AcmeMSP, asked for OtherMSP"},
		{Options{Dir: dir, TickInterval: time.Second}, "tick interval: the ledger was created with 5s, asked for 1s"},
		{Options{Dir: filepath.Dir(dir)}, "must be empty or a ledger's directory"},
		{Options{Dir: t.TempDir(), MustExist: true}, "there is no ledger"},
		{Options{Dir: t.TempDir(), TickInterval: time.Microsecond}, "whole milliseconds"},
		{Options{Dir: t.TempDir(), MSPID: "a/b"}, "MSP ID"},
		{Options{}, "dir: empty"},
	} {
		c.o.Log = quiet
		node, err := Open(c.o)
		if err == nil {
			t.Fatal(errors.Join(errors.New("opened"), node.Close()))
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want it to say %q", err, c.says)
		}
	}
	node = open(t, Options{Dir: dir})
	if node.Channel() != "pki" || node.MSPID() != "AcmeMSP" || node.TickInterval() != 5*time.Second {
		t.Errorf("opened again: %s, %s, %v", node.Channel(), node.MSPID(), node.TickInterval())
	}
}

func TestADamagedLogIsNoticedAndATornOneOpens(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(log []byte) []byte
		opens  bool
	}{
		{"a changed octet in the middle", func(log []byte) []byte { return flipped(log, len(log)/2) }, false},
		{"the last record cut off", func(log []byte) []byte { return log[:len(log)-20] }, false},
		{"half a record more, as a crash in the middle of a write leaves it", func(log []byte) []byte {
			return append(bytes.Clone(log), log[len(log)-100:len(log)-50]...)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, s := newChild(t), newStory(t, 8)
			host.start(t)
			if err := s.tell(t.Context(), dial(t, socketOf(host.dir), wire.RoleAdministrator), dial(t, socketOf(host.dir), wire.RoleOperator)); err != nil {
				t.Fatal(err)
			}
			host.kill(t) // what was acknowledged is in the write-ahead log only
			changeLog(t, host.dir, c.change)
			node, err := Open(Options{Dir: host.dir, Log: slog.New(slog.DiscardHandler)})
			if c.opens != (err == nil) || err != nil && !strings.Contains(err.Error(), "damaged") {
				t.Errorf("opened: %v", err)
			}
			if err == nil {
				s.check(t, node)
				if err := node.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// changeLog rewrites the store's newest write-ahead log.
func changeLog(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, storeDir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("write-ahead logs: %v, %v", logs, err)
	}
	newest := slices.Max(logs)
	log, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(newest, change(bytes.TrimRight(log, "\x00")), 0o600); err != nil { // it is preallocated
		t.Fatal(err)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}
