package ca

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/network/embedded"
)

// The child finds in this the bridge that says what its CRLs are about.
const crashCRLEnv = "CERTANCHOR_CA_CRASH_CRL"

// crashCRLChild makes CRLs, and kills itself at a step of the first or, with "delta: " before the step, of the second.
func crashCRLChild(at, dir, url string, node *embedded.Node) error {
	key, err := LoadKey(dir, []byte(testPassphrase))
	if err != nil {
		return err
	}
	step, second := strings.CutPrefix(at, "delta: ")
	var left atomic.Int32
	if left.Store(1); second {
		left.Store(2)
	}
	_, err = New(Config{
		Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler), Settings: crashSettings(url),
		step: func(s string) {
			if s == step && left.Add(-1) == 0 {
				die()
			}
		},
	}, node.Connect(wire.RoleOperator))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		<-ctx.Done() // it dies before
		err = errors.New("the step was never reached")
	}
	return err
}

func crashSettings(url string) Settings {
	return Settings{CRL: &CRLSettings{Contents: url, PollEvery: minPollEvery, Staleness: 10 * time.Second}}
}

// script is a ledger that grows when it is told to.
type script struct {
	id     wire.CAID
	height atomic.Uint64
	grows  atomic.Bool  // by itself, with each complete CRL
	asked  atomic.Int64 // requests for contents
	entry  atomic.Int64 // what the contents say
	more   atomic.Int64 // and how many entries beside that
	ahead  atomic.Int64 // of the clock, in nanoseconds
}

func (s *script) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func (s *script) contents(scope string, base uint64) (*crl.Contents, error) {
	s.asked.Add(1)
	c := &crl.Contents{CAID: s.id, Scope: scope, Number: s.height.Load(), Base: base, ThisUpdate: s.now().UTC().Truncate(time.Second)}
	c.Entries = []crl.Entry{{Serial: wire.Serial{byte(s.entry.Load())}, Time: 1, Reason: wire.Superseded}}
	for i := range s.more.Load() {
		c.Entries = append(c.Entries, crl.Entry{Serial: binary.BigEndian.AppendUint32([]byte{0x7f}, uint32(i)), Time: 1, Reason: wire.Superseded})
	}
	if base == 0 && s.grows.Load() {
		s.height.Add(1)
	}
	return c, nil
}

// TestKilledWhileACRLIsMade: whichever step it is killed at, no number is ever on two CRLs; what was kept is published after a restart as it
// was, and what was not is made anew once the ledger has grown, and not before.
func TestKilledWhileACRLIsMade(t *testing.T) {
	for _, kind := range []string{"", "delta: "} {
		for _, step := range []string{stepReserved, stepCRLSigned, stepKept, stepPublishing, stepPublished} {
			t.Run(kind+step, func(t *testing.T) {
				t.Parallel()
				dir, _ := newDir(t)
				cert, _, err := LoadCertificate(dir)
				if err != nil {
					t.Fatal(err)
				}
				node, err := openNode(dir)
				if err != nil {
					t.Fatal(err)
				}
				register(t, node, dir)
				if err := node.Close(); err != nil {
					t.Fatal(err)
				}
				b := newCRLBridge(t, cert)
				s := &script{id: wire.CAIDOf(cert.RawSubjectPublicKeyInfo)}
				s.height.Store(1000)
				s.grows.Store(true)
				s.entry.Store(1)
				b.set(func() { b.contents, b.height = s.contents, s.height.Load })
				runChild(t, kind+step, dir, crashCRLEnv+"="+b.url)

				// The ledger has not grown, and says something else.
				number, name := uint64(1000), "full.crl"
				if kind != "" {
					number, name = 1001, "delta.crl"
				}
				s.height.Store(number)
				s.grows.Store(false)
				s.entry.Store(2)
				kept := readKept(t, dir, name)
				if wasKept := step != stepReserved && step != stepCRLSigned; wasKept != (kept != nil) {
					t.Fatalf("kept: %v", kept != nil)
				}
				before := s.asked.Load()
				startWorld(t, dir, func(c *Config) { c.Settings = crashSettings(b.url) })
				if kept != nil {
					waitFor(t, "the CRL from before", func() bool { c := b.crlAt(name); return c != nil && c.Number == number })
					if !bytes.Equal(b.served["/crl//"+name], kept) {
						t.Error("it is another one")
					}
				}
				if kept == nil && kind == "" { // the delta's case is waiting for the bridge to be high enough, and asks for nothing
					waitFor(t, "some attempts", func() bool { return s.asked.Load() > before+2 })
					if b.crlAt(name) != nil {
						t.Errorf("a CRL with a number that was used: %+v", b.crlAt(name))
					}
				}
				s.height.Store(number + 1)
				s.grows.Store(true)
				if kept == nil {
					waitFor(t, "a new CRL", func() bool { c := b.crlAt(name); return c != nil && c.Number > number })
				}
				waitFor(t, "a delta that says what is so now", func() bool { return b.lists("delta.crl", "02") })
				b.noNumberTwice()
			})
		}
	}
}

func readKept(t *testing.T, dir, name string) []byte {
	t.Helper()
	file := map[string]string{"full.crl": "full.complete.crl", "delta.crl": "full.delta.crl"}[name]
	der, err := os.ReadFile(filepath.Join(dir, crlDir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return der
}

// TestNumbersBelowTheLedgersHeightAtStartAreNotUsed: whoever restores an older backup, or removes the directory, has lost the last number, which was at
// most the ledger's height.
func TestNumbersBelowTheLedgersHeightAtStartAreNotUsed(t *testing.T) {
	dir, _ := newDir(t)
	cw := crlWorldIn(t, dir, 1, nil)
	waitFor(t, "a CRL", func() bool { return cw.bridges[0].crlAt("full.crl") != nil })
	if err := cw.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, crlDir)); err != nil {
		t.Fatal(err)
	}
	height := cw.view.height()
	server, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler), Settings: cw.server.settings}, cw.ledger)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a CRL", func() bool { return len(server.CRLs().Lists) > 0 })
	if n := server.CRLs().Lists[0].Number; n <= height {
		t.Errorf("number %d at height %d", n, height)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	cw.bridges[0].noNumberTwice()
}

// TestDamagedStateOfCRLs: what cannot be read is not guessed at; what can be made anew is.
func TestDamagedStateOfCRLs(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(dir string) error
		want   string // in the error; empty: it starts
	}{
		"numbers that are none": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "full.json"), []byte("{"), 0o600) }, "full.json: damaged"},
		"numbers with another key": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "full.json"), []byte(`{"v":1,"x":1}`), 0o600)
		}, "full.json: damaged"},
		"numbers of another version": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "full.json"), []byte(`{"v":2}`), 0o600) }, "version 2"},
		"numbers below a CRL's": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "full.json"), []byte(`{"v":1,"number":1}`), 0o600)
		}, "CRL number 1"},
		"scopes that are none": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "scopes"), []byte("x\n"), 0o600) }, "scopes: line 1"},
		"an empty scope": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "scopes"), []byte("http://x/1\n\n"), 0o600)
		}, "scopes: line 2"},
		"a CRL that is none": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "full.complete.crl"), []byte("x"), 0o600)
		}, ""},
		"a delta where a complete is": {func(dir string) error {
			return os.Rename(filepath.Join(dir, "full.delta.crl"), filepath.Join(dir, "full.complete.crl"))
		}, ""},
		"an interrupted write": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".full.json.tmp-1"), []byte("x"), 0o600)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := newDir(t)
			cw := crlWorldIn(t, dir, 1, nil)
			waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
			if err := cw.server.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tc.change(filepath.Join(dir, crlDir)); err != nil {
				t.Fatal(err)
			}
			server, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler), Settings: cw.server.settings}, cw.ledger)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			serial := cw.issueAt(server)
			cw.revokeAt(server, serial)
			waitFor(t, "the revocation", func() bool {
				return cw.bridges[0].lists("delta.crl", serial) || cw.bridges[0].lists("full.crl", serial)
			})
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
			cw.bridges[0].noNumberTwice()
		})
	}
}

func TestDamagedNumbersNameTheFile(t *testing.T) {
	s, err := openCRLStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.saveNumbers(&crlNumbers{V: crlStateVersion, Scope: "http://x/1", Number: 7}); err != nil {
		t.Fatal(err)
	}
	n, err := s.numbers("http://x/1")
	if err != nil || n.Number != 7 {
		t.Fatalf("%+v, %v", n, err)
	}
	path := filepath.Join(s.dir, scopeName("http://x/1")+".json")
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"v":1,"scope":"http://x/2","number":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.numbers("http://x/1"); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("another scope's numbers: %v", err)
	}
}

// scripted starts a registered CA whose bridge says what a script says.
func scripted(t *testing.T, change func(*CRLSettings)) (*crlBridge, *script) {
	t.Helper()
	dir, _ := newDir(t)
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := newCRLBridge(t, cert)
	s := &script{id: wire.CAIDOf(cert.RawSubjectPublicKeyInfo)}
	s.height.Store(1000)
	s.grows.Store(true)
	s.entry.Store(1)
	b.set(func() { b.contents, b.height = s.contents, s.height.Load })
	w := startWorld(t, dir, func(c *Config) {
		c.Settings, c.Now = crashSettings(b.url), s.now
		if change != nil {
			change(c.Settings.CRL)
		}
	})
	register(t, w.node, dir)
	return b, s
}

// TestDeltaIsAgainstTheOldestValidCRL: whoever has any complete CRL that is valid can use it, and nobody needs one that has run out.
func TestDeltaIsAgainstTheOldestValidCRL(t *testing.T) {
	b, s := scripted(t, func(c *CRLSettings) { c.FullEvery, c.Validity, c.DeltaValidity = time.Hour, 3*time.Hour, time.Hour })
	waitFor(t, "a complete CRL and a delta", func() bool { return b.crlAt("full.crl") != nil && b.crlAt("delta.crl") != nil })
	first := b.crlAt("delta.crl").Base
	for hour := range 2 {
		last := b.crlAt("full.crl").Number
		s.height.Add(1)
		s.ahead.Add(int64(time.Hour))
		waitFor(t, "the next", func() bool { return b.crlAt("full.crl").Number > last })
		last = b.crlAt("full.crl").Number
		waitFor(t, "a delta after it", func() bool { return b.crlAt("delta.crl").Number > last })
		if base := b.crlAt("delta.crl").Base; base != first {
			t.Errorf("hour %d: the delta is against %d, the oldest valid CRL is %d", hour, base, first)
		}
	}
	s.ahead.Add(int64(time.Hour)) // the first runs out
	s.height.Add(1)
	waitFor(t, "another base", func() bool { return b.crlAt("delta.crl").Base > first })
	b.noNumberTwice()
}

// TestLargeDeltaBeginsAnew with a complete CRL before its time.
func TestLargeDeltaBeginsAnew(t *testing.T) {
	b, s := scripted(t, nil)
	waitFor(t, "a complete CRL and a delta", func() bool { return b.crlAt("full.crl") != nil && b.crlAt("delta.crl") != nil })
	first := b.crlAt("full.crl").Number
	s.more.Store(maxDeltaEntries)
	s.ahead.Add(int64(time.Hour / maxEarly * 2))
	s.height.Add(1)
	waitFor(t, "a complete CRL before its time", func() bool { s.height.Add(1); return b.crlAt("full.crl").Number > first })
	second := b.crlAt("full.crl").Number
	s.more.Store(0)
	waitFor(t, "a small delta against it", func() bool {
		s.height.Add(1)
		d := b.crlAt("delta.crl")
		return d.Base >= second && len(d.Entries) == 1
	})
	b.noNumberTwice()
}

// TestShardWithTheNameOfAnotherIsRefused: certificates that name the other would lose their CRL.
func TestShardWithTheNameOfAnotherIsRefused(t *testing.T) {
	dir, _ := newDir(t)
	write := func(url string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, profilesFile), defaultProfiles(&InitOptions{CRLURLs: []string{url}, CRLShards: 2}, DefaultValidity), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("http://old.example/{shard}.crl")
	w := startWorld(t, dir, nil)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	for url, taken := range map[string]bool{"http://new.example/{shard}.crl": false, "http://new.example/b-{shard}.crl": true, "http://old.example/{shard}.crl": true} {
		write(url)
		server, err := New(Config{Dir: dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger)
		if taken {
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "http://old.example/0.crl") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
