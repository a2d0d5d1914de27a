package chaincode_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/status"
)

// longAgo is a date that a CA asserts.
const longAgo = wire.Millis(1_500_000_000_123)

func validItem() wire.ImportItem {
	return wire.ImportItem{HasCert: true, State: wire.CertValid}
}

func heldItem(since wire.Millis) wire.ImportItem {
	return wire.ImportItem{HasCert: true, State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: since}
}

func revokedItem(since wire.Millis, reason wire.Reason) wire.ImportItem {
	return wire.ImportItem{HasCert: true, State: wire.CertRevoked, Reason: reason, Revoked: since}
}

// bare is an item without its certificate.
func bare(item wire.ImportItem, serial wire.Serial) wire.ImportItem {
	item.HasCert, item.Serial = false, serial
	return item
}

func importResult(t testing.TB, raw []byte) []wire.ImportEntry {
	t.Helper()
	return decode[wire.ImportResult](t, raw).Entries
}

func certRecord(t testing.TB, l *cctest.Ledger, ca *cctest.CA, serial wire.Serial) *wire.CertRecord {
	t.Helper()
	return record[wire.CertRecord](t, l, wire.CertKey(ca.ID, serial))
}

// mustTell: the record's newest change is on its way to the status log.
func mustTell(t *testing.T, l *cctest.Ledger, ca *cctest.CA, serial wire.Serial) {
	t.Helper()
	rec := certRecord(t, l, ca, serial)
	leaf := &wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafCert, CAID: ca.ID, Serial: serial, Change: rec.Change, State: uint(rec.State), Reason: rec.Reason,
		Time: rec.StatusTime, Invalidity: rec.Invalidity, Imported: rec.Imported, Asserted: rec.Asserted, Antedated: rec.Antedated,
	}
	if !bytes.Equal(l.Store.Value(wire.PendingKey(leaf.Hash())), wire.Encode(leaf)) {
		t.Errorf("no status leaf says %+v", leaf)
	}
}

func TestImportRecordsCertificatesAndSerialNumbers(t *testing.T) {
	l, ca := withCA(t)
	issued := ca.IssueMany(t, 1)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(issued...))
	l.Now = l.Now.Add(time.Second)
	now := wire.MillisOf(l.Now)
	ders := ca.IssueMany(t, 2)
	serial := wire.Serial{7, 7}
	invalid := revokedItem(longAgo, wire.KeyCompromise)
	invalid.Invalidity = longAgo - 1
	unknown := bare(revokedItem(longAgo, wire.Superseded), serial)
	unknown.NotAfter = longAgo + 1
	got := importResult(t, l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem(), unknown, invalid}, ders...)))
	checkLogOf(t, l, ca, issued[0], ders[0], ders[1])
	spki := sha256.Sum256(parse(t, ders[0]).RawSubjectPublicKeyInfo)
	for i, want := range []struct {
		serial wire.Serial
		rec    wire.CertRecord
	}{
		{serialOf(t, ders[0]), wire.CertRecord{V: 1, State: wire.CertValid, StatusTime: now, SPKIHash: spki[:], NotAfter: wire.MillisOf(cctest.LeafNotAfter), Imported: true}},
		{serial, wire.CertRecord{V: 1, State: wire.CertRevoked, Reason: wire.Superseded, StatusTime: now, Change: 1, NotAfter: longAgo + 1, Imported: true, Asserted: longAgo, Antedated: true}},
		{serialOf(t, ders[1]), wire.CertRecord{
			V: 1, State: wire.CertRevoked, Reason: wire.KeyCompromise, StatusTime: now, Invalidity: longAgo - 1, Change: 1, SPKIHash: spki[:],
			NotAfter: wire.MillisOf(cctest.LeafNotAfter), Imported: true, Asserted: longAgo, Antedated: true,
		}},
	} {
		rec := certRecord(t, l, ca, want.serial)
		want.rec.Final = rec.Final
		if !reflect.DeepEqual(*rec, want.rec) || !reflect.DeepEqual(got[i], wire.ImportEntry{Changed: true, Log: rec.Final}) || (rec.Final == nil) != (i == 1) {
			t.Errorf("item %d: answered %+v and recorded\n%+v, want\n%+v", i, got[i], *rec, want.rec)
		}
		if rec.Change > 0 {
			mustTell(t, l, ca, want.serial)
		}
	}
	if n := len(l.Pending(t)); n != 3 { // the CA's registration, and two
		t.Errorf("%d changes are pending", n)
	}
	for _, c := range []struct {
		serial wire.Serial
		want   status.Status
		since  wire.Millis
	}{
		{serialOf(t, ders[0]), status.Status{State: wire.CertValid, Time: now}, now},
		{serial, status.Status{State: wire.CertRevoked, Reason: wire.Superseded, Time: now, Asserted: longAgo, Antedated: true, Change: 1}, longAgo},
	} {
		if st := evaluate(t, l, ca.ID, c.serial); st != c.want || st.Since() != c.since {
			t.Errorf("status of %s is %+v, want %+v", c.serial, st, c.want)
		}
	}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// checkLogOf compares the log's head with the root over ders.
func checkLogOf(t *testing.T, l *cctest.Ledger, ca *cctest.CA, ders ...[]byte) {
	t.Helper()
	var hashes [][]byte
	for i, der := range ders {
		rec := certRecord(t, l, ca, serialOf(t, der))
		if rec.Final == nil || rec.Final.Index != uint64(i) {
			t.Fatalf("certificate %d is recorded at %+v", i, rec.Final)
		}
		hashes = append(hashes, referenceLeafHash(uint64(i), rec.Final.Time, der))
	}
	if head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID)); head.Size != uint64(len(ders)) || !bytes.Equal(head.Root, referenceRoot(hashes)) {
		t.Errorf("head is %d %x, want %d %x", head.Size, head.Root, len(ders), referenceRoot(hashes))
	}
}

func TestImportAgainChangesNothing(t *testing.T) {
	l, ca := withCA(t)
	ders := ca.IssueMany(t, 3)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(ders[2]))
	arg := ca.ImportArg([]wire.ImportItem{
		heldItem(longAgo), revokedItem(longAgo, wire.Superseded), bare(revokedItem(longAgo, wire.Unspecified), wire.Serial{5}),
		bare(validItem(), wire.Serial{6}), validItem(),
	}, ders...)
	first := importResult(t, l.Must(t, op1, wire.FnImport, arg))
	if first[4].Changed {
		t.Error("a certificate that was issued on the ledger is imported as something new")
	}
	for _, after := range []func(){func() { l.Now = l.Now.Add(time.Hour) }, func() { suspend(t, l, ca) }} {
		after()
		again := importResult(t, unchanged(t, l, op1, wire.FnImport, arg))
		for i := range again {
			if again[i].Changed || !reflect.DeepEqual(again[i].Log, first[i].Log) {
				t.Errorf("item %d: %+v, then %+v", i, first[i], again[i])
			}
		}
	}
}

// History is taken as it is; what would do harm from now on is not.
func TestImportTakesHistory(t *testing.T) {
	l, ca := withCA(t)
	for name, tweak := range map[string]func(*x509.Certificate){
		"expired":               func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Second) },
		"older than the CA":     func(c *x509.Certificate) { c.NotBefore = cctest.CANotBefore.Add(-time.Hour) },
		"outlives the CA":       func(c *x509.Certificate) { c.NotAfter = cctest.CANotAfter.Add(time.Hour) },
		"responder, long ago":   responderUntil(cctest.T0.Add(-time.Second), 300*time.Hour),
		"responder of 48 hours": cctest.Responder(cctest.T0, 48*time.Hour),
		"valid for no time":     func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			der, _ := ca.Issue(t, tweak)
			l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, der))
			unchanged(t, l, op1, wire.FnIssue, ca.IssueArg(der))
		})
	}
}

// What began when the CA was on the ledger is no history: it must be what Issue would have recorded. It may have expired since.
func TestImportTakesNoNewCertificateThatIssueRefuses(t *testing.T) {
	l, ca := withCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	first := cctest.T0.Add(-24*time.Hour + time.Second) // the first notBefore that is not history
	for _, c := range []struct {
		name, field string
		tweak       func(*x509.Certificate)
	}{
		{"outlives the CA", "not_after", func(c *x509.Certificate) { c.NotAfter = cctest.CANotAfter.Add(time.Second) }},
		{"valid for no time", "not_after", func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Second) }},
		{"responder that has expired", "not_after", func(c *x509.Certificate) { cctest.Responder(c.NotBefore, 48*time.Hour+time.Second)(c) }},
		{"CA below a CA with pathlen 0", "basic_constraints", func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.Now = cctest.T0.Add(1000 * time.Hour)
			for _, item := range []wire.ImportItem{validItem(), revokedItem(longAgo, wire.Superseded)} {
				der, _ := ca.Issue(t, func(x *x509.Certificate) { x.NotBefore = first; c.tweak(x) })
				refused(t, l, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{item}, der), wire.InvalidArgument, "items[0].cert."+c.field, "must")
				refused(t, l, op1, wire.FnIssue, ca.IssueArg(der), wire.InvalidArgument, "certs[0]."+c.field, "must")
				serial := serialOf(t, der)
				l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(item, serial)}))
				refused(t, l, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{item}, der), wire.InvalidArgument, "items[0].cert."+c.field, "must")
			}
			old, _ := ca.Issue(t, func(x *x509.Certificate) { x.NotBefore = first.Add(-time.Second); c.tweak(x) })
			l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, old))
		})
	}
	expired, _ := ca.Issue(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = first, first.Add(time.Hour) })
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, expired))
}

func responderUntil(end time.Time, life time.Duration) func(*x509.Certificate) {
	return cctest.Responder(end.Add(-life), life)
}

func TestImportRefusesArguments(t *testing.T) {
	l, ca := withCA(t)
	plain, cert := ca.Issue(t)
	now := wire.MillisOf(l.Now)
	pre, _, _ := ca.Precert(t)
	other, _ := cctest.NewCA(t).Issue(t)
	clash, _ := ca.Issue(t, func(c *x509.Certificate) { c.SerialNumber = cert.SerialNumber })
	spoiled := slices.Clone(plain)
	spoiled[len(spoiled)-1] ^= 1
	der := func(tweaks ...func(*x509.Certificate)) [][]byte {
		d, _ := ca.Issue(t, tweaks...)
		return [][]byte{d}
	}
	serial := wire.Serial{1}
	one := func(item wire.ImportItem) []wire.ImportItem { return []wire.ImportItem{item} }
	with := func(item wire.ImportItem, change func(*wire.ImportItem)) []wire.ImportItem {
		change(&item)
		return one(item)
	}
	superseded := bare(revokedItem(longAgo, wire.Superseded), serial)
	for _, c := range []struct {
		name  string
		items []wire.ImportItem
		certs [][]byte
		field string
		word  string
	}{
		{"nothing", nil, nil, "items", "1 to 1000"},
		{"too many", slices.Repeat(one(superseded), wire.MaxBatch+1), nil, "items", "1 to 1000"},
		{"too few certificates", []wire.ImportItem{validItem(), validItem()}, [][]byte{plain}, "items[1].has_cert", "as there are certificates"},
		{"no certificate", one(validItem()), nil, "items[0].has_cert", "as there are certificates"},
		{"too many certificates", one(superseded), [][]byte{plain}, "certs", "has_cert: 0"},
		{"no DER", one(validItem()), [][]byte{{1}}, "items[0].cert", "DER"},
		{"too large", one(validItem()), [][]byte{make([]byte, wire.MaxCertDER+1)}, "certs[0]", "1 to 61440"},
		{"certificate and serial", with(validItem(), func(i *wire.ImportItem) { i.Serial = serial }), [][]byte{plain}, "items[0].serial", "left out"},
		{"certificate and notAfter", with(validItem(), func(i *wire.ImportItem) { i.NotAfter = 1 }), [][]byte{plain}, "items[0].not_after", "left out"},
		{"no serial", one(bare(validItem(), nil)), nil, "items[0].serial", "1 to 20 octets"},
		{"long serial", one(bare(validItem(), make([]byte, 21))), nil, "items[0].serial", "1 to 20 octets"},
		{"serial with leading zero", one(bare(validItem(), wire.Serial{0, 1})), nil, "items[0].serial", "leading zero"},
		{"serial twice", []wire.ImportItem{superseded, superseded}, nil, "items[1].serial", "items[0]"},
		{"serial twice, once with certificate", []wire.ImportItem{bare(validItem(), cctest.Serial(t, cert)), validItem()}, [][]byte{plain}, "items[1].serial", "items[0]"},
		{"negative notAfter", with(superseded, func(i *wire.ImportItem) { i.NotAfter = -1 }), nil, "items[0].not_after", "1970"},
		{"notAfter too late", with(superseded, func(i *wire.ImportItem) { i.NotAfter = 1 << 60 }), nil, "items[0].not_after", "9999"},
		{"no state", with(superseded, func(i *wire.ImportItem) { i.State = 0 }), nil, "items[0].state", "1 (valid)"},
		{"unknown state", with(superseded, func(i *wire.ImportItem) { i.State = 4 }), nil, "items[0].state", "1 (valid)"},
		{"valid with reason", with(bare(validItem(), serial), func(i *wire.ImportItem) { i.Reason = wire.Superseded }), nil, "items[0].reason", "unspecified"},
		{"valid with date", with(bare(validItem(), serial), func(i *wire.ImportItem) { i.Revoked = longAgo }), nil, "items[0].revoked", "only a hold"},
		{"valid with invalidity", with(bare(validItem(), serial), func(i *wire.ImportItem) { i.Invalidity = 1 }), nil, "items[0].invalidity", "only a revocation"},
		{"hold with another reason", with(bare(heldItem(longAgo), serial), func(i *wire.ImportItem) { i.Reason = 0 }), nil, "items[0].reason", "certificateHold"},
		{"hold with invalidity", with(bare(heldItem(longAgo), serial), func(i *wire.ImportItem) { i.Invalidity = 1 }), nil, "items[0].invalidity", "only a revocation"},
		{"hold without date", with(bare(heldItem(0), serial), func(*wire.ImportItem) {}), nil, "items[0].revoked", "at least a second after 1970"},
		{"revoked without date", with(superseded, func(i *wire.ImportItem) { i.Revoked = 0 }), nil, "items[0].revoked", "at least a second after 1970"},
		{"revoked in the first second", with(superseded, func(i *wire.ImportItem) { i.Revoked = 999 }), nil, "items[0].revoked", "at least a second after 1970"},
		{"revoked before 1970", with(superseded, func(i *wire.ImportItem) { i.Revoked = -1 }), nil, "items[0].revoked", "at least a second after 1970"},
		{"revoked in the future", with(superseded, func(i *wire.ImportItem) { i.Revoked = now + 1 }), nil, "items[0].revoked", "transaction's time"},
		{"revoked for a hold", with(superseded, func(i *wire.ImportItem) { i.Reason = wire.CertificateHold }), nil, "items[0].reason", "reason of a hold"},
		{"removeFromCRL", with(superseded, func(i *wire.ImportItem) { i.Reason = 8 }), nil, "items[0].reason", "removeFromCRL"},
		{"invalidity in the future", with(superseded, func(i *wire.ImportItem) { i.Invalidity = now + 1 }), nil, "items[0].invalidity", "transaction's time"},
		{"precertificate", one(validItem()), [][]byte{pre}, "items[0].cert", "must be a certificate"},
		{"of another CA", one(validItem()), [][]byte{other}, "items[0].cert.issuer", "octet by octet"},
		{"signature spoiled", one(validItem()), [][]byte{spoiled}, "items[0].cert.signature", "verify"},
		{"responder of 48 hours and a second", one(validItem()), der(cctest.Responder(cctest.T0, 48*time.Hour+time.Second)), "items[0].cert.not_after", "48h"},
		{"over since 1969", one(validItem()), der(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(-9000, 0), time.Unix(-5, 0) }), "items[0].cert.not_after", "after 1970"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op1, wire.FnImport, ca.ImportArg(c.items, c.certs...), wire.InvalidArgument, c.field, c.word)
		})
	}
	refused(t, l, op1, wire.FnImport, []byte{0xa1}, wire.InvalidArgument, "argument", "ImportArg")
	bomb := wire.Encode(&wire.ImportArg{V: wire.Version, CAID: ca.ID, Packed: []byte("no zstd"), Items: one(validItem())})
	refused(t, l, op1, wire.FnImport, bomb, wire.InvalidArgument, "certs", "zstd")
	l.Must(t, op1, wire.FnImport, ca.ImportArg(one(validItem()), plain))
	refused(t, l, op1, wire.FnImport, ca.ImportArg(one(validItem()), clash), wire.AlreadyExists, "items[0].cert.serial", "another certificate")
}

func TestWhoMayImport(t *testing.T) {
	l, ca := withCA(t)
	arg := ca.ImportArg([]wire.ImportItem{bare(validItem(), wire.Serial{1})})
	for by, field := range map[chaincode.Caller]string{stranger: "caller.msp", op2: "caller.msp", admin1: "caller.role", {MSPID: "Org1MSP", Role: wire.RoleAuditor}: "caller.role", {MSPID: "Org1MSP"}: "caller.role"} {
		refused(t, l, by, wire.FnImport, arg, wire.PermissionDenied, field, "must")
	}
	refused(t, l, op1, wire.FnImport, cctest.NewCA(t).ImportArg([]wire.ImportItem{bare(validItem(), wire.Serial{1})}), wire.NotFound, "ca_id", "registered")
}

// A suspended CA may still say what is bad, with the certificates that show it, but record nothing that anybody might trust.
func TestSuspendedCAImportsRevocationsOnly(t *testing.T) {
	l, ca := withCA(t)
	ders := ca.IssueMany(t, 5)
	serials := make([]wire.Serial, len(ders))
	for i := range ders {
		serials[i] = serialOf(t, ders[i])
	}
	l.Must(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem(), bare(validItem(), serials[1]), bare(revokedItem(longAgo, 0), serials[2])}, ders[0]))
	suspend(t, l, ca)
	for name, arg := range map[string][]byte{
		"valid":                         ca.ImportArg([]wire.ImportItem{validItem()}, ders[3]),
		"held":                          ca.ImportArg([]wire.ImportItem{heldItem(longAgo)}, ders[3]),
		"serial number":                 ca.ImportArg([]wire.ImportItem{bare(validItem(), serials[3])}),
		"certificate of a valid serial": ca.ImportArg([]wire.ImportItem{validItem()}, ders[1]),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, l, op1, wire.FnImport, arg, wire.FailedPrecondition, "ca.state", "active")
		})
	}
	refused(t, l, op1, wire.FnIssue, ca.IssueArg(ders[1]), wire.FailedPrecondition, "ca.state", "active")
	for name, arg := range map[string][]byte{
		"revoked":                         ca.ImportArg([]wire.ImportItem{revokedItem(longAgo, wire.Superseded)}, ders[3]),
		"revoked serial number":           ca.ImportArg([]wire.ImportItem{bare(revokedItem(longAgo, 0), serials[4])}),
		"certificate of a revoked serial": ca.ImportArg([]wire.ImportItem{validItem()}, ders[2]),
		"hold of what is there":           ca.ImportArg([]wire.ImportItem{heldItem(longAgo)}, ders[0]),
	} {
		t.Run(name, func(t *testing.T) { l.Must(t, op1, wire.FnImport, arg) })
	}
}

// Import without certificates keeps off the log's head, so it wins and loses nothing against issuance.
func TestImportOfSerialNumbersDoesNotCompeteWithIssuance(t *testing.T) {
	l, ca := withCA(t)
	a, _ := l.Endorse(t, op1, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 1)...))
	b, refusal := l.Endorse(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{bare(revokedItem(longAgo, 0), wire.Serial{1})}))
	if refusal != nil {
		t.Fatal(refusal)
	}
	c, refusal := l.Endorse(t, op1, wire.FnImport, ca.ImportArg([]wire.ImportItem{validItem()}, ca.IssueMany(t, 1)...))
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := l.Commit(t, a, b, c); !slices.Equal(got, []bool{true, true, false}) {
		t.Errorf("of an issuance, an import of a serial number and one of a certificate commit %v", got)
	}
}
