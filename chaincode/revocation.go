package chaincode

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maxIntentLife bounds how long a signed intent that nobody has submitted lies about.
const maxIntentLife = wire.Millis(24 * time.Hour / time.Millisecond)

// revokeByHolder revokes a certificate by the signature of its own key, whoever submits it. It reads nothing that the CA's
// operator writes, the certificate's record included, so the operator cannot be in its way (docs/decisions/0007-status-by-others.md).
// The certificate itself, signed by a CA on the trust list, keeps out revocations of what does not exist.
func revokeByHolder(t *transaction, arg []byte) ([]byte, error) {
	var a wire.RevokeArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	cert, err := parseCertificate("cert", a.Cert)
	if err != nil {
		return nil, err
	}
	intent, err := t.checkIntent(a.Intent, cert)
	if err != nil {
		return nil, err
	}
	holder := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	key := wire.RevokeKey(intent.CAID, intent.Serial, wire.HolderSource(holder))
	values, err := t.admit(anyRole, wire.CAKey(intent.CAID), key)
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, wire.Errorf(wire.NotFound, "intent.ca_id", intent.CAID.String(), "must be a registered CA")
	}
	ca, err := decodeCA(intent.CAID, values[0])
	if err != nil {
		return nil, err
	}
	issuers, err := parseIssuers(intent.CAID, ca)
	if err != nil {
		return nil, err
	}
	if err := checkIssuedByAny("cert", cert, issuers); err != nil {
		return nil, err
	}
	if err := checkHolder(cert, &a); err != nil {
		return nil, err
	}
	r, changed, err := t.addRevocation(key, values[1], intent.CAID, intent.Serial, &wire.Revocation{
		Source: wire.SourceHolder, SPKIHash: holder[:], Reason: intent.Reason, Invalidity: intent.Invalidity,
	})
	if err != nil {
		return nil, err
	}
	return wire.Encode(&wire.RevokeResult{V: wire.Version, Reason: r.Reason, Time: r.Time, Change: r.Change, Changed: changed}), nil
}

// checkIntent reads an intent and says whether it is about cert, on this ledger, now.
func (t *transaction) checkIntent(encoded []byte, cert *x509.Certificate) (*wire.RevokeIntent, error) {
	var intent wire.RevokeIntent
	if err := wire.Decode(encoded, &intent); err != nil {
		return nil, invalid("intent", fmt.Sprintf("%d bytes", len(encoded)), "%v", err)
	}
	if intent.Channel != t.channel {
		return nil, invalid("intent.channel", intent.Channel, "must be this ledger's, %q", t.channel)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, invalid("cert.serial", cert.SerialNumber.Text(16), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	if string(intent.Serial) != string(serial) {
		return nil, invalid("intent.serial", intent.Serial.String(), "must be the certificate's, %s", serial)
	}
	if err := checkRevocation("intent.", intent.Reason, intent.Invalidity, t.now); err != nil {
		return nil, err
	}
	if intent.Expires < t.now || intent.Expires > t.now+maxIntentLife {
		return nil, invalid("intent.expires", fmt.Sprintf("%d ms", intent.Expires), "must be from the transaction's time, %d ms, to 24 hours later", t.now)
	}
	if len(intent.Nonce) != wire.NonceBytes {
		return nil, invalid("intent.nonce", hex.EncodeToString(intent.Nonce), "must be %d octets", wire.NonceBytes)
	}
	return &intent, nil
}

// checkIssuedByAny accepts cert if one of the CA's certificates signed it, expired or not: a revocation is never too late.
func checkIssuedByAny(field string, cert *x509.Certificate, issuers []*x509.Certificate) error {
	var first error
	for _, issuer := range issuers {
		err := checkIssuedBy(field, cert, issuer)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// checkHolder verifies the intent's signature with the certificate's key. The certificate must be known to be the CA's.
func checkHolder(cert *x509.Certificate, a *wire.RevokeArg) error {
	algorithm := x509.UnknownSignatureAlgorithm
	name := cert.PublicKeyAlgorithm.String()
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		name = "ECDSA " + key.Curve.Params().Name
		switch key.Curve {
		case elliptic.P256():
			algorithm = x509.ECDSAWithSHA256
		case elliptic.P384():
			algorithm = x509.ECDSAWithSHA384
		case elliptic.P521():
			algorithm = x509.ECDSAWithSHA512
		}
	case *rsa.PublicKey:
		name = fmt.Sprintf("RSA %d", key.N.BitLen())
		if key.N.BitLen() <= 8192 { // the time that a verification takes grows with the cube of it
			algorithm = x509.SHA256WithRSA
		}
	case ed25519.PublicKey:
		algorithm = x509.PureEd25519
	}
	if algorithm == x509.UnknownSignatureAlgorithm {
		return invalid("cert.public_key", name, "must be ECDSA P-256, P-384 or P-521, RSA of at most 8192 bits, or Ed25519 to sign a revocation; the CA or a majority can revoke without it")
	}
	if err := cert.CheckSignature(algorithm, wire.IntentBytes(a.Intent), a.Signature); err != nil {
		return wire.Errorf(wire.PermissionDenied, "signature", hexPrefix(a.Signature), "must be the certificate's key's over the intent, %s: %v", algorithm, err)
	}
	return nil
}

// addRevocation makes r the revocation at key, whose value was read, and returns what stands there then. The first one of a source
// stays; its reason may become keyCompromise (invariant 4, docs/invariants.md).
func (t *transaction) addRevocation(key string, value []byte, id wire.CAID, serial wire.Serial, r *wire.Revocation) (_ *wire.Revocation, changed bool, err error) {
	r.V, r.Time, r.Change = wire.Version, t.now, 1
	if value != nil {
		var old wire.Revocation
		if err := wire.Decode(value, &old); err != nil {
			return nil, false, corrupt(key, err)
		}
		if r.Reason != wire.KeyCompromise || old.Reason == wire.KeyCompromise {
			return &old, false, nil
		}
		r.Time, r.Change = old.Time, old.Change+1
		if r.Invalidity == 0 {
			r.Invalidity = old.Invalidity
		}
	}
	t.put(key, wire.Encode(r))
	t.putLeaf(&wire.StatusLeaf{
		V: wire.Version, Kind: wire.LeafRevocation, CAID: id, Serial: serial, Change: r.Change, State: uint(wire.CertRevoked),
		Reason: r.Reason, Time: r.Time, Invalidity: r.Invalidity, Source: r.Source, SPKIHash: r.SPKIHash,
	})
	return r, true, nil
}
