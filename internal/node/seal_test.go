package node

import (
	"bytes"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
)

// newFileService is `certanchor serve` with every key in a file.
func newFileService(t *testing.T) *hsmService {
	t.Helper()
	s := &hsmService{t: t, dir: t.TempDir()}
	s.caCert = filepath.Join(s.dir, "ca", "ca.pem")
	made, err := ca.Init(ca.InitOptions{Dir: filepath.Join(s.dir, "ca"), Subject: pkix.Name{CommonName: "CA in a file"}, Passphrase: []byte("correct horse battery"), Iterations: 1000})
	if err != nil {
		t.Fatal(err)
	}
	s.caID = wire.CAIDOf(made.Certificate.RawSubjectPublicKeyInfo).String()
	for name, phrase := range map[string]string{"pass": "correct horse battery", "key.pass": "another horse battery"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(phrase+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	caListen, bridgeListen := free(t), free(t)
	s.caURL, s.bridge = "http://"+caListen, "http://"+bridgeListen
	s.configure(fmt.Sprintf(`ledger:
  engine: embedded
  embedded: {dir: ledger, tick_interval: 1s}
ca: {dir: ca, listen: %q, responders: [], passphrase: {file: pass}}
ocsp_bridge: {dir: bridge, listen: %q, public_url: %q}
`, caListen, bridgeListen, s.bridge))
	if s.api, err = caapi.New(caapi.Config{URL: s.caURL, TokenFile: made.OperatorToken}); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *hsmService) configure(text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "certanchor.yaml"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// unencrypted lists the files of the bridge with a key that anybody can read who can read the file.
func (s *hsmService) unencrypted() (paths []string) {
	s.t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, "bridge"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("BEGIN PRIVATE KEY")) || bytes.HasPrefix(text, []byte("PRIVATE+KEY+")) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return paths
}

// The bridge's keys are encrypted by a command, stay the same keys, and those that are made later are encrypted too.
func TestKeyFilesAreEncryptedAndStayTheSame(t *testing.T) {
	sealIterations = 1000 // the keys protect nothing
	t.Cleanup(func() { sealIterations = 0 })
	s := newFileService(t)
	_, file := s.issue("www.example.org")
	s.awaitOCSP(file, "good")
	first := s.submit(s.bridge+"/logs/"+s.caID, file)
	checkpoint := func() string { // without the signatures of this moment: who signs
		text, err := s.get(s.bridge + "/logs/" + s.caID + "/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		var who []string
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "\u2014" {
				who = append(who, f[1]+" "+f[2][:5]) // the name, and the beginning of the key's hash
			}
		}
		return strings.Join(who, "\n")
	}
	signers := checkpoint()
	if n := len(s.unencrypted()); n < 4 {
		t.Fatalf("%d unencrypted keys, want at least log, cosigner, CT log and responder", n)
	}
	s.stop()

	path := filepath.Join(s.dir, "certanchor.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.configure(strings.Replace(string(text), "ocsp_bridge: {", "ocsp_bridge: {key_passphrase: {file: key.pass}, ", 1))
	conf, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := len(s.unencrypted())
	done, err := EncryptKeys(conf)
	if err != nil || len(done) != want || len(s.unencrypted()) > 0 {
		t.Fatalf("%v, %v; left %v", done, err, s.unencrypted())
	}
	if done, err := EncryptKeys(conf); err != nil || len(done) > 0 {
		t.Fatalf("again: %v, %v", done, err)
	}

	s.start()
	s.awaitOCSP(file, "good")
	if again := s.submit(s.bridge+"/logs/"+s.caID, file); again != first {
		t.Errorf("another SCT: %s, before %s", again, first)
	}
	if now := checkpoint(); now != signers || signers == "" {
		t.Errorf("checkpoints are signed by\n%s\nbefore\n%s", now, signers)
	}
	s.stop()

	// What is made anew is encrypted.
	for _, sub := range []string{"responder", "ct"} {
		if err := os.RemoveAll(filepath.Join(s.dir, "bridge", sub)); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	s.awaitOCSP(file, "good")
	if left := s.unencrypted(); len(left) > 0 {
		t.Errorf("made without encryption: %v", left)
	}
	s.stop()

	// Without the passphrase nothing starts, and says why.
	s.configure(string(text))
	if conf, err = config.Load(path); err != nil {
		t.Fatal(err)
	}
	if err := ServeAll(t.Context(), conf); err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("started without the passphrase: %v", err)
	}
}

// The whole rotation in one process: new certificates by the new key as soon as the ledger trusts it, and no moment in which a certificate of either has no OCSP answer.
func TestRotationWithoutAGapInOCSP(t *testing.T) {
	s := newFileService(t)
	_, old := s.issue("old.example.org")
	s.awaitOCSP(old, "good")
	pass := func() ([]byte, error) { return []byte("correct horse battery"), nil }
	r, err := ca.Rotate(ca.RotateOptions{Dir: filepath.Join(s.dir, "ca"), Passphrase: pass, Iterations: 1000})
	if err != nil {
		t.Fatal(err)
	}
	oldCert, newCert := s.caCert, filepath.Join(r.Dir, "ca.pem")
	ask := func(issuer, file string) error {
		s.caCert = issuer
		out, err := s.ocsp(file)
		if err == nil && !strings.Contains(out, ": good") {
			err = fmt.Errorf("says %s", out)
		}
		return err
	}
	newID := wire.CAIDOf(r.Certificate.RawSubjectPublicKeyInfo).String()
	s.await("a certificate of the new key", func() error {
		cert, file := s.issue("new.example.org")
		if err := ask(oldCert, old); err != nil {
			t.Errorf("the old certificate: %v", err)
		}
		issuer := oldCert
		if cert.CAID == newID {
			issuer = newCert
		}
		// The bridge may not have applied the certificate's block yet; but it must have what it takes to answer.
		if err := ask(issuer, file); err != nil && !strings.Contains(err.Error(), "unknown") && !strings.Contains(err.Error(), "unauthorized") {
			t.Errorf("the new certificate of %s: %v", cert.CAID, err)
		}
		s.await("the answer", func() error { return ask(issuer, file) })
		if cert.CAID != newID {
			return fmt.Errorf("issued by %s", cert.CAID)
		}
		return nil
	})
	desc, err := s.api.CA(t.Context())
	if err != nil || len(desc.Generations) != 2 || desc.Generations[0].KeyState != "retired" || desc.CAID != newID {
		t.Fatalf("%+v, %v", desc, err)
	}
	s.stop()
	s.start()
	if err := ask(oldCert, old); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
