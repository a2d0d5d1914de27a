package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cloudflare/cfssl/certinfo"
	"github.com/cloudflare/cfssl/helpers"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/pemcert"
	"github.com/certanchor/certanchor/internal/problem"
)

func (s *Server) cfsslInfo(w http.ResponseWriter, r *http.Request, _ *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	return s.infoFor(w, body)
}

func (s *Server) cfsslAuthInfo(w http.ResponseWriter, r *http.Request, _ *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	a, err := parseAuthRequest(body)
	if err != nil {
		return err
	}
	return s.infoFor(w, a.request)
}

// infoFor describes the CA and a profile; without one signing.default, as cfssl does, even when nothing can be issued with it.
func (s *Server) infoFor(w http.ResponseWriter, body []byte) error {
	q, err := parseInfoRequest(body)
	if err != nil {
		return err
	}
	if err := s.checkLabel(q.label); err != nil {
		return err
	}
	p := s.issuer.policy.Default
	if q.profile != "" {
		if p = s.issuer.policy.Profiles[q.profile]; p == nil {
			_, err := s.profileFor(q.profile)
			return err
		}
	}
	usages, expiry := []string{}, ""
	if p != nil {
		usages, expiry = append(usages, p.Usage...), p.ExpiryString
	}
	// cfssl's certificate is without the line end.
	return s.answerCFSSL(w, map[string]any{"certificate": strings.TrimSpace(string(encodeCert(s.issuing().issuer.cert.Raw))), "usages": usages, "expiry": expiry})
}

func (s *Server) cfsslCertInfo(w http.ResponseWriter, r *http.Request, _ *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	q, err := parseCertInfoRequest(body)
	if err != nil {
		return err
	}
	if q.certificate == "" {
		if err := s.checkAKI(r.Context(), q.aki, q.serial); err != nil {
			return err
		}
		got, err := s.Certificate(r.Context(), q.serial)
		if err != nil {
			return err
		}
		if q.certificate = got.Certificate; q.certificate == "" {
			return wire.Errorf(wire.NotFound, "serial", q.serial.Int().String(), "must be that of a certificate that was issued here: the ledger keeps no certificates of other software")
		}
	}
	certs, err := pemcert.Parse([]byte(q.certificate))
	if err != nil || len(certs) != 1 {
		return invalid("certificate", q.certificate, "must be one certificate in PEM (RFC 7468 section 5): %v", err)
	}
	return s.answerCFSSL(w, certinfo.ParseCertificate(certs[0]))
}

// checkAKI: cfssl names a certificate by serial number and the key identifier of its issuer, in hexadecimal with or without colons: that of the generation
// whose certificate it is.
func (s *Server) checkAKI(ctx context.Context, aki string, serial wire.Serial) error {
	id, err := hex.DecodeString(strings.ReplaceAll(aki, ":", ""))
	known := func(g *Server) bool { return len(id) > 0 && slices.Equal(id, g.issuer.cert.SubjectKeyId) }
	all := s.line.list()
	if err != nil || !slices.ContainsFunc(all, known) {
		var own []string
		for _, g := range all {
			own = append(own, hex.EncodeToString(g.issuer.cert.SubjectKeyId))
		}
		return invalid("authority_key_id", aki, "must be the subject key identifier of this CA, or of a generation of its key, in hexadecimal: %s", strings.Join(own, ", "))
	}
	if len(all) == 1 {
		return nil
	}
	g, err := s.holder(ctx, serial)
	if err == nil && !known(g) {
		err = invalid("authority_key_id", aki, "must be that of the certificate's issuer, %x", g.issuer.cert.SubjectKeyId)
	}
	return err
}

// cfsslCRL gives the newest complete CRL of the generation that issues, or of ca_id, which cfssl does not have, as cfssl does: DER in base64. cfssl makes one for each request.
func (s *Server) cfsslCRL(w http.ResponseWriter, r *http.Request, _ *client) error {
	for name, values := range r.URL.Query() {
		if name == "ca_id" {
			continue
		}
		if name != "expiry" || strings.Join(values, "") != "" {
			return invalid(name, strings.Join(values, ", "), "must not be given: the CA makes its CRLs by itself, and its configuration says how long they are valid (ca.crl)")
		}
	}
	s, err := s.generation(r.URL.Query().Get("ca_id"))
	if err != nil {
		return err
	}
	if s.crls == nil {
		return wire.Errorf(wire.FailedPrecondition, "ca.crl", "", "must be set for this CA to make CRLs")
	}
	m := s.crls
	m.mu.Lock()
	newest, ok := m.newest[slotKey{"", kindComplete}]
	m.mu.Unlock()
	if !ok || s.now().After(newest.nextUpdate) {
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "crl", "", "the CA must have made a CRL that is valid now; ask again later")
	}
	der, err := m.store.load("", kindComplete) // replaced as a whole, so never read in part
	if err != nil {
		return err
	}
	return s.answerCFSSL(w, der)
}

// cfsslHealth is not healthy when no certificate could be issued.
func (s *Server) cfsslHealth(w http.ResponseWriter, r *http.Request, _ *client) error {
	ready := s.Ready(r.Context())
	healthy := map[string]bool{"healthy": ready.Ready}
	if ready.Ready {
		return s.answerCFSSL(w, healthy)
	}
	w.Header().Set("Retry-After", "1")
	return s.answer(w, http.StatusServiceUnavailable,
		&cfsslAnswer{Result: healthy, Errors: []cfsslMessage{{http.StatusServiceUnavailable, ready.Detail}}, Messages: []cfsslMessage{}})
}

// bundle is a certificate with its chain in the form of cfssl's bundle. There is one chain: that of the generation that issued it.
func (s *Server) bundle(got *Issued) (map[string]any, error) {
	s = s.issuerOf(got.Serial)
	cert, err := x509.ParseCertificate(got.DER)
	if err != nil {
		return nil, err
	}
	chain := append([]*x509.Certificate{cert, s.issuer.cert}, s.issuer.chain...)
	root := chain[len(chain)-1]
	expires := cert.NotAfter
	var text strings.Builder
	for i, c := range chain {
		if c.NotAfter.Before(expires) {
			expires = c.NotAfter
		}
		if i < len(chain)-1 { // a server sends the root to nobody
			text.Write(encodeCert(c.Raw))
		}
	}
	names := []string{}
	for _, n := range append([]string{cert.Subject.CommonName}, cert.DNSNames...) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	kind, size := "Unknown", 0
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		size = key.Params().BitSize
		kind = fmt.Sprintf("%d-bit ECDSA", size)
	case *rsa.PublicKey:
		size = key.N.BitLen()
		kind = fmt.Sprintf("%d-bit RSA", size)
	}
	pem := func(c *x509.Certificate) string { return strings.TrimSpace(string(encodeCert(c.Raw))) }
	return map[string]any{
		"bundle": strings.TrimSpace(text.String()), "crt": pem(cert), "root": pem(root), "key": "", "key_type": kind, "key_size": size,
		"issuer": slashed(cert.Issuer), "subject": slashed(cert.Subject), "expires": expires.UTC().Format(time.RFC3339), "leaf_expires": cert.NotAfter.UTC().Format(time.RFC3339),
		"hostnames": names, "ocsp": cert.OCSPServer, "ocsp_support": cert.OCSPServer != nil, "crl_support": cert.CRLDistributionPoints != nil,
		"signature": helpers.SignatureString(cert.SignatureAlgorithm),
		"status":    map[string]any{"rebundled": false, "expiring_SKIs": []string{}, "untrusted_root_stores": []string{}, "messages": []string{}, "code": 0},
	}, nil
}

// slashed writes a name as cfssl does in bundles.
func slashed(name pkix.Name) string {
	long := map[string]string{"CN": "CommonName", "SERIALNUMBER": "SerialNumber", "C": "Country", "L": "Locality", "ST": "Province", "STREET": "StreetAddress",
		"O": "Organization", "OU": "OrganizationalUnit", "POSTALCODE": "PostalCode"}
	var b strings.Builder
	for _, a := range name.Names {
		key := attributeName(a.Type)
		if l := long[key]; l != "" {
			key = l
		}
		fmt.Fprintf(&b, "/%s=%v", key, a.Value)
	}
	return b.String()
}
