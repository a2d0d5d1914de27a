package ocspbridge_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// foreign makes certificates that the ledger does not have.
func (w *world) foreign(n int, tweaks ...func(*x509.Certificate)) []*x509.Certificate {
	w.t.Helper()
	var certs []*x509.Certificate
	for range n {
		_, cert := w.ca.Issue(w.t, tweaks...)
		certs = append(certs, cert)
	}
	return certs
}

// importAs imports one certificate, or its serial number.
func (w *world) importAs(cert *x509.Certificate, bare bool, item wire.ImportItem) network.Receipt {
	w.t.Helper()
	if bare {
		item.Serial = cctest.Serial(w.t, cert)
		return w.submit(wire.FnImport, w.ca.ImportArg([]wire.ImportItem{item}))
	}
	item.HasCert = true
	return w.submit(wire.FnImport, w.ca.ImportArg([]wire.ImportItem{item}, cert.Raw))
}

func revokedLongAgo(at time.Time) wire.ImportItem {
	return wire.ImportItem{State: wire.CertRevoked, Reason: wire.Superseded, Revoked: wire.MillisOf(at)}
}

func heldLongAgo(at time.Time) wire.ImportItem {
	return wire.ImportItem{State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: wire.MillisOf(at)}
}

// importedStatus is a part of what /v1/status says.
type importedStatus struct {
	State, Reason string
	Since         time.Time
	Asserted      *time.Time
	Imported      bool
	SerialOnly    bool       `json:"serial_only"`
	LogIndex      *uint64    `json:"log_index"`
	NotAfter      *time.Time `json:"not_after"`
}

func (b *bridge) importedStatus(cert *x509.Certificate) (st importedStatus) {
	b.w.t.Helper()
	b.get("/v1/status/"+b.w.ca.ID.String()+"/"+cctest.Serial(b.w.t, cert).String(), &st)
	return st
}

// OCSP tells the date that the CA asserted; /v1/status tells that and the ledger's.
func TestImportedRevocationIsToldWithTheDateOfTheCA(t *testing.T) {
	w := newWorld(t)
	asserted := w.clock.Now().Add(-1000 * time.Hour)
	certs := w.foreign(4)
	issued := w.issue(1)[0]
	w.importAs(certs[0], false, revokedLongAgo(asserted))
	w.importAs(certs[1], true, revokedLongAgo(asserted))
	w.importAs(certs[2], false, heldLongAgo(asserted))
	w.importAs(certs[3], false, wire.ImportItem{State: wire.CertValid})
	w.importAs(issued, false, revokedLongAgo(asserted))
	b := w.start("bridge", nil).ready()
	recorded := w.clock.Now()
	for i, cert := range certs[:3] {
		single, status := b.askAll(cert)
		if single == nil || !single.RevokedAt.Equal(asserted.Truncate(time.Second)) {
			t.Errorf("certificate %d: %s, %+v, want revoked at %s", i, status, single, asserted)
		}
		st := b.importedStatus(cert)
		if !st.Since.Equal(recorded) || st.Asserted == nil || !st.Asserted.Equal(asserted) || !st.Imported || st.SerialOnly != (i == 1) ||
			(st.LogIndex == nil) != (i == 1) || (st.NotAfter == nil) != (i == 1) || st.Reason == "" {
			t.Errorf("certificate %d: %+v", i, st)
		}
	}
	b.want(certs[3], "good")
	if st := b.importedStatus(certs[3]); st.State != "valid" || !st.Imported || st.Asserted != nil {
		t.Errorf("the valid one is %+v", st)
	}
	// What was good is revoked from when the ledger says so: what was issued on it, and what was imported as valid.
	b.applied(w.importAs(certs[3], false, revokedLongAgo(asserted)))
	for i, cert := range []*x509.Certificate{issued, certs[3]} {
		if single, status := b.askAll(cert); single == nil || single.RevokedAt.Before(recorded.Truncate(time.Second)) {
			t.Errorf("good one %d: %s, %+v, want revoked at %s", i, status, single, recorded)
		}
		if st := b.importedStatus(cert); st.Asserted == nil || !st.Asserted.Equal(asserted) || st.Since.Before(recorded) {
			t.Errorf("good one %d is %+v", i, st)
		}
	}
	if st := b.importedStatus(issued); st.Imported || st.Asserted == nil || !st.Asserted.Equal(asserted) || !st.Since.Equal(recorded) {
		t.Errorf("the one that was issued here is %+v", st)
	}
}

// Nobody is told that a serial number is good of which the ledger has no certificate: not when it was imported as valid, and not when its hold was
// released. With its certificate, it is.
func TestSerialNumberAloneIsNeverGood(t *testing.T) {
	for setting, want := range map[string]string{ocspbridge.NotIssuedUnauthorized: "unauthorized", ocspbridge.NotIssuedUnknown: "unknown", ocspbridge.NotIssuedRevoked: "revoked"} {
		t.Run(setting, func(t *testing.T) {
			w := newWorld(t)
			certs := w.foreign(2)
			w.importAs(certs[0], true, wire.ImportItem{State: wire.CertValid})
			w.importAs(certs[1], true, heldLongAgo(w.clock.Now().Add(-time.Hour)))
			b := w.startWith(func(c *ocspbridge.Config) { c.Settings.NotIssued = setting }).ready()
			b.want(certs[0], want)
			b.want(certs[1], "revoked")
			b.applied(w.change(wire.StatusChange{Serial: cctest.Serial(t, certs[1]), Op: wire.OpRelease}))
			for i, cert := range certs {
				b.want(cert, want)
				if single, _ := b.askAll(cert); want == "revoked" && single.RevokedAt.Unix() != 0 {
					t.Errorf("certificate %d: %+v", i, single)
				}
				if st := b.importedStatus(cert); st.State != "unknown" || !st.SerialOnly || st.Asserted != nil || st.Reason != "" {
					t.Errorf("certificate %d: %+v", i, st)
				}
				b.applied(w.submit(wire.FnIssue, w.ca.IssueArg(cert.Raw)))
				b.want(cert, "good")
				if st := b.importedStatus(cert); st.State != "valid" || st.SerialOnly || !st.Imported {
					t.Errorf("certificate %d: %+v", i, st)
				}
			}
		})
	}
}

// The complete CRL lists serial numbers, with the dates that the CA asserted, for as long as nobody knows that they have expired. OCSP agrees with it,
// which is looked at before contents are given out. No shard lists them until their certificates are there.
func TestCRLListsImportedSerialNumbers(t *testing.T) {
	const url = "http://crl.example/a.crl"
	w := newWorld(t)
	asserted := w.clock.Now().Add(-1000 * time.Hour)
	stamped := func(c *x509.Certificate) { c.CRLDistributionPoints = []string{url} }
	unknown, over, known, valid := w.foreign(1, stamped)[0], w.foreign(1)[0], w.foreign(1, stamped)[0], w.foreign(1)[0]
	w.importAs(unknown, true, revokedLongAgo(asserted))
	ended := revokedLongAgo(asserted)
	ended.NotAfter = wire.MillisOf(w.clock.Now().Add(-100 * time.Hour))
	w.importAs(over, true, ended)
	w.importAs(known, false, revokedLongAgo(asserted))
	w.importAs(valid, true, wire.ImportItem{State: wire.CertValid})
	b := w.start("bridge", nil).ready()
	contents := func(scope string, base uint64) string {
		t.Helper()
		c, err := b.CRLContents(w.ca.ID, scope, base)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range c.Entries {
			for name, cert := range map[string]*x509.Certificate{"unknown": unknown, "over": over, "known": known, "valid": valid} {
				if cctest.Serial(t, cert).String() == wire.Serial(e.Serial).String() {
					if e.Remove || e.Time != crl.Seconds(asserted.Unix()) {
						t.Errorf("%s is listed as %s", name, &e)
					}
					all = append(all, name)
				}
			}
		}
		return strings.Join(all, " ")
	}
	both := map[bool]string{true: "unknown known", false: "known unknown"}[cctest.Serial(t, unknown).String() < cctest.Serial(t, known).String()]
	for scope, want := range map[string]string{"": both, url: "known"} {
		if got := contents(scope, 0); got != want {
			t.Errorf("scope %q lists %q, want %q", scope, got, want)
		}
	}
	whole, err := b.CRLContents(w.ca.ID, url, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.applied(w.submit(wire.FnIssue, w.ca.IssueArg(unknown.Raw)))
	if got := contents(url, 0); got != both {
		t.Errorf("with its certificate on the ledger, the shard lists %q, want %q", got, both)
	}
	if got := contents(url, whole.Number); got != "unknown" {
		t.Errorf("the delta says %q of what has changed", got)
	}
}

// A bundle shows both dates. There is none of a serial number, and the answer says why.
func TestBundleOfImportedRevocationShowsBothDates(t *testing.T) {
	w := newWorld(t)
	asserted := w.clock.Now().Add(-1000 * time.Hour)
	certs := w.foreign(2)
	w.integrate() // the CA
	w.nextTick()
	w.importAs(certs[0], false, revokedLongAgo(asserted))
	w.importAs(certs[1], true, revokedLongAgo(asserted))
	recorded := w.clock.Now()
	b := w.start("bridge", nil).ready()
	_, file := b.get("/policy", nil)
	signed, err := policy.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := loadPolicy(t, file, signed[0].Policy.Fingerprint())
	// As a leaf that is newer than the map, and in the map.
	for _, step := range []func(){func() { b.applied(w.integrate()) }, func() { b.applied(w.nextTick()) }} {
		step()
		if v, err := b.verdict(p, certs[0]); err != nil || v.Status != client.Revoked || !v.RevokedAt.Equal(recorded) || !v.Asserted.Equal(asserted) {
			t.Errorf("verdict %+v, %v", v, err)
		}
	}
	var problem struct{ Code, Field, Rule, Detail string }
	path := fmt.Sprintf("/v1/bundle/%s/%s", w.ca.ID, cctest.Serial(t, certs[1]))
	if code, body := b.get(path, &problem); code != http.StatusConflict || problem.Field != "serial" || !strings.Contains(string(body), "serial number only") {
		t.Errorf("%d: %s", code, body)
	}
}

// The fronts serve imported certificates like others, and take the certificate of a serial number.
func TestFrontsServeImportedCertificates(t *testing.T) {
	w := newWorld(t)
	certs := w.foreign(2)
	w.importAs(certs[0], false, revokedLongAgo(w.clock.Now().Add(-time.Hour)))
	w.importAs(certs[1], true, wire.ImportItem{State: wire.CertValid})
	b := w.start("bridge", w.takesSubmissions).ready()
	if code, body := b.addChain(certs[1].Raw); code != http.StatusOK {
		t.Fatalf("add-chain of a certificate whose serial number was imported: %d: %s", code, body)
	}
	b.until("both are served", func() (bool, string) {
		type entry struct {
			Leaf []byte `json:"leaf_input"`
		}
		var page struct{ Entries []entry }
		code, body := b.get("/logs/"+w.ca.ID.String()+"/ct/v1/get-entries?start=0&end=9", &page)
		if code != http.StatusOK {
			return false, string(body)
		}
		for _, cert := range certs {
			if !slices.ContainsFunc(page.Entries, func(e entry) bool { return bytes.Contains(e.Leaf, cert.Raw) }) {
				return false, string(body)
			}
		}
		return true, ""
	})
	b.want(certs[1], "good")
}
