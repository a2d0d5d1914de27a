package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"slices"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// override is what cfssl's API puts in the place of what the CSR says. An authenticated client decides about it, but within the profile's
// CSRWhitelist and under the same rules as for names in a CSR; cfssl itself checks neither.
type override struct {
	hosts   []string        // nil: the CSR's names stand
	subject *signer.Subject // nil: the CSR's subject stands; fields that it leaves out come from there
}

// Attributes that signer.Subject has, or cfssl keeps: CN, serialNumber, C, L, ST, O and OU.
var overridable = []int{3, 5, 6, 7, 8, 10, 11}

// apply returns the request as it would be if the requester had written the override into it. Everything that is checked about names
// afterwards is so checked about those that the certificate will have, which is made from what is returned.
func (o *override) apply(csr *x509.CertificateRequest, name string, p *config.SigningProfile) (*x509.CertificateRequest, error) {
	if o.hosts == nil && o.subject == nil {
		return csr, nil
	}
	c := *csr
	if o.hosts != nil {
		if err := o.checkHosts(name, p.CSRWhitelist); err != nil {
			return nil, err
		}
		var t x509.Certificate
		local.OverrideHosts(&t, o.hosts)
		c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs = t.DNSNames, t.IPAddresses, t.EmailAddresses, t.URIs
	}
	if o.subject != nil {
		if !p.CSRWhitelist.Subject {
			return nil, invalid("subject", o.subject.CN, "the profile %s does not take a subject over", name)
		}
		for _, a := range csr.Subject.Names {
			if len(a.Type) != 4 || !a.Type[:3].Equal(asn1.ObjectIdentifier{2, 5, 4}) || !slices.Contains(overridable, a.Type[3]) {
				return nil, invalid("csr.subject."+attributeName(a.Type), fmt.Sprint(a.Value), "would get lost with a subject beside the CSR")
			}
		}
		c.Subject = local.PopulateSubjectFromCSR(o.subject, csr.Subject)
		c.Subject.Names = attributesOf(c.Subject)
		if err := checkAttributes("subject", c.Subject.Names); err != nil {
			return nil, err
		}
	}
	return &c, checkNames(&c)
}

// checkHosts says which of the hosts is at fault.
func (o *override) checkHosts(name string, w *config.CSRWhitelist) error {
	if n := len(o.hosts); n > mostNames { // the profile may say less
		return invalid("hosts", fmt.Sprintf("%d names", n), "must have at most %d names", mostNames)
	}
	for i, h := range o.hosts {
		field := fmt.Sprintf("hosts[%d]", i)
		kind, taken, valid := "dNSName", w.DNSNames, false
		if ip := net.ParseIP(h); ip != nil {
			kind, taken, valid = "iPAddress", w.IPAddresses, true
		} else if mailbox, err := mail.ParseAddress(h); err == nil {
			kind, taken, valid = "rfc822Name", w.EmailAddresses, mailbox.Address == h && validMailbox(h)
		} else if u, err := url.ParseRequestURI(h); err == nil {
			kind, taken, valid = "uniformResourceIdentifier", w.URIs, validURI(u)
		} else if rule := dnsFault(h); rule != "" {
			return invalid(field, h, "%s", rule)
		} else {
			valid = true
		}
		switch {
		case !valid:
			return invalid(field, h, "must be a host name, an IP address, a mailbox or an absolute URI (RFC 5280 section 4.2.1.6)")
		case !taken:
			return invalid(field, h, "the profile %s does not take names of kind %s over", name, kind)
		}
	}
	return nil
}

// digestOf is what makes two requests the same.
func digestOf(r *Request) digest {
	text := fmt.Appendf(nil, "%d:%s%s%s", len(r.Profile), r.Profile, r.CSR, r.superseding())
	if r.override.hosts != nil || r.override.subject != nil {
		more, err := json.Marshal([]any{r.override.hosts, r.override.subject})
		if err != nil { // strings always marshal
			panic(err)
		}
		sum := sha256.Sum256(text)
		text = append(sum[:], more...)
	}
	if r.CA != (wire.CAID{}) { // zero is not told, so that requests of earlier versions are known again
		sum := sha256.Sum256(text)
		text = fmt.Appendf(sum[:], "ca %s", r.CA)
	}
	return sha256.Sum256(text)
}

// attributesOf are the attributes of a name that was not parsed from DER.
func attributesOf(name pkix.Name) []pkix.AttributeTypeAndValue {
	var attrs []pkix.AttributeTypeAndValue
	for _, rdn := range name.ToRDNSequence() {
		attrs = append(attrs, rdn...)
	}
	return attrs
}
