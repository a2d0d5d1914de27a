package ca

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/network"
)

// blockedFile lists keys that nothing is issued for any more.
const blockedFile = "blocked-keys"

// blockedKey is a line of it.
type blockedKey struct {
	SPKI  string `json:"spki"`
	Time  string `json:"time"`
	By    string `json:"by"`
	Sweep bool   `json:"sweep,omitempty"` // every certificate with it is to be revoked, those recorded later too

	Invalidity wire.Millis `json:"invalidity,omitempty"` // of a sweep

	Operation string `json:"operation,omitempty"` // under dual control: the key is blocked while this one waits or is carried out, by this line
}

// blockedKeys keeps compromised keys out: those of certificates that were revoked for keyCompromise here, which are in its file before the
// revocation is on the ledger, and those that the ledger says it of.
type blockedKeys struct {
	file  *lines
	known func(catalogue.Key) bool // on the ledger
	waits func(operation string) bool
	now   func() time.Time

	mu      sync.Mutex
	keys    map[catalogue.Key]blockedKey
	waiting map[catalogue.Key][]string // operations that have not ended when last looked at
	issuing map[catalogue.Key]int      // requests that are under way
	left    chan struct{}              // closed, and replaced, when one of these ends
}

func openBlockedKeys(dir string, now func() time.Time, known func(catalogue.Key) bool, waits func(string) bool) (*blockedKeys, error) {
	b := &blockedKeys{known: known, waits: waits, now: now, keys: map[catalogue.Key]blockedKey{}, waiting: map[catalogue.Key][]string{}, issuing: map[catalogue.Key]int{}, left: make(chan struct{})}
	var err error
	b.file, err = openLines(filepath.Join(dir, blockedFile), func(line []byte) error {
		var l blockedKey
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		k, err := catalogue.ParseKey(l.SPKI)
		if err != nil {
			return err
		}
		b.note(k, l)
		return nil
	})
	return b, err
}

// note requires mu, or that nobody else has b yet.
func (b *blockedKeys) note(k catalogue.Key, l blockedKey) {
	if l.Operation != "" {
		if !slices.Contains(b.waiting[k], l.Operation) {
			b.waiting[k] = append(b.waiting[k], l.Operation)
		}
		return
	}
	if old, ok := b.keys[k]; ok && old.Sweep {
		return
	}
	b.keys[k] = l
}

// block keeps keys out from now on; durable when it returns. What is under way goes on: see drain.
func (b *blockedKeys) block(by string, sweep bool, invalidity wire.Millis, keys ...catalogue.Key) error {
	var add []any
	var adding []blockedKey
	var fresh []catalogue.Key
	b.mu.Lock()
	for _, k := range keys {
		if old, ok := b.keys[k]; ok && (old.Sweep || !sweep) {
			continue
		}
		l := blockedKey{SPKI: k.String(), Time: b.now().UTC().Format(caapi.TimeFormat), By: by, Sweep: sweep, Invalidity: invalidity}
		add, adding, fresh = append(add, l), append(adding, l), append(fresh, k)
	}
	b.mu.Unlock()
	if len(add) == 0 {
		return nil
	}
	if err := b.file.add(add...); err != nil {
		return fmt.Errorf("couldn't block a key: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, k := range fresh {
		b.note(k, adding[i])
	}
	return nil
}

// blockWhile keeps keys out while an operation under dual control waits or is carried out; durable when it returns. Blocks that are there for other reasons stay.
func (b *blockedKeys) blockWhile(by, operation string, keys ...catalogue.Key) error {
	var add []any
	var adding []blockedKey
	var fresh []catalogue.Key
	seen := map[catalogue.Key]bool{}
	b.mu.Lock()
	for _, k := range keys {
		if seen[k] || slices.Contains(b.waiting[k], operation) {
			continue
		}
		seen[k] = true
		l := blockedKey{SPKI: k.String(), Time: b.now().UTC().Format(caapi.TimeFormat), By: by, Operation: operation}
		add, adding, fresh = append(add, l), append(adding, l), append(fresh, k)
	}
	b.mu.Unlock()
	if len(add) == 0 {
		return nil
	}
	if err := b.file.add(add...); err != nil {
		return fmt.Errorf("couldn't block a key: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, k := range fresh {
		b.note(k, adding[i])
	}
	return nil
}

// waitsFor returns an operation that blocks a key, "" if there is none. It looks before the key's other blocks are looked at: an operation that ends well leaves one.
func (b *blockedKeys) waitsFor(k catalogue.Key) string {
	b.mu.Lock()
	operations := slices.Clone(b.waiting[k])
	b.mu.Unlock()
	for _, id := range operations {
		if b.waits(id) {
			return id
		}
		b.mu.Lock()
		if b.waiting[k] = slices.DeleteFunc(b.waiting[k], func(other string) bool { return other == id }); len(b.waiting[k]) == 0 {
			delete(b.waiting, k)
		}
		b.mu.Unlock()
	}
	return ""
}

// check refuses a blocked key.
func (b *blockedKeys) check(k catalogue.Key) error {
	if id := b.waitsFor(k); id != "" {
		return invalid("csr.public_key", "SHA-256 "+k.String(), "must not be a key whose revocation for keyCompromise waits for operators' signatures (operation %s); make a new key", id)
	}
	b.mu.Lock()
	_, listed := b.keys[k]
	b.mu.Unlock()
	if !listed && !b.known(k) {
		return nil
	}
	return invalid("csr.public_key", "SHA-256 "+k.String(), "must not be a key of which a certificate was revoked for keyCompromise; make a new key")
}

// enter begins an issuance for a key, unless it is blocked; leave ends it.
func (b *blockedKeys) enter(k catalogue.Key) (leave func(), err error) {
	b.mu.Lock()
	b.issuing[k]++
	b.mu.Unlock()
	leave = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.issuing[k]--; b.issuing[k] == 0 {
			delete(b.issuing, k)
		}
		close(b.left)
		b.left = make(chan struct{})
	}
	// After the count: who blocks the key waits for this one, or this one sees it.
	if err := b.check(k); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// drain waits until no issuance for k is under way.
func (b *blockedKeys) drain(ctx context.Context, k catalogue.Key) error {
	for {
		b.mu.Lock()
		n, left := b.issuing[k], b.left
		b.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("certificates with the key are being issued: %w", ctx.Err())
		}
	}
}

// sweeps returns the keys of which every certificate is to be revoked.
func (b *blockedKeys) sweeps() map[catalogue.Key]blockedKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := map[catalogue.Key]blockedKey{}
	for k, l := range b.keys {
		if l.Sweep {
			m[k] = l
		}
	}
	return m
}

func (b *blockedKeys) swept(c *catalogue.Cert) bool {
	if len(c.Key) != len(catalogue.Key{}) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys[catalogue.Key(c.Key)].Sweep
}

func (b *blockedKeys) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys)
}

// standingPause is how long the rest of a sweep waits after a failure.
const standingPause = 2 * time.Second

// sweepOn revokes what is recorded with a key after the sweep of that key: a certificate that was on its way to the ledger, or that other
// software signed.
func (s *Server) sweepOn(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.sweepKick:
		case <-timer.C:
		}
		for k, l := range s.blocked.sweeps() {
			if err := s.sweepRest(ctx, k, l); err != nil && ctx.Err() == nil {
				s.log.Warn("certificates with a compromised key are not revoked yet", "spki", k.String(), "error", err)
				timer.Reset(standingPause)
			}
		}
	}
}

// sweepRest leaves alone what a Bulk is revoking: that job does it, and says so.
func (s *Server) sweepRest(ctx context.Context, k catalogue.Key, l blockedKey) error {
	certs, _, err := s.catalogue.WithKey(k)
	if err != nil {
		return err
	}
	for _, c := range certs {
		if c.State == wire.CertRevoked || s.bulks.listed(c.Serial) {
			continue
		}
		if err := s.reachable(ctx); err != nil {
			return err
		}
		change := wire.StatusChange{Serial: c.Serial, Op: wire.OpRevoke, Reason: wire.KeyCompromise, Invalidity: l.Invalidity}
		var res wire.StatusResult
		var receipt network.Receipt
		entry := oplog.Entry{Actor: "ca", Action: "revoke a certificate with a compromised key", Target: c.Serial.String(), Detail: map[string]string{"spki": k.String(), "asked for by": l.By}}
		err := s.operators.internally(ctx, entry, func(ctx context.Context) (err error) {
			res, receipt, err = s.commitChange(ctx, change)
			return err
		})
		if err != nil {
			return err
		}
		s.crls.changedAt(receipt.Block, c.Serial, res)
		s.log.Warn("revoked a certificate that was recorded with a compromised key", "serial", c.Serial.String(), "spki", k.String(), "block", receipt.Block)
	}
	return nil
}

// kickSweep is catalogue.Options.Recorded.
func (s *Server) kickSweep(c *catalogue.Cert) {
	if !s.blocked.swept(c) {
		return
	}
	select {
	case s.sweepKick <- struct{}{}:
	default:
	}
}

// enterSubmitted begins the recording of a certificate that other software signed. A blocked key is refused, so that a CA that waits for the
// log's answer does not issue it; but not of what the ledger has already, which is only told its place again.
func (s *Server) enterSubmitted(der []byte) (leave func(), err error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid("certificate", fmt.Sprintf("%d bytes", len(der)), "must be an X.509 certificate in DER: %v", err)
	}
	if leave, err = s.blocked.enter(catalogue.KeyOf(cert.RawSubjectPublicKeyInfo)); err == nil {
		return leave, nil
	}
	if serial, serr := wire.SerialOf(cert.SerialNumber); serr == nil {
		if known, kerr := s.catalogue.Get(serial); kerr == nil && known != nil {
			return func() {}, nil
		}
	}
	we, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return nil, err
	}
	return nil, invalid("certificate.public_key", we.Value, "%s", we.Rule)
}
