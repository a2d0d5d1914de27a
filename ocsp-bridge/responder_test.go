package ocspbridge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

func TestResponderCertificateRotatesWithoutAGap(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	serials := map[string]time.Time{}
	begin := w.clock.Now()
	for w.clock.Now().Sub(begin) < 40*time.Hour {
		w.clock.Advance(5 * time.Minute)
		b.applied(w.tick())
		b.want(cert, "good") // verified with the responder certificate in the answer
		b.enr.mu.Lock()
		last := b.enr.certs[len(b.enr.certs)-1]
		b.enr.mu.Unlock()
		if _, known := serials[last.SerialNumber.String()]; !known {
			serials[last.SerialNumber.String()] = w.clock.Now()
			if age := w.clock.Now().Sub(begin); len(serials) == 2 && (age < 12*time.Hour-2*time.Minute || age > 17*time.Hour) {
				t.Errorf("renewed after %s of 24h, want between 1/2 and 2/3", age)
			}
		}
	}
	if len(serials) < 3 || len(serials) > 4 {
		t.Errorf("%d certificates in 40 hours, want 3 or 4", len(serials))
	}
	// A key that outlived its certificate would make invariant 9 void: whoever stole it only had to wait for the next one.
	b.enr.mu.Lock()
	defer b.enr.mu.Unlock()
	keys := map[string]bool{}
	for _, c := range b.enr.certs {
		keys[string(c.RawSubjectPublicKeyInfo)] = true
	}
	if len(keys) != len(b.enr.certs) {
		t.Errorf("%d certificates have %d keys, want a new key each", len(b.enr.certs), len(keys))
	}
}

func TestEnrolmentIsRetriedAndOverlaps(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	enr := &enroller{w: w, life: 24 * time.Hour, fail: errors.New("CA is closed")}
	b := w.start("bridge", func(c *ocspbridge.Config) { c.Enrollers = func(wire.CAID) ocspbridge.Enroller { return enr } })
	b.until("reported", func() (bool, string) {
		r := b.Ready().Responders[w.ca.ID.String()]
		return strings.Contains(r, "CA is closed"), r
	})
	b.want(cert, "tryLater")
	enr.set(nil)
	b.until("enrolled", func() (bool, string) {
		w.clock.Advance(100 * time.Millisecond)
		r := b.Ready()
		return r.Ready, r.Reason
	})
	b.want(cert, "good")
}

func TestResponderCertificateSurvivesRestart(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = w.start("bridge", func(c *ocspbridge.Config) {
		enr := &enroller{w: w, fail: errors.New("nobody should ask")}
		c.Enrollers = func(wire.CAID) ocspbridge.Enroller { return enr }
	}).ready()
	b.want(cert, "good")
}

func TestUnfitResponderCertificatesAreRefusedWithTheReason(t *testing.T) {
	for _, c := range []struct {
		what, want string
		life       time.Duration
		tweak      func(*x509.Certificate)
	}{
		{what: "no EKU", want: "must contain id-kp-OCSPSigning", tweak: func(c *x509.Certificate) { c.ExtKeyUsage, c.ExtraExtensions = nil, nil }},
		{what: "no nocheck", want: "id-pkix-ocsp-nocheck", tweak: func(c *x509.Certificate) { c.ExtraExtensions = nil }},
		{what: "too long", want: "must be at most 48h", life: 49 * time.Hour},
		{what: "expired", want: "must be valid now", life: time.Second},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t)
			life := c.life
			if life == 0 {
				life = time.Hour
			}
			enr := enrollFunc(func(csr *x509.CertificateRequest) ([]byte, error) {
				der, _, err := w.responderCert(csr.PublicKey, life, c.tweak)
				return der, err
			})
			b := w.start("bridge", func(cfg *ocspbridge.Config) { cfg.Enrollers = func(wire.CAID) ocspbridge.Enroller { return enr } })
			b.until("reported", func() (bool, string) {
				r := b.Ready().Responders[w.ca.ID.String()]
				return strings.Contains(r, c.want), r
			})
		})
	}
}

func TestCertificateWithAnotherKeyOrIssuerOrNotOnTheLedgerIsNotUsed(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w, stranger := newWorld(t), newWorld(t)
	for what, c := range map[string]struct {
		want   string
		enroll func(*x509.CertificateRequest) ([]byte, error)
	}{
		"another key": {"public key must be this responder's own", func(*x509.CertificateRequest) ([]byte, error) {
			der, _, err := w.responderCert(other.Public(), time.Hour, nil)
			return der, err
		}},
		"another issuer": {"the CA it answers for", func(csr *x509.CertificateRequest) ([]byte, error) {
			der, _, err := stranger.responderCert(csr.PublicKey, time.Hour, nil)
			return der, err
		}},
		"not on the ledger": {"is not on the ledger", func(csr *x509.CertificateRequest) ([]byte, error) {
			der, _, err := w.responderCert(csr.PublicKey, time.Hour, nil)
			return der, err
		}},
	} {
		t.Run(what, func(t *testing.T) {
			b := w.start("bridge-"+what, func(cfg *ocspbridge.Config) {
				cfg.Enrollers = func(wire.CAID) ocspbridge.Enroller { return enrollFunc(c.enroll) }
			})
			b.until("reported", func() (bool, string) {
				r := b.Ready().Responders[w.ca.ID.String()]
				return strings.Contains(r, c.want), r
			})
		})
	}
}

func TestRevokedResponderStopsAndIsReplaced(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	b.enr.set(errors.New("closed"))
	b.enr.mu.Lock()
	first := b.enr.certs[0]
	b.enr.mu.Unlock()
	b.applied(w.revoke(first, wire.KeyCompromise))
	b.want(cert, "tryLater")
	b.enr.set(nil)
	b.until("replaced", func() (bool, string) {
		w.clock.Advance(time.Second)
		w.tickIfDue()
		s := b.ask(cert)
		return s == "good", s
	})
}

func TestResponderFromFiles(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := ocspbridge.KeyPair{CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key")}
	use := func(c *ocspbridge.Config) { c.Enrollers, c.Responders = nil, []ocspbridge.KeyPair{pair} }

	for want, tweak := range map[string]func(*x509.Certificate){
		"id-pkix-ocsp-nocheck": func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"id-kp-OCSPSigning":    func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"at most 48h":          func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(49 * time.Hour) },
	} {
		w.writeResponder(key, pair, tweak)
		cfg := ocspbridge.Config{Dir: t.TempDir(), Log: quiet()}
		use(&cfg)
		if _, err := ocspbridge.New(t.Context(), cfg, w.conn); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), pair.CertFile) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	der := w.writeResponder(key, pair, nil)
	b := w.start("bridge", use)
	b.until("reported", func() (bool, string) {
		r := b.Ready().Responders[w.ca.ID.String()]
		return strings.Contains(r, "is not on the ledger"), r
	})
	b.applied(w.submit(wire.FnIssue, w.ca.IssueArg(der)))
	b.ready().want(cert, "good")
}

// writeResponder writes a responder certificate for key, and key, and returns the certificate.
func (w *world) writeResponder(key *ecdsa.PrivateKey, pair ocspbridge.KeyPair, tweak func(*x509.Certificate)) []byte {
	w.t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	der, _, err := w.responderCert(key.Public(), time.Hour, tweak)
	if err != nil {
		w.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{pair.CertFile: {Type: "CERTIFICATE", Bytes: der}, pair.KeyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return der
}
