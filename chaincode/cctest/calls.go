package cctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// Poison is the critical extension that makes a precertificate (RFC 6962 section 3.1).
func Poison() pkix.Extension {
	return pkix.Extension{Id: ctleaf.OIDPoison, Critical: true, Value: []byte{5, 0}}
}

// Precert signs a precertificate for a server with a new serial number. final signs its certificate: with an SCT list whose
// extnValue is sctList, or without one if that is nil. Each call of final makes another signature, so another certificate.
func (ca *CA) Precert(t TB, tweaks ...func(*x509.Certificate)) (der []byte, cert *x509.Certificate, final func(sctList []byte) ([]byte, *x509.Certificate)) {
	t.Helper()
	var template x509.Certificate
	der, cert = ca.Issue(t, append(tweaks, func(c *x509.Certificate) {
		template = *c
		c.ExtraExtensions = append(c.ExtraExtensions[:len(c.ExtraExtensions):len(c.ExtraExtensions)], Poison())
	})...)
	return der, cert, func(sctList []byte) ([]byte, *x509.Certificate) {
		t.Helper()
		return ca.Issue(t, func(c *x509.Certificate) {
			*c = template
			if sctList != nil {
				c.ExtraExtensions = append(c.ExtraExtensions[:len(c.ExtraExtensions):len(c.ExtraExtensions)], pkix.Extension{Id: ctleaf.OIDSCTList, Value: sctList})
			}
		})
	}
}

// SCTList is an extnValue for Precert's final: an OCTET STRING with a list of one SCT that no log has signed.
func SCTList() []byte { return []byte{4, 7, 0, 5, 0, 3, 1, 2, 3} }

// Intent is what the holder of a certificate of ca signs to revoke it on channel until an hour after now.
func (ca *CA) Intent(t TB, channel string, cert *x509.Certificate, reason wire.Reason, now time.Time) *wire.RevokeIntent {
	t.Helper()
	nonce := make([]byte, wire.NonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return &wire.RevokeIntent{
		V: wire.Version, Channel: channel, CAID: ca.ID, Serial: Serial(t, cert), Reason: reason,
		Expires: wire.MillisOf(now.Add(time.Hour)), Nonce: nonce,
	}
}

// RevokeArg is the encoded argument by which the holder of LeafKey revokes der, a certificate or precertificate of ca.
func (ca *CA) RevokeArg(t TB, channel string, der []byte, reason wire.Reason, now time.Time) []byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return SignIntent(t, LeafKey(), der, ca.Intent(t, channel, cert, reason, now))
}

// SignIntent is the encoded argument of Revoke with intent, signed by key, for the certificate der.
func SignIntent(t TB, key crypto.Signer, der []byte, intent *wire.RevokeIntent) []byte {
	t.Helper()
	encoded := wire.Encode(intent)
	signature, err := signAs(key, wire.IntentBytes(encoded))
	if err != nil {
		t.Fatal(err)
	}
	return wire.Encode(&wire.RevokeArg{V: wire.Version, Cert: der, Intent: encoded, Signature: signature})
}

// signAs signs as wire.RevokeArg says for the kind of key.
func signAs(key crypto.Signer, message []byte) ([]byte, error) {
	hash := crypto.SHA256
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	case *ecdsa.PublicKey:
		switch size := k.Curve.Params().BitSize; {
		case size > 384:
			hash = crypto.SHA512
		case size > 256:
			hash = crypto.SHA384
		}
	case *rsa.PublicKey:
	}
	h := hash.New()
	h.Write(message)
	return key.Sign(rand.Reader, h.Sum(nil), hash)
}

// ImportArg is the encoded argument of Import with certs, the certificates of the items that have one.
func (ca *CA) ImportArg(items []wire.ImportItem, certs ...[]byte) []byte {
	return wire.Encode(wire.NewImportArg(ca.ID, items, certs))
}

// SuspendArg and ResumeArg are encoded arguments of Decide. change is the CA record's change number.
func (ca *CA) SuspendArg(change uint64) []byte {
	return DecideArg(wire.DecideArg{Kind: wire.DecideSuspend, CAID: ca.ID, Change: change})
}

// ResumeArg: see SuspendArg.
func (ca *CA) ResumeArg(change uint64) []byte {
	return DecideArg(wire.DecideArg{Kind: wire.DecideResume, CAID: ca.ID, Change: change})
}

// RuleArg is the encoded argument of Decide that revokes what ca logged at or after from and before to.
func (ca *CA) RuleArg(change uint64, from, to wire.Millis, reason wire.Reason) []byte {
	return DecideArg(wire.DecideArg{Kind: wire.DecideRule, CAID: ca.ID, Change: change, Reason: reason, From: from, To: to})
}

// QuorumArg is the encoded argument of Decide that revokes one certificate of ca.
func (ca *CA) QuorumArg(serial wire.Serial, reason wire.Reason) []byte {
	return DecideArg(wire.DecideArg{Kind: wire.DecideRevoke, CAID: ca.ID, Serial: serial, Reason: reason})
}

// DecideArg is the encoded argument of Decide.
func DecideArg(a wire.DecideArg) []byte {
	a.V = wire.Version
	return wire.Encode(&a)
}

// IntegrateArg is the encoded argument of Integrate.
func IntegrateArg(size uint64, leaves ...[]byte) []byte {
	return wire.Encode(&wire.IntegrateArg{V: wire.Version, Size: size, Leaves: leaves})
}

// Decide has a majority of administrators decide.
func (l *Ledger) Decide(t TB, arg []byte) {
	t.Helper()
	for _, msp := range l.Config.MSPs[:len(l.Config.MSPs)/2+1] {
		l.Must(t, Admin(msp), wire.FnDecide, arg)
	}
}

// Pending returns the leaf hashes of the changes that the status log does not have yet, sorted.
func (l *Ledger) Pending(t TB) [][]byte {
	t.Helper()
	var leaves [][]byte
	for _, key := range l.Store.Keys() {
		hash, pending := strings.CutPrefix(key, wire.PendingPrefix)
		if !pending {
			continue
		}
		leaf, err := hex.DecodeString(hash)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	return leaves
}

// StatusSize is the size of the status log.
func (l *Ledger) StatusSize(t TB) uint64 {
	t.Helper()
	raw := l.Store.Value(wire.StatusHeadKey)
	if raw == nil {
		return 0
	}
	var head wire.StatusHead
	Decode(t, raw, &head)
	return head.Size
}

// Integrate has an operator of msp move all that is pending, at most a batch, into the status log.
func (l *Ledger) Integrate(t TB, msp string) {
	t.Helper()
	leaves := l.Pending(t)
	if len(leaves) == 0 {
		return
	}
	l.Must(t, Operator(msp), wire.FnIntegrate, IntegrateArg(l.StatusSize(t), leaves[:min(len(leaves), wire.MaxBatch)]...))
}
