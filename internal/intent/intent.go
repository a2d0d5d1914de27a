// Package intent is how the holder of a certificate's key revokes it without its CA: what is signed with that key (wire.RevokeIntent), the
// file and the HTTP request that carry it, and the handler by which any organisation's bridge hands it to the ledger.
package intent

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const (
	// MaxLifetime is how long the contract lets an intent be valid, by its own clock.
	MaxLifetime = 24 * time.Hour

	// DefaultLifetime leaves the signer's clock an hour to be ahead of the ledger's.
	DefaultLifetime = MaxLifetime - time.Hour

	maxRSABits = 8192 // the contract's
)

// Terms are what the holder of a key wants.
type Terms struct {
	Channel    string        // the ledger's name; the intent is good on no other
	Reason     wire.Reason   // any but CertificateHold
	Invalidity time.Time     // since when the key is suspect (RFC 5280 section 5.3.2), not after Now; zero: not given
	Now        time.Time     // the signer's clock
	Lifetime   time.Duration // until it expires; 0: DefaultLifetime; at most MaxLifetime
}

func (t *Terms) check() error {
	if t.Channel == "" {
		return invalid("channel", "", "must be the ledger's name")
	}
	if !t.Reason.Known() || t.Reason == wire.CertificateHold {
		return invalid("reason", t.Reason.String(), "must be a reason of RFC 5280 section 5.3.1 to revoke for good: a key's holder cannot put its certificate on hold")
	}
	if !t.Invalidity.IsZero() && (t.Invalidity.After(t.Now) || wire.MillisOf(t.Invalidity) <= 0) {
		return invalid("invalidity", t.Invalidity.UTC().Format(time.RFC3339), "must be after 1970 and not in the future")
	}
	if t.Lifetime < 0 || t.Lifetime > MaxLifetime {
		return invalid("lifetime", t.Lifetime.String(), "must be at most %v: an intent is signed when it is needed, not kept for later", MaxLifetime)
	}
	return nil
}

// Sign makes an intent to revoke cert, which issuer has signed and whose key is key, and returns the argument of Revoke that carries it. Each call
// makes another one. Errors: *wire.Error for what the contract would refuse, or key's own.
func Sign(key crypto.Signer, cert, issuer *x509.Certificate, t Terms) (*wire.RevokeArg, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	if t.Lifetime == 0 {
		t.Lifetime = DefaultLifetime
	}
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return nil, invalid("issuer", issuer.Subject.String(), "must be the certificate's issuer, %q", cert.Issuer.String())
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return nil, invalid("issuer", issuer.Subject.String(), "must have signed the certificate: %v", err)
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, invalid("key", fmt.Sprintf("%T", key.Public()), "must be the private key of the certificate")
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, wire.NonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	intent := &wire.RevokeIntent{
		V: wire.Version, Channel: t.Channel, CAID: wire.CAIDOf(issuer.RawSubjectPublicKeyInfo), Serial: serial, Reason: t.Reason,
		Expires: wire.MillisOf(t.Now.Add(t.Lifetime)), Nonce: nonce,
	}
	if !t.Invalidity.IsZero() {
		intent.Invalidity = wire.MillisOf(t.Invalidity)
	}
	arg := &wire.RevokeArg{V: wire.Version, Cert: cert.Raw, Intent: wire.Encode(intent)}
	if arg.Signature, err = sign(key, cert, wire.IntentBytes(arg.Intent)); err != nil {
		return nil, err
	}
	_, _, err = Check(arg) // a token may have signed with another key than it showed
	return arg, err
}

func sign(key crypto.Signer, cert *x509.Certificate, message []byte) ([]byte, error) {
	_, hash, err := algorithm(cert)
	if err != nil {
		return nil, err
	}
	digest := message
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the intent: %w", err)
	}
	return signature, nil
}

// algorithm is the one that the contract wants for cert's key (wire.RevokeArg). The hash of Ed25519 is 0: it signs the message itself.
func algorithm(cert *x509.Certificate) (x509.SignatureAlgorithm, crypto.Hash, error) {
	name := cert.PublicKeyAlgorithm.String()
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		name = "ECDSA " + key.Curve.Params().Name
		switch key.Curve {
		case elliptic.P256():
			return x509.ECDSAWithSHA256, crypto.SHA256, nil
		case elliptic.P384():
			return x509.ECDSAWithSHA384, crypto.SHA384, nil
		case elliptic.P521():
			return x509.ECDSAWithSHA512, crypto.SHA512, nil
		}
	case *rsa.PublicKey:
		name = fmt.Sprintf("RSA %d", key.N.BitLen())
		if key.N.BitLen() <= maxRSABits {
			return x509.SHA256WithRSA, crypto.SHA256, nil
		}
	case ed25519.PublicKey:
		return x509.PureEd25519, 0, nil
	}
	return 0, 0, invalid("cert.public_key", name, "must be ECDSA P-256, P-384 or P-521, RSA of at most %d bits, or Ed25519 to sign a revocation; the CA or a majority can revoke without it", maxRSABits)
}

// Check reads what arg carries and verifies what depends on neither the ledger's state nor its clock: that the intent is about the certificate
// and signed with its key. Whether a CA on the trust list has issued the certificate is the contract's to say. Errors: *wire.Error.
func Check(arg *wire.RevokeArg) (*wire.RevokeIntent, *x509.Certificate, error) {
	if n := len(arg.Cert); n == 0 || n > wire.MaxCertDER {
		return nil, nil, invalid("cert", fmt.Sprintf("%d bytes", n), "must be 1 to %d bytes of DER", wire.MaxCertDER)
	}
	cert, err := x509.ParseCertificate(arg.Cert)
	if err != nil {
		return nil, nil, invalid("cert", fmt.Sprintf("%d bytes", len(arg.Cert)), "must be a DER X.509 certificate: %v", err)
	}
	intent := new(wire.RevokeIntent)
	if err := wire.Decode(arg.Intent, intent); err != nil {
		return nil, nil, invalid("intent", fmt.Sprintf("%d bytes", len(arg.Intent)), "%v", err)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(intent.Serial, serial) {
		return nil, nil, invalid("intent.serial", intent.Serial.String(), "must be the certificate's, %s", serial)
	}
	alg, _, err := algorithm(cert)
	if err != nil {
		return nil, nil, err
	}
	if err := cert.CheckSignature(alg, wire.IntentBytes(arg.Intent), arg.Signature); err != nil {
		return nil, nil, wire.Errorf(wire.PermissionDenied, "signature", hex.EncodeToString(arg.Signature[:min(len(arg.Signature), 16)]),
			"must be the certificate's key's over the intent, %s: %v", alg, err)
	}
	return intent, cert, nil
}

func invalid(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}
