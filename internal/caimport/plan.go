package caimport

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Options of a Plan.
type Options struct {
	AssumeValid bool             // a certificate whose status no source tells is valid
	OnBad       func(*Bad)       // called for every entry that cannot be imported; default: nothing
	Progress    func(n uint64)   // called with the number of entries read so far; default: nothing
	Now         func() time.Time // default time.Now
}

// Counts are what the sources have, by what becomes of it.
type Counts struct {
	Entries    uint64            `json:"entries"`    // read, of all sources together
	Bad        uint64            `json:"bad"`        // cannot be imported; each was reported
	Duplicates uint64            `json:"duplicates"` // certificates that were there before
	Skipped    map[string]uint64 `json:"skipped"`    // not meant to be imported, by kind

	Valid             uint64 `json:"valid"` // to be imported, with certificate
	Held              uint64 `json:"held"`
	Revoked           uint64 `json:"revoked"`
	SerialOnlyHeld    uint64 `json:"serial_only_held"` // to be imported, without
	SerialOnlyRevoked uint64 `json:"serial_only_revoked"`
	LeftOut           uint64 `json:"left_out"` // valid once and expired, and nobody has the certificate
}

// Certificates is how many certificates are to be imported.
func (c *Counts) Certificates() uint64 { return c.Valid + c.Held + c.Revoked }

// Items is how many entries are to be imported.
func (c *Counts) Items() uint64 { return c.Certificates() + c.SerialOnlyHeld + c.SerialOnlyRevoked }

// Plan is what is to be imported from several sources together. It is not safe for concurrent use.
type Plan struct {
	ca      *Authority
	sources []source
	opts    Options

	table    *table
	complete bool // a complete CRL is among the sources: what is not on it is valid
	counts   Counts
	digest   hash.Hash
}

// NewPlan prepares reading inputs. stdin is the file that has what standard input had; "" if inputs do not name it. CRLs are verified here:
// nothing can be believed of one that is not the CA's, and a delta needs the complete CRL that it continues among the inputs.
func NewPlan(ca *Authority, in Inputs, stdin string, opts Options) (*Plan, error) {
	if opts.OnBad == nil {
		opts.OnBad = func(*Bad) {}
	}
	if opts.Progress == nil {
		opts.Progress = func(uint64) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	sources, err := in.sources(ca, stdin)
	if err != nil {
		return nil, err
	}
	if err := orderCRLs(sources); err != nil {
		return nil, err
	}
	p := &Plan{ca: ca, sources: sources, opts: opts}
	for _, s := range sources {
		if c, ok := s.(*crlFile); ok && c.list.Base == nil && !c.list.Partial {
			p.complete = true
		}
	}
	return p, nil
}

// Sources returns the sources' names with their kinds, in the order in which they are read.
func (p *Plan) Sources() []string {
	var names []string
	for _, s := range p.sources {
		names = append(names, s.name()+" ("+s.kind()+")")
	}
	return names
}

// Check reads everything. With verify it verifies every certificate's signature; without, that must have been done of the same
// contents, which Digest tells. Entries that are wrong are reported to Options.OnBad, and counted. Errors: a source cannot be read.
func (p *Plan) Check(ctx context.Context, verify bool) (*Counts, error) {
	p.table, p.digest, p.counts = newTable(), sha256.New(), Counts{Skipped: map[string]uint64{}}
	for i, s := range p.sources {
		work := func(e *event) {
			if e.rec != nil && e.rec.DER != nil {
				e.checked = p.ca.check(e.rec.Where, e.rec.DER, verify)
			}
		}
		if err := pipeline(ctx, s, work, func(e *event) error { return p.take(i, e) }); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	p.dispose()
	return &p.counts, nil
}

// Resume checks the sources, and makes st the state of what they hold: from its start, or from where st says that an earlier run of the same
// had come. Signatures are not verified again of sources that were found to be without fault and have not changed since.
func (p *Plan) Resume(ctx context.Context, st *State) (*Counts, error) {
	if st.Digest != "" && st.Clean {
		report := p.opts.OnBad
		p.opts.OnBad = func(*Bad) {}
		c, err := p.Check(ctx, false)
		p.opts.OnBad = report
		if err != nil {
			return nil, err
		}
		if c.Bad == 0 && p.Digest() == st.Digest {
			st.Begin(st.Digest, c)
			return c, nil
		}
	}
	c, err := p.Check(ctx, true)
	if err == nil {
		st.Begin(p.Digest(), c)
	}
	return c, err
}

// Digest names what Check has read: the CA, and all that the sources say.
func (p *Plan) Digest() string {
	h := sha256.New()
	h.Write(p.ca.ID[:])
	fmt.Fprintf(h, "%t %t %d %d %d\n", p.opts.AssumeValid, p.complete, p.ca.Registered, p.counts.Items(), p.counts.Bad)
	h.Write(p.digest.Sum(nil))
	return hex.EncodeToString(h.Sum(nil))
}

func (p *Plan) bad(b *Bad) {
	p.counts.Bad++
	p.opts.OnBad(b)
}

// doubt reports what a source says about a certificate and cannot be read, which therefore is not imported at all.
func (p *Plan) doubt(source int, b *Bad) {
	if b.serial != nil {
		p.table.of(b.serial, source, Where{}).flags |= flagDoubt
	}
	p.bad(b)
}

// take notes an event of source i.
func (p *Plan) take(i int, e *event) error {
	p.counts.Entries++
	p.opts.Progress(p.counts.Entries)
	switch {
	case e.bad != nil:
		p.doubt(i, e.bad)
	case e.rec == nil:
		p.counts.Skipped[e.skip]++
		p.counts.Entries--
	case e.rec.DER != nil:
		p.takeCert(i, e)
	default:
		p.takeStatus(i, e.rec)
	}
	return nil
}

func (p *Plan) takeCert(i int, e *event) {
	c := &e.checked
	p.digest.Write(c.digest[:])
	switch {
	case c.bad != nil:
		if c.serial != nil {
			p.table.of(c.serial, i, e.rec.Where).flags |= flagFault
		}
		p.bad(c.bad)
		return
	case c.skip != "":
		p.counts.Skipped[c.skip]++
		if c.skip == skipPoison {
			p.table.of(c.serial, i, e.rec.Where).flags |= flagPoison
		}
		return
	}
	r := p.table.of(c.serial, i, e.rec.Where)
	switch r.digest {
	case 0:
		r.digest = short(c.digest)
	case short(c.digest):
		p.counts.Duplicates++
	default:
		p.bad(bad(e.rec.Where, "certificate.serial", c.serial.String(), "must be of one certificate: %s has another one with it", p.sources[r.source].name()))
	}
}

func (p *Plan) takeStatus(i int, rec *Record) {
	h := p.digest
	h.Write(rec.Serial)
	for _, n := range [...]int64{int64(rec.Status.State), int64(rec.Status.Reason), int64(rec.Status.Revoked), int64(rec.Status.Invalidity), int64(rec.NotAfter)} {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	now := wire.MillisOf(p.opts.Now())
	if t := max(rec.Status.Revoked, rec.Status.Invalidity); t > now {
		p.doubt(i, bad(rec.Where, "revocation", t.Time().Format(time.RFC3339), "must not be in the future").about(rec.Serial))
		return
	}
	if rec.Status.Revoked <= 0 && rec.Status.State > wire.CertValid {
		p.doubt(i, bad(rec.Where, "revocation", rec.Status.Revoked.Time().Format(time.RFC3339), "must be after 1970").about(rec.Serial))
		return
	}
	r := p.table.of(rec.Serial, i, rec.Where)
	r.merge(rec.Status)
	if rec.NotAfter > 0 {
		r.notAfter = rec.NotAfter
	}
	if rec.Expired {
		r.flags |= flagExpired
	}
}

// dispose decides about every row, once all sources were read. Whatever is wrong comes in the order of serial numbers.
func (p *Plan) dispose() {
	untold := 0
	var example serialKey
	now := wire.MillisOf(p.opts.Now())
	var missing []serialKey
	for k, r := range p.table.rows {
		if r.flags&flagDoubt != 0 {
			continue
		}
		if r.digest != 0 && r.state == 0 {
			if !p.complete && !p.opts.AssumeValid {
				untold++
				if example == (serialKey{}) || string(k[:]) < string(example[:]) {
					example = k
				}
				continue
			}
			r.state = uint8(wire.CertValid)
		}
		if !p.count(r, now) {
			missing = append(missing, k)
		}
	}
	sortKeys(missing)
	for _, k := range missing {
		r := p.table.rows[k]
		p.bad(bad(Where{Source: p.sources[r.source].name(), Line: int(r.place)}, "certificate", k.serial().String(),
			"must be among the sources: it is valid, and what nobody has shown is never good"))
	}
	if untold > 0 {
		p.counts.Bad += uint64(untold) - 1
		p.bad(bad(Where{Source: fmt.Sprintf("%d certificates", untold)}, "status", "serial "+example.serial().String()+" and others",
			"must be told by a source: index.txt, a complete CRL or certdb; or be assumed to be valid (--assume-valid)"))
	}
}

// count takes a row into the counts; false: its certificate is missing.
func (p *Plan) count(r *row, now wire.Millis) bool {
	c := &p.counts
	state, serialOnly := wire.CertState(r.state), r.digest == 0
	switch {
	case serialOnly && state == wire.CertHeld:
		c.SerialOnlyHeld++
	case serialOnly && state == wire.CertRevoked:
		c.SerialOnlyRevoked++
	case serialOnly && r.flags&flagFault != 0: // reported already
	case serialOnly && (state == 0 || r.flags&(flagExpired|flagPoison) != 0 || r.notAfter != 0 && r.notAfter < now):
		c.LeftOut++
	case serialOnly:
		return false
	case state == wire.CertHeld:
		c.Held++
	case state == wire.CertRevoked:
		c.Revoked++
	default:
		c.Valid++
	}
	return true
}

// Item is one entry to be imported.
type Item struct {
	Where  string
	Serial wire.Serial
	DER    []byte // nil: serial number only
	Import wire.ImportItem
}

// ErrChanged: a source does not have what was checked any more.
var ErrChanged = errors.New("the sources have changed since they were checked: run it again")

// Each reads the sources again and calls fn for every entry that is to be imported, in an order that is the same each time: certificates as the
// sources have them, then serial numbers without. Check must have been called. It ends with fn's error, or with ErrChanged, wrapped.
func (p *Plan) Each(ctx context.Context, fn func(*Item) error) error {
	for _, r := range p.table.rows {
		r.flags &^= flagSubmitted
	}
	var found uint64
	for _, s := range p.sources {
		work := func(e *event) {
			if e.rec != nil && e.rec.DER != nil {
				e.checked.digest = sha256.Sum256(e.rec.DER)
				e.checked.serial = serialIn(e.rec.DER)
			}
		}
		take := func(e *event) error {
			r := p.wanted(e)
			if r == nil {
				return nil
			}
			found++
			r.flags |= flagSubmitted
			return fn(p.item(e.rec.Where, e.checked.serial, e.rec.DER, r))
		}
		if err := pipeline(ctx, s, work, take); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	if found != p.counts.Certificates() {
		return fmt.Errorf("%w: %d certificates were found, not %d", ErrChanged, found, p.counts.Certificates())
	}
	for _, k := range p.table.sorted(func(r *row) bool {
		return r.digest == 0 && wire.CertState(r.state) > wire.CertValid && r.flags&flagDoubt == 0
	}) {
		r := p.table.rows[k]
		if err := fn(p.item(Where{Source: p.sources[r.source].name(), Line: int(r.place)}, k.serial(), nil, r)); err != nil {
			return err
		}
	}
	return nil
}

// wanted returns the row of a certificate that is to be imported and was not handed on yet.
func (p *Plan) wanted(e *event) *row {
	if e.rec == nil || e.rec.DER == nil || e.checked.serial == nil {
		return nil
	}
	r := p.table.rows[keyOf(e.checked.serial)]
	if r == nil || r.digest != short(e.checked.digest) || r.state == 0 || r.flags&(flagSubmitted|flagDoubt) != 0 {
		return nil
	}
	return r
}

func (p *Plan) item(w Where, serial wire.Serial, der []byte, r *row) *Item {
	st := r.status()
	it := &Item{Where: w.String(), Serial: serial, DER: der, Import: wire.ImportItem{
		HasCert: der != nil, State: st.State, Reason: st.Reason, Revoked: st.Revoked, Invalidity: st.Invalidity,
	}}
	if der == nil {
		it.Import.Serial, it.Import.NotAfter = serial, r.notAfter
	}
	return it
}
