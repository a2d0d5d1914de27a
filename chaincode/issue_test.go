package chaincode_test

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

func TestIssueRecordsAndAppends(t *testing.T) {
	l, ca := withCA(t)
	first := ca.IssueMany(t, 3)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(first...))
	l.Now = l.Now.Add(time.Second)
	der, cert := ca.Issue(t)
	got := decode[wire.IssueResult](t, l.Must(t, op1, wire.FnIssue, ca.IssueArg(der)))

	want, err := ctleaf.Hash(3, wire.MillisOf(l.Now), der)
	if err != nil {
		t.Fatal(err)
	}
	entry := got.Entries[0]
	if len(got.Entries) != 1 || entry.Index != 3 || entry.Time != wire.MillisOf(l.Now) || string(entry.LeafHash) != string(want[:]) {
		t.Errorf("entries are %+v, want index 3 and leaf hash %x", got.Entries, want)
	}
	rec := record[wire.CertRecord](t, l, wire.CertKey(ca.ID, cctest.Serial(t, cert)))
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	if rec.State != wire.CertValid || rec.Reason != wire.Unspecified || rec.StatusTime != entry.Time || rec.Change != 0 || rec.Invalidity != 0 ||
		rec.Final == nil || rec.Final.Index != 3 || string(rec.Final.LeafHash) != string(want[:]) || rec.Pre != nil ||
		string(rec.SPKIHash) != string(spki[:]) || rec.NotAfter != wire.MillisOf(cert.NotAfter) {
		t.Errorf("record is %+v", rec)
	}
	checkLog(t, l, ca, append(slices.Clone(first), der))
	if head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID)); head.Time != entry.Time {
		t.Errorf("head time is %d, want the newest leaf's, %d", head.Time, entry.Time)
	}
}

// checkLog compares a CA's log head with one computed from scratch over the certificates that should be in it, in order.
func checkLog(t testing.TB, l *cctest.Ledger, ca *cctest.CA, ders [][]byte) {
	t.Helper()
	var hashes [][]byte
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		rec := record[wire.CertRecord](t, l, wire.CertKey(ca.ID, cctest.Serial(t, cert)))
		if rec.Final.Index != uint64(i) {
			t.Fatalf("certificate %d has index %d", i, rec.Final.Index)
		}
		hashes = append(hashes, referenceLeafHash(uint64(i), rec.Final.Time, der))
	}
	head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID))
	if head.Size != uint64(len(ders)) || string(head.Root) != string(referenceRoot(hashes)) || string(head.Root) != string(tlogRoot(t, hashes)) {
		t.Fatalf("head of %d is %d %x, want %d %x", len(ders), head.Size, head.Root, len(ders), referenceRoot(hashes))
	}
}

func TestIssueAgainKeepsThePlace(t *testing.T) {
	l, ca := withCA(t)
	ders := ca.IssueMany(t, 5)
	want := l.Must(t, op1, wire.FnIssue, ca.IssueArg(ders...))
	l.Now = l.Now.Add(interval)
	if got := unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(ders...)); string(got) != string(want) {
		t.Error("the retry answers something else")
	}
	// Recorded ones among new ones, in another order.
	fresh := ca.IssueMany(t, 2)
	got := decode[wire.IssueResult](t, l.Must(t, op1, wire.FnIssue, ca.IssueArg(fresh[0], ders[4], ders[0], fresh[1])))
	var indexes []uint64
	for _, e := range got.Entries {
		indexes = append(indexes, e.Index)
	}
	if !slices.Equal(indexes, []uint64{5, 4, 0, 6}) {
		t.Errorf("indexes are %v", indexes)
	}
	checkLog(t, l, ca, append(slices.Clone(ders), fresh...))
}

// What became of certificate and CA in the meantime does not change the answer to a retry.
func TestIssueAgainSucceedsAfterRevocationSuspensionAndExpiry(t *testing.T) {
	l, ca := withCA(t)
	der, cert := ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(time.Hour) })
	want := l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	l.Must(t, op1, wire.FnSetStatus, ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.Superseded}))
	suspend(t, l, ca)
	l.Now = l.Now.Add(2 * time.Hour)
	if got := unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(der)); string(got) != string(want) {
		t.Error("the retry answers something else")
	}
}

// suspend does what a later decision of the consortium will do.
func suspend(t testing.TB, l *cctest.Ledger, ca *cctest.CA) {
	t.Helper()
	rec := record[wire.CARecord](t, l, wire.CAKey(ca.ID))
	rec.State = wire.CASuspended
	l.Set(wire.CAKey(ca.ID), wire.Encode(rec))
}

func TestSuspendedCARecordsNothingNew(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	suspend(t, l, ca)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(der), wire.FailedPrecondition, "ca.state", "active")
}

func TestOneSerialOneCertificate(t *testing.T) {
	l, ca := withCA(t)
	der, cert := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	other, _ := ca.Issue(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)[0], other), wire.AlreadyExists, "certs[1].serial", "another certificate")
}

func TestTwoCAsMayUseOneSerial(t *testing.T) {
	l, ca := withCA(t)
	other := cctest.NewCA(t)
	l.Register(t, other, "Org2MSP")
	der, cert := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	same, _ := other.Issue(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	l.Must(t, op2, wire.FnIssue, other.IssueArg(same))
	checkLog(t, l, ca, [][]byte{der})
	checkLog(t, l, other, [][]byte{same})
}

// A client's clock that is behind the log's newest leaf does not bring the log's time back.
func TestLogTimeNeverGoesBack(t *testing.T) {
	l, ca := withCA(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...))
	before := wire.MillisOf(l.Now)
	l.Now = l.Now.Add(-5 * time.Second)
	got := decode[wire.IssueResult](t, l.Must(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...)))
	if got.Entries[0].Time != before {
		t.Errorf("leaf has time %d, want %d", got.Entries[0].Time, before)
	}
}

func TestIssueRefusesCallers(t *testing.T) {
	l, ca := withCA(t)
	arg := ca.IssueArg(ca.IssueMany(t, 1)...)
	refused(t, l, stranger, wire.FnIssue, arg, wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l, op2, wire.FnIssue, arg, wire.PermissionDenied, "caller.msp", "Org1MSP")
	refused(t, l, admin1, wire.FnIssue, arg, wire.PermissionDenied, "caller.role", "operator")
	refused(t, l, chaincode.Caller{MSPID: "Org1MSP", Role: wire.RoleAuditor}, wire.FnIssue, arg, wire.PermissionDenied, "caller.role", "operator")
	refused(t, l, chaincode.Caller{MSPID: "Org1MSP"}, wire.FnIssue, arg, wire.PermissionDenied, "caller.role", "operator")
	refused(t, l, op1, wire.FnIssue, cctest.NewCA(t).IssueArg(ca.IssueMany(t, 1)...), wire.NotFound, "ca_id", "registered")
}

func TestIssueRefusesCertificates(t *testing.T) {
	l, ca := withCA(t)
	plain, cert := ca.Issue(t)
	der := func(tweaks ...func(*x509.Certificate)) [][]byte { // the offender comes second, after one that is good
		d, _ := ca.Issue(t, tweaks...)
		return [][]byte{plain, d}
	}
	from := func(other *cctest.CA) [][]byte {
		d, _ := other.Issue(t)
		return [][]byte{plain, d}
	}
	twin := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) {
		c.Subject, c.SubjectKeyId = ca.Cert.Subject, ca.Cert.SubjectKeyId
	}))
	spoiled := slices.Clone(plain)
	spoiled[len(spoiled)-1] ^= 1
	for _, c := range []struct {
		name  string
		certs [][]byte
		field string
		word  string
	}{
		{"nothing", nil, "certs", "1 to 1000"},
		{"too many", slices.Repeat([][]byte{{1}}, wire.MaxBatch+1), "certs", "1 to 1000"},
		{"empty", [][]byte{plain, {}}, "certs[1]", "1 to 61440"},
		{"too large", [][]byte{plain, make([]byte, wire.MaxCertDER+1)}, "certs[1]", "1 to 61440"},
		{"no DER", [][]byte{plain, []byte("certificate")}, "certs[1]", "DER"},
		{"trailing byte", [][]byte{plain, append(slices.Clone(plain), 0)}, "certs[1]", "trailing"},
		{"signature spoiled", [][]byte{spoiled}, "certs[0].signature", "verify"},
		{"same certificate twice", [][]byte{plain, plain}, "certs[1].serial", "certs[0]"},
		{"same serial twice", der(func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber }), "certs[1].serial", "certs[0]"},
		{"serial of 21 octets", der(func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 160) }), "certs[1].serial", "20 octets"},
		{"of another CA", from(cctest.NewCA(t)), "certs[1].issuer", "octet by octet"},
		{"of a CA with the same name and key identifier", from(twin), "certs[1].signature", "verify"},
		{"other authority key identifier", der(setAuthorityKeyID([]byte{1, 2, 3})), "certs[1].authority_key_id", "identifier"},
		{"valid before the CA", der(func(c *x509.Certificate) { c.NotBefore = cctest.CANotBefore.Add(-time.Second) }), "certs[1].not_before", "CA's notBefore"},
		{"valid after the CA", der(func(c *x509.Certificate) { c.NotAfter = cctest.CANotAfter.Add(time.Second) }), "certs[1].not_after", "CA's notAfter"},
		{"backwards", der(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) }), "certs[1].not_after", "notBefore"},
		{"expired", der(func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Second) }), "certs[1].not_after", "passed"},
		{"responder of 48 hours and a second", der(cctest.Responder(cctest.T0, 48*time.Hour+time.Second)), "certs[1].not_after", "48h"},
		{"responder without nocheck", der(cctest.Responder(cctest.T0, time.Hour), func(c *x509.Certificate) { c.ExtraExtensions = nil }), "certs[1].extensions", "must have id-pkix-ocsp-nocheck"},
		{"nocheck without responder", der(cctest.Responder(cctest.T0, time.Hour), func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "certs[1].extensions", "responders only"},
		{"CA certificate that is a responder", der(func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		}), "certs[1].extensions", "id-kp-OCSPSigning"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op1, wire.FnIssue, ca.IssueArg(c.certs...), wire.InvalidArgument, c.field, c.word)
		})
	}
	refused(t, l, op1, wire.FnIssue, []byte{0xa1}, wire.InvalidArgument, "argument", "IssueArg")
	if head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID)); head.Size != 0 {
		t.Errorf("the log has %d entries", head.Size)
	}
}

func setAuthorityKeyID(id []byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		value := append([]byte{0x30, byte(len(id) + 2), 0x80, byte(len(id))}, id...)
		c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 35}, Value: value}}
	}
}

func TestIssueAcceptsTheEdges(t *testing.T) {
	l, ca := withCA(t)
	for name, tweaks := range map[string][]func(*x509.Certificate){
		"validity of the CA":      {func(c *x509.Certificate) { c.NotBefore, c.NotAfter = cctest.CANotBefore, cctest.CANotAfter }},
		"one moment":              {func(c *x509.Certificate) { c.NotBefore, c.NotAfter = cctest.T0, cctest.T0 }},
		"serial 1":                {func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }},
		"serial of 20 octets":     {func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 158) }},
		"high bit of 20 octets":   {func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 159) }},
		"responder of 48 hours":   {cctest.Responder(cctest.T0, 48*time.Hour)},
		"no extensions but SAN":   {func(c *x509.Certificate) { c.KeyUsage, c.ExtKeyUsage, c.BasicConstraintsValid = 0, nil, false }},
		"subordinate CA":          {func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }},
		"empty subject":           {func(c *x509.Certificate) { c.Subject = pkix.Name{} }},
		"not valid until later":   {func(c *x509.Certificate) { c.NotBefore = cctest.T0.Add(time.Hour) }},
		"no key identifiers":      {func(c *x509.Certificate) { c.AuthorityKeyId = nil }},
		"a poison that is no OID": {func(c *x509.Certificate) { c.DNSNames = []string{"1.3.6.1.4.1.11129.2.4.3"} }},
	} {
		t.Run(name, func(t *testing.T) {
			der, _ := ca.Issue(t, tweaks...)
			l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
		})
	}
}

func TestCAWithPathLengthZeroIssuesNoCA(t *testing.T) {
	l, ca := withCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	der, _ := ca.Issue(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(der), wire.InvalidArgument, "certs[0].basic_constraints", "pathLenConstraint")
}

// A CA with two certificates issues under either.
func TestIssueUnderARenewedCACertificate(t *testing.T) {
	key := cctest.NewKey(t)
	l, ca := withCA(t, cctest.WithKey(key))
	renewed := cctest.NewCA(t, cctest.WithKey(key))
	rec := record[wire.CARecord](t, l, wire.CAKey(ca.ID))
	rec.Certs = append(rec.Certs, renewed.DER)
	l.Set(wire.CAKey(ca.ID), wire.Encode(rec))
	old, _ := ca.Issue(t)
	fresh, _ := renewed.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(old, fresh))
	other, _ := cctest.NewCA(t).Issue(t)
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(other), wire.InvalidArgument, "certs[0].issuer", ca.Cert.Subject.String())
}

func TestFullLogRefuses(t *testing.T) {
	l, ca := withCA(t)
	// A log of 2^40 entries has one perfect subtree, whose root is the log's.
	root := make([]byte, 32)
	l.Set(wire.LogHeadKey(ca.ID), wire.Encode(&wire.LogHead{V: wire.Version, Size: ctleaf.MaxIndex + 1, Root: root, Range: [][]byte{root}}))
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...), wire.FailedPrecondition, "log", "full")
}

// Two batches for one log in one block: the second must be submitted again.
func TestConcurrentIssuesOfOneCAConflict(t *testing.T) {
	l, ca := withCA(t)
	other := cctest.NewCA(t)
	l.Register(t, other, "Org2MSP")
	a, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 2)...))
	b, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 2)...))
	c, _ := l.Endorse(t, op2, wire.FnIssue, other.IssueArg(other.IssueMany(t, 2)...))
	if got := l.Commit(t, a, b, c); !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("validity in one block: %v", got)
	}
}

func BenchmarkIssue200(b *testing.B) {
	l, ca := withCA(b)
	arg := ca.IssueArg(ca.IssueMany(b, 200)...)
	contract, err := chaincode.New(consortium)
	if err != nil {
		b.Fatal(err)
	}
	tx := chaincode.Tx{ID: "x", Time: l.Now, Caller: op1}
	b.SetBytes(int64(len(arg)))
	for b.Loop() {
		if _, err := contract.Invoke(l.Store.Simulate(), tx, wire.FnIssue, arg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRetry200(b *testing.B) {
	l, ca := withCA(b)
	arg := ca.IssueArg(ca.IssueMany(b, 200)...)
	l.Must(b, op1, wire.FnIssue, arg)
	contract, err := chaincode.New(consortium)
	if err != nil {
		b.Fatal(err)
	}
	tx := chaincode.Tx{ID: "x", Time: l.Now, Caller: op1}
	for b.Loop() {
		if _, err := contract.Invoke(l.Store.Simulate(), tx, wire.FnIssue, arg); err != nil {
			b.Fatal(err)
		}
	}
}
