package ca

import (
	"encoding/asn1"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/cloudflare/cfssl/config"
)

// maxNotice is how many characters RFC 5280 section 4.2.1.4 allows a notice to have.
const maxNotice = 200

var anyPolicy = asn1.ObjectIdentifier{2, 5, 29, 32, 0}

// checkPolicies holds a profile's certificate policies against RFC 5280 section 4.2.1.4, which cfssl does when a certificate is signed, in part.
func checkPolicies(key string, policies []config.CertificatePolicy) error {
	seen := map[string]bool{}
	for i, p := range policies {
		at := fmt.Sprintf("%s.policies[%d]", key, i)
		id := asn1.ObjectIdentifier(p.ID)
		switch {
		case !isOID(id):
			return invalid(at+".id", id.String(), "must be an object identifier, such as 2.23.140.1.2.1")
		case seen[id.String()]:
			return invalid(at+".id", id.String(), "must not occur twice (RFC 5280 section 4.2.1.4)")
		case id.Equal(anyPolicy):
			return invalid(at+".id", id.String(), "must not be anyPolicy: a certificate of an end entity has been issued under policies, and names them")
		}
		seen[id.String()] = true
		for j, q := range p.Qualifiers {
			if err := checkQualifier(fmt.Sprintf("%s.qualifiers[%d]", at, j), q); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkQualifier(at string, q config.CertificatePolicyQualifier) error {
	switch q.Type {
	case "id-qt-cps":
		if q.Value == "" {
			return invalid(at+".value", "", "must be the URI of a certification practice statement")
		}
		for i := range len(q.Value) {
			if q.Value[i] >= 0x80 {
				return invalid(at+".value", q.Value, "must be in ASCII: it becomes an IA5String")
			}
		}
		return checkURL(at+".value", q.Value)
	case "id-qt-unotice":
		n := utf8.RuneCountInString(q.Value)
		if n == 0 || n > maxNotice || !utf8.ValidString(q.Value) {
			return invalid(at+".value", q.Value, "must be a text of 1 to %d characters", maxNotice)
		}
		for _, r := range q.Value {
			if unicode.IsControl(r) {
				return invalid(at+".value", q.Value, "must not have control characters")
			}
		}
		return nil
	}
	return invalid(at+".type", q.Type, "must be id-qt-cps or id-qt-unotice")
}

// isOID: X.660: the first arc is 0, 1 or 2; under 0 and 1 the second is less than 40.
func isOID(id asn1.ObjectIdentifier) bool {
	if len(id) < 2 || id[0] < 0 || id[0] > 2 || id[0] < 2 && id[1] >= 40 {
		return false
	}
	for _, arc := range id {
		if arc < 0 {
			return false
		}
	}
	return true
}
