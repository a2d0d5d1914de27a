package responder

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

const (
	firstRetry     = time.Second
	longestRetry   = 5 * time.Minute
	ledgerPatience = time.Minute // how long a certificate may take from its CA's hands to this bridge's blocks
	enrollTimeout  = 30 * time.Second
)

// Run looks after every CA on the trust list that has an enroller, until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		changed := m.cfg.Index.Changed()
		for _, ca := range m.cfg.Index.View().CAs() {
			st, fresh := m.adopt(ca.ID)
			if fresh {
				wg.Go(func() { m.keep(ctx, st) })
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// adopt returns a new state for a CA that has an enroller and no state yet.
func (m *Manager) adopt(id wire.CAID) (*caState, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cas[id] != nil || m.cfg.Enrollers == nil || m.cfg.Enrollers(id) == nil {
		return nil, false
	}
	m.cas[id] = &caState{id: id}
	return m.cas[id], true
}

// keep runs step as often as it asks to be run, and whenever a pending certificate may have come onto the ledger.
func (m *Manager) keep(ctx context.Context, st *caState) {
	for ctx.Err() == nil {
		changed := m.cfg.Index.Changed()
		pause := m.step(ctx, st)
		if st.pending == nil {
			changed = nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-m.cfg.After(pause):
		}
	}
}

// step does what is to be done now for one CA and returns when to come back.
func (m *Manager) step(ctx context.Context, st *caState) time.Duration {
	now := m.cfg.Now()
	ca := m.cfg.Index.View().CA(st.id)
	if !st.loaded {
		m.load(st, now)
	}
	if st.pending != nil {
		if ok, pause := m.promote(st, ca, now); !ok {
			return pause
		}
	}
	if cur := st.current.Load(); cur != nil {
		// A certificate that the ledger has meanwhile revoked is replaced like one that has grown old.
		if due := m.renewAt(cur.Cert); now.Before(due) && m.onLedger(st.id, cur.Cert) == nil {
			return min(due.Sub(now), time.Minute)
		}
	}
	if err := m.enroll(ctx, st, ca, now); err != nil {
		return m.failed(st, err)
	}
	return 0
}

// load takes up the newest certificate of an earlier run, if there is one.
func (m *Manager) load(st *caState, now time.Time) {
	st.loaded = true
	id, err := loadIdentity(m.identityPath(st.id), m.cfg.Key, m.cfg.Seal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		m.cfg.Log.Warn("responder certificate of an earlier run is not used", "ca", st.id, "error", err)
	case now.Before(id.Cert.NotAfter):
		st.pending, st.since = id, now
	}
}

// promote puts the pending certificate to use once this bridge's own blocks have it; if it does not, it says when to come back.
func (m *Manager) promote(st *caState, ca *index.CA, now time.Time) (ok bool, pause time.Duration) {
	cert := st.pending.Cert
	err := checkIssuer(cert, ca.Certs, now)
	if err == nil {
		err = m.onLedger(st.id, cert)
	}
	switch {
	case err == nil:
		st.current.Store(st.pending)
		st.problem.Store(nil)
		st.pending, st.fails = nil, 0
		m.cfg.Log.Info("responder certificate in use", "ca", st.id, "serial", cert.SerialNumber.Text(16), "not_after", cert.NotAfter)
		return true, 0
	// The ledger's own time decides: a bridge that is cut off has not seen that it is not there.
	case errors.Is(err, errNotSeen) && m.cfg.Index.View().Time.Time().Sub(st.since) < ledgerPatience:
		st.report(err)
		return false, firstRetry
	}
	st.pending = nil
	return false, m.failed(st, err)
}

var errNotSeen = errors.New("is not on the ledger as far as this bridge has read it")

// onLedger tells whether this very certificate is on the ledger, in this bridge's own blocks, with the status valid.
func (m *Manager) onLedger(id wire.CAID, cert *x509.Certificate) error {
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return err
	}
	st, rec, err := m.cfg.Index.Status(id, serial)
	if err != nil {
		return err
	}
	if rec == nil || rec.Final == nil {
		return fmt.Errorf("responder certificate %s %w", serial, errNotSeen)
	}
	leaf, err := ctleaf.Hash(rec.Final.Index, rec.Final.Time, cert.Raw)
	if err != nil {
		return err
	}
	if !bytes.Equal(leaf[:], rec.Final.LeafHash) {
		return fmt.Errorf("responder certificate %s: the ledger has another certificate with this serial number", serial)
	}
	if st.State != wire.CertValid {
		return fmt.Errorf("responder certificate %s: status on the ledger is %s since %s: must be valid", serial, st.Reason, st.Time.Time())
	}
	return nil
}

// renewAt is between 1/2 and 2/3 of the lifetime; where, depends on organisation and CA, so that not all come at once.
func (m *Manager) renewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	h := sha256.Sum256(append([]byte(m.cfg.MSPID), cert.RawIssuer...))
	spread := life / 6 / 256 * time.Duration(h[0])
	return cert.NotBefore.Add(life/2 + spread)
}

// enroll asks the CA to certify a new key, and keeps key and certificate as pending, on disk too. The key is new each time: a
// stolen one is of use for no longer than its certificate (invariant 9). One in a token stays: it cannot be stolen.
func (m *Manager) enroll(ctx context.Context, st *caState, ca *index.CA, now time.Time) error {
	key := m.cfg.Key
	if key == nil {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("responder key: %w", err)
		}
		key = made
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Organization: []string{m.cfg.MSPID}, CommonName: "OCSP responder " + st.id.String()[:16]},
	}, key)
	if err != nil {
		return fmt.Errorf("request for a responder certificate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	der, err := m.cfg.Enrollers(st.id).EnrollResponder(ctx, st.id, csr)
	if err != nil {
		return fmt.Errorf("request for a responder certificate: %w", err)
	}
	cert, err := parseCert(der)
	if err != nil {
		return fmt.Errorf("responder certificate from the CA: %w", err)
	}
	id, err := newIdentity(key, cert)
	if err != nil {
		return err
	}
	if err := checkIssuer(cert, ca.Certs, m.cfg.Now()); err != nil {
		return err
	}
	if err := saveIdentity(m.identityPath(st.id), id, m.cfg.Seal); err != nil {
		return fmt.Errorf("responder certificate: %w", err)
	}
	st.pending, st.since = id, now
	return nil
}

// failed reports why there is no new certificate and doubles the pause up to its limit.
func (m *Manager) failed(st *caState, err error) time.Duration {
	pause := min(firstRetry<<min(st.fails, 16), longestRetry)
	st.fails++
	st.report(err)
	m.cfg.Log.Warn("no new responder certificate", "ca", st.id, "error", err, "retry_in", pause)
	return pause
}

func (st *caState) report(err error) {
	s := err.Error()
	st.problem.Store(&s)
}
