package weakkey

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // as the lists have it; they name keys, and prove nothing
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MaxList is how many keys a List may have. Each takes 16 octets of memory.
const MaxList = 16 << 20

const maxLine = 1 << 10

// List is keys that are known to be bad. The zero value and a nil List are empty. Lookups may be concurrent, with each other only.
type List struct {
	sha256 [][16]byte // the first octets, sorted
	sha1   [][10]byte // the last octets of a SHA-1, sorted
}

// Len is how many keys are on it.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.sha256) + len(l.sha1)
}

// Read adds the keys of a list: text, one key a line, with what follows a space, comma or semicolon, empty lines, and those that begin with # ignored.
// A key is, in hexadecimal,
//
//   - 64 digits: the SHA-256 of its DER SubjectPublicKeyInfo, of an RSA modulus, or of an EC point's X coordinate, both big-endian without
//     leading zeros: the form of https://github.com/CVE-2008-0166/dwk_blocklists
//   - 20 digits: the last 80 bits of the SHA-1 of "Modulus=", the RSA modulus in upper-case hexadecimal, and a line feed: the form of Debian's
//     packages openssl-blacklist and openssl-blacklist-extra
//
// Errors name the line. Nothing is added then.
func (l *List) Read(r io.Reader) error {
	var long [][16]byte
	var short [][10]byte
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if i := strings.IndexAny(text, " \t,;"); i >= 0 {
			text = text[:i]
		}
		b, err := hex.DecodeString(text)
		switch {
		case err == nil && len(b) == sha256.Size:
			long = append(long, [16]byte(b))
		case err == nil && len(b) == len([10]byte{}):
			short = append(short, [10]byte(b))
		default:
			return fmt.Errorf("line %d: %.80q: must be 64 or 20 hexadecimal digits", n, text)
		}
		if len(long)+len(short)+l.Len() > MaxList {
			return fmt.Errorf("line %d: must have at most %d keys, with the lists before", n, MaxList)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	l.sha256 = sorted(append(l.sha256, long...), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	l.sha1 = sorted(append(l.sha1, short...), func(a, b [10]byte) int { return bytes.Compare(a[:], b[:]) })
	return nil
}

func sorted[T comparable](s []T, cmp func(a, b T) int) []T {
	slices.SortFunc(s, cmp)
	return slices.Clip(slices.Compact(s))
}

// Check refuses a key that is on the list. Errors are *Error.
func (l *List) Check(pub crypto.PublicKey) error {
	if l.Len() == 0 {
		return nil
	}
	const rule = "must not be on a list of keys whose private keys are known (ca.weak_keys), such as Debian's of 2008 (CVE-2008-0166)"
	name := "a key"
	if spki, err := x509.MarshalPKIXPublicKey(pub); err == nil && l.hasSHA256(spki) {
		return weak(name, rule)
	}
	switch key := pub.(type) {
	case *rsa.PublicKey:
		modulus := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", key.N)) //nolint:gosec // see above
		_, found := slices.BinarySearchFunc(l.sha1, [10]byte(modulus[10:]), func(a, b [10]byte) int { return bytes.Compare(a[:], b[:]) })
		if found || l.hasSHA256(key.N.Bytes()) {
			return weak("RSA modulus", rule)
		}
	case *ecdsa.PublicKey:
		if point, err := key.Bytes(); err == nil && l.hasSHA256(bytes.TrimLeft(point[1:1+(len(point)-1)/2], "\x00")) {
			return weak("ECDSA key", rule)
		}
	}
	return nil
}

func (l *List) hasSHA256(data []byte) bool {
	sum := sha256.Sum256(data)
	_, found := slices.BinarySearchFunc(l.sha256, [16]byte(sum[:16]), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return found
}
