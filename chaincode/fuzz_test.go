package chaincode_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// stage is a ledger with a CA, two certificates and an open proposal. Its octets are the same in every process, so that the
// committed inputs stay valid.
type stage struct {
	*cctest.Ledger
	ca       *cctest.CA
	recorded []byte
	held     []byte // a certificate of holder's key
	holder   ed25519.PrivateKey
	seeds    map[string][][]byte // arguments by function, good ones and nearly good ones
}

func fixed(serial int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		n := big.NewInt(serial)
		c.SerialNumber, c.Subject = n, pkix.Name{CommonName: "fuzz " + n.String()}
		c.DNSNames = []string{"fuzz.example"}
	}
}

func newStage(t testing.TB) *stage {
	t.Helper()
	keyOf := func(b byte) ed25519.PrivateKey {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = b
		return ed25519.NewKeyFromSeed(seed)
	}
	s := &stage{Ledger: founded(t), ca: cctest.NewCA(t, cctest.WithKey(keyOf(1)), cctest.WithTemplate(fixed(1)))}
	s.Register(t, s.ca, "Org1MSP")
	leaf := func(serial int64, tweaks ...func(*x509.Certificate)) []byte {
		der, _ := s.ca.Issue(t, append([]func(*x509.Certificate){fixed(serial)}, tweaks...)...)
		return der
	}
	s.recorded = leaf(2)
	s.Must(t, op1, wire.FnIssue, s.ca.IssueArg(s.recorded, leaf(3)))
	below := cctest.NewCA(t, cctest.WithKey(keyOf(2)), cctest.WithParent(s.ca), cctest.WithTemplate(fixed(4)))
	s.Must(t, admin2, wire.FnRegisterCA, below.RegisterArg("Org2MSP"))
	one := wire.Serial{2}
	s.holder = keyOf(3)
	_, template := s.ca.Issue(t, fixed(8))
	var err error
	if s.held, err = x509.CreateCertificate(nil, template, s.ca.Cert, s.holder.Public(), s.ca.Key); err != nil {
		t.Fatal(err)
	}
	intent := s.ca.Intent(t, cctest.Channel, template, wire.KeyCompromise, s.Now)
	intent.Nonce = make([]byte, wire.NonceBytes)
	pre, _, final := s.ca.Precert(t, fixed(9))
	s.Must(t, op1, wire.FnIssue, s.ca.IssueArg(pre))
	promised, _ := final(cctest.SCTList())
	s.Must(t, admin1, wire.FnDecide, s.ca.QuorumArg(one, wire.Superseded))
	s.Must(t, admin3, wire.FnDecide, s.ca.QuorumArg(one, wire.Superseded))
	operators := cctest.NewOperatorsLog(0, "x", 5)
	s.Must(t, op1, wire.FnAnchorOperators, operators.AnchorArg(t, s.ca, 0, 3))
	s.seeds = map[string][][]byte{
		wire.FnInit:       {s.InitArg(), initArg(1, "Org1MSP")},
		wire.FnRegisterCA: {s.ca.RegisterArg("Org1MSP"), below.RegisterArg("Org2MSP"), registration("Org1MSP", below.DER)},
		wire.FnIssue: {
			s.ca.IssueArg(s.recorded), s.ca.IssueArg(leaf(5), s.recorded), s.ca.IssueArg(leaf(6, cctest.Responder(cctest.T0, time.Hour))),
			s.ca.IssueArg(leaf(7, cctest.Responder(cctest.T0, 72*time.Hour))), s.ca.IssueArg(),
			s.ca.IssueArg(pre), s.ca.IssueArg(promised), s.ca.IssueArg(promised, pre),
			s.ca.IssueArg(resign(t, s.ca.Key, leaf(10), junkAfterExtensions(t))),
		},
		wire.FnImport: {
			s.ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertValid}, {Serial: one, State: wire.CertRevoked, Reason: wire.KeyCompromise, Revoked: 1e12, Invalidity: 1}}, leaf(11)),
			s.ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: 1000}, {HasCert: true, State: wire.CertRevoked, Revoked: 1e12}}, s.recorded, promised),
			s.ca.ImportArg([]wire.ImportItem{{Serial: wire.Serial{12}, State: wire.CertHeld, Reason: wire.CertificateHold, Revoked: 1e12, NotAfter: 1e12}, {Serial: wire.Serial{13}, State: wire.CertValid}}),
			s.ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertValid}}), s.ca.ImportArg(nil),
		},
		wire.FnSetStatus: {
			s.ca.StatusArg(wire.StatusChange{Serial: one, Op: wire.OpRevoke, Reason: wire.KeyCompromise, Invalidity: 1}),
			s.ca.StatusArg(wire.StatusChange{Serial: one, Op: wire.OpHold, Reason: wire.CertificateHold}, wire.StatusChange{Serial: wire.Serial{9}}),
		},
		wire.FnRevoke: {cctest.SignIntent(t, s.holder, s.held, intent), cctest.SignIntent(t, s.holder, s.recorded, intent)},
		wire.FnDecide: {
			s.ca.SuspendArg(1), s.ca.ResumeArg(1), s.ca.RuleArg(1, 1, wire.MillisOf(cctest.T0), wire.CACompromise), s.ca.QuorumArg(one, wire.Superseded),
		},
		wire.FnIntegrate: {cctest.IntegrateArg(0, s.Pending(t)...), cctest.IntegrateArg(1, make([]byte, 32))},
		wire.FnTick:      {cctest.TickArg()},
		wire.FnAnchorOperators: {
			operators.AnchorArg(t, s.ca, 3, 5), operators.AnchorArg(t, s.ca, 0, 5),
			cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: s.ca.ID, Head: cctest.NewOperatorsLog(1, "x", 2).Head(2), Lost: new(operators.Head(3))}),
			cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: s.ca.ID, Name: "bridge-2", Head: operators.Head(2)}),
			cctest.AnchorArg(wire.AnchorOperatorsArg{CAID: s.ca.ID, Name: "a/b", Head: operators.Head(2)}),
		},
		wire.FnRead: {cctest.ReadArg(wire.ConsortiumKey, "x"), cctest.ReadArg("")},
	}
	return s
}

var fuzzFunctions = []string{wire.FnInit, wire.FnRegisterCA, wire.FnIssue, wire.FnSetStatus, wire.FnTick, wire.FnRead, "", "other", wire.FnRevoke, wire.FnDecide, wire.FnIntegrate, wire.FnImport, wire.FnAnchorOperators}

var fuzzCallers = []chaincode.Caller{op1, op2, admin1, admin2, auditor4, stranger, {}}

// FuzzInvoke: whatever is submitted by whomever, the contract answers or refuses, the same on two endorsers; it does not
// panic, does not blame the state, and writes nothing when it refuses (Endorse checks the last).
func FuzzInvoke(f *testing.F) {
	s := newStage(f)
	for i, function := range fuzzFunctions {
		for by := range fuzzCallers {
			for _, arg := range s.seeds[function] {
				f.Add(uint8(i), uint8(by), int64(0), arg)
				f.Add(uint8(i), uint8(by), int64(time.Hour/time.Millisecond), arg)
			}
		}
	}
	f.Fuzz(func(t *testing.T, function, by uint8, later int64, arg []byte) {
		s.Now = time.UnixMilli(cctest.T0.UnixMilli() + later%(1<<40)).UTC()
		name := fuzzFunctions[int(function)%len(fuzzFunctions)]
		_, refusal := s.Endorse(t, fuzzCallers[int(by)%len(fuzzCallers)], name, arg)
		if refusal != nil && refusal.Code == wire.Internal {
			t.Fatalf("%s: %v", name, refusal)
		}
	})
}

// FuzzCertificates puts arbitrary octets where certificates belong, past the argument's own encoding.
func FuzzCertificates(f *testing.F) {
	s := newStage(f)
	f.Add(s.ca.DER, s.recorded)
	for _, arg := range s.seeds[wire.FnIssue] {
		var a wire.IssueArg
		if err := wire.Decode(arg, &a); err != nil {
			f.Fatal(err)
		}
		ders, err := a.Certs()
		if err != nil {
			continue
		}
		for _, der := range ders {
			f.Add(der, s.ca.DER)
		}
	}
	f.Fuzz(func(t *testing.T, der, other []byte) {
		s.Now = cctest.T0
		for _, r := range []struct {
			by       chaincode.Caller
			function string
			arg      []byte
		}{
			{op1, wire.FnIssue, s.ca.IssueArg(der)},
			{op1, wire.FnIssue, s.ca.IssueArg(other, der)},
			{op1, wire.FnImport, s.ca.ImportArg([]wire.ImportItem{{HasCert: true, State: wire.CertValid}}, der)},
			{op1, wire.FnRevoke, s.revokeArg(der)},
			{admin1, wire.FnRegisterCA, registration("Org1MSP", der)},
			{admin1, wire.FnRegisterCA, registration("Org1MSP", der, other)},
			{admin1, wire.FnRegisterCA, registration("Org1MSP", s.ca.DER, der)},
		} {
			e, refusal := s.Endorse(t, r.by, r.function, r.arg)
			if refusal != nil && refusal.Code == wire.Internal {
				t.Fatalf("%s: %v", r.function, refusal)
			}
			if refusal == nil && (r.function == wire.FnIssue || r.function == wire.FnImport || r.function == wire.FnRevoke) && len(e.Writes) > 0 {
				s.mustBeCertificate(t, der)
			}
		}
	})
}

// revokeArg revokes der, if it can be read, by a key that need not be its own.
func (s *stage) revokeArg(der []byte) []byte {
	intent := &wire.RevokeIntent{V: wire.Version, Channel: cctest.Channel, CAID: s.ca.ID, Expires: wire.MillisOf(s.Now), Nonce: make([]byte, wire.NonceBytes)}
	if cert, err := x509.ParseCertificate(der); err == nil {
		intent.Serial = cert.SerialNumber.Bytes()
	}
	encoded := wire.Encode(intent)
	return wire.Encode(&wire.RevokeArg{V: wire.Version, Cert: der, Intent: encoded, Signature: ed25519.Sign(s.holder, wire.IntentBytes(encoded))})
}

// FuzzIntent has the holder of a key sign whatever it is given: what is accepted is an intent about its certificate, here and now.
func FuzzIntent(f *testing.F) {
	s := newStage(f)
	for _, arg := range s.seeds[wire.FnRevoke] {
		f.Add(decode[wire.RevokeArg](f, arg).Intent)
	}
	f.Add(wire.Encode(&wire.RevokeIntent{V: wire.Version, Channel: "other", CAID: s.ca.ID, Serial: wire.Serial{8}, Nonce: make([]byte, wire.NonceBytes)}))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		arg := wire.Encode(&wire.RevokeArg{V: wire.Version, Cert: s.held, Intent: encoded, Signature: ed25519.Sign(s.holder, wire.IntentBytes(encoded))})
		e, refusal := s.Endorse(t, op2, wire.FnRevoke, arg)
		if refusal != nil {
			if refusal.Code == wire.Internal {
				t.Fatal(refusal)
			}
			return
		}
		var i wire.RevokeIntent
		now := wire.MillisOf(s.Now)
		if err := wire.Decode(encoded, &i); err != nil || i.Channel != cctest.Channel || i.CAID != s.ca.ID || i.Serial.String() != "08" ||
			i.Reason == wire.CertificateHold || !i.Reason.Known() || i.Invalidity > now || i.Expires < now || len(i.Nonce) != wire.NonceBytes || len(e.Writes) != 2 {
			t.Fatalf("accepted %+v, %v, and wrote %d keys", i, err, len(e.Writes))
		}
	})
}

// mustBeCertificate: what Issue, Import or Revoke accepted, crypto/x509 verifies, and those who follow the blocks can read.
func (s *stage) mustBeCertificate(t *testing.T, der []byte) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("accepted %x: %v", der, err)
	}
	if err := cert.CheckSignatureFrom(s.ca.Cert); err != nil {
		t.Fatalf("accepted %x: %v", der, err)
	}
	mustBeReadable(t, der, cert)
}

// mustBeReadable: followers rebuild leaves and records with parsers of their own (package ctleaf; fieldsOf of the bridge's index and,
// from the record, the audit). All of them would stop for good at a transaction that is valid and that they cannot read.
func mustBeReadable(t *testing.T, der []byte, cert *x509.Certificate) {
	t.Helper()
	pre, err := ctleaf.IsPrecert(der)
	if err != nil {
		t.Fatalf("accepted %x: %v", der, err)
	}
	tbsOfLeaf := ctleaf.FinalTBS
	if pre {
		tbsOfLeaf = ctleaf.PrecertTBS
	}
	if _, err := tbsOfLeaf(der); err != nil {
		t.Fatalf("accepted %x: %v", der, err)
	}
	var inner, tbs, validity, key cryptobyte.String
	var serial []byte
	var notBefore, notAfter time.Time
	input, sequence := cryptobyte.String(der), cbasn1.SEQUENCE
	read := func(at *time.Time) bool {
		if validity.PeekASN1Tag(cbasn1.UTCTime) {
			return validity.ReadASN1UTCTime(at)
		}
		return validity.ReadASN1GeneralizedTime(at)
	}
	if !input.ReadASN1(&inner, sequence) || !inner.ReadASN1(&tbs, sequence) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1Integer(&serial) ||
		!tbs.SkipASN1(sequence) || !tbs.SkipASN1(sequence) ||
		!tbs.ReadASN1(&validity, sequence) || !read(&notBefore) || !read(&notAfter) ||
		!tbs.SkipASN1(sequence) || !tbs.ReadASN1Element(&key, sequence) {
		t.Fatalf("accepted %x: fields cannot be read", der)
	}
	if want := cctest.Serial(t, cert); !bytes.Equal(serial, want) || !notAfter.Equal(cert.NotAfter) || !bytes.Equal(key, cert.RawSubjectPublicKeyInfo) {
		t.Fatalf("accepted %x: read as serial %x, notAfter %v, key %x", der, serial, notAfter, key)
	}
}
