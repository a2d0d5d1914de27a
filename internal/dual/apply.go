package dual

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Names of parameters that operations on contents have: what they are about is named by digest, so that what is shown is what is done.
const (
	ParamSHA256   = "sha256"   // of the contents: the new file, or the list
	ParamOctets   = "octets"   // length of the contents
	ParamCount    = "count"    // of certificates
	ParamReplaces = "replaces" // SHA-256 of what is replaced
	ParamProfiles = "profiles" // SHA-256 of the profiles in force, in a change of the policy
)

// ContentParams returns the parameters that bind an operation to contents.
func ContentParams(contents []byte) map[string]string {
	return map[string]string{ParamSHA256: Digest(contents), ParamOctets: strconv.Itoa(len(contents))}
}

// CheckContents checks that contents are what op is about.
func (o Operation) CheckContents(contents []byte) error {
	for name, want := range ContentParams(contents) {
		if o.Params[name] != want {
			return denied("operation.params."+name, o.Params[name], "must be %s, that of the contents", want)
		}
	}
	return nil
}

// replacement is a file whose contents dual control decides about.
type replacement struct {
	kind, file string
	limit      int
	mode       os.FileMode
	current    func(*state) *string
	next       func(*state) *string
}

var replacements = map[string]replacement{
	KindPolicy: {
		KindPolicy, PolicyFile, MaxPolicyFile, 0o644,
		func(s *state) *string { return &s.Policy }, func(s *state) *string { return &s.NextPolicy },
	},
	KindProfiles: {
		KindProfiles, profilesFile, maxProfiles, 0o644,
		func(s *state) *string { return &s.Profiles }, func(s *state) *string { return &s.NextProfiles },
	},
}

// NewReplacement returns the operation that puts contents in the place of the policy (KindPolicy) or the profiles (KindProfiles). It requires
// a policy from LoadPolicy.
func (p *Policy) NewReplacement(kind string, contents []byte, now time.Time) (Operation, error) {
	r, err := p.replaces(kind, contents)
	if err != nil {
		return Operation{}, err
	}
	st, err := readState(p.dir)
	if err != nil {
		return Operation{}, err
	}
	params := ContentParams(contents)
	params[ParamReplaces] = *r.current(st)
	if kind == KindPolicy {
		if err := describeChange(params, contents); err != nil {
			return Operation{}, err
		}
		if params[ParamProfiles], err = fileDigest(filepath.Join(p.dir, profilesFile), maxProfiles); err != nil {
			return Operation{}, err
		}
	}
	return New(p.caID, kind, params, now, 0)
}

// describeChange says what a policy would be, for those who sign it.
func describeChange(params map[string]string, contents []byte) error {
	p, err := ParsePolicy(contents)
	if err != nil {
		return fmt.Errorf("the new policy: %w", err)
	}
	params["need"] = strconv.Itoa(p.need)
	params["operators"] = strconv.Itoa(len(p.operators))
	params["rules"] = p.Rules()
	return nil
}

// Rules says in words what needs approvals.
func (p *Policy) Rules() string {
	text := "revocations: no rule"
	if n := p.rules.RevokeMoreThan; n != nil {
		text = fmt.Sprintf("revocations: more than %d in %v", *n, p.window)
	}
	return text + fmt.Sprintf("; resuming a key: %t; profiles: %t; export: %t", p.rules.ResumeKey, p.rules.Profiles, p.rules.Export)
}

func (p *Policy) replaces(kind string, contents []byte) (replacement, error) {
	r, ok := replacements[kind]
	switch {
	case p == nil || p.dir == "":
		return r, fmt.Errorf("the CA has no dual-control policy")
	case !ok:
		return r, wire.Errorf(wire.InvalidArgument, "operation.kind", kind, "replaces no file")
	case len(contents) == 0 || len(contents) > r.limit:
		return r, wire.Errorf(wire.InvalidArgument, r.file, "", "has %d octets, must have 1 to %d", len(contents), r.limit)
	}
	return r, nil
}

// Adopt puts the first policy of the CA in dir in place. Errors: fs.ErrExist if there is one.
func Adopt(dir string, contents []byte) error {
	if _, err := ParsePolicy(contents); err != nil {
		return err
	}
	if st, err := readState(dir); err != nil || st != nil && st.Policy != "" {
		return errors.Join(err, fmt.Errorf("the dual-control policy: %w", fs.ErrExist))
	}
	if err := keyfile.WriteNew(filepath.Join(dir, PolicyFile), contents, 0o644); err != nil {
		return err
	}
	_, err := LoadPolicy(dir)
	return err
}

// Apply carries out an operation that NewReplacement made: it verifies the approvals under the policy in force, uses the operation up and
// replaces the file. Killed at any step, it leaves the old contents or the new ones, both good, and may be repeated: an operation whose
// contents are in place already succeeds.
func (p *Policy) Apply(op Operation, approvals []Approval, contents []byte, now time.Time) error {
	return p.apply(op, approvals, contents, byFile, now)
}

func (p *Policy) apply(op Operation, approvals []Approval, contents []byte, by string, now time.Time) error {
	r, err := p.replaces(op.Kind, contents)
	if err != nil {
		return err
	}
	if err := op.CheckContents(contents); err != nil {
		return err
	}
	if op.Kind == KindPolicy {
		if _, err := ParsePolicy(contents); err != nil {
			return fmt.Errorf("the new policy: %w", err)
		}
	}
	unlock, err := lock(p.dir)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(p.dir)
	if err != nil {
		return err
	}
	if st == nil || st.Policy != p.digest && (op.Kind != KindPolicy || st.Policy != op.Params[ParamSHA256]) {
		return denied("policy", p.digest, "is not the policy in force any more")
	}
	if err := p.approve(op, approvals, st, r, by, now); err != nil {
		return err
	}
	if err := keyfile.Replace(filepath.Join(p.dir, r.file), contents, r.mode); err != nil {
		return err
	}
	if op.Kind == KindPolicy {
		st.replace(op.Params[ParamSHA256])
	} else {
		*r.current(st), *r.next(st) = op.Params[ParamSHA256], ""
	}
	return st.write(p.dir)
}

// approve verifies the approvals and notes, durably, that the contents may come; once noted, they may, whatever dies. It requires the lock.
func (p *Policy) approve(op Operation, approvals []Approval, st *state, r replacement, by string, now time.Time) error {
	digest := op.Params[ParamSHA256]
	if *r.current(st) == digest {
		return nil
	}
	if *r.next(st) != digest {
		if op.Params[ParamReplaces] != *r.current(st) {
			return denied("operation.params."+ParamReplaces, op.Params[ParamReplaces], "must be what is in force, %s: it was changed since", *r.current(st))
		}
		if err := p.Check(op, approvals, now); err != nil {
			return err
		}
		if err := p.unspent(op, by); err != nil {
			return err
		}
		*r.next(st) = digest
		if op.Kind == KindPolicy && !p.rules.Profiles { // nobody kept an eye on them so far: those that were named are the approved ones
			st.Profiles, st.NextProfiles = op.Params[ParamProfiles], ""
		}
		if err := st.write(p.dir); err != nil {
			return err
		}
	}
	// It may have been used up by an attempt that died: what was noted says enough.
	if err := p.spend(op, by, now); err != nil && p.unspent(op, by) == nil {
		return err
	}
	return nil
}

// CheckProfiles refuses profiles that nobody approved, where the policy wants approval. Errors: ErrNotApproved.
func (p *Policy) CheckProfiles(contents []byte) error {
	if !p.Needs(KindProfiles, 1) {
		return nil
	}
	unlock, err := lock(p.dir)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(p.dir)
	if err != nil {
		return err
	}
	digest := Digest(contents)
	switch {
	case st == nil:
		return fmt.Errorf("%s: is gone: %w", filepath.Join(p.dir, stateDir, stateFile), ErrRemoved)
	case digest == st.Profiles:
		return nil
	case digest == st.NextProfiles:
		st.Profiles, st.NextProfiles = digest, ""
		return st.write(p.dir)
	}
	return fmt.Errorf("has SHA-256 %s, must be %s: %w; certanchor ca profiles apply asks for approval", digest, st.Profiles, ErrNotApproved)
}
