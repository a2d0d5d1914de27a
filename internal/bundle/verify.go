package bundle

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Which statement of a bundle does not hold, for errors.Is. The text of an error says more.
var (
	ErrFormat     = errors.New("bundle is malformed")
	ErrPolicy     = errors.New("bundle's checkpoints are not signed as the policy wants")
	ErrNotIssued  = errors.New("certificate is not shown to be in its CA's issuance log")
	ErrProof      = errors.New("status is not shown by the revocation map or status log")
	ErrStale      = errors.New("bundle's view of the ledger is not of now")
	ErrIncomplete = errors.New("bundle leaves out an entry that decides the status")
)

// Skew is how far ahead of the verifier's clock a Tick may be.
const Skew = time.Minute

// Result is what a verified bundle shows.
type Result struct {
	Status status.Status  // State, Reason, Time, Asserted and Invalidity
	By     []string       // who put it on hold or revoked it: "ca", "holder", "quorum" or "rule <n>"
	AsOf   time.Time      // the Tick that the status is of; what is newer can only have made it worse
	CA     wire.CAState   // a suspended CA issues no new certificates; those it has issued keep their status
	CAID   wire.CAID      // the CA
	Serial wire.Serial    // the certificate
	Final  *wire.LogEntry // of the certificate; nil if the bundle does not show it
	Pre    *wire.LogEntry // of its precertificate; nil if the bundle does not show it

	LogCosigners    []string // MSP IDs that cosigned the issuance log's checkpoint (with two entries: both)
	StatusCosigners []string // MSP IDs that cosigned the map log's checkpoint
}

// Verify checks, without any network, what data says about cert. cert comes from x509.ParseCertificate; whether it is expired, or good for a
// purpose, is the caller's to check. A nil error means that Result can be relied on, and its status may be any.
//
// Trusted are p, and now; and that of any quorum's organisations at least one, of those common to two quorums, is honest.
func Verify(p *policy.Policy, cert *x509.Certificate, data []byte, now time.Time) (*Result, error) {
	b, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if b.Channel != p.Channel() {
		return nil, fmt.Errorf("%w: channel is %.100q: the policy is of %q", ErrPolicy, b.Channel, p.Channel())
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotIssued, err)
	}
	v := &verifier{
		policy: p, cert: cert, spkiHash: sha256.Sum256(cert.RawSubjectPublicKeyInfo), b: b, r: Result{CAID: wire.CAIDOf(b.CAKey), Serial: serial},
		claimed: map[string]*tlogproof.Checkpoint{}, opened: map[string]*policy.Checkpoint{},
	}
	// Hashes before signatures: what is damaged is found cheaply. Nothing is believed before the last line.
	for _, step := range []func() error{v.issuance, v.tick, v.mapValues, v.rules, v.newer, v.signatures, v.issuer, func() error { return v.fresh(now) }, v.evaluate} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &v.r, nil
}

// verifier is one call of Verify. Its steps fill it in the order of Verify.
type verifier struct {
	policy   *policy.Policy
	cert     *x509.Certificate
	spkiHash [sha256.Size]byte // of cert's SubjectPublicKeyInfo
	b        *Bundle
	r        Result

	claimed     map[string]*tlogproof.Checkpoint // by signed note: the checkpoints that proofs lead to
	opened      map[string]*policy.Checkpoint    // by signed note, once signatures has run
	issuedBy    []string                         // signed notes of the entries
	mapLeaf     wire.MapLeaf
	mapNote     string
	mapCA       wire.MapCA
	mapCert     *wire.MapCert   // nil: the map has none
	mapHolder   *wire.MapHolder // nil: the map has none
	rulesOfCA   []wire.Rule
	newerLeaves []wire.StatusLeaf
}

// lead checks that a leaf is in the tree of p's checkpoint, which must be of origin. signatures verifies the checkpoint.
func (v *verifier) lead(p *tlogproof.Proof, origin string, leaf [sha256.Size]byte) error {
	note := string(p.Checkpoint)
	cp := v.claimed[note]
	if cp == nil {
		var err error
		if cp, _, err = tlogproof.ReadUnverified(p.Checkpoint); err != nil {
			return err
		}
		v.claimed[note] = cp
	}
	if cp.Origin != origin {
		return fmt.Errorf("checkpoint's origin is %.200q: must be %q", cp.Origin, origin)
	}
	return p.Verify(leaf, cp)
}

// issuance: each entry's leaf, made from the certificate, is in the CA's log.
func (v *verifier) issuance() error {
	for _, e := range v.b.Entries {
		p, err := tlogproof.Parse(e.Proof)
		if err != nil {
			return fmt.Errorf("%w: %v entry: %w", ErrFormat, e.Kind, err)
		}
		leaf, err := v.leaf(e.Kind, p)
		if err == nil {
			err = v.lead(p, lognames.Issuance(v.b.Channel, v.r.CAID), leaf)
		}
		if err != nil {
			return fmt.Errorf("%w: %v entry: %w", ErrNotIssued, e.Kind, err)
		}
		entry := &wire.LogEntry{Index: p.Index, Time: p.Time, LeafHash: leaf[:]}
		if e.Kind == Final {
			v.r.Final = entry
		} else {
			v.r.Pre = entry
		}
		v.issuedBy = append(v.issuedBy, string(p.Checkpoint))
	}
	return nil
}

func (v *verifier) leaf(k Kind, p *tlogproof.Proof) (leaf [sha256.Size]byte, err error) {
	if k == Final {
		return ctleaf.Hash(p.Index, p.Time, v.cert.Raw)
	}
	// RFC 6962 section 3.2: the precertificate's TBSCertificate is the certificate's without SCT list.
	tbs, err := ctleaf.FinalTBS(v.cert.Raw)
	if err != nil {
		return leaf, err
	}
	return ctleaf.PrecertHash(p.Index, p.Time, v.r.CAID, tbs)
}

// tick: the map's root at a Tick is in the map log.
func (v *verifier) tick() error {
	p, err := tlogproof.ParseBare(v.b.Tick.Proof)
	if err != nil {
		return fmt.Errorf("%w: tick: %w", ErrFormat, err)
	}
	if err := wire.Decode(v.b.Tick.Leaf, &v.mapLeaf); err != nil {
		return fmt.Errorf("%w: tick: %w", ErrFormat, err)
	}
	if len(v.mapLeaf.MapRoot) != sha256.Size {
		return fmt.Errorf("%w: tick: map root of %d octets: must be %d", ErrFormat, len(v.mapLeaf.MapRoot), sha256.Size)
	}
	if err := v.lead(p, lognames.Map(v.b.Channel), v.mapLeaf.Hash()); err != nil {
		return fmt.Errorf("%w: tick: %w", ErrProof, err)
	}
	v.mapNote, v.r.AsOf = string(p.Checkpoint), v.mapLeaf.Time.Time()
	return nil
}

// mapValues: the map has the CA; and the certificate, and the holder of its key, or not.
func (v *verifier) mapValues() error {
	root := [sha256.Size]byte(v.mapLeaf.MapRoot)
	prove := func(what string, key [sha256.Size]byte, val Value) error {
		p, err := revmap.ParseProof(val.Proof)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, what, err)
		}
		if len(val.Value) == 0 {
			err = revmap.VerifyAbsence(root, key, p)
		} else {
			err = revmap.VerifyInclusion(root, key, sha256.Sum256(val.Value), p)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrProof, what, err)
		}
		return nil
	}
	if err := prove("CA in the map", wire.CAMapKey(v.r.CAID), v.b.CA); err != nil {
		return err
	}
	if len(v.b.CA.Value) == 0 {
		return fmt.Errorf("%w: CA %v is not on the trust list", ErrProof, v.r.CAID)
	}
	if err := wire.Decode(v.b.CA.Value, &v.mapCA); err != nil {
		return fmt.Errorf("%w: CA in the map: %w", ErrFormat, err)
	}
	if err := prove("certificate in the map", wire.CertMapKey(v.r.CAID, v.r.Serial), v.b.Cert); err != nil {
		return err
	}
	if len(v.b.Cert.Value) > 0 {
		v.mapCert = new(wire.MapCert)
		if err := wire.Decode(v.b.Cert.Value, v.mapCert); err != nil {
			return fmt.Errorf("%w: certificate in the map: %w", ErrFormat, err)
		}
	}
	if err := prove("holder in the map", wire.HolderMapKey(v.r.CAID, v.r.Serial, v.spkiHash), v.b.Holder); err != nil {
		return err
	}
	if len(v.b.Holder.Value) > 0 {
		v.mapHolder = new(wire.MapHolder)
		if err := wire.Decode(v.b.Holder.Value, v.mapHolder); err != nil {
			return fmt.Errorf("%w: holder in the map: %w", ErrFormat, err)
		}
	}
	v.r.CA = v.mapCA.State
	return nil
}

// rules: they are all that the map's entry of the CA counts and hashes.
func (v *verifier) rules() error {
	for _, raw := range v.b.Rules {
		var r wire.Rule
		if err := wire.Decode(raw, &r); err != nil {
			return fmt.Errorf("%w: rule: %w", ErrFormat, err)
		}
		v.rulesOfCA = append(v.rulesOfCA, r)
	}
	if got := uint64(len(v.rulesOfCA)); got != v.mapCA.Rules {
		return fmt.Errorf("%w: %d rules: the CA has %d", ErrIncomplete, got, v.mapCA.Rules)
	}
	if sum := wire.RulesHash(v.rulesOfCA); !bytes.Equal(sum, v.mapCA.RulesHash) {
		return fmt.Errorf("%w: rules hash to %x: the CA's to %x", ErrProof, sum, v.mapCA.RulesHash)
	}
	return nil
}

// newer: status leaves after those that the map covers are in the status log.
func (v *verifier) newer() error {
	next := v.mapLeaf.StatusSize
	for _, n := range v.b.Newer {
		p, err := tlogproof.ParseBare(n.Proof)
		if err != nil {
			return fmt.Errorf("%w: newer status: %w", ErrFormat, err)
		}
		var l wire.StatusLeaf
		if err := wire.Decode(n.Leaf, &l); err != nil {
			return fmt.Errorf("%w: newer status: %w", ErrFormat, err)
		}
		if p.Index < next {
			return fmt.Errorf("%w: newer status at index %d: must be sorted, each once, and at least %d, the map's size", ErrFormat, p.Index, v.mapLeaf.StatusSize)
		}
		if !v.concerns(&l) {
			return fmt.Errorf("%w: newer status at index %d is about another certificate or CA", ErrFormat, p.Index)
		}
		if err := v.lead(p, lognames.Status(v.b.Channel), l.Hash()); err != nil {
			return fmt.Errorf("%w: newer status: %w", ErrProof, err)
		}
		v.newerLeaves, next = append(v.newerLeaves, l), p.Index+1
	}
	return nil
}

// concerns tells whether a leaf is about the certificate or its CA. What the holder of another key says about the serial number is not.
func (v *verifier) concerns(l *wire.StatusLeaf) bool {
	switch {
	case l.CAID != v.r.CAID:
		return false
	case l.Kind == wire.LeafRevocation && l.Source != wire.SourceQuorum && !bytes.Equal(l.SPKIHash, v.spkiHash[:]):
		return false
	case l.Kind == wire.LeafCert || l.Kind == wire.LeafRevocation:
		return bytes.Equal(l.Serial, v.r.Serial)
	}
	return true
}

// signatures: every checkpoint that a proof leads to satisfies the policy, with not a byte more than that takes.
func (v *verifier) signatures() error {
	for note, cp := range v.claimed {
		opened, err := v.policy.OpenCheckpoint([]byte(note), cp.Origin, true)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPolicy, cp.Origin, err)
		}
		v.opened[note] = opened
	}
	v.r.StatusCosigners = v.opened[v.mapNote].Cosigners
	v.r.LogCosigners = v.opened[v.issuedBy[0]].Cosigners
	for _, note := range v.issuedBy[1:] {
		v.r.LogCosigners = slices.DeleteFunc(slices.Clone(v.r.LogCosigners), func(id string) bool {
			return !slices.Contains(v.opened[note].Cosigners, id)
		})
	}
	return nil
}

// issuer: the certificate is signed with the CA's key. A precertificate's entry does not say so: its leaf has no signature.
func (v *verifier) issuer() error {
	key, err := x509.ParsePKIXPublicKey(v.b.CAKey)
	if err != nil {
		return fmt.Errorf("%w: CA key: %w", ErrFormat, err)
	}
	ca := &x509.Certificate{PublicKey: key}
	if err := ca.CheckSignature(v.cert.SignatureAlgorithm, v.cert.RawTBSCertificate, v.cert.Signature); err != nil {
		return fmt.Errorf("%w: it is not signed with the key of CA %v: %w", ErrNotIssued, v.r.CAID, err)
	}
	return nil
}

// fresh: the Tick is at most the policy's maximum age ago.
func (v *verifier) fresh(now time.Time) error {
	// Times are compared and not subtracted: differences of centuries overflow.
	if now.After(v.r.AsOf.Add(v.policy.MaxAge())) {
		return fmt.Errorf("%w: its status is of %v, and it is %v: the policy allows %v", ErrStale, v.r.AsOf, now.UTC(), v.policy.MaxAge())
	}
	if v.r.AsOf.After(now.Add(Skew)) {
		return fmt.Errorf("%w: its status is of %v, and this clock says %v: %v ahead is allowed", ErrStale, v.r.AsOf, now.UTC(), Skew)
	}
	return nil
}
