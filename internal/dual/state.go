package dual

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// Files below a CA's directory.
const (
	caFile       = "ca.pem"
	profilesFile = "profiles.json"

	stateDir = "dual" // ours
	// stateFile says which policy is in force and which profiles were approved.
	stateFile = "state.json"
	lockFile  = "lock"
	spentDir  = "spent" // one file for each operation that was used up, named after its ID, with its expiry in it
)

// Largest files, in octets.
const (
	maxState    = 64 << 10
	maxProfiles = 4 << 20
	maxSpent    = 64
)

// spentMargin is how long a used operation is remembered after its expiry, in case the clock is set back.
const spentMargin = 24 * time.Hour

// Errors of LoadPolicy and Approved, for errors.Is.
var (
	ErrRemoved     = errors.New("the dual-control policy was removed, which switches nothing off")
	ErrNotApproved = errors.New("not approved under dual control")
)

// state is the contents of stateFile. A digest is SHA-256 in hexadecimal. Next is set while an approved change is under way: then both
// contents are good, so that no crash leaves a CA that does not start.
type state struct {
	Version      int    `json:"version"`
	Policy       string `json:"policy"`
	NextPolicy   string `json:"next_policy,omitempty"`
	Profiles     string `json:"profiles"`
	NextProfiles string `json:"next_profiles,omitempty"`

	Previous []string `json:"previous,omitempty"` // policies that were in force before, the newest last
}

// LoadPolicy returns the policy in force for the CA in dir; if there is none, and never was, (nil, nil). The first policy that it finds is
// adopted: its digest, and that of the profiles at that moment, are written to dir/dual, and from then on another file, or none, is an error.
// Changes go through Apply. Errors: ErrRemoved, ErrNotApproved; a file that is malformed.
func LoadPolicy(dir string) (*Policy, error) {
	path := filepath.Join(dir, PolicyFile)
	if missing(path) && missing(filepath.Join(dir, stateDir, stateFile)) {
		return nil, nil // and nothing is left behind
	}
	restored, err := restoredAt(dir)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	data, err := readLimited(path, MaxPolicyFile)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return nil, err
	}
	st, err := readState(dir)
	switch {
	case err != nil:
		return nil, err
	case absent && (st == nil || st.Policy == ""):
		return nil, nil
	case absent:
		return nil, fmt.Errorf("%s: must exist, with SHA-256 %s: %w; certanchor ca dual-control apply changes it", path, st.Policy, ErrRemoved)
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.caID, err = caIDOf(dir); err != nil {
		return nil, err
	}
	p.dir, p.restored = dir, restored
	return p, st.take(dir, p)
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// take adopts p, or checks that it is what was adopted.
func (st *state) take(dir string, p *Policy) error {
	switch {
	case st == nil || st.Policy == "":
		if st == nil {
			st = &state{Version: 1}
		}
		var err error
		if st.Profiles, err = fileDigest(filepath.Join(dir, profilesFile), maxProfiles); err != nil {
			return fmt.Errorf("the dual-control policy cannot be adopted: %w", err)
		}
		st.Policy = p.digest
		return st.write(dir)
	case p.digest == st.Policy:
		return nil
	case p.digest == st.NextPolicy:
		st.replace(p.digest)
		return st.write(dir)
	}
	return fmt.Errorf("%s: has SHA-256 %s, must be %s, which is in force: %w; certanchor ca dual-control apply changes it",
		filepath.Join(dir, PolicyFile), p.digest, st.Policy, ErrNotApproved)
}

// maxPrevious is how many policies before the one in force are remembered.
const maxPrevious = 64

// replace makes another policy the one in force; an empty digest: none.
func (st *state) replace(digest string) {
	if st.Policy != "" && st.Policy != digest {
		st.Previous = append(st.Previous, st.Policy)
		st.Previous = st.Previous[max(0, len(st.Previous)-maxPrevious):]
	}
	st.Policy, st.NextPolicy = digest, ""
}

// Abandon takes the policy of the CA in dir out of force without approvals, for a CA whose operators have lost their keys. It is no way that nobody
// sees: the CA bridge tells of it in the operators' log, whose head other organisations have. Errors: fs.ErrNotExist if there is none.
func Abandon(dir string) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := readState(dir)
	if err != nil {
		return err
	}
	if st == nil || st.Policy == "" {
		return fmt.Errorf("the dual-control policy: %w", fs.ErrNotExist)
	}
	if err := os.Remove(filepath.Join(dir, PolicyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	st.replace("")
	return st.write(dir)
}

// Succeeds reports whether what is in force for the CA in dir came, by approvals or by Abandon, after the policy with this digest, or is that one.
func Succeeds(dir, digest string) (bool, error) {
	st, err := readState(dir)
	if st == nil || err != nil {
		return false, err
	}
	return st.Policy == digest || slices.Contains(st.Previous, digest), nil
}

// lock keeps other processes, and other callers in this one, from the state until unlock is called.
func lock(dir string) (unlock func(), err error) {
	d := filepath.Join(dir, stateDir)
	if err := os.MkdirAll(filepath.Join(d, spentDir), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't lock %s: %w", f.Name(), err), f.Close())
	}
	if err := errors.Join(keyfile.SyncDir(dir), keyfile.SyncDir(d)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // nothing was written to it
}

func readState(dir string) (*state, error) {
	path := filepath.Join(dir, stateDir, stateFile)
	data, err := readLimited(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, err := parseState(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return st, nil
}

func parseState(data []byte) (*state, error) {
	var st state
	if err := strictJSON(data, &st); err != nil {
		return nil, err
	}
	if st.Version != 1 {
		return nil, fmt.Errorf("version %d: must be 1", st.Version)
	}
	if len(st.Previous) > maxPrevious {
		return nil, fmt.Errorf("previous: %d, must be at most %d", len(st.Previous), maxPrevious)
	}
	for field, v := range map[string]string{"policy": st.Policy, "profiles": st.Profiles} {
		if v == "" && field == "policy" && len(st.Previous) > 0 { // abandoned
			continue
		}
		if !isHex(v, 64) {
			return nil, fmt.Errorf("%s %q: must be a SHA-256 in hexadecimal", field, v)
		}
	}
	for field, v := range map[string]string{"next_policy": st.NextPolicy, "next_profiles": st.NextProfiles} {
		if v != "" && !isHex(v, 64) {
			return nil, fmt.Errorf("%s %q: must be a SHA-256 in hexadecimal", field, v)
		}
	}
	return &st, nil
}

func (st *state) write(dir string) error {
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	return keyfile.Replace(filepath.Join(dir, stateDir, stateFile), append(data, '\n'), 0o600)
}

func caIDOf(dir string) (wire.CAID, error) {
	data, err := readLimited(filepath.Join(dir, caFile), maxState)
	if err != nil {
		return wire.CAID{}, fmt.Errorf("the dual-control policy is of no CA: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return wire.CAID{}, fmt.Errorf("%s: must hold a PEM certificate", filepath.Join(dir, caFile))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return wire.CAID{}, fmt.Errorf("%s: %w", filepath.Join(dir, caFile), err)
	}
	return wire.CAIDOf(cert.RawSubjectPublicKeyInfo), nil
}

// Digest is SHA-256 in hexadecimal, as operations name contents.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func fileDigest(path string, limit int64) (string, error) {
	data, err := readLimited(path, limit)
	if err != nil {
		return "", err
	}
	return Digest(data), nil
}

// Verify is Check, and uses the operation up: it returns nil once for an operation, whichever process asks, and what was used up stays so when
// the process dies a moment later. What must be finished after a crash is approved anew, or goes through a Store.
func (p *Policy) Verify(op Operation, approvals []Approval, now time.Time) error {
	if err := p.Check(op, approvals, now); err != nil {
		return err
	}
	unlock, err := lock(p.dir)
	if err != nil {
		return err
	}
	defer unlock()
	return p.spend(op, byFile, now)
}

// Who used an operation up, beside its expiry in its file: what a Store began, it may begin again after a crash.
const (
	byFile  = "file"
	byStore = "store"
)

// spend uses op up. It requires the lock.
func (p *Policy) spend(op Operation, by string, now time.Time) error {
	dir := filepath.Join(p.dir, stateDir, spentDir)
	if err := purgeSpent(dir, now); err != nil {
		return err
	}
	err := keyfile.WriteNew(filepath.Join(dir, op.ID()), []byte(op.Expires.UTC().Format(time.RFC3339)+" "+by+"\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return p.unspent(op, by)
	}
	return err
}

// unspent refuses an operation that was used up, unless it was by the same Store.
func (p *Policy) unspent(op Operation, by string) error {
	text, err := readLimited(filepath.Join(p.dir, stateDir, spentDir, op.ID()), maxSpent)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case by == byStore && strings.HasSuffix(string(text), " "+byStore+"\n"):
		return nil
	}
	return denied("operation", op.ID(), "was used already: an operation is carried out once")
}

// purgeSpent forgets operations that have been expired for long. A file that cannot be read stays.
func purgeSpent(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := readLimited(filepath.Join(dir, e.Name()), maxSpent)
		if err != nil {
			continue
		}
		stamp, _, _ := strings.Cut(string(text), " ")
		expires, err := time.Parse(time.RFC3339, stamp)
		if err != nil || now.Before(expires.Add(spentMargin)) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
