package chaincode_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// holderKey is where the revocation of a certificate by its holder stands.
func holderKey(t testing.TB, ca *cctest.CA, der []byte) string {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return wire.RevokeKey(ca.ID, cctest.Serial(t, cert), wire.HolderSource(sha256.Sum256(cert.RawSubjectPublicKeyInfo)))
}

func TestHolderRevokes(t *testing.T) {
	l, ca := withCA(t)
	der, cert := ca.Issue(t)
	l.Must(t, op1, wire.FnIssue, ca.IssueArg(der))
	intent := ca.Intent(t, cctest.Channel, cert, wire.Superseded, l.Now)
	intent.Invalidity = wire.MillisOf(l.Now)
	l.Now = l.Now.Add(time.Second)
	e, refusal := l.Endorse(t, auditor4, wire.FnRevoke, cctest.SignIntent(t, cctest.LeafKey(), der, intent))
	if refusal != nil {
		t.Fatal(refusal)
	}
	l.Commit(t, e)
	key, spki, now := holderKey(t, ca, der), sha256.Sum256(cert.RawSubjectPublicKeyInfo), wire.MillisOf(l.Now)
	want := &wire.Revocation{V: 1, Source: wire.SourceHolder, SPKIHash: spki[:], Reason: wire.Superseded, Time: now, Invalidity: intent.Invalidity, Change: 1}
	leaf := &wire.StatusLeaf{
		V: 1, Kind: wire.LeafRevocation, CAID: ca.ID, Serial: cctest.Serial(t, cert), Change: 1, State: uint(wire.CertRevoked),
		Reason: wire.Superseded, Time: now, Invalidity: intent.Invalidity, Source: wire.SourceHolder, SPKIHash: spki[:],
	}
	if got := decode[wire.RevokeResult](t, e.Result); *got != (wire.RevokeResult{V: 1, Reason: wire.Superseded, Time: now, Change: 1, Changed: true}) {
		t.Errorf("answer is %+v", got)
	}
	if !bytes.Equal(l.Store.Value(key), wire.Encode(want)) || !bytes.Equal(l.Store.Value(wire.PendingKey(leaf.Hash())), wire.Encode(leaf)) || len(e.Writes) != 2 {
		t.Errorf("wrote %+v", e.Writes)
	}
	// It reads nothing that the CA's operator writes.
	for read := range e.Reads {
		if read != wire.ConsortiumKey && read != wire.CAKey(ca.ID) && read != key && !strings.HasPrefix(read, wire.ClockPrefix) {
			t.Errorf("Revoke reads %s", read)
		}
	}
}

func TestRevocationByTheHolderKeepsItsDate(t *testing.T) {
	l, ca := withCA(t)
	der, cert := ca.Issue(t)
	first := wire.MillisOf(l.Now)
	l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now))
	l.Now = l.Now.Add(time.Minute)
	for _, reason := range []wire.Reason{wire.Superseded, wire.CessationOfOperation} {
		got := decode[wire.RevokeResult](t, unchanged(t, l, op1, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, reason, l.Now)))
		if *got != (wire.RevokeResult{V: 1, Reason: wire.Superseded, Time: first, Change: 1}) {
			t.Errorf("revoked again for %v: %+v", reason, got)
		}
	}
	intent := ca.Intent(t, cctest.Channel, cert, wire.KeyCompromise, l.Now)
	intent.Invalidity = first - 1
	got := decode[wire.RevokeResult](t, l.Must(t, op1, wire.FnRevoke, cctest.SignIntent(t, cctest.LeafKey(), der, intent)))
	rec := record[wire.Revocation](t, l, holderKey(t, ca, der))
	if *got != (wire.RevokeResult{V: 1, Reason: wire.KeyCompromise, Time: first, Change: 2, Changed: true}) || rec.Invalidity != first-1 || rec.Time != first || rec.Change != 2 {
		t.Errorf("compromised: %+v, recorded %+v", got, rec)
	}
	unchanged(t, l, op1, wire.FnRevoke, cctest.SignIntent(t, cctest.LeafKey(), der, intent))
	unchanged(t, l, op1, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now))
	if n := len(l.Pending(t)); n != 3 { // the CA, the revocation, its reason
		t.Errorf("%d status leaves are pending", n)
	}
}

func TestEveryKindOfKeyRevokes(t *testing.T) {
	l, ca := withCA(t)
	ecKey := func(curve elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{
		"P-256": ecKey(elliptic.P256()), "P-384": ecKey(elliptic.P384()), "P-521": ecKey(elliptic.P521()), "RSA": rsaKey, "Ed25519": edKey,
	} {
		der := certify(t, ca, key.Public())
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		arg := cctest.SignIntent(t, key, der, ca.Intent(t, cctest.Channel, cert, wire.KeyCompromise, l.Now))
		if _, refusal := l.Submit(t, op2, wire.FnRevoke, arg); refusal != nil {
			t.Errorf("%s: %v", name, refusal)
		}
	}
	der := certify(t, ca, ecKey(elliptic.P224()).Public())
	refused(t, l, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, 0, l.Now), wire.InvalidArgument, "cert.public_key", "P-256")
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 9000, 1), E: 65537}
	refused(t, l, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, certify(t, ca, huge), 0, l.Now), wire.InvalidArgument, "cert.public_key", "8192")
}

// certify issues a certificate for a key.
func certify(t testing.TB, ca *cctest.CA, pub crypto.PublicKey) []byte {
	t.Helper()
	_, template := ca.Issue(t)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, pub, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRevokeAcceptsPrecertificatesAndExpiredCertificatesOfSuspendedCAs(t *testing.T) {
	l, ca := withCA(t)
	suspend(t, l, ca)
	pre, _, _ := ca.Precert(t)
	old, _ := ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = cctest.T0.Add(-time.Hour) })
	for _, der := range [][]byte{pre, old} {
		l.Must(t, op2, wire.FnRevoke, ca.RevokeArg(t, cctest.Channel, der, wire.KeyCompromise, l.Now))
	}
}

func TestRevokeRefusesCallers(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	arg := ca.RevokeArg(t, cctest.Channel, der, 0, l.Now)
	refused(t, l, stranger, wire.FnRevoke, arg, wire.PermissionDenied, "caller.msp", "consortium")
	refused(t, l, chaincode.Caller{MSPID: "Org1MSP"}, wire.FnRevoke, arg, wire.PermissionDenied, "caller.role", "one of")
	for _, by := range []chaincode.Caller{op2, admin3, auditor4} {
		if _, refusal := l.Endorse(t, by, wire.FnRevoke, arg); refusal != nil {
			t.Errorf("%+v: %v", by, refusal)
		}
	}
}

func TestRevokeRefusesIntents(t *testing.T) {
	l, ca := withCA(t)
	other := cctest.NewCA(t)
	l.Register(t, other, "Org2MSP")
	unregistered := cctest.NewCA(t)
	der, cert := ca.Issue(t)
	sibling, siblingCert := ca.Issue(t)
	now := wire.MillisOf(l.Now)
	base := func(change func(*wire.RevokeIntent)) []byte {
		i := ca.Intent(t, cctest.Channel, cert, wire.Superseded, l.Now)
		change(i)
		return cctest.SignIntent(t, cctest.LeafKey(), der, i)
	}
	raw := func(change func(*wire.RevokeArg)) []byte {
		a := decode[wire.RevokeArg](t, base(func(*wire.RevokeIntent) {}))
		change(a)
		return wire.Encode(a)
	}
	twin := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) {
		c.Subject, c.SubjectKeyId = ca.Cert.Subject, ca.Cert.SubjectKeyId
	}))
	forged, forgedCert := twin.Issue(t)
	const bad, denied = wire.InvalidArgument, wire.PermissionDenied
	for _, c := range []struct {
		name  string
		arg   []byte
		code  wire.Code
		field string
		word  string
	}{
		{"nothing", nil, bad, "argument", "RevokeArg"},
		{"no certificate", raw(func(a *wire.RevokeArg) { a.Cert = nil }), bad, "cert", "1 to 61440"},
		{"no DER", raw(func(a *wire.RevokeArg) { a.Cert = []byte("x") }), bad, "cert", "DER"},
		{"no intent", raw(func(a *wire.RevokeArg) { a.Intent = nil }), bad, "intent", "EOF"},
		{"intent with more after it", raw(func(a *wire.RevokeArg) { a.Intent = append(a.Intent, 0) }), bad, "intent", "extraneous"},
		{"no signature", raw(func(a *wire.RevokeArg) { a.Signature = nil }), denied, "signature", "must be the certificate's key's"},
		{"signature of another intent", raw(func(a *wire.RevokeArg) {
			a.Signature = decode[wire.RevokeArg](t, base(func(i *wire.RevokeIntent) { i.Reason = wire.KeyCompromise })).Signature
		}), denied, "signature", "over the intent"},
		{"signature without context", raw(func(a *wire.RevokeArg) {
			sum := sha256.Sum256(a.Intent)
			a.Signature, _ = cctest.LeafKey().Sign(rand.Reader, sum[:], crypto.SHA256)
		}), denied, "signature", "over the intent"},
		{"signed by the CA", cctest.SignIntent(t, ca.Key, der, ca.Intent(t, cctest.Channel, cert, 0, l.Now)), denied, "signature", "certificate's key"},
		{"another channel", base(func(i *wire.RevokeIntent) { i.Channel = "other" }), bad, "intent.channel", `"test"`},
		{"another certificate", cctest.SignIntent(t, cctest.LeafKey(), sibling, ca.Intent(t, cctest.Channel, cert, 0, l.Now)), bad, "intent.serial", "the certificate's"},
		{"another serial", base(func(i *wire.RevokeIntent) { i.Serial = cctest.Serial(t, siblingCert) }), bad, "intent.serial", "the certificate's"},
		{"serial with a leading zero", base(func(i *wire.RevokeIntent) { i.Serial = append(wire.Serial{0}, i.Serial...) }), bad, "intent.serial", "the certificate's"},
		{"another CA", base(func(i *wire.RevokeIntent) { i.CAID = other.ID }), bad, "cert.issuer", "octet by octet"},
		{"no such CA", base(func(i *wire.RevokeIntent) { i.CAID = unregistered.ID }), wire.NotFound, "intent.ca_id", "registered"},
		{"certificate of another key under the CA's name", cctest.SignIntent(t, cctest.LeafKey(), forged, ca.Intent(t, cctest.Channel, forgedCert, 0, l.Now)), bad, "cert.signature", "verify"},
		{"hold", base(func(i *wire.RevokeIntent) { i.Reason = wire.CertificateHold }), bad, "intent.reason", "hold"},
		{"removeFromCRL", base(func(i *wire.RevokeIntent) { i.Reason = 8 }), bad, "intent.reason", "5.3.1"},
		{"invalid in the future", base(func(i *wire.RevokeIntent) { i.Invalidity = now + 1 }), bad, "intent.invalidity", "transaction's time"},
		{"invalid before 1970", base(func(i *wire.RevokeIntent) { i.Invalidity = -1 }), bad, "intent.invalidity", "1970"},
		{"expired", base(func(i *wire.RevokeIntent) { i.Expires = now - 1 }), bad, "intent.expires", "24 hours"},
		{"lasting too long", base(func(i *wire.RevokeIntent) { i.Expires = now + 24*3600*1000 + 1 }), bad, "intent.expires", "24 hours"},
		{"no nonce", base(func(i *wire.RevokeIntent) { i.Nonce = nil }), bad, "intent.nonce", "16 octets"},
		{"long nonce", base(func(i *wire.RevokeIntent) { i.Nonce = make([]byte, 17) }), bad, "intent.nonce", "16 octets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, l, op2, wire.FnRevoke, c.arg, c.code, c.field, c.word)
		})
	}
	for _, expires := range []wire.Millis{now, now + 24*3600*1000} {
		if _, refusal := l.Endorse(t, op2, wire.FnRevoke, base(func(i *wire.RevokeIntent) { i.Expires = expires })); refusal != nil {
			t.Errorf("expires at %d: %v", expires, refusal)
		}
	}
}

// One intent submitted by two bridges in one block revokes once.
func TestAnIntentSubmittedTwiceRevokesOnce(t *testing.T) {
	l, ca := withCA(t)
	der, _ := ca.Issue(t)
	arg := ca.RevokeArg(t, cctest.Channel, der, wire.Superseded, l.Now)
	a, _ := l.Endorse(t, op1, wire.FnRevoke, arg)
	l.Now = l.Now.Add(time.Second)
	b, _ := l.Endorse(t, op2, wire.FnRevoke, arg)
	if got := l.Commit(t, a, b); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("validity in one block: %v", got)
	}
	unchanged(t, l, op2, wire.FnRevoke, arg)
}
