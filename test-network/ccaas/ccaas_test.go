package ccaas

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var connection = Connection{
	Address: "127.0.0.1:7052", DialTimeout: "2s", TLSRequired: true, ClientAuthRequired: true, RootCert: "the root",
}

func TestSamePackageSameID(t *testing.T) {
	first, err := Package("certanchor", connection)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Package("certanchor", connection)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two packages of one connection differ")
	}
	id := PackageID("certanchor", first)
	if label, hash, ok := strings.Cut(id, ":"); !ok || label != "certanchor" || len(hash) != 64 {
		t.Errorf("package ID %q", id)
	}
	other := connection
	other.Address = "127.0.0.1:7053"
	third, err := Package("certanchor", other)
	if err != nil {
		t.Fatal(err)
	}
	if PackageID("certanchor", third) == id {
		t.Error("packages of two connections have one ID")
	}
}

func TestAPackageHoldsNoKey(t *testing.T) {
	secret := connection
	secret.ClientKey = "secret"
	if _, err := Package("certanchor", secret); err == nil {
		t.Error("a package with a private key was made")
	}
}

// unpack writes the files of an archive to dir.
func unpack(t *testing.T, archive []byte, dir string) {
	t.Helper()
	uncompressed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(uncompressed)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, header.Name), content)
	}
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseAddsTheKey(t *testing.T) {
	pkg, err := Package("certanchor", connection)
	if err != nil {
		t.Fatal(err)
	}
	top, source, output, release, keys := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	unpack(t, pkg, top)
	code, err := os.ReadFile(filepath.Join(top, "code.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, code, source)
	write(t, filepath.Join(keys, "cert.pem"), []byte("a certificate"))
	write(t, filepath.Join(keys, "key.pem"), []byte("a key"))

	if err := Detect(top); err != nil {
		t.Fatalf("detect: %v", err)
	}
	if err := Build(source, output); err != nil {
		t.Fatalf("build: %v", err)
	}
	if err := Release(output, release, filepath.Join(keys, "cert.pem"), filepath.Join(keys, "key.pem")); err != nil {
		t.Fatalf("release: %v", err)
	}
	got, err := readConnection(filepath.Join(release, "chaincode", "server"))
	if err != nil {
		t.Fatal(err)
	}
	want := connection
	want.ClientCert, want.ClientKey = "a certificate", "a key"
	if got != want {
		t.Errorf("released %+v, want %+v", got, want)
	}
	if err := Release(output, release, filepath.Join(keys, "cert.pem"), filepath.Join(keys, "absent.pem")); err == nil {
		t.Error("released without a key")
	}
}

func TestDetectLeavesOtherTypesAlone(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "metadata.json"), []byte(`{"type":"golang","label":"x"}`))
	if err := Detect(dir); !errors.Is(err, ErrNotOurs) {
		t.Errorf("%v, want ErrNotOurs", err)
	}
}

func TestBuildRefusesAConnectionWithoutMutualTLS(t *testing.T) {
	for name, content := range map[string]string{
		"no address": `{"tls_required":true,"client_auth_required":true,"root_cert":"x"}`,
		"no TLS":     `{"address":"a:1"}`,
		"one-sided":  `{"address":"a:1","tls_required":true,"root_cert":"x"}`,
		"no root":    `{"address":"a:1","tls_required":true,"client_auth_required":true}`,
		"not JSON":   `{`,
	} {
		source := t.TempDir()
		write(t, filepath.Join(source, "connection.json"), []byte(content))
		if err := Build(source, t.TempDir()); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}
