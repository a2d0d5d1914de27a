package ctapi

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

func TestWhatIsRecordedIsNotSubmittedAgain(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	var rec *wire.CertRecord
	c.Recorded = func(_ context.Context, cert *x509.Certificate) (wire.LogEntry, bool, error) {
		return Recorded(ledger.CA.ID, rec, cert, time.Now())
	}
	l := newLog(t, c)
	for name, pre := range map[string]bool{"add-chain": false, "add-pre-chain": true} {
		chain := ledger.Chain(t)
		if pre {
			chain = ledger.Chain(t, ctapitest.Poison)
		}
		rec = nil
		first := ask(l, name, ctapitest.Body(chain...))
		calls := ledger.Calls()
		at, err := ledger.Submit(t.Context(), chain[0])
		if err != nil || first.Code != http.StatusOK {
			t.Fatal(first.Body, err)
		}
		if rec = (&wire.CertRecord{Final: &at}); pre {
			rec = &wire.CertRecord{Pre: &at}
		}
		if again := ask(l, name, ctapitest.Body(chain...)); again.Body.String() != first.Body.String() {
			t.Errorf("%s: %s, want %s", name, again.Body, first.Body)
		}
		refusal(t, l, "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusBadRequest, "serial")
		if n := ledger.Calls() - calls - 1; n != 0 {
			t.Errorf("%s: %d submissions", name, n)
		}
	}
}

func TestLookThatFailsEndsTheSubmission(t *testing.T) {
	ledger := ctapitest.New(t)
	c := config(t, ledger)
	c.Recorded = func(context.Context, *x509.Certificate) (wire.LogEntry, bool, error) {
		return wire.LogEntry{}, false, &network.UnavailableError{Stage: "read", Err: errors.New("peer gone")}
	}
	refusal(t, newLog(t, c), "add-chain", ctapitest.Body(ledger.Chain(t)...), http.StatusServiceUnavailable, "nothing was changed")
	if ledger.Calls() != 0 {
		t.Error("it was submitted")
	}
}

// What Recorded refuses is what the contract would refuse, and only that: see recordAgain in the contract.
func TestRecordsDecide(t *testing.T) {
	ca := cctest.NewCA(t)
	preDER, preCert, final := ca.Precert(t)
	der, cert := final(cctest.SCTList())
	otherPre, otherPreCert, _ := ca.Precert(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	_, other := ca.Issue(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	entry := func(index uint64, der []byte, pre bool) *wire.LogEntry {
		at := wire.LogEntry{Index: index, Time: ctapitest.Start}
		leaf, err := leafOf(ca.ID, at, der, pre)
		if err != nil {
			t.Fatal(err)
		}
		sum := ctleaf.HashLeaf(leaf)
		at.LeafHash = sum[:]
		return &at
	}
	preAt, finalAt := entry(3, preDER, true), entry(7, der, false)
	now, late := cctest.LeafNotAfter, cctest.LeafNotAfter.Add(time.Second)
	for name, c := range map[string]struct {
		rec   *wire.CertRecord
		cert  *x509.Certificate
		now   time.Time
		found *wire.LogEntry
		code  wire.Code
		field string
	}{
		"new":                            {nil, cert, now, nil, "", ""},
		"new and expired":                {nil, cert, late, nil, wire.InvalidArgument, "not_after"},
		"new precertificate, expired":    {nil, preCert, late, nil, wire.InvalidArgument, "not_after"},
		"certificate again":              {&wire.CertRecord{Final: finalAt}, cert, late, finalAt, "", ""},
		"certificate of both":            {&wire.CertRecord{Final: finalAt, Pre: preAt}, cert, now, finalAt, "", ""},
		"precertificate again":           {&wire.CertRecord{Pre: preAt}, preCert, late, preAt, "", ""},
		"precertificate of both":         {&wire.CertRecord{Final: finalAt, Pre: preAt}, preCert, now, preAt, "", ""},
		"certificate of it, expired too": {&wire.CertRecord{Pre: preAt}, cert, late, nil, "", ""},
		"another certificate of it":      {&wire.CertRecord{Pre: preAt}, other, now, nil, wire.AlreadyExists, "serial"},
		"another precertificate":         {&wire.CertRecord{Pre: preAt}, otherPreCert, now, nil, wire.AlreadyExists, "serial"},
		"of another precertificate":      {&wire.CertRecord{Pre: entry(3, otherPre, true)}, cert, now, nil, wire.AlreadyExists, "serial"},
		"another certificate":            {&wire.CertRecord{Final: finalAt}, other, now, nil, wire.AlreadyExists, "serial"},
		"precertificate after":           {&wire.CertRecord{Final: finalAt}, preCert, now, nil, wire.AlreadyExists, "serial"},
		"damaged record":                 {&wire.CertRecord{}, cert, late, nil, "", ""}, // the contract will say so
	} {
		at, found, err := Recorded(ca.ID, c.rec, c.cert, c.now)
		if found != (c.found != nil) || found && at.Index != c.found.Index {
			t.Errorf("%s: %v, %v", name, at, found)
		}
		we, refused := errors.AsType[*wire.Error](err)
		if refused != (c.code != "") || err != nil && (!refused || we.Code != c.code || !strings.HasSuffix(we.Field, c.field)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
