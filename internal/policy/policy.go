// Package policy is the file that says which organisations' cosignatures a relying party wants: k of n. docs/policy.md has the format.
//
// Any two quorums overlap, so two checkpoints of one size with different roots need an organisation that signed both.
// Each version is signed by a quorum of the version before; the first, or any later one, is pinned by its fingerprint.
package policy

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/lognames"
)

// Limits of a policy.
const (
	MaxOrgs     = 32
	MaxFile     = 1 << 20 // octets of a policy file, all versions together
	MinMaxAge   = time.Second
	MaxMaxAge   = 7 * 24 * time.Hour
	maxVersions = 1000
)

// Org is one organisation of the consortium.
type Org struct {
	MSPID       string
	LogKey      string // signed-note verifier key named lognames.Key
	CosignerKey string // signed-note verifier key of type 4 named lognames.Cosigner
}

// Policy is one valid version of a policy. It does not change.
type Policy struct {
	channel string
	version uint64
	quorum  int
	maxAge  time.Duration
	orgs    []Org // sorted by MSP ID

	logKeys   []note.Verifier // of orgs, in their order
	cosigners []note.Verifier // of orgs, in their order
}

// New checks and returns a policy. maxAge is how old a proof's view of the ledger may be: whole seconds, MinMaxAge to MaxMaxAge.
// The order of orgs does not matter.
func New(channel string, version uint64, quorum int, maxAge time.Duration, orgs ...Org) (*Policy, error) {
	p := &Policy{channel: channel, version: version, quorum: quorum, maxAge: maxAge, orgs: slices.Clone(orgs)}
	slices.SortFunc(p.orgs, func(a, b Org) int { return strings.Compare(a.MSPID, b.MSPID) })
	if err := checkWord("channel", channel); err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, errors.New("policy: version is 0: versions count from 1")
	}
	if n := len(orgs); n == 0 || n > MaxOrgs {
		return nil, fmt.Errorf("policy: %d organisations: must be 1 to %d", n, MaxOrgs)
	}
	// With k <= n/2 two disjoint quorums could cosign two histories, and no organisation would have lied.
	if n := len(orgs); 2*quorum <= n || quorum > n {
		return nil, fmt.Errorf("policy: quorum is %d: must be more than half of the %d organisations, and at most all", quorum, n)
	}
	if maxAge < MinMaxAge || maxAge > MaxMaxAge || maxAge%time.Second != 0 {
		return nil, fmt.Errorf("policy: max-age is %v: must be whole seconds from %v to %v", maxAge, MinMaxAge, MaxMaxAge)
	}
	return p, p.readKeys()
}

// readKeys fills logKeys and cosigners.
func (p *Policy) readKeys() error {
	seen := map[string]string{} // public key: whose
	for i, o := range p.orgs {
		if err := checkWord("organisation", o.MSPID); err != nil {
			return err
		}
		if i > 0 && p.orgs[i-1].MSPID == o.MSPID {
			return fmt.Errorf("policy: organisation %s is there twice", o.MSPID)
		}
		log, err := newLogVerifier(o.LogKey)
		if err != nil {
			return fmt.Errorf("policy: organisation %s: %w", o.MSPID, err)
		}
		cosigner, err := cosign.NewVerifier(o.CosignerKey)
		if err != nil {
			return fmt.Errorf("policy: organisation %s: %w", o.MSPID, err)
		}
		for _, k := range []struct{ got, want, vkey string }{
			{log.Name(), lognames.Key(p.channel, o.MSPID), o.LogKey},
			{cosigner.Name(), lognames.Cosigner(p.channel, o.MSPID), o.CosignerKey},
		} {
			if k.got != k.want {
				return fmt.Errorf("policy: organisation %s: key name is %q: must be %q", o.MSPID, k.got, k.want)
			}
			// C2SP tlog-policy: two verifier keys are duplicates if they hold the same public key, whatever their names. One holder must not count twice.
			pub := publicKey(k.vkey)
			if other, ok := seen[pub]; ok {
				return fmt.Errorf("policy: keys %q and %q have the same public key", other, k.got)
			}
			seen[pub] = k.got
		}
		p.logKeys, p.cosigners = append(p.logKeys, log), append(p.cosigners, cosigner)
	}
	return nil
}

// newLogVerifier reads a verifier key of type 1, Ed25519, in its one encoding.
func newLogVerifier(vkey string) (note.Verifier, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("log key %.200q: must be a signed-note verifier key: %w", vkey, err)
	}
	canonical, err := note.NewEd25519VerifierKey(v.Name(), ed25519.PublicKey(publicKey(vkey)))
	if err != nil || canonical != vkey {
		return nil, fmt.Errorf("log key %.200q: must be in the one encoding of a signed-note Ed25519 verifier key", vkey)
	}
	return v, nil
}

// publicKey returns the key material of a verifier key, without the signature type.
func publicKey(vkey string) string {
	parts := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(key) == 0 {
		return ""
	}
	return string(key[1:])
}

// Channel is the ledger that the policy is about.
func (p *Policy) Channel() string { return p.channel }

// Version counts from 1.
func (p *Policy) Version() uint64 { return p.version }

// Quorum is how many organisations must have cosigned a checkpoint.
func (p *Policy) Quorum() int { return p.quorum }

// MaxAge is how old a proof's view of the ledger may be.
func (p *Policy) MaxAge() time.Duration { return p.maxAge }

// Orgs returns the organisations, sorted by MSP ID.
func (p *Policy) Orgs() []Org { return slices.Clone(p.orgs) }

// LogKeys returns the organisations' log keys, in the order of Orgs.
func (p *Policy) LogKeys() []note.Verifier { return slices.Clone(p.logKeys) }

// Cosigners returns the organisations' cosigner keys, in the order of Orgs.
func (p *Policy) Cosigners() []note.Verifier { return slices.Clone(p.cosigners) }

// Marshal returns the text that is signed.
func (p *Policy) Marshal() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nchannel %s\nversion %d\nquorum %d\nmax-age %v\n", header, p.channel, p.version, p.quorum, p.maxAge)
	for _, o := range p.orgs {
		fmt.Fprintf(&b, "org %s %s %s\n", o.MSPID, o.LogKey, o.CosignerKey)
	}
	return []byte(b.String())
}

// Fingerprint is what a relying party pins: the SHA-256 of the text, in hexadecimal.
func (p *Policy) Fingerprint() string {
	sum := sha256.Sum256(p.Marshal())
	return hex.EncodeToString(sum[:])
}

const header = "certanchor policy v1"

// Parse reads the text of one policy, without signatures. It accepts only what Marshal writes.
func Parse(text []byte) (*Policy, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("policy: %d octets: must be at most %d", len(text), MaxFile)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 || lines[0] != header || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("policy: must begin with the line %q, then have one line each for channel, version, quorum, max-age and every organisation", header)
	}
	var values [4]string
	for i, field := range []string{"channel", "version", "quorum", "max-age"} {
		value, ok := strings.CutPrefix(lines[i+1], field+" ")
		if !ok {
			return nil, fmt.Errorf("policy: line %d is %.100q: must be %q and a value", i+2, lines[i+1], field)
		}
		values[i] = value
	}
	version, err := strconv.ParseUint(values[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("policy: version is %.100q: must be a number", values[1])
	}
	quorum, err := strconv.Atoi(values[2])
	if err != nil {
		return nil, fmt.Errorf("policy: quorum is %.100q: must be a number", values[2])
	}
	maxAge, err := time.ParseDuration(values[3])
	if err != nil {
		return nil, fmt.Errorf("policy: max-age is %.100q: must be a duration such as 45s", values[3])
	}
	var orgs []Org
	for i, line := range lines[5 : len(lines)-1] {
		parts := strings.Split(line, " ")
		if len(parts) != 4 || parts[0] != "org" {
			return nil, fmt.Errorf("policy: line %d is %.100q: must be org, an MSP ID, a log key and a cosigner key", i+6, line)
		}
		orgs = append(orgs, Org{MSPID: parts[1], LogKey: parts[2], CosignerKey: parts[3]})
	}
	p, err := New(values[0], version, quorum, maxAge, orgs...)
	if err != nil {
		return nil, err
	}
	if string(p.Marshal()) != string(text) {
		return nil, errors.New("policy: must be in its one form: numbers without leading zeros, durations as Go prints them, organisations sorted by MSP ID")
	}
	return p, nil
}

// checkWord: names stand between spaces on lines, and between slashes in key names.
func checkWord(field, s string) error {
	if s == "" || len(s) > 128 || strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return fmt.Errorf("policy: %s is %.200q: must be 1 to 128 letters, digits, dots, hyphens or underscores", field, s)
	}
	return nil
}
