package keyfile

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// MinPassphrase is the least length of a new passphrase in bytes (NIST SP 800-63B section 5.1.1.2).
const MinPassphrase = 8

// Source says where a passphrase comes from. Exactly one of its fields is set.
type Source struct {
	File   string `yaml:"file"`   // a file with one line that only its owner may read
	Env    string `yaml:"env"`    // name of an environment variable
	Prompt bool   `yaml:"prompt"` // asked on the terminal

	// ask replaces the terminal in tests.
	ask func(prompt string) ([]byte, error)
}

// Validate refuses a source that is not exactly one place. key is the configuration key to name in the error.
func (s Source) Validate(key string) error {
	n := 0
	for _, set := range []bool{s.File != "", s.Env != "", s.Prompt} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%s: exactly one of file, env and prompt must be set, %d are", key, n)
	}
	return nil
}

// Passphrase reads the passphrase of an existing key; what names the key in a prompt.
func (s Source) Passphrase(what string) ([]byte, error) {
	if err := s.Validate("passphrase"); err != nil {
		return nil, err
	}
	var p []byte
	var err error
	switch {
	case s.File != "":
		p, err = fromFile(s.File)
	case s.Env != "":
		p, err = fromEnv(s.Env)
	default:
		p, err = s.prompt("Passphrase of " + what + ": ")
	}
	if err != nil {
		return nil, fmt.Errorf("passphrase of %s: %w", what, err)
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("passphrase of %s: is empty", what)
	}
	return p, nil
}

// NewPassphrase reads the passphrase for a key that is about to be made: a prompt asks twice, and a short one is refused.
func (s Source) NewPassphrase(what string) ([]byte, error) {
	p, err := s.Passphrase(what)
	if err != nil {
		return nil, err
	}
	if err := CheckNew(p); err != nil {
		return nil, err
	}
	if !s.Prompt {
		return p, nil
	}
	again, err := s.prompt("The same again: ")
	if err != nil {
		return nil, fmt.Errorf("passphrase of %s: %w", what, err)
	}
	if subtle.ConstantTimeCompare(p, again) != 1 {
		return nil, fmt.Errorf("passphrase of %s: the two entries differ", what)
	}
	return p, nil
}

// CheckNew refuses a passphrase that no new key should have.
func CheckNew(p []byte) error {
	if len(p) < MinPassphrase {
		return fmt.Errorf("passphrase: has %d bytes, must have at least %d", len(p), MinPassphrase)
	}
	return nil
}

func fromFile(path string) ([]byte, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%s: must hold one line", path)
	}
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

func fromEnv(name string) ([]byte, error) {
	v, ok := os.LookupEnv(name)
	if !ok {
		return nil, fmt.Errorf("environment variable %s is not set", name)
	}
	return []byte(strings.TrimRight(v, "\r\n")), nil
}

func (s Source) prompt(text string) ([]byte, error) {
	if s.ask != nil {
		return s.ask(text)
	}
	return askTerminal(text)
}

// askTerminal asks on the controlling terminal, so that standard input and output stay free for data.
func askTerminal(text string) (p []byte, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask on (give a file or an environment variable instead): %w", err)
	}
	defer func() { err = errors.Join(err, tty.Close()) }()
	if _, err := tty.WriteString(text); err != nil {
		return nil, err
	}
	p, err = term.ReadPassword(int(tty.Fd()))
	if _, werr := tty.WriteString("\n"); err == nil {
		err = werr
	}
	return p, err
}
