package chaincode_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

func issued(t testing.TB, l *cctest.Ledger, ca *cctest.CA, der []byte) wire.LogEntry {
	t.Helper()
	return decode[wire.IssueResult](t, l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))).Entries[0]
}

func TestPrecertificateThenCertificate(t *testing.T) {
	sctList := cctest.SCTList()
	l, ca := withCA(t)
	first, _ := ca.Issue(t)
	issued(t, l, ca, first)
	pre, cert, final := ca.Precert(t)
	key := wire.CertKey(ca.ID, cctest.Serial(t, cert))
	l.Now = l.Now.Add(time.Second)
	entry := issued(t, l, ca, pre)
	logged := wire.MillisOf(l.Now)
	// The leaf has the certificate's TBSCertificate without SCT list, which crypto/x509 shows.
	der, _ := final(nil)
	want := referencePrecertHash(1, logged, ca.ID, tbsOf(t, der))
	if entry.Index != 1 || entry.Time != logged || !bytes.Equal(entry.LeafHash, want) {
		t.Errorf("precertificate stands at %+v, want leaf hash %x", entry, want)
	}
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	rec := record[wire.CertRecord](t, l, key)
	if rec.State != wire.CertValid || rec.StatusTime != logged || rec.Change != 0 || rec.Final != nil || rec.Pre == nil || rec.Pre.Index != 1 ||
		!bytes.Equal(rec.SPKIHash, spki[:]) || rec.NotAfter != wire.MillisOf(cert.NotAfter) {
		t.Errorf("record is %+v", rec)
	}
	l.Now = l.Now.Add(time.Second)
	unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(pre))
	der, _ = final(sctList)
	got := issued(t, l, ca, der)
	if want := referenceLeafHash(2, wire.MillisOf(l.Now), der); got.Index != 2 || !bytes.Equal(got.LeafHash, want) {
		t.Errorf("certificate stands at %+v, want %x", got, want)
	}
	after := record[wire.CertRecord](t, l, key)
	if after.Final == nil || after.Pre == nil || after.Pre.Index != 1 || after.StatusTime != logged || after.Change != 0 {
		t.Errorf("record became %+v", after)
	}
	head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID))
	hashes := [][]byte{record[wire.CertRecord](t, l, wire.CertKey(ca.ID, serialOf(t, first))).Final.LeafHash, entry.LeafHash, got.LeafHash}
	if head.Size != 3 || !bytes.Equal(head.Root, referenceRoot(hashes)) {
		t.Errorf("head is %+v", head)
	}
	// Retries of either keep their places.
	for _, again := range []struct {
		der   []byte
		index uint64
	}{{pre, 1}, {der, 2}} {
		l.Now = l.Now.Add(interval)
		r := decode[wire.IssueResult](t, unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(again.der)))
		if r.Entries[0].Index != again.index {
			t.Errorf("the retry of entry %d answers %+v", again.index, r.Entries[0])
		}
	}
	other, _ := final(sctList) // with another signature
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(other), wire.AlreadyExists, "certs[0].serial", "another certificate")
}

// A certificate without SCT list must not have a precertificate: whoever is shown its entry alone relies on that (package bundle).
func TestTheCertificateOfAPrecertificateHasAnSCTList(t *testing.T) {
	l, ca := withCA(t)
	pre, _, final := ca.Precert(t)
	issued(t, l, ca, pre)
	bare, _ := final(nil)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(bare), wire.InvalidArgument, "certs[0].extensions", "embeds SCTs")
	der, _ := final(cctest.SCTList())
	issued(t, l, ca, der)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(bare), wire.AlreadyExists, "certs[0].serial", "another certificate")

	// Without its precertificate on this ledger it is a certificate like any other.
	unlogged, _, final := ca.Precert(t)
	der, _ = final(nil)
	issued(t, l, ca, der)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(unlogged), wire.AlreadyExists, "certs[0].serial", "a precertificate comes before")
}

func tbsOf(t testing.TB, der []byte) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.RawTBSCertificate
}

func sameSerial(cert *x509.Certificate) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber }
}

func TestASerialHasOnePrecertificateAndItsCertificate(t *testing.T) {
	l, ca := withCA(t)
	pre, cert, final := ca.Precert(t)
	issued(t, l, ca, pre)
	another, _, finalOfAnother := ca.Precert(t, sameSerial(cert))
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(another), wire.AlreadyExists, "certs[0].serial", "another certificate")
	other, _ := finalOfAnother(nil)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(other), wire.AlreadyExists, "certs[0].serial", "without poison and SCT list")
	der, _ := final(cctest.SCTList())
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(pre, der), wire.InvalidArgument, "certs[1].serial", "certs[0]")
	// Right but for the signature: of another key, under the same name.
	twin := &cctest.CA{Cert: ca.Cert, Key: cctest.NewKey(t), ID: ca.ID}
	forged := resign(t, twin.Key, der, func(tbs [][]byte) [][]byte { return tbs })
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(forged), wire.InvalidArgument, "certs[0].signature", "verify")
	forgedPre := resign(t, twin.Key, pre, func(tbs [][]byte) [][]byte { return tbs })
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(forgedPre), wire.InvalidArgument, "certs[0].signature", "verify")
	issued(t, l, ca, der)

	plain, plainCert := ca.Issue(t)
	issued(t, l, ca, plain)
	late, _, _ := ca.Precert(t, sameSerial(plainCert))
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(late), wire.AlreadyExists, "certs[0].serial", "a precertificate comes before its certificate")
}

func TestIssueRefusesPrecertificates(t *testing.T) {
	l, ca := withCA(t)
	plain, _ := ca.Issue(t)
	with := func(extensions ...pkix.Extension) []byte {
		der, _ := ca.Issue(t, func(c *x509.Certificate) { c.ExtraExtensions = extensions })
		return der
	}
	pre, _, _ := ca.Precert(t)
	twice := resign(t, ca.Key, pre, func(tbs [][]byte) [][]byte { // crypto/x509 would not make it
		wrapped := tbs[len(tbs)-1]
		list := elements(t, elements(t, append([]byte{0x30}, wrapped[1:]...))[0])
		inner := sequence(append(list, list[len(list)-1])...)
		tbs[len(tbs)-1] = append([]byte{0xa3}, sequence(inner)[1:]...)
		return tbs
	})
	poison := cctest.Poison()
	lax, odd := poison, poison
	lax.Critical, odd.Value = false, []byte{4, 0}
	foreign, _, _ := cctest.NewCA(t).Precert(t)
	long, _, _ := ca.Precert(t, cctest.Responder(cctest.T0, 48*time.Hour+time.Second))
	old, _, _ := ca.Precert(t, func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Second) })
	for _, c := range []struct {
		name, field, word string
		der               []byte
	}{
		{"two poisons", "certs[1].extensions", "exactly one poison", twice},
		{"poison that is not critical", "certs[1].extensions", "critical", with(lax)},
		{"poison that is not NULL", "certs[1].extensions", "NULL", with(odd)},
		{"poison and SCT list", "certs[1].extensions", "SCT list", with(poison, pkix.Extension{Id: ctleaf.OIDSCTList, Value: cctest.SCTList()})},
		{"of another issuer", "certs[1].issuer", "precertificate signing certificate", foreign},
		{"responder for too long", "certs[1].not_after", "48h", long},
		{"expired", "certs[1].not_after", "passed", old},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op1, wire.FnIssue, ca.IssueArg(plain, c.der), wire.InvalidArgument, c.field, c.word)
		})
	}
	suspend(t, l, ca)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(pre), wire.FailedPrecondition, "ca.state", "active")
}

// RFC 6962 section 3.1 lets a CA delegate the signing of precertificates. The log of a CA has only what its own key signed.
func TestPrecertificateSigningCertificatesAreRefused(t *testing.T) {
	signing := func(c *x509.Certificate) {
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 11129, 2, 4, 4}}
	}
	l, ca := withCA(t)
	delegate := cctest.NewCA(t, cctest.WithParent(ca), cctest.WithTemplate(signing))
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(delegate.DER), wire.InvalidArgument, "certs[0].ext_key_usage", "not supported")
	refused(t, l, admin1, wire.FnRegisterCA, delegate.RegisterArg("Org1MSP"), wire.InvalidArgument, "cert.ext_key_usage", "not supported")
	pre, _, _ := delegate.Precert(t)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(pre), wire.InvalidArgument, "certs[0].issuer", "not by a precertificate signing certificate")
}

func TestStatusOfACertificateThatHasOnlyAPrecertificate(t *testing.T) {
	l, ca := withCA(t)
	pre, cert, final := ca.Precert(t)
	issued(t, l, ca, pre)
	life := &life{l, ca, cctest.Serial(t, cert)}
	life.change(t, wire.OpHold, wire.CertificateHold, 0)
	life.change(t, wire.OpRelease, 0, 0)
	held := life.change(t, wire.OpHold, wire.CertificateHold, 0)
	// Its certificate changes nothing about it.
	der, _ := final(cctest.SCTList())
	l.Now = l.Now.Add(time.Second)
	issued(t, l, ca, der)
	if rec := life.record(t); rec.State != wire.CertHeld || rec.StatusTime != held.Time || rec.Change != held.Change || rec.Final == nil || rec.Flaps != 3 {
		t.Errorf("the certificate of a held precertificate is recorded as %+v", rec)
	}
	life.change(t, wire.OpRevoke, wire.KeyCompromise, 0)
	if rec := life.record(t); rec.State != wire.CertRevoked || rec.StatusTime != held.Time {
		t.Errorf("revoked: %+v", rec)
	}
}

// Whatever has happened since the precertificate was logged, its certificate can be recorded, and by nobody else than before.
func TestThePromiseOfAPrecertificateIsKept(t *testing.T) {
	l, ca := withCA(t)
	pre, cert, final := ca.Precert(t, func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(time.Hour) })
	issued(t, l, ca, pre)
	life := &life{l, ca, cctest.Serial(t, cert)}
	revoked := life.change(t, wire.OpRevoke, wire.CACompromise, 0)
	suspend(t, l, ca)
	l.Now = l.Now.Add(2 * time.Hour)
	der, _ := final(cctest.SCTList())
	refused(t, l, op2, wire.FnIssue, ca.IssueArg(der), wire.PermissionDenied, "caller.msp", "Org1MSP")
	if got := issued(t, l, ca, der); got.Index != 1 {
		t.Errorf("it stands at %+v", got)
	}
	rec := life.record(t)
	if rec.State != wire.CertRevoked || rec.Reason != wire.CACompromise || rec.StatusTime != revoked.Time || rec.Change != 1 {
		t.Errorf("it is recorded as %+v", rec)
	}
}

// Precertificate and certificate in one block: the second client submits again.
func TestCertificateDoesNotOvertakeItsPrecertificate(t *testing.T) {
	l, ca := withCA(t)
	pre, _, final := ca.Precert(t)
	der, _ := final(cctest.SCTList())
	first, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(pre))
	second, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(der))
	if got := l.Commit(t, first, second); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("validity in one block: %v", got)
	}
	if got := issued(t, l, ca, der); got.Index != 1 {
		t.Errorf("it stands at %+v", got)
	}
}

// BenchmarkIssuePrecerts200 is BenchmarkIssue200 for precertificates.
func BenchmarkIssuePrecerts200(b *testing.B) {
	l, ca := withCA(b)
	ders := make([][]byte, 200)
	for i := range ders {
		ders[i], _, _ = ca.Precert(b)
	}
	arg := ca.IssueArg(ders...)
	contract, err := chaincode.New(consortium)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := contract.Invoke(l.Store.Simulate(), chaincode.Tx{ID: "x", Channel: cctest.Channel, Time: l.Now, Caller: op1}, wire.FnIssue, arg); err != nil {
			b.Fatal(err)
		}
	}
}
