package dual

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// PolicyFile is the name of the policy in a CA's directory.
const PolicyFile = "dual-control.json"

// Limits of a policy.
const (
	MaxPolicyFile = 1 << 20 // octets
	maxOperators  = 64
	minNeed       = 2
	maxNeed       = 16

	defaultWindow = 24 * time.Hour
	maxWindow     = 31 * 24 * time.Hour
)

// skew is how far an operation's creation may lie in the future: its maker's clock and the verifier's are not the same.
const skew = 5 * time.Minute

// Roles of operators in a policy.
const (
	RoleOperator      = "operator"      // signs revocations
	RoleAdministrator = "administrator" // signs everything
)

// Policy says what needs several operators, and who they are. A nil *Policy needs nothing. It is safe for concurrent use.
type Policy struct {
	dir       string // of the CA; empty for one that ParsePolicy returned
	restored  time.Time
	caID      wire.CAID
	digest    string // SHA-256 of the file
	need      int
	operators map[string]*operator
	rules     rules
	window    time.Duration // of rules.RevokeMoreThan
}

type operator struct {
	name, role string
	key        crypto.PublicKey
	keyID      string
	cert       *x509.Certificate // nil: a bare key
}

// policyJSON is the file.
type policyJSON struct {
	Version   int            `json:"version"`
	Need      int            `json:"need"`
	Operators []operatorJSON `json:"operators"`
	Rules     rules          `json:"rules"`
}

type operatorJSON struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	Certificate string `json:"certificate"` // PEM; or
	PublicKey   string `json:"public_key"`  // PEM, SubjectPublicKeyInfo
}

type rules struct {
	RevokeMoreThan *int   `json:"revoke_more_than"` // certificates without approvals within RevokeWithin; absent: any number
	RevokeWithin   string `json:"revoke_within"`    // a duration; default 24h
	ResumeKey      bool   `json:"resume_key"`
	Profiles       bool   `json:"profiles"`
	Export         bool   `json:"export"`
}

var operatorName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// ParsePolicy reads a policy's file, docs/operators.md has the format. Errors name field, value and rule. The policy is in force nowhere:
// see LoadPolicy and State.
func ParsePolicy(data []byte) (*Policy, error) {
	if len(data) > MaxPolicyFile {
		return nil, fmt.Errorf("has %d octets, must have at most %d", len(data), MaxPolicyFile)
	}
	var f policyJSON
	if err := strictJSON(data, &f); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	p := &Policy{digest: hex.EncodeToString(sum[:]), need: f.Need, operators: map[string]*operator{}, rules: f.Rules, window: defaultWindow}
	switch {
	case f.Version != 1:
		return nil, fmt.Errorf("version %d: must be 1", f.Version)
	case f.Need < minNeed || f.Need > maxNeed:
		return nil, fmt.Errorf("need %d: must be %d to %d operators", f.Need, minNeed, maxNeed)
	case len(f.Operators) > maxOperators:
		return nil, fmt.Errorf("operators: %d, must be at most %d", len(f.Operators), maxOperators)
	case f.Rules.RevokeMoreThan != nil && *f.Rules.RevokeMoreThan < 0:
		return nil, fmt.Errorf("rules.revoke_more_than %d: must not be negative", *f.Rules.RevokeMoreThan)
	}
	if w := f.Rules.RevokeWithin; w != "" {
		d, err := time.ParseDuration(w)
		if err != nil || d < time.Minute || d > maxWindow || f.Rules.RevokeMoreThan == nil {
			return nil, fmt.Errorf("rules.revoke_within %q: must be a duration of 1m to %v, beside revoke_more_than", w, maxWindow)
		}
		p.window = d
	}
	for i, o := range f.Operators {
		if err := p.add(o); err != nil {
			return nil, fmt.Errorf("operators[%d]: %w", i, err)
		}
	}
	return p, p.enough()
}

func (p *Policy) add(j operatorJSON) error {
	o := &operator{name: j.Name, role: j.Role}
	switch {
	case !operatorName.MatchString(j.Name):
		return fmt.Errorf("name %q: must be 1 to 64 letters, digits and . _ @ -", j.Name)
	case p.operators[j.Name] != nil:
		return fmt.Errorf("name %q: occurs twice", j.Name)
	case j.Role != RoleOperator && j.Role != RoleAdministrator:
		return fmt.Errorf("role %q: must be %s or %s", j.Role, RoleOperator, RoleAdministrator)
	case (j.Certificate == "") == (j.PublicKey == ""):
		return errors.New("must have either certificate or public_key")
	}
	field, text, kind := "public_key", j.PublicKey, "PUBLIC KEY"
	if j.Certificate != "" {
		field, text, kind = "certificate", j.Certificate, "CERTIFICATE"
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != kind || len(block.Headers) > 0 || strings.TrimSpace(string(rest)) != "" {
		return fmt.Errorf("%s: must be one PEM block %q", field, kind)
	}
	var err error
	if j.Certificate != "" {
		if o.cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			o.key = o.cert.PublicKey
		}
	} else {
		o.key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err == nil {
		err = checkKey(o.key)
	}
	if err == nil {
		o.keyID, err = KeyID(o.key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	for _, other := range p.operators {
		if other.keyID == o.keyID {
			return fmt.Errorf("%s: is the key of %s too; every operator has one of their own", field, other.name)
		}
	}
	p.operators[o.name] = o
	return nil
}

// enough refuses a policy under which nobody could approve what needs it. Changes of the policy always do.
func (p *Policy) enough() error {
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		n := 0
		for _, o := range p.operators {
			if o.may(kind) {
				n++
			}
		}
		if (kind == KindPolicy || p.asks(kind)) && n < p.need {
			return fmt.Errorf("operators: %d of them may sign %q, but need is %d", n, kind, p.need)
		}
	}
	return nil
}

func (o *operator) may(kind string) bool { return o.role == RoleAdministrator || kind == KindRevoke }

// asks: some operation of this kind needs approvals.
func (p *Policy) asks(kind string) bool {
	switch kind {
	case KindRevoke:
		return p.rules.RevokeMoreThan != nil
	case KindKeyResume:
		return p.rules.ResumeKey
	case KindProfiles:
		return p.rules.Profiles
	case KindExport:
		return p.rules.Export
	}
	return true // KindPolicy, and what nobody has said anything about
}

// Asks reports whether operations of this kind may need approvals at all.
func (p *Policy) Asks(kind string) bool { return p != nil && p.asks(kind) }

// Needs reports whether an operation of this kind on n objects needs approvals, by itself; Store.Needs also counts those that went before.
func (p *Policy) Needs(kind string, n int) bool {
	return p != nil && p.asks(kind) && (kind != KindRevoke || n > *p.rules.RevokeMoreThan)
}

// Quorum is how many operators must sign.
func (p *Policy) Quorum() int { return p.need }

// Digest is the SHA-256 of the policy's file, hexadecimal.
func (p *Policy) Digest() string { return p.digest }

// Operators returns who may approve operations of a kind, by name, with the KeyID of their keys.
func (p *Policy) Operators(kind string) map[string]string {
	names := map[string]string{}
	if p != nil {
		for name, o := range p.operators {
			if o.may(kind) {
				names[name] = o.keyID
			}
		}
	}
	return names
}

// Check checks that op may be carried out now: it is this CA's, not expired, and enough different operators who may have signed it. Every
// approval must be right. It does not look whether op was carried out before. Errors are *wire.Error.
func (p *Policy) Check(op Operation, approvals []Approval, now time.Time) error {
	if err := p.CheckOperation(op, now); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, a := range approvals {
		if err := p.CheckApproval(op, a, now); err != nil {
			return err
		}
		if seen[a.Operator] {
			return denied("approvals.operator", a.Operator, "must not sign twice: the approvals must be of different operators")
		}
		seen[a.Operator] = true
	}
	if len(seen) < p.need {
		return denied("approvals", strconv.Itoa(len(seen)), "must be of at least %d different operators", p.need)
	}
	return nil
}

// CheckOperation checks that op is this CA's and may be signed or carried out now.
func (p *Policy) CheckOperation(op Operation, now time.Time) error {
	if p == nil {
		return denied("operation", op.Kind, "cannot be approved: this CA has no dual-control policy")
	}
	if err := op.Check(); err != nil {
		return err
	}
	switch {
	case op.CAID != p.caID:
		return denied("operation.ca", op.CAID.String(), "must be this CA, %s", p.caID)
	case op.Created.After(now.Add(skew)):
		return denied("operation.created", op.Created.Format(time.RFC3339), "lies in the future")
	case !now.Before(op.Expires):
		return denied("operation.expires", op.Expires.Format(time.RFC3339), "is past: the operation has expired")
	}
	return outlived(op, p.restored)
}

// CheckApproval checks one operator's signature on op.
func (p *Policy) CheckApproval(op Operation, a Approval, now time.Time) error {
	return p.checkSignature(op, a, op.Bytes(), now)
}

// CheckRejection checks one operator's signature on the rejection of op.
func (p *Policy) CheckRejection(op Operation, a Approval, now time.Time) error {
	return p.checkSignature(op, a, op.RejectionBytes(), now)
}

func (p *Policy) checkSignature(op Operation, a Approval, text []byte, now time.Time) error {
	if p == nil {
		return denied("operator", a.Operator, "cannot sign: this CA has no dual-control policy")
	}
	o := p.operators[a.Operator]
	switch {
	case o == nil:
		return denied("operator", a.Operator, "is not an operator of the dual-control policy")
	case !o.may(op.Kind):
		return denied("operator", a.Operator, "has the role %s, which must not sign operations of the kind %q", o.role, op.Kind)
	case o.cert != nil && (now.Before(o.cert.NotBefore) || now.After(o.cert.NotAfter)):
		return denied("operator", a.Operator, "has a certificate that is valid from %s to %s only", o.cert.NotBefore.Format(time.RFC3339), o.cert.NotAfter.Format(time.RFC3339))
	case !verify(o.key, text, a.Signature):
		return denied("signature", a.Operator, "is not this operator's signature on the operation %s", op.ID())
	}
	return nil
}

func denied(field, value, format string, a ...any) error {
	return wire.Errorf(wire.PermissionDenied, field, value, format, a...)
}
