// Package importtest makes what outside CAs have, with the programs that they have: for tests of imports and mirrors.
package importtest

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// config is of a CA as `openssl ca` has it. Paths are relative to its directory, which is where openssl runs.
const config = `[ca]
default_ca = demo
[demo]
dir = .
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = newcerts
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 365
default_crl_days = 30
policy = policy
unique_subject = no
x509_extensions = leaf
crl_extensions = crl
[policy]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
[crl]
authorityKeyIdentifier = keyid
[responder]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = OCSPSigning
`

// OpenSSL is a CA that is nothing but files and the program openssl.
type OpenSSL struct {
	t    testing.TB
	Dir  string
	Cert *x509.Certificate
	ID   wire.CAID
}

// NewOpenSSL makes a CA.
func NewOpenSSL(t testing.TB) *OpenSSL {
	t.Helper()
	ca := &OpenSSL{t: t, Dir: filepath.Join(t.TempDir(), "demoCA")}
	check(t, os.MkdirAll(filepath.Join(ca.Dir, "newcerts"), 0o700))
	for name, text := range map[string]string{"ca.cnf": config, "index.txt": "", "serial": "01\n", "crlnumber": "01\n"} {
		check(t, os.WriteFile(ca.Path(name), []byte(text), 0o600))
	}
	ca.Run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
		"-subj", "/CN=Old CA/O=Example", "-days", "3650", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
	ca.Run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=leaf")
	certs, err := pemcert.Read(ca.Path("ca.pem"))
	check(t, err)
	ca.Cert, ca.ID = certs[0], wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo)
	return ca
}

// Path is of a file in the CA's directory.
func (ca *OpenSSL) Path(name string) string { return filepath.Join(ca.Dir, name) }

// Run runs openssl in the CA's directory and returns what it prints.
func (ca *OpenSSL) Run(args ...string) string {
	ca.t.Helper()
	cmd := exec.CommandContext(ca.t.Context(), "openssl", args...)
	cmd.Dir = ca.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		ca.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Issue issues n certificates, with the next serial numbers, in one run of openssl.
func (ca *OpenSSL) Issue(n int, more ...string) {
	ca.t.Helper()
	args := append([]string{"ca", "-config", "ca.cnf", "-batch", "-notext"}, more...)
	if n == 1 {
		ca.Run(append(args, "-in", "leaf.csr", "-out", "last.pem")...)
		return
	}
	args = append(args, "-infiles")
	for range n {
		args = append(args, "leaf.csr")
	}
	ca.Run(args...)
}

// Revoke revokes the certificate with a serial number as in newcerts; more says why, in openssl's flags.
func (ca *OpenSSL) Revoke(serial string, more ...string) {
	ca.t.Helper()
	ca.Run(append([]string{"ca", "-config", "ca.cnf", "-revoke", "newcerts/" + serial + ".pem"}, more...)...)
}

// CRL has openssl publish a CRL and returns its file. more are openssl's flags.
func (ca *OpenSSL) CRL(more ...string) string {
	ca.t.Helper()
	ca.Run(append([]string{"ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl"}, more...)...)
	return ca.Path("ca.crl")
}

// Unhold makes a certificate valid again in the database, which openssl has no command for.
func (ca *OpenSSL) Unhold(serial string) {
	ca.t.Helper()
	data, err := os.ReadFile(ca.Path("index.txt"))
	check(ca.t, err)
	lines := strings.Split(string(data), "\n")
	found := false
	for i, line := range lines {
		f := strings.Split(line, "\t")
		if len(f) == 6 && f[3] == serial && f[0] == "R" {
			f[0], f[2], found = "V", "", true
			lines[i] = strings.Join(f, "\t")
		}
	}
	if !found {
		ca.t.Fatalf("%s is not revoked in index.txt", serial)
	}
	check(ca.t, os.WriteFile(ca.Path("index.txt"), []byte(strings.Join(lines, "\n")), 0o600))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
