package integration

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/deploy"
)

// crlOf gets a CRL of the first CA from an organisation.
func (f *fabricCase) crlOf(org deploy.Org, name string) ([]byte, *crl.Contents, error) {
	url := org.URL + "/crl/" + f.d.CAID().String() + "/" + name
	resp, err := http.Get(url)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("GET %s: %s %s", url, resp.Status, der)
	}
	list, err := crl.Parse(der)
	if err != nil {
		return nil, nil, err
	}
	c, err := list.Contents(f.d.CAID())
	return der, c, err
}

func listed(c *crl.Contents, serial wire.Serial) bool {
	return slices.ContainsFunc(c.Entries, func(e crl.Entry) bool { return bytes.Equal(e.Serial, serial) && !e.Remove })
}

// awaitCRL waits until every organisation serves the same CRL, octet by octet, and it lists a serial.
func (f *fabricCase) awaitCRL(t *testing.T, name string, serial wire.Serial) (der []byte, c *crl.Contents) {
	t.Helper()
	eventually(t, func() error {
		der = nil
		for _, org := range f.d.Orgs {
			got, contents, err := f.crlOf(org, name)
			if err != nil {
				return err
			}
			if !listed(contents, serial) {
				return fmt.Errorf("%s: %s number %d does not list %s", org.MSPID, name, contents.Number, serial)
			}
			if der != nil && !bytes.Equal(got, der) {
				return fmt.Errorf("%s serves another %s than the organisations before it", org.MSPID, name)
			}
			der, c = got, contents
		}
		return nil
	})
	return der, c
}

// sameCRLs: a revocation is in the delta CRL and in the shard's CRL of every organisation, and openssl goes by either.
func (f *fabricCase) sameCRLs(t *testing.T) {
	revoked, good := f.issue(t), f.issue(t)
	serial, err := wire.SerialOf(revoked.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	if len(revoked.CRLDistributionPoints) != len(f.d.Orgs) {
		t.Fatalf("the certificate names %v, want a URL of each organisation", revoked.CRLDistributionPoints)
	}
	// Were the first complete CRL made only now, there would be nothing for a delta to say.
	eventually(t, func() error { _, _, err := f.crlOf(f.d.Orgs[3], "full.crl"); return err })
	api, err := f.d.Client()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	delta, contents := f.awaitCRL(t, "delta.crl", serial)
	if contents.Base == 0 {
		t.Errorf("delta.crl is complete")
	}
	shard, contents := f.awaitCRL(t, path.Base(revoked.CRLDistributionPoints[0]), serial)
	if contents.Scope != revoked.CRLDistributionPoints[0] {
		t.Errorf("the shard's scope is %s, the certificate names %v", contents.Scope, revoked.CRLDistributionPoints)
	}
	full, _, err := f.crlOf(f.d.Orgs[3], "full.crl")
	if err != nil {
		t.Fatal(err)
	}
	goodShard, _, err := f.crlOf(f.d.Orgs[3], path.Base(good.CRLDistributionPoints[0]))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert    []byte
		crls    [][]byte
		revoked bool
	}{
		"by the shard":            {revoked.Raw, [][]byte{shard}, true},
		"by full and delta":       {revoked.Raw, [][]byte{full, delta}, true},
		"good, by its shard":      {good.Raw, [][]byte{goodShard}, false},
		"good, by full and delta": {good.Raw, [][]byte{full, delta}, false},
	} {
		out, err := f.opensslCRL(t, c.cert, c.crls...)
		if c.revoked != strings.Contains(out, "certificate revoked") || c.revoked == (err == nil) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	eventually(t, func() error {
		st, err := api.CRLs(t.Context())
		if err != nil {
			return err
		}
		for _, target := range st.Targets {
			if target.State != caapi.TargetCurrent {
				return fmt.Errorf("%+v", target)
			}
		}
		if len(st.Targets) != len(f.d.Orgs) || len(st.Problems) > 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

func (f *fabricCase) opensslCRL(t *testing.T, cert []byte, crls ...[]byte) (string, error) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, ders ...[]byte) string {
		var text []byte
		for _, der := range ders {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-crl_check", "-use_deltas", "-CAfile", f.d.CACertFile(),
		"-CRLfile", write("crl.pem", "X509 CRL", crls...), write("cert.pem", "CERTIFICATE", cert)).CombinedOutput()
	return string(out), err
}

// lyingCRL: a CA that signs a CRL without one of its revocations, or with one that is none, is refused by every organisation, its own too.
func (f *fabricCase) lyingCRL(t *testing.T) {
	cert := f.issue(t)
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	f.revoke(t, serial)
	f.awaitCRL(t, "delta.crl", serial)
	f.issue(t) // the complete CRL takes the number of the block after the delta's
	_, served := f.awaitCRL(t, "full.crl", serial)
	key, err := f.d.Key(&f.d.CA)
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func([]crl.Entry) []crl.Entry{
		"a revocation left out": func(es []crl.Entry) []crl.Entry {
			return slices.DeleteFunc(es, func(e crl.Entry) bool { return bytes.Equal(e.Serial, serial) })
		},
		"a revocation made up": func(es []crl.Entry) []crl.Entry {
			es = append(es, crl.Entry{Serial: wire.Serial{0x7f, 1}, Time: es[0].Time, Reason: wire.KeyCompromise})
			crl.Sort(es)
			return es
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.issue(t) // a number for the lie that no honest CRL has: nothing new is to be listed
			var c *crl.Contents
			eventually(t, func() (err error) {
				if c, err = f.contents(f.d.Orgs[0]); err == nil && (c.Number <= served.Number || !listed(c, serial)) {
					err = fmt.Errorf("the honest contents, number %d, are not newer than %d or do not list %s", c.Number, served.Number, serial)
				}
				return err
			})
			c.Entries = lie(c.Entries)
			der, err := crl.Build(c, crl.Form{Issuer: f.d.CACert, NextUpdate: c.ThisUpdate.Add(time.Hour)}, key)
			if err != nil {
				t.Fatal(err)
			}
			for _, org := range f.d.Orgs {
				eventually(t, func() error { return refusedCRL(org, f.d.CAID(), der) })
				if _, now, err := f.crlOf(org, "full.crl"); err != nil || now.Number >= c.Number {
					t.Errorf("%s: serves number %d, the lie has %d: %v", org.MSPID, now.Number, c.Number, err)
				}
			}
		})
	}
}

// contents are what an organisation's bridge says a complete CRL must list now.
func (f *fabricCase) contents(org deploy.Org) (*crl.Contents, error) {
	resp, err := http.Get(org.URL + "/v1/crl/contents/" + f.d.CAID().String())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return crl.ReadContents(resp.Body)
}

// refusedCRL is nil when an organisation refuses a CRL for what it says.
func refusedCRL(org deploy.Org, id wire.CAID, der []byte) error {
	resp, err := http.Post(org.URL+"/crl/"+id.String(), "application/pkix-crl", bytes.NewReader(der))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusUnprocessableEntity || !bytes.Contains(body, []byte("entries")) {
		return fmt.Errorf("%s answers a CRL that lies with %s %s", org.MSPID, resp.Status, body)
	}
	return nil
}
