package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
)

// killed ends a step as a crash would.
type killed struct{ step string }

// TestKilledAtEveryStep crashes at each step of several blocks, with different shares of what was not synced surviving, and continues.
func TestKilledAtEveryStep(t *testing.T) {
	cfg, blocks := consortiumChain(t)
	want := open(t, Options{Consortium: cfg})
	must(t, want.Run(t.Context(), source(blocks), uint64(len(blocks))))
	for _, step := range []string{"execute", "batch", "commit", "committed"} {
		for _, nth := range []int{1, 2, 7} {
			for _, survives := range []int{0, 50, 100} {
				t.Run(fmt.Sprintf("%s/%d/%d%%", step, nth, survives), func(t *testing.T) {
					disk := vfs.NewCrashableMem()
					left := nth
					o := Options{Dir: "audit", Channel: cctest.Channel, Consortium: cfg, Log: quiet, fs: disk, step: func(at string) {
						if at == step {
							if left--; left == 0 {
								panic(killed{at})
							}
						}
					}}
					a, err := Open(o)
					must(t, err)
					reached := runUntilKilled(t, a, blocks)
					o.fs = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(1, uint64(nth)))})
					o.step = nil
					again, err := Open(o)
					must(t, err)
					defer again.Close()
					if again.Height() > reached+1 {
						t.Errorf("continues at %d, was killed at %d", again.Height(), reached)
					}
					must(t, again.Run(t.Context(), source(blocks), uint64(len(blocks))))
					if again.State != want.State || !bytes.Equal(again.Hash(), want.Hash()) {
						t.Error("the end is not the same")
					}
					must(t, a.Close())
				})
			}
		}
	}
}

func runUntilKilled(t *testing.T, a *Auditor, blocks []*network.Block) (height uint64) {
	t.Helper()
	defer func() {
		if _, ok := recover().(killed); !ok {
			t.Fatal("was not killed")
		}
		height = a.Height()
	}()
	must(t, a.Run(t.Context(), source(blocks), uint64(len(blocks))))
	return 0
}

func TestContinuesWhereItWasClosed(t *testing.T) {
	blocks := embeddedChain(t, 4)
	dir := t.TempDir()
	for to := uint64(1); to <= uint64(len(blocks)); to += 3 {
		a := open(t, Options{Dir: dir})
		first := true
		must(t, a.Run(t.Context(), source(blocks), to))
		if a.txs > 30 && first { // only what is new
			t.Errorf("%d transactions up to block %d", a.txs, to)
		}
		must(t, a.Close())
	}
}

// checkLogs compares the audit's own copies of all logs with the heads.
func checkLogs(a *Auditor) error {
	logs, err := a.Logs()
	for _, l := range logs {
		tree := ranges.NewEmptyRange(0)
		err = errors.Join(err, a.Entries(&l, func(_ uint64, e *merklelog.Entry) error { return tree.Append(hasher.HashLeaf(e.Leaf), nil) }))
		root := hasher.EmptyRoot()
		if tree.End() > 0 {
			var rootErr error
			root, rootErr = tree.GetRootHash(nil)
			err = errors.Join(err, rootErr)
		}
		err = errors.Join(err, a.CheckLog(&l, [32]byte(root)))
	}
	return err
}

// TestADamagedStateIsFound: whatever changes in the audit's own state must not pass as the ledger's fault, nor unnoticed.
func TestADamagedStateIsFound(t *testing.T) {
	_, blocks := consortiumChain(t)
	audited := func(t *testing.T) string {
		dir := t.TempDir()
		a := open(t, Options{Dir: dir})
		must(t, a.Run(t.Context(), source(blocks), uint64(len(blocks)-2)))
		must(t, a.db.Flush())
		must(t, a.Close())
		return dir
	}
	again := func(dir string) error {
		a, err := Open(Options{Dir: dir, Channel: cctest.Channel, Log: quiet})
		if err != nil {
			return err
		}
		err = a.Run(t.Context(), source(blocks), uint64(len(blocks)))
		if err == nil {
			err = checkLogs(a)
		}
		a.db.Close()
		return err
	}
	must(t, again(audited(t)))
	for name, change := range map[string]func(*pebble.DB, []byte, []byte) error{
		"a bit of a value": func(db *pebble.DB, key, value []byte) error {
			value[len(value)-1] ^= 1
			return db.Set(key, value, pebble.Sync)
		},
		"a key lost": func(db *pebble.DB, key, _ []byte) error { return db.Delete(key, pebble.Sync) },
		"a key added": func(db *pebble.DB, key, value []byte) error {
			return db.Set(append(key, 'x'), value, pebble.Sync)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := audited(t)
			a := open(t, Options{Dir: dir})
			var key, value []byte
			must(t, a.Scan("cert/", func(k string, v []byte) bool { key, value = stateKey(k), bytes.Clone(v); return false }))
			must(t, change(a.db, key, value))
			must(t, a.Close())
			if err := again(dir); err == nil || !strings.Contains(err.Error(), "damaged") || errors.As(err, new(*Difference)) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("a bit of a file", func(t *testing.T) {
		dir := audited(t)
		tables, err := filepath.Glob(filepath.Join(dir, storeDir, "*.sst"))
		if err != nil || len(tables) == 0 {
			t.Fatalf("tables: %v, %v", tables, err)
		}
		content, err := os.ReadFile(tables[0])
		must(t, err)
		content[100] ^= 1
		must(t, os.WriteFile(tables[0], content, 0o600))
		if err := again(dir); err == nil || errors.As(err, new(*Difference)) {
			t.Errorf("%v", err)
		}
	})
}

func BenchmarkAudit(b *testing.B) {
	blocks := embeddedChain(b, 60)
	txs, certs := 0, 0
	for _, block := range blocks {
		txs += len(block.Txs)
		for _, tx := range block.Txs {
			for _, w := range tx.Writes {
				if strings.HasPrefix(w.Key, "cert/") {
					certs++
				}
			}
		}
	}
	for b.Loop() {
		a := open(b, Options{})
		must(b, a.Run(b.Context(), source(blocks), uint64(len(blocks))))
		must(b, a.Close())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*txs), "µs/tx")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(blocks)), "µs/block")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*certs), "µs/cert-write")
}
