package hsm

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// Limits and defaults of a URI.
const (
	DefaultTimeout  = 5 * time.Second
	minTimeout      = 10 * time.Millisecond
	maxTimeout      = time.Minute
	DefaultSessions = 8
	maxSessions     = 1024
	maxURI          = 4 << 10 // octets
	maxObjectID     = 255     // octets
)

// Query attributes of our own: RFC 7512 section 2.4 leaves their names to the vendor.
const (
	attrTimeout  = "certanchor-timeout"
	attrSessions = "certanchor-sessions"
)

const scheme = "pkcs11:"

// URI names one key pair in a token (RFC 7512).
type URI struct {
	// Exactly one of these says which token.
	Token  string // label
	Serial string
	Slot   *int // slot number, which some modules change at each start

	// At least one of these says which key; together they must name exactly one.
	Object string // CKA_LABEL
	ID     []byte // CKA_ID

	Module   string // absolute path of the PKCS #11 library
	PIN      PINSource
	Timeout  time.Duration // of one signature, waiting and recovery included; 10 ms to 1 min, default 5 s
	Sessions int           // signatures at a time with all keys of this token; 1 to 1024, default 8
}

// PINSource says where a token's PIN is. One of its fields is set.
type PINSource struct {
	File string // absolute path of a file with one line that only its owner may read
	Env  string // name of an environment variable
}

// read is called at each login: the PIN may have been changed.
func (s PINSource) read(token string) ([]byte, error) {
	source := keyfile.Source{File: s.File, Env: s.Env}
	return source.Passphrase("token " + token)
}

// IsURI reports whether a setting that names a private key means one in a token and not a file.
func IsURI(setting string) bool {
	return len(setting) >= len(scheme) && strings.EqualFold(setting[:len(scheme)], scheme)
}

// ParseURI reads a setting for which IsURI holds. field is its name in the configuration, for errors, which are *Error.
func ParseURI(field, setting string) (*URI, error) {
	if !IsURI(setting) {
		return nil, fault(field, "pkcs11", "", "must begin with pkcs11: (RFC 7512)")
	}
	if len(setting) > maxURI {
		return nil, fault(field, "pkcs11", fmt.Sprintf("%d octets", len(setting)), "must have at most %d octets", maxURI)
	}
	path, query, _ := strings.Cut(setting[len(scheme):], "?")
	u := &URI{Timeout: DefaultTimeout, Sessions: DefaultSessions}
	if err := each(field, path, ";", u.pathAttribute); err != nil {
		return nil, err
	}
	if err := each(field, query, "&", u.queryAttribute); err != nil {
		return nil, err
	}
	return u, u.complete(field)
}

func fault(field, attribute, value, rule string, args ...any) *Error {
	if value != "" {
		attribute += "=" + value
	}
	return &Error{Field: field, Value: attribute, Rule: fmt.Sprintf(rule, args...)}
}

// each decodes the attributes of one part and hands them to set.
func each(field, part, separator string, set func(field, name, value string) error) error {
	seen := map[string]bool{}
	if part == "" {
		return nil
	}
	for attribute := range strings.SplitSeq(part, separator) {
		name, raw, ok := strings.Cut(attribute, "=")
		if strings.Contains(name, "pin") && name != "pin-source" { // a PIN, with whatever it is misspelt, is not repeated
			return fault(field, "pin-value", "", "must not be in the URI: whoever sees it has the PIN; pin-source=file:/PATH or pin-source=env:NAME says where it is")
		}
		if !ok || name == "" {
			return fault(field, name, "", "must be attributes name=value, separated by semicolons, after a question mark by ampersands (RFC 7512 section 2.3)")
		}
		value, err := url.PathUnescape(raw)
		if err != nil {
			return fault(field, name, raw, "must be percent-encoded (RFC 7512 section 2.3)")
		}
		if seen[name] { // RFC 7512 section 2.3
			return fault(field, name, value, "must not occur twice")
		}
		seen[name] = true
		if name != "id" && strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fault(field, name, value, "must not have control characters")
		}
		if value == "" {
			return fault(field, name, "", "must not be empty")
		}
		if err := set(field, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) pathAttribute(field, name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "serial":
		u.Serial = value
	case "slot-id":
		n, err := strconv.ParseInt(value, 10, 63)
		if err != nil || n < 0 {
			return fault(field, name, value, "must be a number (RFC 7512 section 2.3)")
		}
		slot := int(n)
		u.Slot = &slot
	case "object":
		u.Object = value
	case "id":
		if len(value) > maxObjectID {
			return fault(field, name, hex.EncodeToString([]byte(value)), "must have at most %d octets", maxObjectID)
		}
		u.ID = []byte(value)
	case "type":
		if value != "private" {
			return fault(field, name, value, "must be private")
		}
	default:
		return fault(field, name, value, "is not one of the attributes that are used here: token, serial or slot-id; object, id, type")
	}
	return nil
}

func (u *URI) queryAttribute(field, name, value string) (err error) {
	switch name {
	case "module-path":
		if !filepath.IsAbs(value) {
			return fault(field, name, value, "must be an absolute path")
		}
		u.Module = filepath.Clean(value)
	case "pin-source":
		return u.pinSource(field, value)
	case attrTimeout:
		if u.Timeout, err = time.ParseDuration(value); err != nil || u.Timeout < minTimeout || u.Timeout > maxTimeout {
			return fault(field, name, value, "must be a duration of %v to %v", minTimeout, maxTimeout)
		}
	case attrSessions:
		if u.Sessions, err = strconv.Atoi(value); err != nil || u.Sessions < 1 || u.Sessions > maxSessions {
			return fault(field, name, value, "must be a number from 1 to %d", maxSessions)
		}
	default:
		return fault(field, name, value, "is not one of the query attributes that are used here: module-path, pin-source, %s, %s", attrTimeout, attrSessions)
	}
	return nil
}

// pinSource reads file:/path, file:///path, /path (RFC 7512 section 2.4) and env:NAME. A command is not run.
func (u *URI) pinSource(field, value string) error {
	if name, ok := strings.CutPrefix(value, "env:"); ok && name != "" {
		u.PIN.Env = name
		return nil
	}
	path := strings.TrimPrefix(value, "file:")
	path = "/" + strings.TrimLeft(path, "/")
	if !strings.HasPrefix(value, "file:/") && !strings.HasPrefix(value, "/") || path == "/" {
		return fault(field, "pin-source", value, "must be file:/PATH, an absolute path of a file with the PIN that only its owner may read, or env:NAME")
	}
	u.PIN.File = path
	return nil
}

func (u *URI) complete(field string) error {
	named := 0
	for _, set := range []bool{u.Token != "", u.Serial != "", u.Slot != nil} {
		if set {
			named++
		}
	}
	switch {
	case named != 1:
		return fault(field, "token", u.Token, "exactly one of token, serial and slot-id must say which token, %d do", named)
	case u.Object == "" && len(u.ID) == 0:
		return fault(field, "object", "", "object or id must say which key")
	case u.Module == "":
		return fault(field, "module-path", "", "must be the path of the PKCS #11 library")
	case u.PIN == PINSource{}:
		return fault(field, "pin-source", "", "must say where the token's PIN is: file:/PATH or env:NAME")
	}
	return nil
}

// String is the URI without its query: what identifies the key, for messages.
func (u *URI) String() string {
	parts := []string{u.tokenName()}
	if u.Object != "" {
		parts = append(parts, "object="+url.PathEscape(u.Object))
	}
	if len(u.ID) > 0 {
		var id strings.Builder
		for _, b := range u.ID {
			fmt.Fprintf(&id, "%%%02x", b)
		}
		parts = append(parts, "id="+id.String())
	}
	return scheme + strings.Join(parts, ";")
}

// tokenName is the attribute that says which token.
func (u *URI) tokenName() string {
	switch {
	case u.Slot != nil:
		return "slot-id=" + strconv.Itoa(*u.Slot)
	case u.Serial != "":
		return "serial=" + url.PathEscape(u.Serial)
	}
	return "token=" + url.PathEscape(u.Token)
}
