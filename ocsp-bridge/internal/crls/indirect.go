package crls

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// IndirectConfig says for whom an organisation signs an indirect CRL, and with what.
type IndirectConfig struct {
	Cert     *x509.Certificate // key usage cRLSign; relying parties must find it and trust it for this
	Key      crypto.Signer
	CAs      []wire.CAID
	Every    time.Duration // at the latest; a change is in the next one within IndirectPause
	Validity time.Duration // nextUpdate - thisUpdate: whole seconds, more than Every

	Ledger  Ledger
	Maker   *Maker
	Changed func() <-chan struct{}
	Usable  func() error // why nothing may be signed now: the view is not fresh
	Now     func() time.Time
	After   func(time.Duration) <-chan time.Time
	Log     *slog.Logger
}

// IndirectPause is the time between two indirect CRLs, however much changes.
const IndirectPause = 10 * time.Second

// Indirect signs an indirect CRL (RFC 5280 section 5.2.5) about all certificates of several CAs. It is safe for concurrent use.
type Indirect struct {
	cfg IndirectConfig

	mu     sync.RWMutex
	newest *IndirectList
	failed error // why there is none newer
}

// IndirectList is a signed indirect CRL.
type IndirectList struct {
	DER                    []byte
	Number                 uint64
	ThisUpdate, NextUpdate time.Time
	ETag                   string
}

// Key is what the CRLs are signed with.
func (x *Indirect) Key() crypto.Signer { return x.cfg.Key }

// NewIndirect checks the configuration: by making a CRL without entries.
func NewIndirect(cfg IndirectConfig) (*Indirect, error) {
	switch {
	case len(cfg.CAs) == 0:
		return nil, errors.New("crl.indirect.cas: none: must name at least one CA")
	case cfg.Every < IndirectPause || cfg.Every > crl.Grace/2:
		return nil, fmt.Errorf("crl.indirect.every: %s: must be %s to %s", cfg.Every, IndirectPause, crl.Grace/2)
	case cfg.Validity <= cfg.Every || cfg.Validity%time.Second != 0:
		return nil, fmt.Errorf("crl.indirect.validity: %s: must be whole seconds, and more than every, %s", cfg.Validity, cfg.Every)
	}
	at := cfg.Now().UTC().Truncate(time.Second)
	if _, err := crl.BuildIndirect(1, at, nil, crl.Form{Issuer: cfg.Cert, NextUpdate: at.Add(cfg.Validity)}, cfg.Key); err != nil {
		return nil, fmt.Errorf("crl.indirect: %w", err)
	}
	return &Indirect{cfg: cfg}, nil
}

// Run signs when it is due, until ctx ends.
func (x *Indirect) Run(ctx context.Context) {
	for {
		err := x.sign()
		if err != nil {
			x.cfg.Log.Warn("no new indirect CRL", "error", err)
		}
		x.mu.Lock()
		x.failed = err
		x.mu.Unlock()
		var changed <-chan struct{} // the first is signed as soon as it can be
		if x.current() == nil {
			changed = x.cfg.Changed()
			if x.cfg.Usable() == nil {
				changed = nil
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-x.cfg.After(IndirectPause):
		}
	}
}

func (x *Indirect) current() *IndirectList {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.newest
}

// sign makes a CRL if one is due.
func (x *Indirect) sign() error {
	if err := x.cfg.Usable(); err != nil {
		return err
	}
	v := x.cfg.Ledger.View()
	if due, err := x.due(v); err != nil || !due {
		return err
	}
	var groups []crl.Group
	for _, id := range x.cfg.CAs {
		ca := v.CA(id)
		if ca == nil {
			return fmt.Errorf("CA %s is not on the trust list", id)
		}
		c, err := x.cfg.Maker.Contents(Request{CAID: id, Number: v.Height, ThisUpdate: crl.At(v.Time)})
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, cert := range ca.Certs { // renewed under another name, it has issued under both
			if name := string(cert.RawSubject); !seen[name] {
				seen[name] = true
				groups = append(groups, crl.Group{Name: cert.RawSubject, Entries: c.Entries})
			}
		}
	}
	list := &IndirectList{Number: v.Height, ThisUpdate: crl.At(v.Time)}
	list.NextUpdate = list.ThisUpdate.Add(x.cfg.Validity)
	var err error
	list.DER, err = crl.BuildIndirect(list.Number, list.ThisUpdate, groups, crl.Form{Issuer: x.cfg.Cert, NextUpdate: list.NextUpdate}, x.cfg.Key)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(list.DER)
	list.ETag = `"` + hex.EncodeToString(sum[:16]) + `"`
	x.mu.Lock()
	defer x.mu.Unlock()
	x.newest = list
	return nil
}

// due: there is none, one of the CAs has changed, or the newest is old. The number is the height, so without a new block there is nothing to say.
func (x *Indirect) due(v *index.View) (bool, error) {
	old := x.current()
	if old == nil || v.Height <= old.Number {
		return old == nil, nil
	}
	if x.cfg.Now().Sub(old.ThisUpdate) >= x.cfg.Every {
		return true, nil
	}
	for _, id := range x.cfg.CAs {
		last, err := x.cfg.Ledger.LastChange(id)
		if err != nil || last.Compare(index.Before(old.Number)) > 0 {
			return true, err
		}
	}
	return false, nil
}

// Get returns the newest one. Errors: *problem.Problem, 503 while there is none that holds.
func (x *Indirect) Get() (*IndirectList, error) {
	x.mu.RLock()
	list, failed := x.newest, x.failed
	x.mu.RUnlock()
	if list != nil && x.cfg.Now().Before(list.NextUpdate) {
		return list, nil
	}
	why := "is not signed yet"
	if failed != nil {
		why += ": " + failed.Error()
	}
	return nil, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "crl", NameIndirect, why)
}
