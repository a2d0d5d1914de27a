package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

func TestRevocationIsInTheDeltaAtEveryOrganisation(t *testing.T) {
	cw := newCRLWorld(t, 3, nil)
	first := cw.issue()
	waitFor(t, "a complete CRL", func() bool { return cw.bridges[2].crlAt("full.crl") != nil })
	cw.revoke(first, "keyCompromise")
	cw.everywhere("delta.crl", first)
	waitFor(t, "all are current", func() bool {
		return cw.target(0).State == caapi.TargetCurrent && cw.target(1).State == caapi.TargetCurrent && cw.target(2).State == caapi.TargetCurrent
	})
	for _, name := range []string{"full.crl", "delta.crl"} {
		for _, b := range cw.bridges[1:] {
			if !bytes.Equal(b.served["/crl//"+name], cw.bridges[0].served["/crl//"+name]) {
				t.Errorf("two organisations have different %s", name)
			}
		}
	}
	delta := cw.bridges[1].crlAt("delta.crl")
	if complete := cw.bridges[1].crlAt("full.crl"); delta.Base != complete.Number || delta.Number <= complete.Number {
		t.Errorf("delta %d against %d, the complete one is %d", delta.Number, delta.Base, complete.Number)
	}
	cw.bridges[0].noNumberTwice()
}

func TestHoldIsListedAndItsReleaseRemovesIt(t *testing.T) {
	cw := newCRLWorld(t, 1, func(c *Config) { c.Settings.CRL.FullEvery = time.Second })
	serial := cw.issue()
	cw.revoke(serial, "certificateHold")
	cw.everywhere("full.crl", serial) // when the next is due
	if _, _, err := cw.server.Release(t.Context(), caapi.ReleaseRequest{Serial: serial}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the release", func() bool { return cw.bridges[0].crlAt("full.crl") != nil && !cw.bridges[0].lists("full.crl", serial) })
	cw.bridges[0].noNumberTwice()
}

// TestShardListsItsCertificatesAndNoOther: their complete CRLs come with the change, not with the next interval.
func TestShardListsItsCertificatesAndNoOther(t *testing.T) {
	dir, _ := newDir(t)
	if err := os.WriteFile(filepath.Join(dir, profilesFile), defaultProfiles(&InitOptions{CRLURLs: []string{testCRL, testCRL2}, CRLShards: 2}, DefaultValidity), 0o600); err != nil {
		t.Fatal(err)
	}
	cw := crlWorldIn(t, dir, 2, nil)
	var serials [2]string // one of each shard
	for serials[0] == "" || serials[1] == "" {
		s := cw.issue()
		parsed, err := wire.ParseSerial(s)
		if err != nil {
			t.Fatal(err)
		}
		serials[parsed[len(parsed)-1]&1] = s
	}
	for shard, serial := range serials {
		cw.revoke(serial, "superseded")
		cw.everywhere(fmt.Sprintf("%d.crl", shard), serial)
	}
	for shard, serial := range serials {
		name := fmt.Sprintf("%d.crl", 1-shard)
		if c := cw.bridges[1].crlAt(name); c == nil || cw.bridges[1].lists(name, serial) {
			t.Errorf("%s: %+v", name, c)
		}
		want := strings.NewReplacer("{ca}", cw.server.CAID().String(), "{shard}", fmt.Sprint(1-shard)).Replace(testCRL)
		if got := cw.bridges[1].crlAt(name).Scope; got != want {
			t.Errorf("scope %q, want %q", got, want)
		}
	}
	cw.bridges[0].noNumberTwice()
}

// TestShardsOfEarlierProfilesAreStillPublished: certificates name them for ever.
func TestShardsOfEarlierProfilesAreStillPublished(t *testing.T) {
	dir, _ := newDir(t)
	write := func(shards int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, profilesFile), defaultProfiles(&InitOptions{CRLURLs: []string{testCRL}, CRLShards: shards}, DefaultValidity), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(5)
	w := startWorld(t, dir, nil) // makes no CRLs, but certificates that name them
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.node.Close(); err != nil {
		t.Fatal(err)
	}
	write(2)
	cw := crlWorldIn(t, dir, 1, nil)
	for shard := range 5 {
		waitFor(t, "shard", func() bool { return cw.bridges[0].crlAt(fmt.Sprintf("%d.crl", shard)) != nil })
	}
	if got := len(cw.status().Lists); got < 6 {
		t.Errorf("%d CRLs in the status", got)
	}
}

func TestOneDeadTargetDelaysNobody(t *testing.T) {
	cw := newCRLWorld(t, 3, nil)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	cw.bridges[1].set(func() {
		cw.bridges[1].fault = func(http.ResponseWriter, *http.Request, []byte) bool { return true } // replaced below
	})
	dead := cw.bridges[1]
	dead.set(func() {
		dead.fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			dead.mu.Unlock() // so that the test can look
			defer dead.mu.Lock()
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return true
		}
	})
	serial := cw.issue()
	cw.revoke(serial, "keyCompromise")
	for _, i := range []int{0, 2} {
		waitFor(t, "the delta", func() bool {
			return cw.bridges[i].lists("delta.crl", serial) || cw.bridges[i].lists("full.crl", serial)
		})
		waitFor(t, "current", func() bool { return cw.target(i).State == caapi.TargetCurrent })
	}
	if st := cw.target(1); st.State == caapi.TargetCurrent || st.Behind == 0 || st.Since == "" {
		t.Errorf("the dead target is shown as %+v", st)
	}
}

func TestTargetThatFailsIsAskedAgainWithTheNewest(t *testing.T) {
	cw := newCRLWorld(t, 2, nil)
	var down atomic.Bool
	down.Store(true)
	cw.bridges[1].set(func() {
		cw.bridges[1].fault = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			if down.Load() {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return down.Load()
		}
	})
	serial := cw.issue()
	cw.revoke(serial, "keyCompromise")
	waitFor(t, "failing", func() bool {
		return cw.target(1).State == caapi.TargetFailing && strings.Contains(cw.target(1).Detail, "503")
	})
	down.Store(false)
	waitFor(t, "recovery", func() bool {
		return cw.target(1).State == caapi.TargetCurrent && (cw.bridges[1].lists("delta.crl", serial) || cw.bridges[1].lists("full.crl", serial))
	})
}

// TestUnknownOutcomeOfPublishingIsRepeated: the target took the CRL, and its answer got lost.
func TestUnknownOutcomeOfPublishingIsRepeated(t *testing.T) {
	cw := newCRLWorld(t, 1, nil)
	b := cw.bridges[0]
	lost := 0
	b.set(func() {
		b.fault = func(_ http.ResponseWriter, _ *http.Request, der []byte) bool {
			if lost == 3 {
				return false
			}
			lost++
			if err := b.take(der); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		}
	})
	serial := cw.issue()
	cw.revoke(serial, "keyCompromise")
	waitFor(t, "the third repetition", func() bool { return cw.target(0).State == caapi.TargetCurrent && cw.target(0).Number > 0 })
	b.noNumberTwice()
}

func TestTargetThatLostACRLGetsItAgain(t *testing.T) {
	cw := newCRLWorld(t, 2, nil)
	b := cw.bridges[1]
	waitFor(t, "current", func() bool { return cw.target(1).State == caapi.TargetCurrent && cw.target(1).Delta > 0 })
	b.set(func() { b.served, b.numbers = map[string][]byte{}, map[string]uint64{} })
	for _, target := range cw.server.crls.targets {
		target.askAll(t.Context()) // what it does by itself every half minute
	}
	waitFor(t, "both are back", func() bool { return b.crlAt("full.crl") != nil && b.crlAt("delta.crl") != nil })
	b.noNumberTwice()
}

// TestChangeByOthersIsFollowed: a revocation that this process did not make, told of by the stream of events and, without it, found.
func TestChangeByOthersIsFollowed(t *testing.T) {
	for _, stream := range []bool{true, false} {
		t.Run(fmt.Sprintf("stream %v", stream), func(t *testing.T) {
			cw := newCRLWorld(t, 1, func(c *Config) {
				if stream {
					c.Settings.CRL.PollEvery = time.Hour
				}
			})
			b := cw.bridges[0]
			serial := cw.issue()
			revokeBehind(t, cw, serial)
			waitFor(t, "the entry", func() bool {
				if stream {
					b.tell()
				}
				return b.lists("delta.crl", serial) || b.lists("full.crl", serial)
			})
		})
	}
}

// revokeBehind revokes as another bridge of the CA's organisation would.
func revokeBehind(t *testing.T, cw *crlWorld, serial string) {
	t.Helper()
	s, err := wire.ParseSerial(serial)
	if err != nil {
		t.Fatal(err)
	}
	arg := wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: cw.server.CAID(), Changes: []wire.StatusChange{{Serial: s, Op: wire.OpRevoke, Reason: wire.KeyCompromise}}})
	if _, err := cw.node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnSetStatus, arg); err != nil {
		t.Fatal(err)
	}
}

// lie makes the CA's own bridge say that nothing is revoked.
func (cw *crlWorld) lie() {
	cw.bridges[0].set(func() {
		cw.bridges[0].contents = func(scope string, base uint64) (*crl.Contents, error) {
			c, err := cw.view.contents(scope, base)
			if err == nil {
				c.Entries = nil
			}
			return c, err
		}
	})
}

func (cw *crlWorld) tellTheTruth() {
	cw.bridges[0].set(func() { cw.bridges[0].contents = cw.view.contents })
}

// TestLyingContentsAreRefusedByTheOthers: the CA's own bridge leaves out a revocation that this CA bridge cannot know of. It signs what it is
// told, the other organisations refuse it and go on serving what they had, and the CA's status says so.
func TestLyingContentsAreRefusedByTheOthers(t *testing.T) {
	cw := newCRLWorld(t, 2, func(c *Config) { c.Settings.CRL.DeltaEvery = 500 * time.Millisecond })
	honest := cw.bridges[1]
	honest.set(func() {
		honest.check = func(c *crl.Contents) error {
			want, err := cw.view.contents(c.Scope, c.Base)
			if err != nil {
				return err
			}
			want.Number, want.ThisUpdate = c.Number, c.ThisUpdate
			return c.Compare(want)
		}
	})
	serial := cw.issue()
	waitFor(t, "an honest CRL", func() bool { return honest.crlAt("delta.crl") != nil })
	cw.lie()
	revokeBehind(t, cw, serial)
	waitFor(t, "refusal", func() bool { return cw.target(1).State == caapi.TargetRefuses })
	if st := cw.target(1); !strings.Contains(st.Detail, "is missing") || st.Behind == 0 || st.Since == "" {
		t.Errorf("the status says %+v", st)
	}
	if honest.lists("delta.crl", serial) || honest.crlAt("full.crl") == nil {
		t.Error("the honest bridge serves what it must not")
	}
	cw.tellTheTruth()
	waitFor(t, "the truth", func() bool { return honest.lists("delta.crl", serial) && cw.target(1).State == caapi.TargetCurrent })
}

// TestContentsWithoutTheCAsOwnRevocationAreNotSigned: that lie the CA bridge sees itself.
func TestContentsWithoutTheCAsOwnRevocationAreNotSigned(t *testing.T) {
	cw := newCRLWorld(t, 1, nil)
	serial := cw.issue()
	waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
	cw.lie()
	before := cw.bridges[0].crlAt("delta.crl").Number
	cw.revoke(serial, "keyCompromise")
	waitFor(t, "the problem", func() bool { return len(cw.status().Problems) == 1 })
	if p := cw.status().Problems[0]; p.Stage != stageContents || !strings.Contains(p.Detail, serial) || !strings.Contains(p.Detail, "must be listed") {
		t.Errorf("the status says %+v", p)
	}
	if now := cw.bridges[0].crlAt("delta.crl").Number; now != before {
		t.Errorf("a CRL with number %d was published", now)
	}
	cw.tellTheTruth()
	waitFor(t, "the truth", func() bool { return cw.bridges[0].lists("delta.crl", serial) && len(cw.status().Problems) == 0 })
}

// TestNoCRLIsSignedWhile: each reason is in the status, and goes away with its cause.
func TestNoCRLIsSignedWhile(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*crlWorld)
		mend  func(*crlWorld)
		stage string
		want  string
	}{
		"the ledger does not answer": {
			func(cw *crlWorld) { cw.ledger.Down(true) }, func(cw *crlWorld) { cw.ledger.Down(false) }, stageLedger, "",
		},
		"the ledger's time stands still": {
			func(cw *crlWorld) { cw.shift(func(c *crl.Contents) { c.ThisUpdate = c.ThisUpdate.Add(-time.Minute) }) }, (*crlWorld).tellTheTruth, stageContents, "stands still",
		},
		"the ledger's time is ahead": {
			func(cw *crlWorld) { cw.shift(func(c *crl.Contents) { c.ThisUpdate = c.ThisUpdate.Add(time.Minute) }) }, (*crlWorld).tellTheTruth, stageContents, "this machine's clock is slow",
		},
		"time runs backwards": {
			func(cw *crlWorld) {
				cw.shift(func(c *crl.Contents) { c.ThisUpdate = c.ThisUpdate.Add(-5 * time.Second) })
			}, (*crlWorld).tellTheTruth, stageContents, "must not be before that of the CRL",
		},
		"the bridge speaks of another CA": {
			func(cw *crlWorld) { cw.shift(func(c *crl.Contents) { c.CAID[0] ^= 1 }) }, (*crlWorld).tellTheTruth, stageContents, "ca_id",
		},
		"the bridge speaks of another scope": {
			func(cw *crlWorld) { cw.shift(func(c *crl.Contents) { c.Scope = "http://x/1.crl" }) }, (*crlWorld).tellTheTruth, stageContents, "scope",
		},
		"the bridge answers with a complete CRL for a delta": {
			func(cw *crlWorld) { cw.shift(func(c *crl.Contents) { c.Base = 0 }) }, (*crlWorld).tellTheTruth, stageContents, "base",
		},
		"the bridge cannot say": {
			func(cw *crlWorld) { cw.bridges[0].set(func() { cw.bridges[0].contents = nil }) }, (*crlWorld).tellTheTruth, stageContents, "404",
		},
		"zlint finds an error": {
			func(cw *crlWorld) { cw.lintFails.Store(true) }, func(cw *crlWorld) { cw.lintFails.Store(false) }, stageLint, "injected",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cw := newCRLWorld(t, 1, nil)
			serial := cw.issue()
			waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
			tc.spoil(cw)
			before := cw.bridges[0].crlAt("delta.crl").Number
			revokeBehind(t, cw, serial)
			cw.bridges[0].tell()
			waitFor(t, "the problem", func() bool { return len(cw.server.CRLs().Problems) > 0 })
			if p := cw.server.CRLs().Problems[0]; p.Stage != tc.stage || !strings.Contains(p.Detail, tc.want) || p.Since == "" {
				t.Errorf("the status says %+v", p)
			}
			if now := cw.bridges[0].crlAt("delta.crl").Number; now != before {
				t.Errorf("delta %d was published, after %d", now, before)
			}
			tc.mend(cw)
			waitFor(t, "the revocation", func() bool { return cw.bridges[0].lists("delta.crl", serial) && len(cw.server.CRLs().Problems) == 0 })
			cw.bridges[0].noNumberTwice()
		})
	}
}

// shift changes what the CA's bridge says.
func (cw *crlWorld) shift(change func(*crl.Contents)) {
	cw.bridges[0].set(func() {
		cw.bridges[0].contents = func(scope string, base uint64) (*crl.Contents, error) {
			c, err := cw.view.contents(scope, base)
			if err == nil {
				change(c)
			}
			return c, err
		}
	})
}

func TestSuspendedKeySignsNothing(t *testing.T) {
	var suspended atomic.Bool
	cw := newCRLWorld(t, 1, func(c *Config) {
		c.KeyUsable = func() error {
			if suspended.Load() {
				return wire.Errorf(wire.FailedPrecondition, "key", "suspended", "must be active")
			}
			return nil
		}
	})
	serial := cw.issue()
	waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
	suspended.Store(true)
	revokeBehind(t, cw, serial)
	cw.bridges[0].tell()
	waitFor(t, "the problem", func() bool { return len(cw.status().Problems) == 1 })
	if p := cw.status().Problems[0]; p.Stage != stageKey || !strings.Contains(p.Detail, "suspended") {
		t.Errorf("the status says %+v", p)
	}
	if _, err := cw.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil || !strings.Contains(err.Error(), "must be active") {
		t.Errorf("a certificate was signed: %v", err)
	}
	if cw.bridges[0].lists("delta.crl", serial) {
		t.Error("a CRL was signed")
	}
	suspended.Store(false)
	cw.everywhere("delta.crl", serial)
}

// TestSuspendedCAStillRevokes: the consortium has suspended the CA, its certificates keep their status, and whoever relies on CRLs must learn of
// a change to it.
func TestSuspendedCAStillRevokes(t *testing.T) {
	cw := newCRLWorld(t, 1, nil)
	serial := cw.issue()
	waitFor(t, "a delta", func() bool { return cw.bridges[0].crlAt("delta.crl") != nil })
	arg := wire.Encode(&wire.DecideArg{V: wire.Version, Kind: wire.DecideSuspend, CAID: cw.server.CAID(), Change: cw.caRecord().Change})
	if _, err := cw.node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnDecide, arg); err != nil {
		t.Fatal(err)
	}
	if st := cw.caRecord().State; st != wire.CASuspended {
		t.Fatalf("state %d", st)
	}
	cw.revoke(serial, "keyCompromise")
	cw.everywhere("delta.crl", serial)
}

func (cw *crlWorld) caRecord() *wire.CARecord {
	cw.t.Helper()
	rec, err := cw.server.trustListEntry(cw.t.Context())
	if err != nil || rec == nil {
		cw.t.Fatal(rec, err)
	}
	return rec
}

func TestCAThatMakesNoCRLsSaysSo(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Settings.CRL = &CRLSettings{Disabled: true} })
	st, err := w.client("requester").CRLs(t.Context())
	if err != nil || st.Made || len(st.Lists) != 0 || len(st.Targets) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if code, _, _ := w.call("GET", caapi.PathCRLs, "", map[string]string{"Authorization": ""}); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d", code)
	}
}

func TestCAWithoutCRLSignIsRefusedAtStart(t *testing.T) {
	dir, _ := newDir(t)
	cert, key := withoutCRLSign(t)
	if err := os.WriteFile(filepath.Join(dir, certFile), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, keystate.File)); err != nil { // it is about another key
		t.Fatal(err)
	}
	_, err := New(Config{Dir: dir, Key: key, Settings: crashSettings("http://127.0.0.1:1")}, nil)
	if err == nil || !strings.Contains(err.Error(), "cRLSign") {
		t.Errorf("got %v", err)
	}
}

// withoutCRLSign makes a CA certificate that may sign certificates only.
func withoutCRLSign(t *testing.T) (certPEM []byte, key crypto.Signer) {
	t.Helper()
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: testSubject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return encodeCert(der), key
}
