package ctapi

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// anchors are the certificates of a trust list entry, parsed once: nearly every chain consists of a leaf and of them.
type anchors struct {
	certs map[string]*x509.Certificate  // by DER
	links map[[2]*x509.Certificate]bool // child and issuer: verified

	record [][]byte // all DER, the CA's own certificates before the chain
	own    int      // how many are the CA's own
	chain  [][]byte // the certificate the CA was registered with, and what leads to its root
	roots  [][]byte // what chains may end in: roots, then the CA's own certificates
}

// trusted returns the anchors of the trust list entry as it is now.
func (l *Log) trusted() (*anchors, error) {
	ca, err := l.ca()
	if err != nil {
		return nil, fmt.Errorf("trust list entry of %s: %w", l.caID, err)
	}
	if ca == nil || len(ca.Certs) == 0 {
		return nil, wire.Errorf(wire.NotFound, "ca_id", l.caID.String(), "must be a registered CA")
	}
	record := slices.Concat(ca.Certs, ca.Chain)
	l.mu.Lock()
	known := l.anchors
	l.mu.Unlock()
	if known != nil && known.own == len(ca.Certs) && slices.EqualFunc(known.record, record, bytes.Equal) {
		return known, nil
	}
	if known, err = newAnchors(l.caID, record, len(ca.Certs)); err != nil {
		return nil, fmt.Errorf("trust list entry of %s: %w", l.caID, err)
	}
	l.mu.Lock()
	l.anchors = known
	l.mu.Unlock()
	return known, nil
}

func newAnchors(id wire.CAID, record [][]byte, own int) (*anchors, error) {
	a := &anchors{
		certs: map[string]*x509.Certificate{}, links: map[[2]*x509.Certificate]bool{},
		record: record, own: own, chain: append([][]byte{record[0]}, record[own:]...),
	}
	for i, der := range record {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if i < own && wire.CAIDOf(cert.RawSubjectPublicKeyInfo) != id {
			return nil, errors.New("it has a certificate of another key")
		}
		a.certs[string(der)] = cert
	}
	for _, child := range a.certs {
		for _, issuer := range a.certs {
			a.links[[2]*x509.Certificate{child, issuer}] = bytes.Equal(child.RawIssuer, issuer.RawSubject) && child.CheckSignatureFrom(issuer) == nil
		}
	}
	// get-roots lists the self-signed ones first, which is what clients look for. The CA itself is a root too: the consortium
	// decided about it.
	var others [][]byte
	for i, der := range record {
		c := a.certs[string(der)]
		if a.links[[2]*x509.Certificate{c, c}] {
			a.roots = append(a.roots, der)
		} else if i < own {
			others = append(others, der)
		}
	}
	a.roots = append(a.roots, others...)
	return a, nil
}

// isRoot reports whether a chain may end in cert.
func (a *anchors) isRoot(cert *x509.Certificate) bool {
	return slices.ContainsFunc(a.roots, func(r []byte) bool { return bytes.Equal(r, cert.Raw) })
}
