package ctfront

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
)

// records stands for the index's.
type records struct {
	mu  sync.Mutex
	all map[string]*wire.CertRecord
	err error
}

func (r *records) get(_ wire.CAID, s wire.Serial) (*wire.CertRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[string(s)], r.err
}

func (r *records) put(t testing.TB, cert *x509.Certificate, rec *wire.CertRecord) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[string(cctest.Serial(t, cert))] = rec
}

// Whoever sends what the log has gets its SCT, from the operator's front and from one that forwards, and the ledger does not hear of it.
func TestWhatIsInTheOwnBlocksIsNotSubmittedAgain(t *testing.T) {
	operator, other, l := pair(t)
	index := &records{all: map[string]*wire.CertRecord{}}
	for _, o := range []*org{operator, other} {
		o.cfg.Record = index.get
		o.restart()
	}
	pre, preCert, final := l.CA.Precert(t)
	der, _ := final(cctest.SCTList())
	rec := &wire.CertRecord{}
	for _, c := range []struct {
		name string
		der  []byte
		at   **wire.LogEntry
	}{{"ct/v1/add-pre-chain", pre, &rec.Pre}, {"ct/v1/add-chain", der, &rec.Final}} {
		body := ctapitest.Body(c.der, l.CA.DER, l.Root.DER)
		first := map[*org][]byte{other: other.ask(l, c.name, body).ok(t), operator: operator.ask(l, c.name, body).ok(t)}
		at, err := l.Submit(t.Context(), c.der)
		if err != nil {
			t.Fatal(err)
		}
		*c.at = &at
		index.put(t, preCert, rec)
		calls := l.Calls()
		for o, want := range first {
			if again := o.ask(l, c.name, body).ok(t); !bytes.Equal(again, want) {
				t.Errorf("%s again: %s, want %s", c.name, again, want)
			}
		}
		if n := l.Calls() - calls; n != 0 {
			t.Errorf("%s: %d submissions of what is recorded", c.name, n)
		}
	}
	if size := l.Head().Size; size != 2 {
		t.Errorf("the log has %d entries, want 2", size)
	}
}

func TestExpiredCertificatesAreOnlyTakenForTheirPrecertificates(t *testing.T) {
	operator, other, l := pair(t)
	index := &records{all: map[string]*wire.CertRecord{}}
	expired := func(c *x509.Certificate) { c.NotAfter = listTime.Add(-time.Second) }
	pre, preCert, final := l.CA.Precert(t, expired)
	at, err := l.Submit(t.Context(), pre)
	if err != nil {
		t.Fatal(err)
	}
	index.put(t, preCert, &wire.CertRecord{Pre: &at})
	der, _ := final(nil)
	for _, o := range []*org{operator, other} {
		o.cfg.Record = index.get
		o.restart()
		calls := l.Calls()
		o.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t, expired)...)).refused(t, http.StatusBadRequest, "invalid_argument", "not_after")
		o.ask(l, "ct/v1/add-pre-chain", ctapitest.Body(l.Chain(t, expired, ctapitest.Poison)...)).refused(t, http.StatusBadRequest, "invalid_argument", "not_after")
		if l.Calls() != calls {
			t.Error("an expired certificate was submitted")
		}
		o.ask(l, "ct/v1/add-chain", ctapitest.Body(der)).ok(t)
	}
}

func TestRecordThatCannotBeReadIsNoReasonToSubmit(t *testing.T) {
	operator, _, l := pair(t)
	operator.cfg.Record = (&records{err: errors.New("disk")}).get
	operator.restart()
	operator.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusInternalServerError, "internal")
	if l.Calls() != 0 {
		t.Error("it was submitted")
	}
}
