package logkey

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
