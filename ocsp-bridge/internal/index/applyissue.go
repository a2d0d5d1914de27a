package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
)

// place is where a leaf stands.
type place struct {
	log   logID
	index uint64
}

// freshLeaf is a certificate that the block at hand has logged.
type freshLeaf struct {
	kind merklelog.Kind
	time wire.Millis
	hash [sha256.Size]byte
	certFields
}

// certFields are what a record says about its certificate.
type certFields struct {
	serial   wire.Serial
	spkiHash [sha256.Size]byte
	notAfter wire.Millis
}

// applyIssue appends the leaves of an Issue, rebuilt from the certificates in its argument.
func (a *applier) applyIssue() error {
	var (
		arg wire.IssueArg
		res wire.IssueResult
	)
	if err := wire.Decode(a.tx.Arg, &arg); err != nil {
		return a.diverges("Issue argument", "unreadable", "%v", err)
	}
	if err := wire.Decode(a.tx.Result, &res); err != nil {
		return a.diverges("Issue result", "unreadable", "%v", err)
	}
	certs, err := arg.Certs()
	if err != nil {
		return a.diverges("Issue argument", "unreadable", "%v", err)
	}
	if len(res.Entries) != len(certs) {
		return a.diverges("Issue result", fmt.Sprint(len(res.Entries))+" entries", "the argument has %d certificates", len(certs))
	}
	for i, der := range certs {
		if err := a.applyLeaf(arg.CAID, der, &res.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// applyLeaf checks one entry against its certificate and appends it, unless it is a repetition of one that is there. A repeated
// precertificate may have another signature: its leaf has none, and the first one stays.
func (a *applier) applyLeaf(id wire.CAID, der []byte, e *wire.LogEntry) error {
	field := fmt.Sprintf("leaf %d of log %s", e.Index, id)
	leaf := &freshLeaf{kind: merklelog.X509, time: e.Time}
	pre, err := ctleaf.IsPrecert(der)
	if err != nil {
		return a.diverges(field, "certificate", "%v", err)
	}
	if pre {
		leaf.kind = merklelog.Precert
	}
	raw, err := issuanceLeaf(id, e.Index, leaf.kind, e.Time, der)
	if err != nil {
		return a.diverges(field, "certificate", "%v", err)
	}
	leaf.hash = ctleaf.HashLeaf(raw)
	if !bytes.Equal(leaf.hash[:], e.LeafHash) {
		return a.diverges(field, hex.EncodeToString(e.LeafHash), "the certificate in the argument gives %x", leaf.hash)
	}
	if leaf.certFields, err = fieldsOf(der); err != nil {
		return a.diverges(field, "certificate", "%v", err)
	}
	log := logID(id)
	size := a.tree(log).End()
	if e.Index < size {
		_, err := a.checkLeaf(id, e, leaf.kind, leaf.serial)
		return err
	}
	if e.Index > size {
		return a.diverges(field, "ahead", "the next leaf is %d", size)
	}
	if before := a.head(log).Time; e.Time < before {
		return a.diverges(field+" time", fmt.Sprint(e.Time), "the one before has %d", before)
	}
	if _, err := a.grow(log, leaf.hash, stored(&merklelog.Entry{Kind: leaf.kind, Time: e.Time, DER: der})); err != nil {
		return err
	}
	at := place{log, e.Index}
	a.fresh[at], a.unclaimed[at] = leaf, true
	return nil
}

// checkLeaf compares an entry of a record or a result with the leaf this index holds, and returns that.
func (a *applier) checkLeaf(id wire.CAID, e *wire.LogEntry, kind merklelog.Kind, serial wire.Serial) (*freshLeaf, error) {
	at := place{logID(id), e.Index}
	leaf := a.fresh[at]
	if leaf == nil {
		var err error
		if leaf, err = a.storedLeaf(at); err != nil {
			return nil, err
		}
	}
	field := fmt.Sprintf("leaf %d of log %s", e.Index, id)
	if leaf == nil {
		return nil, a.diverges(field, hex.EncodeToString(e.LeafHash), "this index has no such leaf")
	}
	if !bytes.Equal(leaf.hash[:], e.LeafHash) {
		return nil, a.diverges(field, hex.EncodeToString(e.LeafHash), "this index computed %x", leaf.hash)
	}
	if leaf.time != e.Time || leaf.kind != kind || !bytes.Equal(leaf.serial, serial) {
		return nil, a.diverges(field, fmt.Sprintf("serial %s, time %d, kind %d", serial, e.Time, kind),
			"this index holds serial %s, time %d, kind %d", leaf.serial, leaf.time, leaf.kind)
	}
	return leaf, nil
}

// storedLeaf reads a leaf of an earlier block, nil if there is none.
func (a *applier) storedLeaf(at place) (*freshLeaf, error) {
	raw, err := get(a.batch, entryKey(at.log, at.index))
	if err != nil || raw == nil {
		return nil, err
	}
	n := nodeReader{r: a.batch, log: at.log}
	e, err := n.entry(at.index, raw)
	if err != nil {
		return nil, err
	}
	leaf := &freshLeaf{kind: e.Kind, time: e.Time, hash: ctleaf.HashLeaf(e.Leaf)}
	leaf.certFields, err = fieldsOf(e.DER)
	return leaf, err
}

// applyHead checks the head of an issuance log.
func (a *applier) applyHead(w network.Write) error {
	id, err := wire.ParseLogHeadKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	var head wire.LogHead
	if err := wire.Decode(w.Value, &head); err != nil {
		return a.unreadable(w, err)
	}
	if err := a.checkHead(w.Key, logID(id), head.Size, head.Root, head.Time); err != nil {
		return err
	}
	if head.Size == 0 {
		return nil
	}
	if last := a.fresh[place{logID(id), head.Size - 1}]; last == nil || last.time != head.Time {
		return a.diverges(w.Key+" time", fmt.Sprint(head.Time), "must be the newest leaf's, and that must be new")
	}
	return nil
}

var errFields = errors.New("must be a certificate with serial number, validity and key (RFC 5280 section 4.1)")

// fieldsOf reads what records say about their certificates. crypto/x509 would read, and check, much more than that.
func fieldsOf(der []byte) (f certFields, err error) {
	var (
		s                        = cryptobyte.String(der)
		cert, tbs, validity, key cryptobyte.String
		serial                   []byte
		notAfter                 time.Time
	)
	sequence := cbasn1.SEQUENCE
	if !s.ReadASN1(&cert, sequence) || !cert.ReadASN1(&tbs, sequence) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1Integer(&serial) ||
		!tbs.SkipASN1(sequence) || !tbs.SkipASN1(sequence) || // signature, issuer
		!tbs.ReadASN1(&validity, sequence) || !tbs.SkipASN1(sequence) || !tbs.ReadASN1Element(&key, sequence) {
		return f, errFields
	}
	var tag cbasn1.Tag
	if !validity.ReadAnyASN1Element(new(cryptobyte.String), &tag) {
		return f, errFields
	}
	if validity.PeekASN1Tag(cbasn1.UTCTime) && !validity.ReadASN1UTCTime(&notAfter) || notAfter.IsZero() && !validity.ReadASN1GeneralizedTime(&notAfter) {
		return f, errFields
	}
	f = certFields{serial: serial, spkiHash: sha256.Sum256(key), notAfter: wire.MillisOf(notAfter)}
	return f, f.serial.Check()
}
