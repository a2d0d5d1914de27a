package networktest

import (
	"crypto/x509"
	"encoding/binary"
	"reflect"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
	"github.com/certanchor/certanchor/network"
)

// testImport brings what a CA has issued and revoked before onto the ledger, twice, and then the certificate of a serial number.
func testImport(b *bench) {
	asserted := wire.MillisOf(time.Now().Add(-100 * time.Hour))
	expired, _ := b.ca.Issue(b, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	der, _ := b.ca.Issue(b)
	later, cert := b.ca.Issue(b)
	serial := cctest.Serial(b, cert)
	items := []wire.ImportItem{
		{HasCert: true, State: wire.CertValid},
		{Serial: serial, State: wire.CertRevoked, Reason: wire.Superseded, Revoked: asserted},
		{HasCert: true, State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: asserted},
	}
	arg := b.ca.ImportArg(items, expired, der)
	first := importResult(b, b.insist(b.operator, wire.FnImport, arg))
	again := importResult(b, b.insist(b.operator, wire.FnImport, arg))
	for i := range again {
		if again[i].Changed || !reflect.DeepEqual(again[i].Log, first[i].Log) || (again[i].Log == nil) != (i == 1) {
			b.Errorf("item %d: %+v, and again: %+v", i, first[i], again[i])
		}
	}
	if got := b.evaluate(expired); got.State != wire.CertValid {
		b.Errorf("the expired certificate is %+v", got)
	}
	if got := b.evaluate(der); got.State != wire.CertHeld || got.Since() != asserted || got.Time <= asserted {
		b.Errorf("the certificate on hold is %+v", got)
	}
	_, entries := b.issue(later)
	if entries[0].Index != again[2].Log.Index+1 {
		b.Errorf("the certificate of the serial number stands at %d", entries[0].Index)
	}
	if got := b.evaluate(later); got.State != wire.CertRevoked || got.Reason != wire.Superseded || got.Since() != asserted {
		b.Errorf("it is %+v", got)
	}
	// What was good is revoked from when the ledger says so.
	b.insist(b.operator, wire.FnImport, b.ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertRevoked, Revoked: asserted}}, expired))
	if got := b.evaluate(expired); got.State != wire.CertRevoked || got.Since() != got.Time || got.Asserted != asserted || got.Time <= asserted {
		b.Errorf("the expired certificate, revoked after it was good, is %+v", got)
	}
	outlives, _ := b.ca.Issue(b, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now(), cctest.CANotAfter.Add(time.Hour) })
	b.refused(b.operator, wire.FnImport, b.ca.ImportArg(items[:1], outlives), wire.InvalidArgument, "items[0].cert.not_after")
	auditor := b.Connect(b, wire.RoleAuditor)
	defer auditor.Close()
	b.refused(auditor, wire.FnImport, arg, wire.PermissionDenied, "caller.role")
	items[1].Revoked = wire.MillisOf(time.Now().Add(time.Hour))
	b.refused(b.operator, wire.FnImport, b.ca.ImportArg(items, expired, der), wire.InvalidArgument, "items[1].revoked")
	b.refused(b.operator, wire.FnImport, b.ca.ImportArg(items[:1]), wire.InvalidArgument, "items[0].has_cert")
}

// testLargeImport imports as many serial numbers as a transaction may have.
func testLargeImport(b *bench) {
	asserted := wire.MillisOf(time.Now().Add(-time.Hour))
	items := make([]wire.ImportItem, wire.MaxBatch)
	for i := range items {
		items[i] = wire.ImportItem{Serial: binary.BigEndian.AppendUint32([]byte{1}, uint32(i)), State: wire.CertRevoked, Revoked: asserted}
	}
	b.insist(b.operator, wire.FnImport, b.ca.ImportArg(items))
	last := items[len(items)-1].Serial
	var rec wire.CertRecord
	check(b, wire.Decode(b.read(wire.CertKey(b.ca.ID, last))[0], &rec))
	if st := status.Evaluate(&rec, nil, nil); !rec.SerialOnly() || st.State != wire.CertRevoked || st.Since() != asserted {
		b.Errorf("the last serial number is recorded as %+v", rec)
	}
	b.refused(b.operator, wire.FnImport, b.ca.ImportArg(append(items, wire.ImportItem{Serial: wire.Serial{9}, State: wire.CertValid})), wire.InvalidArgument, "items")
}

func importResult(b *bench, r network.Receipt) []wire.ImportEntry {
	b.Helper()
	var result wire.ImportResult
	check(b, wire.Decode(r.Result, &result))
	return result.Entries
}
