package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNames bounds the names in one certificate, unless its profile says otherwise: max_names.
const maxNames = 100

// upperBounds are RFC 5280 appendix A.1's, in characters, by the last arc of 2.5.4.x.
var upperBounds = map[int]int{
	3: 64, 5: 64, 7: 128, 8: 128, 10: 64, 11: 64, 12: 64, // CN, serialNumber, L, ST, O, OU, title
}

const (
	maxAttribute  = 256 // any other attribute
	maxAttributes = 32
	countryArc    = 6
)

// checkNames checks subject and subject alternative names.
func checkNames(csr *x509.CertificateRequest) error {
	n := len(csr.DNSNames) + len(csr.IPAddresses) + len(csr.EmailAddresses) + len(csr.URIs)
	if n == 0 && len(csr.Subject.Names) == 0 {
		return invalid("csr.subject", "", "subject and subject alternative name must not both be empty (RFC 5280 section 4.1.2.6)")
	}
	if n > mostNames {
		return invalid("csr.subject_alt_name", fmt.Sprintf("%d names", n), "must have at most %d names", mostNames)
	}
	if err := checkAttributes("csr.subject", csr.Subject.Names); err != nil {
		return err
	}
	for i, name := range csr.DNSNames {
		if rule := dnsFault(name); rule != "" {
			return invalid(fmt.Sprintf("csr.dns_names[%d]", i), name, "%s", rule)
		}
	}
	for i, addr := range csr.EmailAddresses {
		if !validMailbox(addr) {
			return invalid(fmt.Sprintf("csr.email_addresses[%d]", i), addr, "must be an ASCII mailbox, local-part@domain (RFC 5280 section 4.2.1.6)")
		}
	}
	for i, u := range csr.URIs {
		if !validURI(u) {
			return invalid(fmt.Sprintf("csr.uris[%d]", i), u.String(), "must be an absolute URI whose host, if it has one, is a name or an address (RFC 5280 section 4.2.1.6)")
		}
	}
	return nil
}

// checkSubject is for names that were not parsed from DER.
func checkSubject(field string, name pkix.Name) error {
	return checkAttributes(field, attributesOf(name))
}

// Attributes that must be IA5Strings (RFC 5280 sections 4.1.2.4 and 4.1.2.6), which crypto/x509 and cfssl do not write.
var (
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

func checkAttributes(field string, attrs []pkix.AttributeTypeAndValue) error {
	if len(attrs) > maxAttributes {
		return invalid(field, fmt.Sprintf("%d attributes", len(attrs)), "must have at most %d attributes", maxAttributes)
	}
	for _, a := range attrs {
		at := field + "." + attributeName(a.Type)
		if a.Type.Equal(oidEmailAddress) {
			return invalid(field+".emailAddress", fmt.Sprint(a.Value), "must not be in a new certificate's subject; ask for it as a subject alternative name of type email (RFC 5280 section 4.1.2.6)")
		}
		if a.Type.Equal(oidDomainComponent) {
			return invalid(field+".DC", fmt.Sprint(a.Value), "domain components are not issued here")
		}
		s, ok := a.Value.(string)
		if !ok {
			return invalid(at, fmt.Sprintf("%T", a.Value), "must be a string")
		}
		if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			return invalid(at, s, "must not be empty and must not have control characters")
		}
		most := maxAttribute
		if len(a.Type) == 4 && a.Type[0] == 2 && a.Type[1] == 5 && a.Type[2] == 4 {
			if b, ok := upperBounds[a.Type[3]]; ok {
				most = b
			}
			if a.Type[3] == countryArc && !isCountry(s) {
				return invalid(at, s, "must be two upper-case letters (ISO 3166)")
			}
		}
		if n := utf8.RuneCountInString(s); n > most {
			return invalid(at, s, "has %d characters, must have at most %d (RFC 5280 appendix A.1)", n, most)
		}
	}
	return nil
}

func isCountry(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// attributeName is RFC 4514's short name or the dotted form.
func attributeName(id asn1.ObjectIdentifier) string {
	rdn := pkix.RDNSequence{{{Type: id, Value: "v"}}}
	name, _, _ := strings.Cut(rdn.String(), "=")
	return name
}

// validDNSName: RFC 1034 section 3.5 as modified by RFC 1123 section 2.1, plus a wildcard label (RFC 9525 section 6.3). Names
// outside ASCII come as A-labels (RFC 5280 section 7.2).
func validDNSName(name string) bool {
	host, wildcard := strings.CutPrefix(name, "*.")
	if len(name) > 253 || host == "" || wildcard && !strings.Contains(host, ".") {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func validMailbox(addr string) bool {
	for i := range len(addr) {
		if addr[i] <= ' ' || addr[i] >= 0x7f {
			return false
		}
	}
	a, err := mail.ParseAddress(addr)
	if err != nil || a.Address != addr {
		return false
	}
	_, domain, _ := strings.Cut(addr, "@")
	return dnsFault(domain) == "" && !strings.HasPrefix(domain, "*")
}

func validURI(u *url.URL) bool {
	if u.Scheme == "" || u.Opaque == "" && u.Host == "" {
		return false
	}
	host := u.Hostname()
	return u.Host == "" || strings.Contains(host, ":") || dnsFault(host) == "" && !strings.HasPrefix(host, "*")
}
