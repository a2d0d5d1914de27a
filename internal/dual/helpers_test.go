package dual

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// person is an operator with a key.
type person struct {
	name, role string
	key        crypto.Signer
}

func newPerson(t testing.TB, name, role string) person {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return person{name, role, key}
}

func (p person) json(t testing.TB) operatorJSON {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return operatorJSON{Name: p.name, Role: p.role, PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

func (p person) approve(t testing.TB, op Operation) Approval {
	t.Helper()
	return p.sign(t, op.Bytes())
}

func (p person) sign(t testing.TB, text []byte) Approval {
	t.Helper()
	sig, err := Sign(p.key, text)
	if err != nil {
		t.Fatal(err)
	}
	return Approval{Operator: p.name, Signature: sig}
}

func policyFile(t testing.TB, change func(*policyJSON), people ...person) []byte {
	t.Helper()
	n := 100
	f := policyJSON{Version: 1, Need: 2, Rules: rules{RevokeMoreThan: &n, ResumeKey: true, Profiles: true, Export: true}}
	for _, p := range people {
		f.Operators = append(f.Operators, p.json(t))
	}
	if change != nil {
		change(&f)
	}
	data, err := json.Marshal(map[string]any{"version": f.Version, "need": f.Need, "operators": operators(f.Operators), "rules": map[string]any{
		"revoke_more_than": f.Rules.RevokeMoreThan, "revoke_within": f.Rules.RevokeWithin, "resume_key": f.Rules.ResumeKey, "profiles": f.Rules.Profiles, "export": f.Rules.Export,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func operators(all []operatorJSON) []map[string]string {
	list := []map[string]string{}
	for _, o := range all {
		m := map[string]string{"name": o.Name, "role": o.Role}
		if o.PublicKey != "" {
			m["public_key"] = o.PublicKey
		}
		if o.Certificate != "" {
			m["certificate"] = o.Certificate
		}
		list = append(list, m)
	}
	return list
}

// certificate is a self-signed one.
func certificate(t testing.TB, key crypto.Signer, notAfter time.Time) string {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: noon.Add(-time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// newCADir is what dual control needs of a CA's directory.
func newCADir(t testing.TB) (string, wire.CAID) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, caFile), []byte(certificate(t, newPerson(t, "ca", "").key, noon.Add(time.Hour))))
	write(t, filepath.Join(dir, profilesFile), []byte(`{"signing":{}}`))
	id, err := caIDOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, id
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// world is a CA's directory with a policy in force and its operators.
type world struct {
	t               testing.TB
	dir             string
	id              wire.CAID
	policy          *Policy
	alice, bob, eve person // eve may sign revocations only
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, alice: newPerson(t, "alice", RoleAdministrator), bob: newPerson(t, "bob", RoleAdministrator), eve: newPerson(t, "eve", RoleOperator)}
	w.dir, w.id = newCADir(t)
	write(t, filepath.Join(w.dir, PolicyFile), policyFile(t, nil, w.alice, w.bob, w.eve))
	w.policy = w.load()
	return w
}

func (w *world) load() *Policy {
	w.t.Helper()
	p, err := LoadPolicy(w.dir)
	if err != nil || p == nil {
		w.t.Fatal(p, err)
	}
	return p
}

func (w *world) op(kind string, params map[string]string) Operation {
	w.t.Helper()
	op, err := New(w.id, kind, params, noon, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return op
}

func otherKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"p384": p384, "rsa": r, "ed25519": ed}
}
