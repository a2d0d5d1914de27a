package dual

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestTextIsCanonical(t *testing.T) {
	w := newWorld(t)
	op := w.op(KindRevoke, map[string]string{"count": "5", "reason": "key\nca: forged", "empty": ""})
	back, err := ParseOperation(op.Bytes())
	if err != nil || back.ID() != op.ID() || back.Params["reason"] != op.Params["reason"] {
		t.Fatalf("%+v, %v", back, err)
	}
	text := string(op.Bytes())
	if strings.Count(text, "\n") != 9 {
		t.Errorf("a value breaks out of its line:\n%s", text)
	}
	for name, bad := range map[string]string{
		"empty": "", "another context": strings.Replace(text, "operation, version 1", "operation, version 2", 1),
		"a rejection's": string(op.RejectionBytes()), "more space": strings.Replace(text, "kind: ", "kind:  ", 1), "no last newline": strings.TrimSuffix(text, "\n"),
		"other order": strings.Replace(text, "param count: \"5\"\nparam empty: \"\"\n", "param empty: \"\"\nparam count: \"5\"\n", 1),
		"twice":       text + "param reason: \"x\"\n", "raw string": strings.Replace(text, `"5"`, "`5`", 1), "escape": strings.Replace(text, `"5"`, `"\x35"`, 1),
		"another zone": strings.Replace(text, "12:00:00Z", "12:00:00+00:00", 1), "capital": strings.Replace(text, "ca: ", "ca: A", 1), "trailing": text + "\n",
	} {
		if o, err := ParseOperation([]byte(bad)); err == nil {
			t.Errorf("%s: taken as %+v", name, o)
		}
	}
}

func TestOperationsThatAreNone(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Operation){
		"kind": func(o *Operation) { o.Kind = "dance" }, "nonce": func(o *Operation) { o.Nonce = strings.ToUpper(o.Nonce) + "A" }, "short nonce": func(o *Operation) { o.Nonce = "00" },
		"life": func(o *Operation) { o.Expires = o.Created.Add(MaxLife + time.Second) }, "no life": func(o *Operation) { o.Expires = o.Created },
		"fraction": func(o *Operation) { o.Created = o.Created.Add(time.Millisecond) }, "param name": func(o *Operation) { o.Params = map[string]string{"A": ""} },
		"param value": func(o *Operation) { o.Params = map[string]string{"a": "\xff"} }, "long value": func(o *Operation) { o.Params = map[string]string{"a": strings.Repeat("x", maxValue+1)} },
	} {
		op := w.op(KindExport, nil)
		change(&op)
		if err := op.Check(); err == nil {
			t.Errorf("%s: taken", name)
		}
		if err := w.policy.Verify(op, []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}, noon); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestTwoOperatorsMustSign(t *testing.T) {
	w := newWorld(t)
	op := w.op(KindKeyResume, map[string]string{"why": "found again"})
	other := op
	other.Params = map[string]string{"why": "another"}
	a, b := w.alice.approve(t, op), w.bob.approve(t, op)
	stranger := newPerson(t, "mallory", RoleAdministrator)
	for name, c := range map[string]struct {
		op   Operation
		all  []Approval
		when time.Time
	}{
		"none":                    {op, nil, noon},
		"one":                     {op, []Approval{a}, noon},
		"the same twice":          {op, []Approval{a, a}, noon},
		"the same, signed anew":   {op, []Approval{a, w.alice.approve(t, op)}, noon},
		"one under another name":  {op, []Approval{a, {Operator: "bob", Signature: a.Signature}}, noon},
		"a stranger":              {op, []Approval{a, stranger.approve(t, op)}, noon},
		"a stranger too":          {op, []Approval{a, b, stranger.approve(t, op)}, noon},
		"one of the wrong role":   {op, []Approval{a, w.eve.approve(t, op)}, noon},
		"of another operation":    {other, []Approval{a, b}, noon},
		"rejections":              {op, []Approval{w.alice.sign(t, op.RejectionBytes()), w.bob.sign(t, op.RejectionBytes())}, noon},
		"expired":                 {op, []Approval{a, b}, noon.Add(time.Hour)},
		"made too far in advance": {op, []Approval{a, b}, noon.Add(-skew - time.Second)},
		"empty signature":         {op, []Approval{a, {Operator: "bob"}}, noon},
	} {
		if err := w.policy.Verify(c.op, c.all, c.when); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	foreign := op
	foreign.CAID = wire.CAIDOf([]byte("another"))
	if err := w.policy.Verify(foreign, []Approval{w.alice.approve(t, foreign), w.bob.approve(t, foreign)}, noon); err == nil || !strings.Contains(err.Error(), "operation.ca") {
		t.Errorf("another CA's: %v", err)
	}
	if err := w.policy.Verify(op, []Approval{a, b}, noon); err != nil {
		t.Fatal(err)
	}
}

// Whichever process asks, and after a restart too.
func TestOperationIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	op := w.op(KindExport, nil)
	all := []Approval{w.alice.approve(t, op), w.bob.approve(t, op)}
	var taken atomic.Int32
	var group sync.WaitGroup
	for range 16 {
		p := w.load()
		group.Go(func() {
			if p.Verify(op, all, noon) == nil {
				taken.Add(1)
			}
		})
	}
	group.Wait()
	if n := taken.Load(); n != 1 {
		t.Fatalf("used %d times", n)
	}
	if err := w.load().Verify(op, all, noon); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Fatal(err)
	}
	// It is remembered for longer than it could be used, and then forgotten.
	next, err := New(w.id, KindExport, nil, noon.Add(MaxLife+2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.policy.Verify(next, []Approval{w.alice.approve(t, next), w.bob.approve(t, next)}, next.Created); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(w.dir, stateDir, spentDir)); err != nil || len(entries) != 1 {
		t.Fatalf("%d used operations are kept, %v", len(entries), err)
	}
}

func TestEveryKindOfKeySigns(t *testing.T) {
	dir, id := newCADir(t)
	var people []person
	for name, key := range otherKeys(t) {
		people = append(people, person{name, RoleAdministrator, key})
	}
	file := policyFile(t, func(f *policyJSON) { f.Need = 3 }, people...)
	write(t, filepath.Join(dir, PolicyFile), file)
	p, err := LoadPolicy(dir)
	if err != nil {
		t.Fatal(err)
	}
	op, err := New(id, KindExport, nil, noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []Approval
	for _, who := range people {
		a := who.approve(t, op)
		all = append(all, a)
		a.Signature = append([]byte{}, a.Signature...)
		a.Signature[len(a.Signature)-1] ^= 1
		if err := p.CheckApproval(op, a, noon); err == nil {
			t.Errorf("%s: a changed signature is taken", who.name)
		}
	}
	if err := p.Verify(op, all, noon); err != nil {
		t.Fatal(err)
	}
}

// Operators may sign with stock tools.
func TestOpenSSLSigns(t *testing.T) {
	w := newWorld(t)
	op := w.op(KindExport, nil)
	dir := t.TempDir()
	text := filepath.Join(dir, "op.txt")
	if err := WriteOperation(text, op); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(w.alice.key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "alice.pem")
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	sig, err := exec.Command("openssl", "dgst", "-sha256", "-sign", keyFile, text).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.policy.CheckApproval(op, Approval{Operator: "alice", Signature: sig}, noon); err != nil {
		t.Fatal(err)
	}
	// The same file opens here.
	if key, err := OpenKey("--key", keyFile, nil); err != nil || !key.Public().(*ecdsa.PublicKey).Equal(w.alice.key.Public()) {
		t.Fatal(key, err)
	}
	if err := os.Chmod(keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey("--key", keyFile, nil); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Fatal(err)
	}
}

func TestCertificatesExpire(t *testing.T) {
	dir, id := newCADir(t)
	alice, bob := newPerson(t, "alice", RoleAdministrator), newPerson(t, "bob", RoleAdministrator)
	write(t, filepath.Join(dir, PolicyFile), policyFile(t, func(f *policyJSON) {
		f.Operators[0].PublicKey, f.Operators[0].Certificate = "", certificate(t, alice.key, noon.Add(time.Minute))
	}, alice, bob))
	p, err := LoadPolicy(dir)
	if err != nil {
		t.Fatal(err)
	}
	op, err := New(id, KindExport, nil, noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := []Approval{alice.approve(t, op), bob.approve(t, op)}
	if err := p.Check(op, all, noon); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(op, all, noon.Add(2*time.Minute)); err == nil || !strings.Contains(err.Error(), "valid from") {
		t.Fatal(err)
	}
}

func TestPoliciesThatAreNone(t *testing.T) {
	alice, bob, eve := newPerson(t, "alice", RoleAdministrator), newPerson(t, "bob", RoleAdministrator), newPerson(t, "eve", RoleOperator)
	minus := -1
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := string(policyFile(t, nil, alice, bob))
	if _, err := ParsePolicy([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		want string
	}{
		"version":      {string(policyFile(t, func(f *policyJSON) { f.Version = 2 }, alice, bob)), "version 2"},
		"alone":        {string(policyFile(t, func(f *policyJSON) { f.Need = 1 }, alice, bob)), "need 1"},
		"too few":      {string(policyFile(t, nil, alice)), "need is 2"},
		"too few left": {string(policyFile(t, nil, alice, eve)), "need is 2"},
		"one name":     {string(policyFile(t, nil, alice, person{"alice", RoleOperator, bob.key})), "occurs twice"},
		"one key":      {string(policyFile(t, nil, alice, person{"bob", RoleAdministrator, alice.key})), "is the key of alice too"},
		"one key, in a certificate too": {string(policyFile(t, func(f *policyJSON) {
			f.Operators[1].PublicKey, f.Operators[1].Certificate = "", certificate(t, alice.key, noon)
		}, alice, bob)), "is the key of alice too"},
		"role":          {string(policyFile(t, nil, alice, person{"bob", "boss", bob.key})), `role "boss"`},
		"name":          {string(policyFile(t, nil, alice, person{"b b", RoleAdministrator, bob.key})), `name "b b"`},
		"curve":         {string(policyFile(t, nil, alice, person{"bob", RoleAdministrator, p521})), "P-256 or P-384"},
		"negative":      {string(policyFile(t, func(f *policyJSON) { f.Rules.RevokeMoreThan = &minus }, alice, bob)), "revoke_more_than -1"},
		"window":        {string(policyFile(t, func(f *policyJSON) { f.Rules.RevokeWithin = "1s" }, alice, bob)), "revoke_within"},
		"unknown key":   {strings.Replace(good, `"need"`, `"x":1,"need"`, 1), "unknown field"},
		"capitals":      {strings.Replace(good, `"need"`, `"Need"`, 1), `name "Need"`},
		"key twice":     {strings.Replace(good, `"need":2`, `"need":2,"need":3`, 1), "occurs twice"},
		"two values":    {good + "{}", "one JSON value"},
		"not UTF-8":     {strings.Replace(good, "alice", "al\xffce", 1), "UTF-8"},
		"no key at all": {strings.Replace(good, `"public_key"`, `"certificate"`, 1), "must be one PEM block"},
	} {
		if _, err := ParsePolicy([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestNoPolicyNeedsNothing(t *testing.T) {
	dir, _ := newCADir(t)
	p, err := LoadPolicy(dir)
	if p != nil || err != nil {
		t.Fatal(p, err)
	}
	if p.Needs(KindExport, 1) || p.Needs(KindRevoke, 1<<20) {
		t.Error("nil needs something")
	}
	if err := p.CheckProfiles([]byte("anything")); err != nil {
		t.Error(err)
	}
	if err := p.Verify(Operation{}, nil, noon); err == nil {
		t.Error("nil verifies")
	}
	if _, err := os.Stat(filepath.Join(dir, stateDir)); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking left something behind")
	}
}

func TestNeeds(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		kind string
		n    int
		want bool
	}{{KindRevoke, 100, false}, {KindRevoke, 101, true}, {KindExport, 1, true}, {KindKeyResume, 1, true}, {KindProfiles, 1, true}, {KindPolicy, 1, true}, {"something new", 1, true}} {
		if got := w.policy.Needs(c.kind, c.n); got != c.want {
			t.Errorf("%s, %d: %t", c.kind, c.n, got)
		}
	}
	quiet, err := ParsePolicy(policyFile(t, func(f *policyJSON) { f.Rules = rules{} }, w.alice, w.bob))
	if err != nil || quiet.Needs(KindRevoke, 1<<30) || quiet.Needs(KindExport, 1) || !quiet.Needs(KindPolicy, 1) {
		t.Error("a policy without rules asks for something, or lets itself be changed", err)
	}
}
