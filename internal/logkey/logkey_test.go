package logkey

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const name = "channel1/Org1MSP"

func TestKeyIsTheSameAfterRestartAndVerifiesItsNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "log.key")
	first, err := LoadOrCreate(path, name)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(path, name)
	if err != nil {
		t.Fatal(err)
	}
	if first.VKey != second.VKey {
		t.Fatalf("verifier keys %q and %q differ", first.VKey, second.VKey)
	}
	verifier, err := note.NewVerifier(second.VKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: "text\n"}, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(signed, note.VerifierList(verifier)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %#o, want 0600", info.Mode().Perm())
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestConcurrentCreationGivesOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.key")
	var (
		wg   sync.WaitGroup
		keys [8]string
	)
	for i := range keys {
		wg.Go(func() {
			k, err := LoadOrCreate(path, name)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = k.VKey
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatalf("keys differ: %q, %q", k, keys[0])
		}
	}
}

func TestUnsafeOrForeignKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := LoadOrCreate(good, name); err != nil {
		t.Fatal(err)
	}
	skey, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, content, name, want string
		mode                      fs.FileMode
	}{
		{"open to others", string(skey), name, "mode is 0644", 0o644},
		{"another organisation's", string(skey), "channel1/Org2MSP", `must be "channel1/Org2MSP"`, 0o600},
		{"not a key", "hello", name, "signed-note private key", 0o600},
		{"cut short", string(skey[:len(skey)-9]), name, "signed-note private key", 0o600},
		{"empty", "", name, "signed-note private key", 0o600},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.key")
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrCreate(path, c.name); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCosignerKeyIsTheSameAfterRestart(t *testing.T) {
	const name = "channel1/Org1MSP/cosigner"
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", CosignerFile)
	var (
		wg   sync.WaitGroup
		keys [8]string
	)
	for i := range keys {
		wg.Go(func() {
			s, err := LoadOrCreateCosigner(path, name, time.Now)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = s.VKey()
		})
	}
	wg.Wait()
	again, err := LoadCosigner(path, name, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k != again.VKey() {
			t.Fatalf("keys differ: %q, %q", k, again.VKey())
		}
	}
	signed, err := note.Sign(&note.Note{Text: "origin\n1\nroot\n"}, again)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(signed, note.VerifierList(again.Verifier())); err != nil {
		t.Fatal(err)
	}
	skey, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	logKey := filepath.Join(dir, File)
	if _, err := LoadOrCreate(logKey, name); err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(logKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, content, name, want string
		mode                      fs.FileMode
	}{
		{"open to others", string(skey), name, "mode is 0640", 0o640},
		{"another organisation's", string(skey), "channel1/Org2MSP/cosigner", `must be "channel1/Org2MSP/cosigner"`, 0o600},
		{"a log key", string(plain), name, "signature type is 1", 0o600},
		{"damaged", strings.Replace(string(skey), "cosigner+", "cosigner+0", 1), name, "signed-note private key", 0o600},
		{"empty", "", name, "signed-note private key", 0o600},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), CosignerFile)
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrCreateCosigner(path, c.name, time.Now); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
}
