package chaincode_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestMajorityRegistersCA(t *testing.T) {
	l := founded(t)
	root := cctest.NewCA(t)
	ca := cctest.NewCA(t, cctest.WithParent(root))
	arg := ca.RegisterArg("Org2MSP")
	digest := sha256.Sum256(append([]byte("RegisterCA\x00"), arg...))

	first := decode[wire.RegisterCAResult](t, l.Must(t, admin3, wire.FnRegisterCA, arg))
	if first.Registered || !slices.Equal(first.Votes, []string{"Org3MSP"}) || first.Needed != 3 || first.CAID != ca.ID {
		t.Errorf("after the first vote: %+v", first)
	}
	proposal := record[wire.Proposal](t, l, wire.ProposalKey(digest))
	if proposal.Function != wire.FnRegisterCA || string(proposal.Arg) != string(arg) || proposal.Opened != wire.MillisOf(cctest.T0) {
		t.Errorf("proposal is %+v", proposal)
	}
	// The same organisation again: nothing changes.
	again := decode[wire.RegisterCAResult](t, unchanged(t, l, admin3, wire.FnRegisterCA, arg))
	if again.Registered || !slices.Equal(again.Votes, []string{"Org3MSP"}) {
		t.Errorf("after the same vote: %+v", again)
	}
	l.Now = l.Now.Add(time.Second)
	second := decode[wire.RegisterCAResult](t, l.Must(t, admin1, wire.FnRegisterCA, arg))
	if second.Registered || !slices.Equal(second.Votes, []string{"Org1MSP", "Org3MSP"}) {
		t.Errorf("after the second vote: %+v", second)
	}
	if p := record[wire.Proposal](t, l, wire.ProposalKey(digest)); p.Opened != wire.MillisOf(cctest.T0) {
		t.Errorf("the second vote reopened the proposal: %+v", p)
	}
	if l.Store.Value(wire.CAKey(ca.ID)) != nil {
		t.Fatal("registered by two of four organisations")
	}
	l.Now = l.Now.Add(time.Second)
	third := decode[wire.RegisterCAResult](t, l.Must(t, cctest.Admin("Org4MSP"), wire.FnRegisterCA, arg))
	if !third.Registered || len(third.Votes) != 0 || third.Needed != 3 {
		t.Errorf("after the third vote: %+v", third)
	}
	checkRegistered(t, l, ca, "Org2MSP")
	for _, key := range l.Store.Keys() {
		if strings.HasPrefix(key, "proposal/") || strings.HasPrefix(key, "vote/") {
			t.Errorf("%s is left behind", key)
		}
	}
	// Submitting it once more, by whomever, whenever, changes nothing.
	l.Now = cctest.CANotAfter.Add(time.Hour)
	late := decode[wire.RegisterCAResult](t, unchanged(t, l, admin2, wire.FnRegisterCA, arg))
	if !late.Registered || len(late.Votes) != 0 || late.CAID != ca.ID {
		t.Errorf("a late repetition answers %+v", late)
	}
}

func checkRegistered(t *testing.T, l *cctest.Ledger, ca *cctest.CA, msp string) {
	t.Helper()
	now := wire.MillisOf(l.Now)
	rec := record[wire.CARecord](t, l, wire.CAKey(ca.ID))
	if len(rec.Certs) != 1 || string(rec.Certs[0]) != string(ca.DER) || len(rec.Chain) != len(ca.Chain) || rec.OperatingMSP != msp ||
		rec.State != wire.CAActive || rec.Registered != now || rec.Change != 1 {
		t.Errorf("trust list entry is %+v", rec)
	}
	head := record[wire.LogHead](t, l, wire.LogHeadKey(ca.ID))
	empty := sha256.Sum256(nil)
	if head.Size != 0 || string(head.Root) != string(empty[:]) || head.Time != now || len(head.Range) != 0 {
		t.Errorf("log head is %+v", head)
	}
	leaf := &wire.StatusLeaf{V: wire.Version, Kind: wire.LeafCA, CAID: ca.ID, Change: 1, State: uint(wire.CAActive), Time: now}
	if got := l.Store.Value(wire.PendingKey(leaf.Hash())); string(got) != string(wire.Encode(leaf)) {
		t.Errorf("pending status leaf is %x", got)
	}
}

func TestOneOrganisationDecidesAlone(t *testing.T) {
	l := cctest.NewLedger(t, chaincode.Config{MSPs: []string{"Solo"}, TickInterval: interval})
	l.Found(t)
	ca := cctest.NewCA(t)
	got := decode[wire.RegisterCAResult](t, l.Must(t, cctest.Admin("Solo"), wire.FnRegisterCA, ca.RegisterArg("Solo")))
	if !got.Registered || got.Needed != 1 {
		t.Errorf("registered: %+v", got)
	}
	checkRegistered(t, l, ca, "Solo")
	if n := len(l.Store.Keys()); n != 4 { // consortium, ca, log, status/pending
		t.Errorf("%d keys: %v", n, l.Store.Keys())
	}
}

// Two votes in one block cannot each miss the other.
func TestConcurrentVotesConflict(t *testing.T) {
	l := founded(t)
	arg := cctest.NewCA(t).RegisterArg("Org1MSP")
	var block []*cctest.Envelope
	for _, by := range []chaincode.Caller{admin1, admin2, admin3} {
		e, refusal := l.Endorse(t, by, wire.FnRegisterCA, arg)
		if refusal != nil {
			t.Fatal(refusal)
		}
		block = append(block, e)
	}
	if got := l.Commit(t, block...); !slices.Equal(got, []bool{true, false, false}) {
		t.Errorf("validity in one block: %v", got)
	}
}

func TestVotesForDifferentBytesDoNotAddUp(t *testing.T) {
	l := founded(t)
	ca := cctest.NewCA(t)
	l.Must(t, admin1, wire.FnRegisterCA, ca.RegisterArg("Org1MSP"))
	l.Must(t, admin2, wire.FnRegisterCA, ca.RegisterArg("Org2MSP"))
	got := decode[wire.RegisterCAResult](t, l.Must(t, admin3, wire.FnRegisterCA, ca.RegisterArg("Org1MSP")))
	if got.Registered || len(got.Votes) != 2 {
		t.Errorf("three votes for two proposals: %+v", got)
	}
}

func TestRegisteredCADoesNotChange(t *testing.T) {
	root := cctest.NewCA(t)
	key := cctest.NewKey(t)
	l := founded(t)
	ca := cctest.NewCA(t, cctest.WithKey(key), cctest.WithParent(root))
	l.Register(t, ca, "Org1MSP")
	renewed := cctest.NewCA(t, cctest.WithKey(key), cctest.WithParent(root))
	rechained := &cctest.CA{DER: ca.DER, Chain: nil}
	for _, arg := range [][]byte{renewed.RegisterArg("Org1MSP"), rechained.RegisterArg("Org1MSP"), ca.RegisterArg("Org2MSP")} {
		refused(t, l, admin2, wire.FnRegisterCA, arg, wire.AlreadyExists, "ca_id", "another certificate")
	}
}

func TestEveryAllowedKindOfKeyRegisters(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{
		"P-256": cctest.NewKey(t), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()), "Ed25519": ed, "RSA": rsa2048,
	} {
		t.Run(name, func(t *testing.T) {
			l, ca := withCA(t, cctest.WithKey(key))
			der, _ := ca.Issue(t)
			l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
		})
	}
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRegisterCARefusesCallers(t *testing.T) {
	l := founded(t)
	arg := cctest.NewCA(t).RegisterArg("Org1MSP")
	refused(t, l, stranger, wire.FnRegisterCA, arg, wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l, op1, wire.FnRegisterCA, arg, wire.PermissionDenied, "caller.role", "administrator")
	refused(t, l, auditor4, wire.FnRegisterCA, arg, wire.PermissionDenied, "caller.role", "administrator")
}

// registration builds a RegisterCA argument from parts.
func registration(msp string, cert []byte, chain ...[]byte) []byte {
	return wire.Encode(&wire.RegisterCAArg{V: wire.Version, Cert: cert, Chain: chain, OperatingMSP: msp})
}

func TestRegisterCARefusesWhatIsNoCA(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1536)
	if err != nil {
		t.Fatal(err)
	}
	tweaked := func(tweak func(*x509.Certificate)) []byte {
		return cctest.NewCA(t, cctest.WithTemplate(tweak)).DER
	}
	root := cctest.NewCA(t)
	good := root.DER
	for _, c := range []struct {
		name  string
		arg   []byte
		field string
		word  string
	}{
		{"garbage", []byte{0xa0}, "argument", "version"},
		{"no certificate", registration("Org1MSP", nil), "cert", "1 to 61440"},
		{"too large", registration("Org1MSP", make([]byte, wire.MaxCertDER+1)), "cert", "1 to 61440"},
		{"no DER", registration("Org1MSP", []byte("-----BEGIN CERTIFICATE-----")), "cert", "DER"},
		{"trailing byte", registration("Org1MSP", append(slices.Clone(good), 0)), "cert", "trailing"},
		{"operator outside", registration("Org9MSP", good), "operating_msp", "consortium"},
		{"no operator", registration("", good), "operating_msp", "consortium"},
		{"end entity", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.IsCA = false })), "cert.basic_constraints", "cA"},
		{"no basic constraints", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false })), "cert.basic_constraints", "cA"},
		{"basic constraints not critical", registration("Org1MSP", tweaked(softConstraints)), "cert.basic_constraints", "critical"},
		{"no keyCertSign", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), "cert.key_usage", "keyCertSign"},
		{"no key usage", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.KeyUsage = 0 })), "cert.key_usage", "keyCertSign"},
		{"no subject", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.Subject = pkix.Name{} })), "cert.subject", "empty"},
		{"OCSP responder", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })), "cert.ext_key_usage", "responder"},
		{"expired", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Second) })), "cert.not_after", "passed"},
		{"backwards", registration("Org1MSP", tweaked(func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(time.Second) })), "cert.not_after", "notBefore"},
		{"P-224", registration("Org1MSP", cctest.NewCA(t, cctest.WithKey(ecKey(t, elliptic.P224()))).DER), "cert.public_key", "P-256"},
		{"RSA-1536", registration("Org1MSP", cctest.NewCA(t, cctest.WithKey(weak)).DER), "cert.public_key", "2048"},
		{"needless chain", registration("Org1MSP", good, good), "chain[0]", "first self-signed"},
		{"endless chain", registration("Org1MSP", good, slices.Repeat([][]byte{good}, 9)...), "chain", "at most 8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, founded(t), admin1, wire.FnRegisterCA, c.arg, wire.InvalidArgument, c.field, c.word)
		})
	}
}

// softConstraints states basicConstraints without the critical flag.
func softConstraints(c *x509.Certificate) {
	c.BasicConstraintsValid = false
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
}

func TestRegisterCARefusesBrokenChains(t *testing.T) {
	root := cctest.NewCA(t)
	middle := cctest.NewCA(t, cctest.WithParent(root))
	ca := cctest.NewCA(t, cctest.WithParent(middle))
	// A stranger with root's name and another key.
	double := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.Subject = root.Cert.Subject }))
	twin := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) {
		c.Subject, c.SubjectKeyId = root.Cert.Subject, root.Cert.SubjectKeyId
	}))
	narrow := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	belowNarrow := cctest.NewCA(t, cctest.WithParent(narrow))
	one := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.MaxPathLen = 1 }))
	belowOne := cctest.NewCA(t, cctest.WithParent(one))
	twoBelowOne := cctest.NewCA(t, cctest.WithParent(belowOne))
	dead := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Hour) }))
	belowDead := cctest.NewCA(t, cctest.WithParent(dead))
	leafDER, _ := root.Issue(t)
	selfIssued := cctest.NewCA(t, cctest.WithParent(root), cctest.WithTemplate(func(c *x509.Certificate) { c.Subject = root.Cert.Subject }))

	for _, c := range []struct {
		name  string
		arg   []byte
		field string
		word  string
	}{
		{"no chain", registration("Org1MSP", ca.DER), "cert", "self-signed"},
		{"chain stops short", registration("Org1MSP", ca.DER, middle.DER), "chain[0]", "self-signed"},
		{"link missing", registration("Org1MSP", ca.DER, root.DER), "cert.issuer", "octet by octet"},
		{"wrong order", registration("Org1MSP", ca.DER, root.DER, middle.DER), "cert.issuer", "octet by octet"},
		{"chain goes on", registration("Org1MSP", ca.DER, middle.DER, root.DER, root.DER), "chain[2]", "first self-signed"},
		{"garbage", registration("Org1MSP", ca.DER, []byte{1}), "chain[0]", "DER"},
		{"not a CA", registration("Org1MSP", ca.DER, leafDER), "chain[0].basic_constraints", "cA"},
		{"same name, other key identifier", registration("Org1MSP", ca.DER, middle.DER, double.DER), "chain[0].authority_key_id", "identifier"},
		{"same name, other key", registration("Org1MSP", ca.DER, middle.DER, twin.DER), "chain[0].signature", "verify"},
		{"path length 0", registration("Org1MSP", belowNarrow.DER, narrow.DER), "chain[0].path_len", "1 CA"},
		{"path length 1", registration("Org1MSP", twoBelowOne.DER, belowOne.DER, one.DER), "chain[1].path_len", "2 CA"},
		{"expired root", registration("Org1MSP", belowDead.DER, dead.DER), "chain[0].not_after", "passed"},
		{"self-issued is not self-signed", registration("Org1MSP", selfIssued.DER), "cert", "self-signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, founded(t), admin1, wire.FnRegisterCA, c.arg, wire.InvalidArgument, c.field, c.word)
		})
	}
	l := founded(t)
	for _, good := range [][]byte{
		registration("Org1MSP", ca.DER, middle.DER, root.DER),
		registration("Org1MSP", belowOne.DER, one.DER),
		registration("Org1MSP", selfIssued.DER, root.DER),
	} {
		l.Must(t, admin1, wire.FnRegisterCA, good)
	}
}
