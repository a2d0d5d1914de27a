// Package httpsig signs HTTP requests with a key that client and server share: HTTP Message Signatures (RFC 9421) with hmac-sha256 over a
// fixed list of components, and the body by its Content-Digest (RFC 9530). It is a strict subset: what a standard signer sends with these
// components is taken, and nothing that could be read in two ways.
//
//	Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:
//	Signature-Input: sig=("@method" "@authority" "@path" "@query" "content-digest");created=1732123123;nonce="b3BhcXVlLXJhbmRvbQ";keyid="alice"
//	Signature: sig=:…:
//
// The components "content-type" and "idempotency-key" follow, in this order, if the request has these headers.
package httpsig

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Names of headers.
const (
	headerInput     = "Signature-Input"
	headerSignature = "Signature"
	headerDigest    = "Content-Digest"
)

// Limits of keys and nonces.
const (
	MinKey = 16 // octets
	MaxKey = 64

	nonceBytes = 18
	algorithm  = "hmac-sha256"
)

// optional components, in the order in which they are covered.
var optional = []string{"content-type", "idempotency-key"}

// Signature is one on a request, parsed and not verified.
type Signature struct {
	KeyID   string
	Nonce   string // 16 to 128 characters
	Created time.Time
	Expires time.Time // zero: none
	params  string    // as sent, which is how they are signed
	mac     []byte
	digest  [sha256.Size]byte // of the body
}

// Present reports whether a request claims to be signed.
func Present(r *http.Request) bool {
	return len(r.Header.Values(headerInput)) > 0 || len(r.Header.Values(headerSignature)) > 0
}

func bad(field, value, format string, a ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, format, a...)
}

var (
	inputForm  = regexp.MustCompile(`^([a-z][a-z0-9_-]{0,31})=(\(([ "@a-z-]*)\)((?:;[a-z]+=(?:[0-9]{1,12}|"[!#-\[\]-~]{1,128}"))*))$`)
	paramForm  = regexp.MustCompile(`;([a-z]+)=([0-9]+|"[^"]*")`)
	macForm    = regexp.MustCompile(`^([a-z][a-z0-9_-]{0,31})=:([A-Za-z0-9+/=]{1,128}):$`)
	digestForm = regexp.MustCompile(`^sha-256=:([A-Za-z0-9+/=]{44}):$`)
	nonceForm  = regexp.MustCompile(`^[A-Za-z0-9+/=_-]{16,128}$`)
	keyForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)
)

// Parse reads the signature on a request. Errors are *wire.Error: Field is the header.
func Parse(r *http.Request) (*Signature, error) {
	input, err := only(r, headerInput)
	if err != nil {
		return nil, err
	}
	m := inputForm.FindStringSubmatch(input)
	if m == nil {
		return nil, bad(headerInput, input, "must be one signature: label=(components);created=SECONDS;nonce=\"…\";keyid=\"…\" (RFC 9421 section 4.1)")
	}
	label, covered, params := m[1], m[3], m[4]
	s := &Signature{params: m[2]}
	if want := quoted(components(r)); covered != want {
		return nil, bad(headerInput, covered, "must cover exactly %s", want)
	}
	if err := s.readParams(params); err != nil {
		return nil, err
	}
	if s.mac, err = readMAC(r, label); err != nil {
		return nil, err
	}
	text, err := only(r, headerDigest)
	if err != nil {
		return nil, err
	}
	d := digestForm.FindStringSubmatch(text)
	if d == nil {
		return nil, bad(headerDigest, text, "must be sha-256=:base64: (RFC 9530 section 2)")
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(d[1])
	if err != nil || len(sum) != len(s.digest) {
		return nil, bad(headerDigest, text, "must be the base64 of 32 octets")
	}
	copy(s.digest[:], sum)
	return s, nil
}

// only returns the value of a header that occurs once.
func only(r *http.Request, name string) (string, error) {
	v := r.Header.Values(name)
	if len(v) != 1 {
		return "", bad(name, strings.Join(v, ", "), "must occur once in a signed request, it occurs %d times", len(v))
	}
	return v[0], nil
}

func (s *Signature) readParams(params string) error {
	seen := map[string]string{}
	for _, p := range paramForm.FindAllStringSubmatch(params, -1) {
		if _, twice := seen[p[1]]; twice {
			return bad(headerInput, p[1], "must not occur twice")
		}
		seen[p[1]] = p[2]
	}
	text := func(name string) string {
		v := seen[name]
		delete(seen, name)
		if len(v) < 2 || v[0] != '"' {
			return ""
		}
		return v[1 : len(v)-1]
	}
	seconds := func(name string) time.Time {
		n, err := strconv.ParseInt(seen[name], 10, 64)
		delete(seen, name)
		if err != nil {
			return time.Time{}
		}
		return time.Unix(n, 0)
	}
	_, hasAlg := seen["alg"]
	_, hasExpires := seen["expires"]
	s.KeyID, s.Nonce, s.Created, s.Expires = text("keyid"), text("nonce"), seconds("created"), seconds("expires")
	alg := text("alg")
	switch {
	case s.Created.IsZero():
		return bad(headerInput, "created", "must be given: seconds since 1970")
	case hasExpires && !s.Expires.After(s.Created):
		return bad(headerInput, "expires", "must be after created")
	case hasAlg && alg != algorithm:
		return bad(headerInput, alg, "alg must be %q", algorithm)
	case !nonceForm.MatchString(s.Nonce):
		return bad(headerInput, s.Nonce, "nonce must be 16 to 128 characters of base64")
	case !keyForm.MatchString(s.KeyID):
		return bad(headerInput, s.KeyID, "keyid must be a client's name")
	}
	for name := range seen {
		return bad(headerInput, name, "must not be set: parameters are created, expires, nonce, keyid and alg")
	}
	return nil
}

func readMAC(r *http.Request, label string) ([]byte, error) {
	text, err := only(r, headerSignature)
	if err != nil {
		return nil, err
	}
	m := macForm.FindStringSubmatch(text)
	if m == nil || m[1] != label {
		return nil, bad(headerSignature, text, "must be %s=:base64:, the signature that Signature-Input tells of", label)
	}
	mac, err := base64.StdEncoding.Strict().DecodeString(m[2])
	if err != nil || len(mac) != sha256.Size {
		return nil, bad(headerSignature, text, "must be the base64 of 32 octets")
	}
	return mac, nil
}

// Verify reports whether key made the signature. It takes the same time for every signature on a request. The body is CheckBody's.
func (s *Signature) Verify(r *http.Request, key []byte) bool {
	return hmac.Equal(s.mac, sum(key, base(r, s.params)))
}

// CheckBody checks that body is what was signed.
func (s *Signature) CheckBody(body []byte) error {
	if got := sha256.Sum256(body); !hmac.Equal(got[:], s.digest[:]) {
		return bad(headerDigest, "", "is not that of the body")
	}
	return nil
}

// Sign adds the headers that sign r, whose other headers and URL are complete and whose body is body. It replaces those of an earlier
// signature. Errors: a key or a name that no server would take.
func Sign(r *http.Request, body []byte, keyID string, key []byte, now time.Time) error {
	if !keyForm.MatchString(keyID) {
		return bad("keyid", keyID, "must be a client's name")
	}
	if err := CheckKey(key); err != nil {
		return err
	}
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	digest := sha256.Sum256(body)
	r.Header.Set(headerDigest, "sha-256=:"+base64.StdEncoding.EncodeToString(digest[:])+":")
	params := fmt.Sprintf(`(%s);created=%d;nonce="%s";keyid="%s";alg="%s"`,
		quoted(components(r)), now.Unix(), base64.RawURLEncoding.EncodeToString(nonce), keyID, algorithm)
	r.Header.Set(headerInput, "sig="+params)
	r.Header.Set(headerSignature, "sig=:"+base64.StdEncoding.EncodeToString(sum(key, base(r, params)))+":")
	return nil
}

// CheckKey refuses a key of the wrong length.
func CheckKey(key []byte) error {
	if len(key) < MinKey || len(key) > MaxKey {
		return bad("key", fmt.Sprintf("%d octets", len(key)), "must have %d to %d octets", MinKey, MaxKey)
	}
	return nil
}

func sum(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text) // of a hash: never fails
	return h.Sum(nil)
}

// components that a request must cover.
func components(r *http.Request) []string {
	names := []string{"@method", "@authority", "@path", "@query", "content-digest"}
	for _, h := range optional {
		if len(r.Header.Values(h)) > 0 {
			names = append(names, h)
		}
	}
	return names
}

func quoted(names []string) string { return `"` + strings.Join(names, `" "`) + `"` }

// base is the signature base of RFC 9421 section 2.5.
func base(r *http.Request, params string) []byte {
	var b strings.Builder
	for _, name := range components(r) {
		fmt.Fprintf(&b, "%q: %s\n", name, value(r, name))
	}
	fmt.Fprintf(&b, `"@signature-params": %s`, params)
	return []byte(b.String())
}

func value(r *http.Request, name string) string {
	switch name {
	case "@method":
		return r.Method
	case "@authority": // RFC 9421 section 2.2.3
		host := r.Host
		if host == "" {
			host = r.URL.Host
		}
		host = strings.ToLower(host)
		return strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80")
	case "@path": // section 2.2.6
		if p := r.URL.EscapedPath(); p != "" {
			return p
		}
		return "/"
	case "@query": // section 2.2.7
		return "?" + r.URL.RawQuery
	}
	// Section 2.1. A header that occurs twice has the two values here, so that whoever reads one of them reads what was signed.
	var all []string
	for _, v := range r.Header.Values(name) {
		all = append(all, strings.TrimSpace(v))
	}
	return strings.Join(all, ", ")
}
