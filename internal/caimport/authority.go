package caimport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

// Authority is the CA whose certificates are imported, as the ledger's trust list has it.
type Authority struct {
	ID         wire.CAID
	Certs      []*x509.Certificate // all with the CA's key
	Registered wire.Millis
	Suspended  bool
	above      [][]byte // DER of its chain: often in the same files, and never imported
}

// FindAuthority reads the trust list. Errors: a *wire.Error when the CA is not registered, or operated by another organisation than ledger's;
// of the ledger.
func FindAuthority(ctx context.Context, ledger network.Ledger, id wire.CAID) (*Authority, error) {
	values, err := ReadKeys(ctx, ledger, []string{wire.CAKey(id)})
	if err != nil {
		return nil, err
	}
	if values[0] == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a CA on the trust list: register it first (certanchor ca register)")
	}
	var rec wire.CARecord
	if err := wire.Decode(values[0], &rec); err != nil {
		return nil, err
	}
	if rec.OperatingMSP != ledger.MSPID() {
		return nil, wire.Errorf(wire.PermissionDenied, "ledger.msp_id", ledger.MSPID(), "must be the organisation that operates the CA, %s", rec.OperatingMSP)
	}
	a := &Authority{ID: id, Registered: rec.Registered, Suspended: rec.State == wire.CASuspended, above: rec.Chain}
	for _, der := range rec.Certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("trust list entry of CA %s: %w", id, err)
		}
		a.Certs = append(a.Certs, cert)
	}
	return a, nil
}

// ReadKeys returns the values of at most MaxBatch keys, nil for each that is absent.
func ReadKeys(ctx context.Context, ledger network.Ledger, keys []string) ([][]byte, error) {
	answer, err := ledger.Evaluate(ctx, wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: keys}))
	if err != nil {
		return nil, err
	}
	var r wire.ReadResult
	if err := wire.Decode(answer, &r); err != nil {
		return nil, err
	}
	if len(r.Values) != len(keys) {
		return nil, fmt.Errorf("%d values for %d keys", len(r.Values), len(keys))
	}
	return r.Values, nil
}

// checked is what checking a Record's certificate showed.
type checked struct {
	digest [sha256.Size]byte
	serial wire.Serial
	bad    *Bad
	skip   string // not to be imported, and why; "": to be imported
}

// Kinds of certificates that are passed by.
const (
	skipOwn    = "certificate of the CA itself or of its chain"
	skipPoison = "precertificate"
)

// check looks at a certificate, and with verify at its signature too, which costs more than all the rest. Names, validity and extensions are
// for the contract to judge.
func (a *Authority) check(w Where, der []byte, verify bool) (c checked) {
	c.digest = sha256.Sum256(der)
	if len(der) == 0 || len(der) > wire.MaxCertDER {
		c.bad = bad(w, "certificate", fmt.Sprintf("%d octets", len(der)), "must have 1 to %d octets", wire.MaxCertDER)
		return c
	}
	if a.isOwn(der) {
		c.skip = skipOwn
		return c
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.bad = bad(w, "certificate", fmt.Sprintf("%d octets", len(der)), "must be an X.509 certificate in DER (RFC 5280 section 4.1): %v", err)
		return c
	}
	if c.serial, err = wire.SerialOf(cert.SerialNumber); err != nil {
		c.bad = bad(w, "serial", serialText(cert.SerialNumber), "must be positive and at most 20 octets (RFC 5280 section 4.1.2.2)")
		return c
	}
	if b := a.issued(w, cert, verify); b != nil {
		c.bad = b
		return c
	}
	if isPrecert(cert) {
		c.skip = skipPoison
	}
	return c
}

func serialText(n *big.Int) string {
	if n == nil {
		return "none"
	}
	return n.Text(16)
}

// issued says whether the CA's name and key are on the certificate.
func (a *Authority) issued(w Where, cert *x509.Certificate, verify bool) *Bad {
	b := bad(w, "certificate.issuer", cert.Issuer.String(), "must be the CA, %q", a.Certs[0].Subject.String())
	for _, issuer := range a.Certs {
		if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
			continue
		}
		if !verify {
			return nil
		}
		err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
		if err == nil {
			return nil
		}
		b = bad(w, "certificate.signature", cert.Subject.String(), "must be of the CA's key, %s: %v", a.ID, err)
	}
	return b
}

func (a *Authority) isOwn(der []byte) bool {
	for _, c := range a.Certs {
		if bytes.Equal(c.Raw, der) {
			return true
		}
	}
	for _, c := range a.above {
		if bytes.Equal(c, der) {
			return true
		}
	}
	return false
}

func isPrecert(cert *x509.Certificate) bool {
	for _, e := range cert.Extensions {
		if e.Id.Equal(ctleaf.OIDPoison) {
			return true
		}
	}
	return false
}
