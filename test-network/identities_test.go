package testnetwork

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/test-network/internal/pki"
)

func readCert(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatalf("%s: no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return cert
}

func chainsTo(t *testing.T, cert, root *x509.Certificate) bool {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func TestIdentitiesCarryTheirRoles(t *testing.T) {
	l := layout{dir: t.TempDir()}
	if err := l.issueIdentities(2, time.Now); err != nil {
		t.Fatal(err)
	}
	for org := 1; org <= 2; org++ {
		root := readCert(t, l.org(org, "ca", "cert.pem"))
		for identity, want := range map[string]struct{ unit, role string }{
			Admin:    {"admin", wire.RoleAdministrator},
			Operator: {"client", wire.RoleOperator},
			Auditor:  {"client", wire.RoleAuditor},
			Nobody:   {"client", ""},
		} {
			cert := readCert(t, l.user(org, identity, "cert.pem"))
			attributes, err := pki.Attributes(cert)
			if err != nil {
				t.Fatal(err)
			}
			if attributes[wire.RoleAttribute] != want.role || len(attributes) > 1 {
				t.Errorf("%s of %s has attributes %v, want role %q", identity, OrgName(org), attributes, want.role)
			}
			if unit := strings.Join(cert.Subject.OrganizationalUnit, ","); unit != want.unit {
				t.Errorf("%s of %s has unit %q, want %q", identity, OrgName(org), unit, want.unit)
			}
			if !chainsTo(t, cert, root) || len(cert.SubjectKeyId) == 0 || len(cert.AuthorityKeyId) == 0 {
				t.Errorf("%s of %s does not chain to its organisation's root", identity, OrgName(org))
			}
			if chainsTo(t, cert, readCert(t, l.org(3-org, "ca", "cert.pem"))) {
				t.Errorf("%s of %s chains to the other organisation's root", identity, OrgName(org))
			}
		}
	}
}

func TestClientsCannotClaimToBeOrderers(t *testing.T) {
	l := layout{dir: t.TempDir()}
	if err := l.issueIdentities(1, time.Now); err != nil {
		t.Fatal(err)
	}
	trusted := readCert(t, filepath.Join(l.msp(1, RoleOrderer), "cacerts", "cert.pem"))
	if chainsTo(t, readCert(t, l.user(1, Operator, "cert.pem")), trusted) {
		t.Error("the orderer's MSP accepts a client of the organisation")
	}
	if !chainsTo(t, readCert(t, filepath.Join(l.msp(1, RoleOrderer), "signcerts", "cert.pem")), trusted) {
		t.Error("the orderer's MSP does not accept the orderer")
	}
}

func TestPrivateKeysAreTheOwnersOnly(t *testing.T) {
	l := layout{dir: t.TempDir()}
	if err := l.issueIdentities(1, time.Now); err != nil {
		t.Fatal(err)
	}
	keys := 0
	err := filepath.WalkDir(l.path("orgs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "key.pem") {
			return err
		}
		keys++
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(content)
		if info.Mode().Perm() != 0o600 || block == nil || block.Type != "PRIVATE KEY" {
			t.Errorf("%s: mode %v, must be 0600 and PKCS#8", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil || keys == 0 {
		t.Errorf("%d keys, %v", keys, err)
	}
}
