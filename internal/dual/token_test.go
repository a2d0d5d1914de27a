package dual

import (
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Operators sign with keys that stay in tokens.
func TestKeyInATokenSigns(t *testing.T) {
	token := hsmtest.New(t)
	var people []person
	for name, algorithm := range map[string]keyfile.Algorithm{"p256": keyfile.P256, "p384": keyfile.P384, "rsa": keyfile.RSA2048} {
		if _, _, err := hsm.OpenOrCreate("key", token.URI(name), algorithm); err != nil {
			t.Fatal(err)
		}
		key, err := OpenKey("--key", token.URI(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		people = append(people, person{name, RoleAdministrator, key})
	}
	dir, id := newCADir(t)
	write(t, filepath.Join(dir, PolicyFile), policyFile(t, func(f *policyJSON) { f.Need = 3 }, people...))
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
		all = append(all, who.approve(t, op))
	}
	if err := p.Verify(op, all, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey("--key", token.URI("absent"), nil); err == nil {
		t.Fatal("a key that is not there")
	}
}
