package ca

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maySupersede counts a supersession like a revocation under dual control, unless it is a renewal. It requires a request that is going to be journalled: cert is its
// certificate, or precertificate, which nobody has yet. Errors: *wire.Error for one too many.
func (s *Server) maySupersede(r Request, cert []byte) error {
	p := s.dual.policy.Load()
	if r.Supersedes == nil || p == nil {
		return nil
	}
	renewal, err := s.renews(r, cert)
	if err != nil || renewal {
		return err
	}
	free, err := s.dual.store.Take(p, 1)
	if err == nil && !free {
		err = wire.Errorf(wire.PermissionDenied, "supersedes", r.Supersedes.String(),
			"counts as a revocation, since it is not a renewal for the same client with the same subject and names, and the dual-control policy's rule revoke_more_than wants "+
				"several operators for another one: renew it so, or issue without supersedes and revoke it (certanchor ca revoke)")
	}
	return err
}

// renews reports whether a certificate takes the place of the one that r supersedes in every respect: who asks, the subject, and all names, to which some may be added.
func (s *Server) renews(r Request, cert []byte) (bool, error) {
	g := s.issuerOf(r.Supersedes)
	e := g.book.findSerial(r.Supersedes)
	if e == nil || e.client.Value() != r.Client {
		return false, nil
	}
	before, err := g.released(e)
	if err != nil {
		return false, err
	}
	old, err := x509.ParseCertificate(before.DER)
	if err != nil {
		return false, err
	}
	fresh, err := x509.ParseCertificate(cert)
	if err != nil {
		return false, err
	}
	if old.Subject.String() != fresh.Subject.String() {
		return false, nil
	}
	oldNames, err := generalNames(old)
	if err != nil {
		return false, err
	}
	names, err := generalNames(fresh)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(oldNames, func(n string) bool { return !slices.Contains(names, n) }), nil
}

// generalNames are the subject alternative names of every type, each in DER (RFC 5280 section 4.2.1.6).
func generalNames(cert *x509.Certificate) (names []string, err error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		var all []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &all); err != nil {
			return nil, err
		}
		for _, n := range all {
			names = append(names, string(n.FullBytes))
		}
	}
	return names, nil
}
