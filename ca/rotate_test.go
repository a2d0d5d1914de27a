package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

func rotateOptions(dir string) RotateOptions {
	return RotateOptions{Dir: dir, By: "alice", Passphrase: func() ([]byte, error) { return []byte(testPassphrase), nil }, Iterations: testIterations}
}

func openTestKey(dir string) (crypto.Signer, error) { return LoadKey(dir, []byte(testPassphrase)) }

// rotated makes the next generation of w's CA.
func rotated(t testing.TB, dir string) *Rotation {
	t.Helper()
	r, err := Rotate(rotateOptions(dir))
	if err != nil || !r.Made || r.State != keystate.Generated {
		t.Fatalf("%+v, %v", r, err)
	}
	return r
}

func (w *world) registerCert(cert *x509.Certificate, chain ...[]byte) {
	w.t.Helper()
	res, err := Register(context.Background(), w.node.Connect(wire.RoleAdministrator), cert.Raw, chain, testMSP)
	if err != nil || !res.Registered {
		w.t.Fatalf("register: %+v, %v", res, err)
	}
}

func (w *world) states() (all []keystate.State) {
	for _, g := range w.server.line.list() {
		all = append(all, g.custody.state())
	}
	return all
}

func (w *world) await(states ...keystate.State) {
	w.t.Helper()
	waitFor(w.t, "the keys to be "+string(states[0])+" and so on", func() bool { return slices.Equal(w.states(), states) })
}

func (w *world) issueOne(key string) *caapi.Certificate {
	w.t.Helper()
	got, err := w.client("operator").Issue(w.t.Context(), caapi.IssueRequest{CSR: newCSR(w.t, nil), Profile: "server"}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// One process, one URL, the same clients: the new key takes over as soon as the ledger trusts it, and the certificates of the old one keep being served.
func TestRotationWhileTheBridgeRuns(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	oldID := w.server.CAID().String()
	old := w.issueOne("")

	r := rotated(t, w.dir)
	newID := keyName(r.Certificate)
	if r.Certificate.Subject.String() != testSubject.String() || newID == oldID {
		t.Fatalf("%s, %s", r.Certificate.Subject, newID)
	}
	if again, err := Rotate(rotateOptions(w.dir)); err != nil || again.Made || !again.Certificate.Equal(r.Certificate) {
		t.Fatalf("another one: %+v, %v", again, err)
	}
	w.await(keystate.Active, keystate.Generated)
	if got := w.issueOne(""); got.CAID != oldID {
		t.Fatalf("issued by %s before the new key is trusted", got.CAID)
	}
	if _, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server", CA: wire.CAIDOf(r.Certificate.RawSubjectPublicKeyInfo)}); err == nil || !strings.Contains(err.Error(), "generated") {
		t.Fatalf("a key that is not in use signed: %v", err)
	}
	request := caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}
	before, err := w.client("operator").Issue(t.Context(), request, "the same")
	if err != nil {
		t.Fatal(err)
	}

	w.registerCert(r.Certificate)
	w.await(keystate.Retired, keystate.Active)
	fresh := w.issueOne("")
	if cert := parsePEM(t, fresh.Certificate); fresh.CAID != newID || cert.CheckSignatureFrom(r.Certificate) != nil || parsePEM(t, fresh.Chain[0]).Equal(r.Old) {
		t.Fatalf("%+v", fresh)
	}
	// The idempotency key of a request that the old one has answered still leads to that answer.
	if again, err := w.client("operator").Issue(t.Context(), request, "the same"); err != nil || again.Certificate != before.Certificate || again.CAID != oldID {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, c := range []*caapi.Certificate{old, fresh} {
		got, err := w.client("operator").Get(t.Context(), c.Serial)
		if err != nil || got.Certificate != c.Certificate || got.CAID != c.CAID || got.Status.State != "valid" {
			t.Fatalf("%+v, %v", got, err)
		}
		change, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: c.Serial, Reason: "superseded"})
		if err != nil || change.State != "revoked" {
			t.Fatalf("%+v, %v", change, err)
		}
		if got, err := w.client("operator").Get(t.Context(), c.Serial); err != nil || got.Status.State != "revoked" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if code, _, b := w.call("GET", caapi.PathCertificates+"/7fffffffffffffff", "", nil); code != http.StatusNotFound {
		t.Fatalf("%d %s", code, b)
	}

	ca, err := w.client("operator").CA(t.Context())
	if err != nil || ca.CAID != newID || len(ca.Generations) != 2 || ca.Generations[0].CAID != oldID || ca.Generations[0].Issues || !ca.Generations[1].Issues {
		t.Fatalf("%+v, %v", ca, err)
	}
	// Responder certificates come from whichever is asked.
	csr := []byte(newCSR(t, nil, func(r *x509.CertificateRequest) { r.DNSNames = nil }))
	block := parseCSRBlock(t, csr)
	for _, id := range []string{oldID, newID} {
		caID, err := wire.ParseCAID(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.client("responder").EnrollResponder(t.Context(), caID, block); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := w.server.EnrollResponder(t.Context(), caID, block); err != nil {
			t.Errorf("%s in this process: %v", id, err)
		}
	}
	if code, _, b := w.call("GET", caapi.PathMetrics, "", nil); code != http.StatusOK || !strings.Contains(string(b), `ca_unresolved_certificates{generation="`+newID+`"} 0`) {
		t.Errorf("%d %s", code, b)
	}

	// A restart, and the next rotation.
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	w2, err := New(Config{Dir: w.dir, Key: prepared.key, OpenKey: openTestKey, Log: w.server.log}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	if got, err := w2.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err != nil || w2.issuerOf(got.Serial).CAID().String() != newID {
		t.Fatalf("%+v, %v", got, err)
	}
	if again, err := Rotate(rotateOptions(w.dir)); err != nil || again.Made || again.State != keystate.Active || again.OldState != keystate.Retired {
		t.Fatalf("asked how far it is, and made another: %+v, %v", again, err)
	}
	o := rotateOptions(w.dir)
	o.Again = true
	third, err := Rotate(o)
	if err != nil || !third.Made {
		t.Fatalf("%+v, %v", third, err)
	}
	w.registerCert(third.Certificate)
	waitFor(t, "the third generation", func() bool { return w2.issuing().issuer.cert.Equal(third.Certificate) })
	if again, err := w2.Issue(t.Context(), Request{CSR: request.CSR, Profile: "server", Client: "operator", IdempotencyKey: "the same"}); err != nil || again.Serial.String() != before.Serial {
		t.Fatalf("%+v, %v", again, err)
	}
}

func parseCSRBlock(t testing.TB, text []byte) []byte {
	t.Helper()
	csr, err := ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	return csr.Raw
}

// While a responder of the organisation has no certificate of the new key, the old one goes on issuing.
func TestRotationWaitsForTheResponders(t *testing.T) {
	applied := make(chan struct{})
	close(applied)
	w := newKeyWorld(t, func(c *Config) {
		c.OpenKey, c.Responders = openTestKey, []Responder{&fakeResponder{"bridge", applied}}
	})
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.await(keystate.Active, keystate.Active)
	if got := w.issueOne(""); got.CAID != w.server.CAID().String() {
		t.Fatalf("issued by %s, for which nobody answers yet", got.CAID)
	}
	block := parseCSRBlock(t, []byte(newCSR(t, nil, func(r *x509.CertificateRequest) { r.DNSNames = nil })))
	if _, err := w.client("responder").EnrollResponder(t.Context(), wire.CAIDOf(r.Certificate.RawSubjectPublicKeyInfo), block); err != nil {
		t.Fatal(err)
	}
	w.await(keystate.Retired, keystate.Active)
	if got := w.issueOne(""); got.CAID != keyName(r.Certificate) {
		t.Fatal(got.CAID)
	}
}

// A responder that never asks holds the rotation up for a while, and not for ever.
func TestRotationDoesNotWaitForEver(t *testing.T) {
	var later atomic.Int64
	w := newKeyWorld(t, func(c *Config) {
		c.OpenKey, c.Responders = openTestKey, []Responder{&fakeResponder{"bridge", nil}}
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.await(keystate.Active, keystate.Active)
	later.Store(int64(overlapMost))
	w.await(keystate.Retired, keystate.Active)
}

// Killed at each step, the next process goes on where the states are.
func TestRotationIsFinishedAfterAKill(t *testing.T) {
	for _, at := range []string{"between", stepActivated, stepRetired} {
		t.Run(at, func(t *testing.T) {
			killed := make(chan struct{}, 1)
			block := make(chan struct{})
			w := newKeyWorld(t, func(c *Config) {
				c.OpenKey = openTestKey
				c.step = func(s string) {
					if s == at {
						killed <- struct{}{}
						<-block // as good as dead: it does nothing more until the test is over
					}
				}
			})
			// A directory that an earlier Init left when it was killed.
			if err := os.Mkdir(filepath.Join(w.dir, initPrefix+"1"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := rotated(t, w.dir)
			if _, err := os.Stat(filepath.Join(w.dir, initPrefix+"1")); !errors.Is(err, os.ErrNotExist) {
				t.Fatal("what was left is still there")
			}
			w.registerCert(r.Certificate)
			if at != "between" {
				<-killed
			}
			// The dead process's files are copied as they are on disk, and another one starts from the copy.
			dir := filepath.Join(t.TempDir(), "ca")
			copyTree(t, dir, w.dir)
			again, err := New(Config{Dir: dir, Key: prepared.key, OpenKey: openTestKey, Log: w.server.log}, w.node.Connect(wire.RoleOperator))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the end of the rotation", func() bool {
				all := again.line.list()
				return len(all) == 2 && all[0].custody.state() == keystate.Retired && all[1].custody.state() == keystate.Active
			})
			got, err := again.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"})
			if err != nil || again.issuerOf(got.Serial).CAID().String() != keyName(r.Certificate) {
				t.Fatalf("%+v, %v", got, err)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			close(block)
		})
	}
}

func copyTree(t testing.TB, dst, src string) {
	t.Helper()
	err := filepath.WalkDir(src, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		switch {
		case err != nil || d.IsDir():
			return errors.Join(err, os.MkdirAll(filepath.Join(dst, rel), 0o700))
		case !info.Mode().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(dst, rel), data, info.Mode().Perm()))
	})
	if err != nil {
		t.Fatal(err)
	}
}
