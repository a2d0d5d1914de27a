package dual

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Kinds of operations.
const (
	KindRevoke    = "revoke"     // to revoke or hold certificates
	KindKeyResume = "key-resume" // to bring a suspended key back
	KindProfiles  = "profiles"   // to change what the CA issues
	KindExport    = "export"     // to take keys out of the CA's directory
	KindPolicy    = "policy"     // to change the dual-control policy itself
)

var kinds = map[string]string{
	KindRevoke:    "revoke or hold certificates",
	KindKeyResume: "bring a suspended key back into use",
	KindProfiles:  "change the profiles: what the CA issues",
	KindExport:    "export keys",
	KindPolicy:    "change the dual-control policy itself",
}

// MaxLife is the longest time that an operation may wait for its signatures.
const MaxLife = 24 * time.Hour

// Limits of an operation.
const (
	MaxParams = 32
	maxName   = 32   // octets of a parameter's name
	maxValue  = 1024 // octets of its value
	maxText   = 64 << 10
	nonceLen  = 16 // octets
)

// context separates these signatures from all others that the operators' keys make: it is the first line of what is signed.
const (
	signContext   = "certanchor dual control: operation, version 1"
	rejectContext = "certanchor dual control: rejection of an operation, version 1"
)

// Operation is a deed that needs the signatures of several operators. Its times are whole seconds.
type Operation struct {
	CAID    wire.CAID
	Kind    string
	Params  map[string]string // names: [a-z][a-z0-9_]*, at most MaxParams; values: UTF-8, at most 1024 octets
	Created time.Time
	Expires time.Time // after Created, at most MaxLife
	Nonce   string    // 32 hexadecimal digits, random
}

// Approval is one operator's signature on an operation: over its Bytes; over its RejectionBytes in a rejection.
type Approval struct {
	Operator  string `json:"operator"`
	Signature []byte `json:"signature"` // base64 in JSON
}

// New returns an operation that may be approved for life (0: MaxLife) from now on. Errors name what Check would refuse.
func New(id wire.CAID, kind string, params map[string]string, now time.Time, life time.Duration) (Operation, error) {
	nonce := make([]byte, nonceLen)
	if _, err := rand.Read(nonce); err != nil {
		return Operation{}, err
	}
	if life == 0 {
		life = MaxLife
	}
	created := now.UTC().Truncate(time.Second)
	op := Operation{CAID: id, Kind: kind, Params: maps.Clone(params), Created: created, Expires: created.Add(life).Truncate(time.Second), Nonce: hex.EncodeToString(nonce)}
	return op, op.Check()
}

// Check refuses an operation whose text would not be canonical. Errors are *wire.Error: Field, Value, Rule.
func (o Operation) Check() error {
	bad := func(field, value, format string, a ...any) error {
		return wire.Errorf(wire.InvalidArgument, "operation."+field, value, format, a...)
	}
	switch {
	case kinds[o.Kind] == "":
		return bad("kind", o.Kind, "must be one of %s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	case len(o.Params) > MaxParams:
		return bad("params", strconv.Itoa(len(o.Params)), "must be at most %d", MaxParams)
	case o.Created.Nanosecond() != 0 || o.Created.Year() < 2000 || o.Created.Year() > 9999:
		return bad("created", o.Created.Format(time.RFC3339Nano), "must be a whole second of the years 2000 to 9999")
	case o.Expires.Nanosecond() != 0 || !o.Expires.After(o.Created) || o.Expires.Sub(o.Created) > MaxLife || o.Expires.Year() > 9999:
		return bad("expires", o.Expires.Format(time.RFC3339Nano), "must be a whole second after created, at most %v", MaxLife)
	case !isHex(o.Nonce, 2*nonceLen):
		return bad("nonce", o.Nonce, "must be %d lower-case hexadecimal digits", 2*nonceLen)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Params)) {
		if !paramName(name) {
			return bad("params", name, "a name must be 1 to %d of a-z, 0-9 and _, and begin with a letter", maxName)
		}
		if v := o.Params[name]; len(v) > maxValue || !utf8.ValidString(v) {
			return bad("params."+name, v, "must be UTF-8, at most %d octets", maxValue)
		}
	}
	return nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func paramName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// Bytes is the operation's text, which operators read and sign: lines "name: value" in a fixed order under a line that says what this is.
// Values of parameters are quoted in ASCII, so that no two operations have the same text and none hides what it says. It requires that
// Check takes the operation.
func (o Operation) Bytes() []byte { return o.text(signContext) }

// RejectionBytes is what an operator signs who rejects the operation.
func (o Operation) RejectionBytes() []byte { return o.text(rejectContext) }

func (o Operation) text(first string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nca: %s\nkind: %s\ncreated: %s\nexpires: %s\nnonce: %s\n",
		first, o.CAID, o.Kind, o.Created.UTC().Format(time.RFC3339), o.Expires.UTC().Format(time.RFC3339), o.Nonce)
	for _, name := range slices.Sorted(maps.Keys(o.Params)) {
		fmt.Fprintf(&b, "param %s: %s\n", name, strconv.QuoteToASCII(o.Params[name]))
	}
	return b.Bytes()
}

// ID names the operation: SHA-256 of its text, hexadecimal.
func (o Operation) ID() string {
	sum := sha256.Sum256(o.Bytes())
	return hex.EncodeToString(sum[:])
}

// ParseOperation reads the text that Bytes returns; any other text, also one that means the same, is an error.
func ParseOperation(text []byte) (Operation, error) {
	var o Operation
	bad := func(format string, a ...any) (Operation, error) {
		return Operation{}, wire.Errorf(wire.InvalidArgument, "operation", "", format, a...)
	}
	if len(text) > maxText {
		return bad("has %d octets, must have at most %d", len(text), maxText)
	}
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Buffer(nil, maxText+1)
	line := func(prefix string) string {
		if !scan.Scan() {
			return ""
		}
		rest, _ := strings.CutPrefix(scan.Text(), prefix)
		return rest
	}
	if line("") != signContext {
		return bad("must begin with the line %q", signContext)
	}
	var errs [3]error
	o.CAID, errs[0] = wire.ParseCAID(line("ca: "))
	o.Kind = line("kind: ")
	o.Created, errs[1] = time.Parse(time.RFC3339, line("created: "))
	o.Expires, errs[2] = time.Parse(time.RFC3339, line("expires: "))
	o.Nonce = line("nonce: ")
	if err := errors.Join(errs[:]...); err != nil {
		return bad("%v", err)
	}
	o.Params = map[string]string{}
	for scan.Scan() && len(o.Params) <= MaxParams {
		name, quoted, ok := strings.Cut(strings.TrimPrefix(scan.Text(), "param "), ": ")
		value, err := strconv.Unquote(quoted)
		if !ok || err != nil {
			return bad("line %q: must be param NAME: \"VALUE\"", scan.Text())
		}
		o.Params[name] = value
	}
	if err := o.Check(); err != nil {
		return Operation{}, err
	}
	// Whatever was read too kindly above gives another text now.
	if !bytes.Equal(o.Bytes(), text) {
		return bad("is not in its canonical form")
	}
	return o, nil
}

// Summary says in words what the operation does.
func (o Operation) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of the CA %s", kinds[o.Kind], o.CAID)
	for i, name := range slices.Sorted(maps.Keys(o.Params)) {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %s", sep, name, strconv.QuoteToASCII(o.Params[name]))
	}
	return b.String()
}
