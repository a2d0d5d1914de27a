package ca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

// The CA shows what was imported for it: both dates, and of a serial number alone no place in the log.
func TestImportedCertificatesAreShownWithBothDates(t *testing.T) {
	w := newWorld(t, nil)
	ca := w.elsewhere()
	ledger := w.node.Connect(wire.RoleOperator)
	asserted := time.Now().Add(-100 * time.Hour).UTC().Truncate(time.Millisecond)
	revoked := wire.ImportItem{State: wire.CertRevoked, Reason: wire.Superseded, Revoked: wire.MillisOf(asserted)}
	submit := func(item wire.ImportItem, ders ...[]byte) {
		t.Helper()
		if _, err := ledger.Submit(t.Context(), wire.FnImport, ca.ImportArg([]wire.ImportItem{item}, ders...)); err != nil {
			t.Fatal(err)
		}
	}
	get := func(cert *x509.Certificate) *caapi.Certificate {
		t.Helper()
		got, err := w.client("auditor").Get(t.Context(), cctest.Serial(t, cert).String())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	der, whole := ca.Issue(t, shortLived)
	_, bare := ca.Issue(t, shortLived)
	_, valid := ca.Issue(t, shortLived)
	withCert, withSerial := revoked, revoked
	withCert.HasCert, withSerial.Serial = true, cctest.Serial(t, bare)
	submit(withCert, der)
	submit(withSerial)
	submit(wire.ImportItem{State: wire.CertValid, Serial: cctest.Serial(t, valid)})
	for cert, serialOnly := range map[*x509.Certificate]bool{whole: false, bare: true} {
		got := get(cert)
		since, err := time.Parse(caapi.TimeFormat, got.Status.Since)
		if err != nil || !got.Imported || got.SerialOnly != serialOnly || got.Precertificate || (got.Timestamp == "") != serialOnly || got.Status.State != "revoked" ||
			got.Status.Asserted != asserted.Format(caapi.TimeFormat) || !since.After(asserted) {
			t.Errorf("%+v, %+v, %v", got, got.Status, err)
		}
	}
	if got := get(valid); got.Status.State != "unknown" || !got.SerialOnly || got.Status.Asserted != "" || got.Status.Reason != "" {
		t.Errorf("%+v, %+v", got, got.Status)
	}
	// By the API, a serial number is revoked like a certificate.
	changed, _, err := w.client("operator").Revoke(t.Context(), caapi.RevokeRequest{Serial: cctest.Serial(t, valid).String(), Reason: "keyCompromise"})
	if err != nil || !changed.Changed {
		t.Fatalf("%+v, %v", changed, err)
	}
	if got := get(valid); got.Status.State != "revoked" || got.Status.Asserted != "" {
		t.Errorf("%+v, %+v", got, got.Status)
	}
}
