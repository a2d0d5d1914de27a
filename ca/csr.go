package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/cloudflare/cfssl/config"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/weakkey"
)

// Limits of a certificate signing request.
const maxCSR = 64 << 10

var (
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// invalid is a refusal of the request as it is.
func invalid(field, value, rule string, args ...any) error {
	return wire.Errorf(wire.InvalidArgument, field, value, rule, args...)
}

// parseCSR reads one PEM certification request (PKCS#10, RFC 2986) and checks everything about it that does not depend on the
// profile. Errors are *wire.Error.
func parseCSR(text string) (*x509.CertificateRequest, error) {
	if len(text) > maxCSR {
		return nil, invalid("csr", fmt.Sprintf("%d bytes", len(text)), "must have at most %d bytes", maxCSR)
	}
	der, err := csrDER(text)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der) // refuses trailing data
	if err != nil {
		if strings.Contains(err.Error(), "elliptic curve") || strings.Contains(err.Error(), "not on curve") {
			return nil, invalid("csr.public_key", "an EC key", "%s (%v)", keyRule, err)
		}
		if strings.Contains(err.Error(), "SAN ") { // what crypto/x509 says of alternative names that are no IA5Strings, among others
			return nil, invalid("csr.subject_alt_name", "a name", "must be well-formed and in ASCII, an internationalised name as A-labels, xn--... (RFC 5280 sections 4.2.1.6 and 7.2): %v", err)
		}
		return nil, invalid("csr", fmt.Sprintf("%d bytes of DER", len(der)), "must be a PKCS#10 certification request (RFC 2986) and nothing else: %v", err)
	}
	if err := checkKey(csr); err != nil {
		return nil, err
	}
	if err := checkProof(csr); err != nil {
		return nil, err
	}
	if err := checkRequested(csr); err != nil {
		return nil, err
	}
	return csr, checkNames(csr)
}

// csrDER takes the request out of its PEM wrapping (RFC 7468 section 7), which must be all there is.
func csrDER(text string) ([]byte, error) {
	const rule = "must be one PEM block CERTIFICATE REQUEST (RFC 7468 section 7) and nothing else"
	trimmed := strings.TrimSpace(text)
	if !strings.HasPrefix(trimmed, "-----BEGIN ") {
		return nil, invalid("csr", trimmed, rule)
	}
	block, rest := pem.Decode([]byte(trimmed))
	switch {
	case block == nil:
		return nil, invalid("csr", trimmed, rule)
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, invalid("csr", block.Type, rule)
	case len(block.Headers) > 0:
		return nil, invalid("csr", "PEM headers", rule)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, invalid("csr", fmt.Sprintf("%d bytes after the PEM block", len(rest)), rule)
	}
	return block.Bytes, nil
}

const keyRule = weakkey.KeyRule

// checkKey refuses keys whose private keys others can find, and those of kinds that are not taken.
func checkKey(csr *x509.CertificateRequest) error { return keyFault(weakkey.Check(csr.PublicKey)) }

// keyFault is package weakkey's error about a request's key.
func keyFault(err error) error {
	if e, ok := errors.AsType[*weakkey.Error](err); ok {
		return invalid("csr.public_key", e.Key, "%s", e.Rule)
	}
	return err
}

// checkProof verifies the request's own signature: the requester holds the private key (RFC 2986 section 3).
func checkProof(csr *x509.CertificateRequest) error {
	switch csr.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return invalid("csr.signature", csr.SignatureAlgorithm.String(), "must be made with SHA-256, SHA-384 or SHA-512")
	}
	if err := csr.CheckSignature(); err != nil {
		return invalid("csr.signature", csr.SignatureAlgorithm.String(), "must verify with the request's own public key (RFC 2986 section 3): %v", err)
	}
	return nil
}

// checkRequested looks at the extensions asked for. Those about names are copied as far as the profile allows; key usages
// come from the profile, as with most CAs; what would be dropped although it changes what the certificate is gets refused.
func checkRequested(csr *x509.CertificateRequest) error {
	for _, e := range csr.Extensions {
		switch {
		case e.Id.Equal(oidBasicConstraints):
			var bc struct {
				IsCA    bool `asn1:"optional"`
				PathLen int  `asn1:"optional,default:-1"`
			}
			if rest, err := asn1.Unmarshal(e.Value, &bc); err != nil || len(rest) > 0 {
				return invalid("csr.basic_constraints", "", "must be as in RFC 5280 section 4.2.1.9")
			}
			if bc.IsCA {
				return invalid("csr.basic_constraints", "CA:TRUE", "CA certificates are not issued here")
			}
		case e.Id.Equal(oidSubjectAltName):
			if err := checkNameKinds(e.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNameKinds refuses kinds of names that crypto/x509 skips without a word.
func checkNameKinds(value []byte) error {
	const field, rule = "csr.subject_alt_name", "may hold rfc822Name, dNSName, uniformResourceIdentifier and iPAddress (RFC 5280 section 4.2.1.6)"
	input := cryptobyte.String(value)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cbasn1.SEQUENCE) || !input.Empty() {
		return invalid(field, "", "must be GeneralNames (RFC 5280 section 4.2.1.6)")
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return invalid(field, "", "must be GeneralNames (RFC 5280 section 4.2.1.6)")
		}
		switch kind := int(tag &^ 0xe0); kind {
		case 1, 2, 6, 7:
		default:
			return invalid(field, fmt.Sprintf("GeneralName [%d]", kind), rule)
		}
	}
	return nil
}

// checkAgainst holds a request against the profile it asks for.
func checkAgainst(csr *x509.CertificateRequest, name string, p *config.SigningProfile) error {
	w := p.CSRWhitelist
	for _, c := range []struct {
		field string
		n     int
		taken bool
	}{
		{"csr.subject", len(csr.Subject.Names), w.Subject},
		{"csr.dns_names", len(csr.DNSNames), w.DNSNames},
		{"csr.ip_addresses", len(csr.IPAddresses), w.IPAddresses},
		{"csr.email_addresses", len(csr.EmailAddresses), w.EmailAddresses},
		{"csr.uris", len(csr.URIs), w.URIs},
	} {
		if c.n > 0 && !c.taken {
			return invalid(c.field, fmt.Sprintf("%d names", c.n), "the profile %s does not take them over", name)
		}
	}
	if _, ec := csr.PublicKey.(*ecdsa.PublicKey); ec {
		// RFC 8813 section 3
		if ku, _, _ := p.Usages(); ku&(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment) != 0 {
			return invalid("profile", name, "has an encipherment usage, which a certificate with an EC key must not have (RFC 8813 section 3)")
		}
	}
	return nil
}
