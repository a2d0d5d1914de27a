package caroot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Kinds of entries.
const (
	KindReserved = "reserved" // a serial number, before the signature
	KindSigned   = "signed"   // a certificate
	KindRevoked  = "revoked"
	KindCRL      = "crl" // a CRL number, before the signature
)

// Entry is one line of the register.
type Entry struct {
	N       uint64    `json:"n"` // 1 for the first
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	Kind    string    `json:"kind"`
	Serial  string    `json:"serial,omitempty"`  // lower-case hexadecimal
	Subject string    `json:"subject,omitempty"` // of a certificate
	SPKI    string    `json:"spki,omitempty"`    // SHA-256, hexadecimal: the CA ID on the ledger
	Cert    []byte    `json:"cert,omitempty"`    // DER
	Reason  string    `json:"reason,omitempty"`  // of a revocation, RFC 5280's name
	Number  uint64    `json:"number,omitempty"`  // of a CRL
	Prev    string    `json:"prev"`              // SHA-256 of the line before, hexadecimal; empty in the first
}

const maxRegister = 64 << 20

// register is the open file. It is for one goroutine; a second process cannot open it.
type register struct {
	file    *os.File
	entries []Entry
	prev    string
	size    int64
	failed  bool
}

// ParseRegister reads a register. whole is the length without a last line that was cut off: one that was being written when the process died. Errors: a line that is
// not an entry or does not follow from the one before.
func ParseRegister(data []byte) (entries []Entry, whole int, err error) {
	prev := ""
	for {
		n := bytes.IndexByte(data[whole:], '\n')
		if n < 0 {
			return entries, whole, nil
		}
		line := data[whole : whole+n]
		e, err := parseEntry(line)
		if err == nil && (e.N != uint64(len(entries))+1 || e.Prev != prev) {
			err = errors.New("does not follow the one before: entries were changed or taken away")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("register entry %d: %w", len(entries)+1, err)
		}
		entries, prev = append(entries, *e), hashOf(line)
		whole += n + 1
	}
}

func parseEntry(line []byte) (*Entry, error) {
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return nil, err
	}
	if again, err := json.Marshal(&e); err != nil || !bytes.Equal(again, line) {
		return nil, errors.New("is not in the form in which entries are written")
	}
	switch e.Kind {
	case KindReserved, KindSigned, KindRevoked:
		if s, ok := new(big.Int).SetString(e.Serial, 16); !ok || s.Sign() <= 0 || s.BitLen() > 159 || s.Text(16) != e.Serial {
			return nil, wire.Errorf(wire.InvalidArgument, "serial", e.Serial, "must be a positive number of at most 159 bits, lower-case hexadecimal")
		}
	case KindCRL:
	default:
		return nil, wire.Errorf(wire.InvalidArgument, "kind", e.Kind, "must be reserved, signed, revoked or crl")
	}
	return &e, nil
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// openRegister opens the register, or makes it.
func openRegister(path string) (_ *register, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s: another process has it: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRegister+1))
	if err != nil || len(data) > maxRegister {
		return nil, errors.Join(fmt.Errorf("%s: must have at most %d octets", path, maxRegister), err)
	}
	r := &register{file: f}
	var whole int
	if r.entries, whole, err = ParseRegister(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.size = int64(whole); whole < len(data) {
		if err := errors.Join(f.Truncate(r.size), f.Sync()); err != nil {
			return nil, err
		}
	}
	if n := len(r.entries); n > 0 {
		line, err := json.Marshal(&r.entries[n-1])
		if err != nil {
			return nil, err
		}
		r.prev = hashOf(line)
	}
	return r, keyfile.SyncDir(filepath.Dir(path))
}

// append makes an entry durable.
func (r *register) append(e Entry) error {
	if r.failed {
		return errors.New("register: an earlier entry couldn't be written")
	}
	if n := len(r.entries); n > 0 && e.Time.Before(r.entries[n-1].Time) {
		return fmt.Errorf("this machine's clock says %s, and the register's last entry is of %s: set the clock", e.Time.Format(time.RFC3339), r.entries[n-1].Time.Format(time.RFC3339))
	}
	e.N, e.Prev, e.Time = uint64(len(r.entries))+1, r.prev, e.Time.UTC().Truncate(time.Second)
	line, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	_, err = r.file.WriteAt(append(line, '\n'), r.size)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		r.failed = true
		return fmt.Errorf("register: %w", err)
	}
	r.entries, r.prev, r.size = append(r.entries, e), hashOf(line), r.size+int64(len(line))+1
	return nil
}

// used reports whether a serial number occurs.
func (r *register) used(serial string) bool {
	for i := range r.entries {
		if r.entries[i].Serial == serial {
			return true
		}
	}
	return false
}

// find returns the last entry of a kind about a serial number.
func (r *register) find(kind, serial string) *Entry {
	for i := len(r.entries) - 1; i >= 0; i-- {
		if e := &r.entries[i]; e.Kind == kind && e.Serial == serial {
			return e
		}
	}
	return nil
}
