package chaincode_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// stage is a ledger with a CA, two certificates and an open proposal. Its octets are the same in every process, so that the
// committed inputs stay valid.
type stage struct {
	*cctest.Ledger
	ca       *cctest.CA
	recorded []byte
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
	s.seeds = map[string][][]byte{
		wire.FnInit:       {s.InitArg(), initArg(1, "Org1MSP")},
		wire.FnRegisterCA: {s.ca.RegisterArg("Org1MSP"), below.RegisterArg("Org2MSP"), registration("Org1MSP", below.DER)},
		wire.FnIssue: {
			s.ca.IssueArg(s.recorded), s.ca.IssueArg(leaf(5), s.recorded), s.ca.IssueArg(leaf(6, cctest.Responder(cctest.T0, time.Hour))),
			s.ca.IssueArg(leaf(7, cctest.Responder(cctest.T0, 72*time.Hour))), s.ca.IssueArg(),
		},
		wire.FnSetStatus: {
			s.ca.StatusArg(wire.StatusChange{Serial: one, Op: wire.OpRevoke, Reason: wire.KeyCompromise, Invalidity: 1}),
			s.ca.StatusArg(wire.StatusChange{Serial: one, Op: wire.OpHold, Reason: wire.CertificateHold}, wire.StatusChange{Serial: wire.Serial{9}}),
		},
		wire.FnTick: {cctest.TickArg()},
		wire.FnRead: {cctest.ReadArg(wire.ConsortiumKey, "x"), cctest.ReadArg("")},
	}
	return s
}

var fuzzFunctions = []string{wire.FnInit, wire.FnRegisterCA, wire.FnIssue, wire.FnSetStatus, wire.FnTick, wire.FnRead, "", "other"}

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
		for _, der := range a.Certs {
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
			{admin1, wire.FnRegisterCA, registration("Org1MSP", der)},
			{admin1, wire.FnRegisterCA, registration("Org1MSP", der, other)},
			{admin1, wire.FnRegisterCA, registration("Org1MSP", s.ca.DER, der)},
		} {
			e, refusal := s.Endorse(t, r.by, r.function, r.arg)
			if refusal != nil && refusal.Code == wire.Internal {
				t.Fatalf("%s: %v", r.function, refusal)
			}
			if refusal == nil && r.function == wire.FnIssue && len(e.Writes) > 0 {
				s.mustBeCertificate(t, der)
			}
		}
	})
}

// mustBeCertificate: what Issue accepted, crypto/x509 verifies.
func (s *stage) mustBeCertificate(t *testing.T, der []byte) {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("Issue accepted %x: %v", der, err)
	}
	if err := cert.CheckSignatureFrom(s.ca.Cert); err != nil {
		t.Fatalf("Issue accepted %x: %v", der, err)
	}
}
