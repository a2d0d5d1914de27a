package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
)

// acked is one certificate that the CA has released, and whether its revocation was acknowledged.
type acked struct {
	cert    *x509.Certificate
	index   uint64
	revoked bool
}

// load issues and revokes from several callers at once until it is stopped. Each caller repeats a request until it succeeds,
// with the same idempotency key, as a client that cannot know whether the CA died before or after doing the work.
type load struct {
	d      *deploy.Deployment
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards done
	done  []acked
	grown chan struct{} // closed and replaced when done grows
}

const loadCallers = 4

func startLoad(t *testing.T, d *deploy.Deployment) *load {
	t.Helper()
	return startLoadAt(t, d, &d.CA)
}

// startLoadAt is startLoad at one of several bridges of a CA.
func startLoadAt(t *testing.T, d *deploy.Deployment, bridge *deploy.CA) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{d: d, ctx: ctx, cancel: cancel, grown: make(chan struct{})}
	api, err := bridge.Client()
	if err != nil {
		t.Fatal(err)
	}
	for w := range loadCallers {
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.one(api, fmt.Sprintf("%s-%d-%d", t.Name(), w, i), i%3 == 0)
			}
		})
	}
	return l
}

// one takes one certificate through issuance and, if asked, revocation. It gives up only when the load is stopped: what was
// not acknowledged is not counted.
func (l *load) one(api *caapi.Client, name string, revoke bool) {
	csr, err := newCSR(name)
	if err != nil {
		panic(err) // the machine has no randomness
	}
	key := keyFor(csr)
	var got *caapi.Certificate
	if l.repeat(func(ctx context.Context) (err error) {
		got, err = api.Issue(ctx, caapi.IssueRequest{CSR: csr, Profile: "server"}, key)
		return err
	}) != nil {
		return
	}
	block, _ := pem.Decode([]byte(got.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(fmt.Sprintf("the CA released what is no certificate: %v", err))
	}
	a := acked{cert: cert, index: got.LogIndex}
	if revoke {
		a.revoked = l.repeat(func(ctx context.Context) error {
			_, acknowledged, err := api.Revoke(ctx, caapi.RevokeRequest{Serial: got.Serial, Reason: "keyCompromise"})
			if err == nil && !acknowledged {
				err = errors.New("committed, not acknowledged by every responder")
			}
			return err
		}) == nil
		if !a.revoked {
			return // whether it is revoked is not known
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, a)
	close(l.grown)
	l.grown = make(chan struct{})
}

// repeat calls fn until it succeeds or the load is stopped.
func (l *load) repeat(fn func(context.Context) error) error {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for {
		ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
		err := fn(ctx)
		cancel()
		if err == nil || l.ctx.Err() != nil {
			return err
		}
		select {
		case <-l.ctx.Done():
		case <-pause.C:
		}
	}
}

// awaitMore returns when n more certificates have been acknowledged.
func (l *load) awaitMore(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	l.mu.Lock()
	want := len(l.done) + n
	l.mu.Unlock()
	for {
		l.mu.Lock()
		have, grown := len(l.done), l.grown
		l.mu.Unlock()
		if have >= want {
			return
		}
		select {
		case <-grown:
		case <-deadline:
			t.Fatalf("%d of %d more certificates were acknowledged within a minute", n-(want-have), n)
		}
	}
}

// stop ends the load and returns what was acknowledged.
func (l *load) stop() []acked {
	l.cancel()
	l.wg.Wait()
	return l.done
}

// checkAcked checks that every acknowledged certificate is on the ledger once with its status, as another organisation's
// peer has it, and that every organisation's responder says the same.
func checkAcked(t *testing.T, d *deploy.Deployment, done []acked) {
	t.Helper()
	if len(done) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ledger, err := d.Auditor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	r, err := recountLedger(ctx, ledger)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range done {
		index, err := r.index(d.CAID(), a.cert.Raw)
		if err != nil || index != a.index {
			t.Errorf("%s: at %d in the log (%v), acknowledged at %d", a.cert.Subject.CommonName, index, err, a.index)
		}
		serial, err := wire.SerialOf(a.cert.SerialNumber)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := r.record(d.CAID(), serial)
		if err != nil {
			t.Fatal(err)
		}
		if (rec.State == wire.CertRevoked) != a.revoked {
			t.Errorf("%s: state %d, revocation acknowledged: %v", a.cert.Subject.CommonName, rec.State, a.revoked)
		}
	}
	for _, a := range done[max(0, len(done)-20):] {
		for _, org := range d.Orgs {
			want := client.Good
			if a.revoked {
				want = client.Revoked
			}
			awaitOCSP(t, d, org, a.cert, want)
		}
	}
}

// keyFor is an idempotency key of one request's own.
func keyFor(csr string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(csr))) }

// newCSR makes a key and a request, PEM.
func newCSR(name string) (string, error) {
	name = strings.ToLower(strings.NewReplacer("/", ".", "_", "-").Replace(name)) + ".example"
	name = name[max(0, len(name)-60):]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name},
	}, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
