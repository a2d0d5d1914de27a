package ocspbridge

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/bundle"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/heads"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// bundlePatience is how long a request for a bundle waits for a change of status to reach the status log.
const bundlePatience = 3 * time.Second

func (b *Bridge) serveBundle(w http.ResponseWriter, r *http.Request, caText, serialText string) {
	data, err := b.bundle(r.Context(), caText, serialText)
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	w.Header().Set("Content-Type", bundle.ContentType)
	w.Header().Set("Cache-Control", "no-store") // it is of this moment
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if _, err := w.Write(data); err != nil {
		b.log.Debug("answer not delivered", "error", err)
	}
}

// bundle makes a certificate's bundle. One that says better than what the bridge knows is not given: a change of status takes effect
// before the status log has it, and is waited for.
func (b *Bridge) bundle(ctx context.Context, caText, serialText string) ([]byte, error) {
	id, err := wire.ParseCAID(caText)
	if err != nil {
		return nil, err
	}
	serial, err := wire.ParseSerial(serialText)
	if err != nil {
		return nil, err
	}
	if b.index.View().CA(id) == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	ctx, cancel := context.WithTimeout(ctx, bundlePatience)
	defer cancel()
	for {
		changed := b.index.Changed()
		d := &draft{b: b, id: id, serial: serial}
		data, err := d.make(ctx)
		if !errors.Is(err, errBehind) {
			return data, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, unavailable(err)
		}
	}
}

// errBehind tells that a bundle would say better than what the bridge knows.
var errBehind = errors.New("the newest change of status is not in the status log yet")

// draft is a bundle in the making.
type draft struct {
	b      *Bridge
	id     wire.CAID
	serial wire.Serial

	known status.Status // what the bridge knows; read first, so that what the proofs say is no older
	rec   *wire.CertRecord
	parts bundle.Parts
	final *x509.Certificate // nil: only the precertificate is logged
}

func (d *draft) make(ctx context.Context) ([]byte, error) {
	var err error
	if d.known, d.rec, err = d.b.index.Status(d.id, d.serial); err != nil {
		return nil, err
	}
	if d.rec == nil {
		return nil, notLogged(d.serial)
	}
	if d.rec.SerialOnly() {
		return nil, wire.Errorf(wire.FailedPrecondition, "serial", d.serial.String(),
			"must be the serial number of a certificate that the ledger has; of this one it has the imported serial number only, so nothing can be proven about a certificate: ask OCSP about it")
	}
	d.parts.Channel, d.parts.CAKey = d.b.ledger.Channel(), d.b.index.View().CA(d.id).Certs[0].RawSubjectPublicKeyInfo
	for _, step := range []func(context.Context) error{d.status, d.newer, d.issuance} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	data, err := bundle.Make(&d.parts)
	if err != nil {
		return nil, err
	}
	return data, d.check(data)
}

// status fills in what the revocation map had at the newest Tick.
func (d *draft) status(ctx context.Context) error {
	if len(d.rec.SPKIHash) != sha256.Size {
		return fmt.Errorf("certificate %s: SPKI hash of %d octets", d.serial, len(d.rec.SPKIHash))
	}
	at, _, entries, err := d.b.index.MapProof(
		wire.CertMapKey(d.id, d.serial), wire.HolderMapKey(d.id, d.serial, [sha256.Size]byte(d.rec.SPKIHash)), wire.CAMapKey(d.id))
	if errors.Is(err, index.ErrNoTick) {
		return unavailable(err)
	}
	if err != nil {
		return err
	}
	cert, holder, ca := entries[0], entries[1], entries[2]
	if ca.Value == nil {
		return unavailable(errors.New("the revocation map has the CA at the next tick"))
	}
	d.parts.CA = new(wire.MapCA)
	if err := wire.Decode(ca.Value, d.parts.CA); err != nil {
		return err
	}
	if cert.Value != nil {
		d.parts.Cert = new(wire.MapCert)
		if err := wire.Decode(cert.Value, d.parts.Cert); err != nil {
			return err
		}
	}
	if holder.Value != nil {
		d.parts.Holder = new(wire.MapHolder)
		if err := wire.Decode(holder.Value, d.parts.Holder); err != nil {
			return err
		}
	}
	d.parts.TickIndex, d.parts.CAProof, d.parts.CertProof, d.parts.HolderProof, d.parts.Rules = at, ca.Proof, cert.Proof, holder.Proof, ca.Rules
	d.parts.Map, err = d.log(ctx, d.b.mapLog(), at+1)
	return err
}

// newer finds the leaves after those of the map that make the status worse.
func (d *draft) newer(ctx context.Context) error {
	tick, err := d.parts.Map.Entries(d.parts.TickIndex, d.parts.TickIndex+1)
	if err != nil {
		return err
	}
	var leaf wire.MapLeaf
	if err := wire.Decode(tick[0].Leaf, &leaf); err != nil {
		return err
	}
	state := wire.CertValid
	if d.parts.Cert != nil {
		state = d.parts.Cert.State
	}
	changed := false // the newest change of the record was seen
	for _, serial := range []wire.Serial{d.serial, nil} {
		entries, err := d.b.index.StatusEntries(d.id, serial, wire.MaxBatch)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Index < leaf.StatusSize {
				break // the newest come first
			}
			l := &e.Leaf
			worse := l.Kind == wire.LeafRevocation || l.Kind == wire.LeafCA && wire.CAState(l.State) == wire.CASuspended
			switch l.Kind {
			case wire.LeafCert:
				worse, changed = !changed && wire.CertState(l.State) >= state, true
			case wire.LeafRule:
				rule := wire.Rule{From: l.From, To: l.To}
				worse = status.Covers(&rule, d.rec.Pre) || status.Covers(&rule, d.rec.Final)
			}
			if worse && len(d.parts.Newer) < bundle.MaxNewer {
				d.parts.Newer = append(d.parts.Newer, e.Index)
			}
		}
	}
	if len(d.parts.Newer) == 0 {
		return nil
	}
	slices.Sort(d.parts.Newer)
	d.parts.Status, err = d.log(ctx, d.b.statusLog(), d.parts.Newer[len(d.parts.Newer)-1]+1)
	return err
}

// ofAnotherKey reports whether a leaf about rec's serial number is by the holder of a key that rec's certificate does not have.
func ofAnotherKey(l *wire.StatusLeaf, rec *wire.CertRecord) bool {
	return l.Kind == wire.LeafRevocation && l.Source == wire.SourceHolder && !slices.Equal(l.SPKIHash, rec.SPKIHash)
}

// issuance names the entries of the certificate and its precertificate.
func (d *draft) issuance(ctx context.Context) error {
	log, err := d.b.issuanceLog(d.id)
	if err != nil {
		return err
	}
	least := uint64(0)
	for _, e := range []struct {
		kind bundle.Kind
		at   *wire.LogEntry
	}{{bundle.Final, d.rec.Final}, {bundle.Precert, d.rec.Pre}} {
		if e.at != nil {
			d.parts.Entries = append(d.parts.Entries, bundle.EntryRef{Kind: e.kind, Index: e.at.Index, Time: e.at.Time})
			least = max(least, e.at.Index+1)
		}
	}
	if d.rec.Final != nil {
		entries, err := log.Log.Entries(d.rec.Final.Index, d.rec.Final.Index+1)
		if err != nil {
			return err
		}
		if d.final, err = x509.ParseCertificate(entries[0].DER); err != nil {
			return fmt.Errorf("log entry %d: %w", d.rec.Final.Index, err)
		}
	}
	d.parts.Issuance, err = d.log(ctx, log, least)
	return err
}

func (d *draft) log(ctx context.Context, log heads.Log, least uint64) (bundle.Log, error) {
	cp, err := d.b.quorate(ctx, log, least)
	if err != nil {
		return bundle.Log{}, err
	}
	return bundle.Log{Log: log.Log, Checkpoint: cp.Note}, nil
}

// check verifies the bundle as a relying party will, and that it says no better than what is known.
func (d *draft) check(data []byte) error {
	trust := d.b.trust()
	if trust == nil || d.final == nil {
		return d.checkPending()
	}
	r, err := bundle.Verify(trust.Policy, d.final, data, d.b.cfg.Now())
	if errors.Is(err, bundle.ErrStale) {
		return unavailable(err)
	}
	if errors.Is(err, bundle.ErrIncomplete) {
		// docs/decisions/0008: rules and SCTs of other logs leave open what only its absent precertificate could tell.
		return wire.Errorf(wire.FailedPrecondition, "serial", d.serial.String(), "must be the serial number of a certificate whose status can be proven offline; ask OCSP about this one: %v", err)
	}
	if err != nil {
		return fmt.Errorf("certificate %s: a bundle was made that does not verify: %w", d.serial, err)
	}
	if r.Status.State < d.known.State {
		return errBehind
	}
	return nil
}

// checkPending: what cannot be verified here must at least have nothing that is on its way to the status log.
func (d *draft) checkPending() error {
	pending, err := d.b.index.Pending(wire.MaxBatch)
	if err != nil {
		return err
	}
	for _, p := range pending {
		if l := &p.Leaf; l.CAID == d.id && (len(l.Serial) == 0 || slices.Equal(l.Serial, d.serial) && !ofAnotherKey(l, d.rec)) {
			return errBehind
		}
	}
	return nil
}
