package conformance

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

// tools are the programs that judge. Whoever runs these tests needs them; .ci/run installs them.
var tools = map[string]string{"openssl": "openssl", "ocsptool": "gnutls-bin", "curl": "curl", "nginx": "nginx"}

func needTools(w *world, names ...string) {
	w.t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			w.t.Fatalf("%s is not installed (Debian package %s; .ci/run installs it): without it nothing here is shown", name, tools[name])
		}
	}
}

// run runs a program in the world's directory and returns all it says; how it ends is for the caller to judge.
func (w *world) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, &out, &out
	err := cmd.Run()
	return out.String(), err
}

// answer is what a responder said, as one judge reads it. What a judge cannot tell is nil or empty.
type answer struct {
	refusal  string   // name of the OCSP status, empty for an answer
	statuses []string // good, revoked, unknown; in order
	reasons  []string // of those that are revoked; RFC 5280's names, "" for none
	nonce    []byte
	alg      x509.SignatureAlgorithm
	marks    []string // extensions and the like that are there, sorted
}

// Marks of an answer.
const (
	markInvalidity = "invalidityDate"
	markCutoff     = "archiveCutoff"
	markExtended   = "extendedRevoke"
	markByName     = "byName"
)

func (a *answer) String() string {
	if a.refusal != "" {
		return a.refusal
	}
	return strings.Join(a.statuses, ", ") + " " + strings.Join(a.reasons, ", ")
}

// judge reads an answer and says what it is; an error when it does not accept it.
type judge struct {
	name string
	read func(w *world, q *question, der []byte) (*answer, error)
	// tells says which parts of an answer this judge tells.
	reasons, nonce bool
	marks          []string
}

var judges = []judge{
	{name: "own", read: ownJudge, reasons: true, nonce: true, marks: []string{markInvalidity, markCutoff, markExtended, markByName}},
	{name: "OpenSSL", read: opensslJudge, reasons: true, nonce: true, marks: []string{markInvalidity, markCutoff, markExtended, markByName}},
	{name: "GnuTLS", read: gnutlsJudge, nonce: true},
}

// agrees says in which respect what a judge read is not what must be; empty: in none.
func (j *judge) agrees(got, want *answer) string {
	if got.refusal != want.refusal {
		return "answer is " + got.String() + ", must be " + want.String()
	}
	if want.refusal != "" {
		return ""
	}
	switch {
	case !slices.Equal(got.statuses, want.statuses):
		return fmt.Sprintf("status is %v, must be %v", got.statuses, want.statuses)
	case j.reasons && !slices.Equal(got.reasons, want.reasons):
		return fmt.Sprintf("reason is %q, must be %q", got.reasons, want.reasons)
	case j.nonce && !bytes.Equal(got.nonce, want.nonce):
		return fmt.Sprintf("nonce has %d octets, must be the %d sent", len(got.nonce), len(want.nonce))
	case got.alg != want.alg:
		return fmt.Sprintf("signed with %v, must be %v", got.alg, want.alg)
	}
	for _, mark := range want.marks {
		if slices.Contains(j.marks, mark) && !slices.Contains(got.marks, mark) {
			return mark + " is missing"
		}
	}
	return ""
}

// ownJudge is what this project's client does with an answer, for each certificate asked about.
func ownJudge(w *world, q *question, der []byte) (*answer, error) {
	status, resp, err := ocspwire.ParseResponse(der)
	if err != nil {
		return nil, err
	}
	if status != ocspwire.Successful {
		return &answer{refusal: status.String()}, nil
	}
	a := &answer{nonce: resp.Nonce}
	if resp.ExtendedRevoke() {
		a.marks = append(a.marks, markExtended)
	}
	if resp.Responder.Name != nil {
		a.marks = append(a.marks, markByName)
	}
	if a.alg, err = resp.Algorithm(); err != nil {
		return nil, err
	}
	if len(resp.Responses) != len(q.req.Items) {
		return nil, fmt.Errorf("%d statuses for %d certificates", len(resp.Responses), len(q.req.Items))
	}
	for i := range q.req.Items {
		single, _, err := resp.Verify(ocspwire.VerifyOptions{Issuer: w.ca, ID: q.req.Items[i].ID, Nonce: q.req.Nonce, Now: time.Now(), Skew: time.Second})
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(single.ID.Raw, q.req.Items[i].ID.Raw) {
			return nil, fmt.Errorf("certID %x is not repeated as it was sent", q.req.Items[i].ID.Raw)
		}
		a.add(single)
	}
	return a, nil
}

func (a *answer) add(s *ocspwire.SingleResponse) {
	a.statuses = append(a.statuses, s.Status.String())
	if s.Status == ocspwire.Revoked {
		a.reasons = append(a.reasons, reasonNames[s.Reason])
	}
	if !s.InvalidityDate().IsZero() {
		a.marks = append(a.marks, markInvalidity)
	}
	if !s.ArchiveCutoff().IsZero() {
		a.marks = append(a.marks, markCutoff)
	}
}

// reasonNames of RFC 5280 section 5.3.1.
var reasonNames = map[int]string{
	ocspwire.NoReason: "", 0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// OpenSSL's words for what the others call otherwise.
var (
	opensslAlgs = map[string]x509.SignatureAlgorithm{
		"ecdsa-with-SHA256": x509.ECDSAWithSHA256, "ecdsa-with-SHA384": x509.ECDSAWithSHA384, "ecdsa-with-SHA512": x509.ECDSAWithSHA512,
		"sha256WithRSAEncryption": x509.SHA256WithRSA, "sha384WithRSAEncryption": x509.SHA384WithRSA, "sha512WithRSAEncryption": x509.SHA512WithRSA,
		"ED25519": x509.PureEd25519,
	}
	opensslPSS = map[string]x509.SignatureAlgorithm{"sha256": x509.SHA256WithRSAPSS, "sha384": x509.SHA384WithRSAPSS, "sha512": x509.SHA512WithRSAPSS}
	gnutlsAlgs = map[string]x509.SignatureAlgorithm{
		"ECDSA-SHA256": x509.ECDSAWithSHA256, "ECDSA-SHA384": x509.ECDSAWithSHA384, "ECDSA-SHA512": x509.ECDSAWithSHA512,
		"RSA-SHA256": x509.SHA256WithRSA, "RSA-SHA384": x509.SHA384WithRSA, "RSA-SHA512": x509.SHA512WithRSA,
		"RSA-PSS-SHA256": x509.SHA256WithRSAPSS, "RSA-PSS-SHA384": x509.SHA384WithRSAPSS, "RSA-PSS-SHA512": x509.SHA512WithRSAPSS,
		"EdDSA-Ed25519": x509.PureEd25519,
	}
)

// opensslJudge has openssl verify the answer against the question, whose nonce it compares, and print it.
func opensslJudge(w *world, q *question, der []byte) (*answer, error) {
	req, resp := w.write("judged.req", q.der), w.write("judged.resp", der)
	args := []string{"ocsp", "-respin", resp, "-CAfile", w.caFile, "-resp_text"}
	if q.req != nil { // openssl need not understand a question that is malformed on purpose
		args = append(args, "-reqin", req, "-no_nonce")
	}
	out, err := w.run("openssl", args...)
	if refusal, ok := field(out, "Responder Error: "); ok {
		return &answer{refusal: refusalName(refusal)}, nil
	}
	if err != nil || !strings.Contains(out, "Response verify OK") || strings.Contains(out, "Nonce Verify error") {
		return nil, fmt.Errorf("openssl does not accept it: %w: %s", err, lastLines(out))
	}
	return parseOpenSSL(out)
}

func parseOpenSSL(out string) (*answer, error) {
	a := &answer{}
	text, _, _ := strings.Cut(out, "Certificate:\n") // the signer's
	lines := strings.Split(text, "\n")
	pss := false
	for i, line := range lines {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Cert Status":
			a.statuses = append(a.statuses, value)
			if value == "revoked" {
				a.reasons = append(a.reasons, "")
			}
		case "Revocation Reason": // its name, which OpenSSL 3.0 has for the first nine only, and its number
			var n int
			if _, err := fmt.Sscanf(value[strings.LastIndex(value, "(")+1:], "0x%x)", &n); err != nil {
				return nil, fmt.Errorf("openssl prints the reason as %q", value)
			}
			a.reasons[len(a.reasons)-1] = reasonNames[n]
		case "Invalidity Date":
			a.marks = append(a.marks, markInvalidity)
		case "Responder Id": // the key's hash, or a name
			if strings.Contains(value, "=") {
				a.marks = append(a.marks, markByName)
			}
		case "OCSP Archive Cutoff":
			a.marks = append(a.marks, markCutoff)
		case "valid": // OpenSSL's name for id-pkix-ocsp-extended-revoke
			a.marks = append(a.marks, markExtended)
		case "OCSP Nonce":
			var err error
			if a.nonce, err = nonceIn(lines[i+1:]); err != nil {
				return nil, err
			}
		case "Signature Algorithm":
			a.alg = opensslAlgs[value]
			pss = value == "rsassaPss"
		case "Hash Algorithm":
			if pss { // before, it is a CertID's
				a.alg = opensslPSS[value]
			}
		}
	}
	if a.alg == 0 {
		return nil, fmt.Errorf("openssl names no known signature algorithm: %s", lastLines(text))
	}
	return a, nil
}

// nonceIn reads the hexadecimal DER that openssl prints below "OCSP Nonce", with a backslash at the end of all lines but the last.
func nonceIn(lines []string) ([]byte, error) {
	var text string
	for _, line := range lines {
		part, more := strings.CutSuffix(strings.TrimSpace(line), "\\")
		text += part
		if !more {
			break
		}
	}
	der, err := hex.DecodeString(text)
	s := cryptobyte.String(der)
	var nonce cryptobyte.String
	if err != nil || !s.ReadASN1(&nonce, cbasn1.OCTET_STRING) || !s.Empty() {
		return nil, fmt.Errorf("openssl prints the nonce as %q", text)
	}
	return nonce, nil
}

// gnutlsJudge has ocsptool verify the answer, signature and delegation, and print it. It tells no reasons and no single extensions.
func gnutlsJudge(w *world, q *question, der []byte) (*answer, error) {
	resp := w.write("judged.resp", der)
	out, err := w.run("ocsptool", "--verify-response", "--load-response", resp, "--load-trust", w.caFile)
	status, ok := field(out, "Response Status: ")
	if !ok {
		return nil, fmt.Errorf("ocsptool does not read it: %w: %s", err, lastLines(out))
	}
	if status != "Successful" {
		return &answer{refusal: status}, nil
	}
	if err != nil || !strings.Contains(out, "Verifying OCSP Response: Success.") {
		return nil, fmt.Errorf("ocsptool does not accept it: %w: %s", err, lastLines(out))
	}
	return parseGnuTLS(out)
}

func parseGnuTLS(out string) (*answer, error) {
	a := &answer{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Certificate Status":
			a.statuses = append(a.statuses, value)
		case "Nonce":
			var err error
			if a.nonce, err = hex.DecodeString(value); err != nil {
				return nil, fmt.Errorf("ocsptool prints the nonce as %q", value)
			}
		case "Signature Algorithm":
			a.alg = gnutlsAlgs[value]
		}
	}
	if a.alg == 0 {
		return nil, fmt.Errorf("ocsptool names no known signature algorithm: %s", lastLines(out))
	}
	return a, nil
}

// field returns what follows a label on its line.
func field(out, label string) (string, bool) {
	_, rest, ok := strings.Cut(out, label)
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value), ok
}

// refusalName takes openssl's number off, and has RFC 6960's spelling.
func refusalName(s string) string {
	name, _, _ := strings.Cut(s, " (")
	return map[string]string{"malformedrequest": "malformedRequest", "internalerror": "internalError", "trylater": "tryLater", "sigrequired": "sigRequired"}[name] +
		map[bool]string{true: name}[name == "unauthorized"]
}

func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], " | ")
}
