package keyfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPassphraseSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) Source {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return Source{File: path}
	}
	answers := func(a ...string) Source {
		return Source{Prompt: true, ask: func(string) ([]byte, error) {
			if len(a) == 0 {
				return nil, errors.New("asked too often")
			}
			s := a[0]
			a = a[1:]
			return []byte(s), nil
		}}
	}
	t.Setenv("CA_PASS", "from the env\n")
	t.Setenv("CA_EMPTY", "")
	for _, tc := range []struct {
		name string
		src  Source
		want string // passphrase
		err  string // or part of the error
	}{
		{"file", file("a", "s p a c e d \n", 0o600), "s p a c e d ", ""},
		{"file with CRLF", file("b", "carriage\r\n", 0o400), "carriage", ""},
		{"file readable by the group", file("c", "passphrase", 0o640), "", "0600"},
		{"file with two lines", file("d", "passphrase\nsecond", 0o600), "", "one line"},
		{"empty file", file("e", "", 0o600), "", "is empty"},
		{"file that is not there", Source{File: filepath.Join(dir, "none")}, "", "no such file"},
		{"environment", Source{Env: "CA_PASS"}, "from the env", ""},
		{"environment not set", Source{Env: "CA_NOT_SET"}, "", "CA_NOT_SET is not set"},
		{"environment empty", Source{Env: "CA_EMPTY"}, "", "is empty"},
		{"prompt", answers("typed twice", "typed twice"), "typed twice", ""},
		{"prompt, entries differ", answers("typed twice", "typed twicf"), "", "differ"},
		{"too short", answers("seven77", "seven77"), "", "at least 8"},
		{"none", Source{}, "", "exactly one"},
		{"two", Source{Env: "CA_PASS", Prompt: true}, "", "exactly one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := tc.src.NewPassphrase("the key")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %q, %v; want an error with %q", p, err, tc.err)
				}
				return
			}
			if err != nil || string(p) != tc.want {
				t.Fatalf("got %q, %v; want %q", p, err, tc.want)
			}
		})
	}
}

func TestExistingKeyIsAskedForOnce(t *testing.T) {
	asked := 0
	s := Source{Prompt: true, ask: func(string) ([]byte, error) { asked++; return []byte("short"), nil }}
	if p, err := s.Passphrase("k"); err != nil || string(p) != "short" || asked != 1 {
		t.Fatalf("%q %v, asked %d times", p, err, asked)
	}
}
