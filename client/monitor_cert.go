package client

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidEmail      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1} // PKCS #9 emailAddress, in subjects
	oidSAN        = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// finding is an entry of an issuance log that is to be reported.
type finding struct {
	event  Event
	caID   wire.CAID
	serial wire.Serial
	cert   *tracked // nil: no changes of its status can be found, for want of a serial number
}

// find returns what is to be reported of an entry; nil if nothing matches.
func (ps patterns) find(e *logEntry, caID wire.CAID, origin string, index uint64) *finding {
	ev := Event{
		ID: eventID(origin, index), Kind: EventCertificate, Time: e.at.Time(), Log: origin, Index: index, CAID: caID.String(),
	}
	if e.precert {
		ev.Kind = EventPrecertificate
	}
	if e.der != nil {
		ev.SHA256 = fingerprint(e.der)
	}
	der := e.certificate()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ev.Matched = ps.within(der)
		if ev.Matched == nil {
			return nil
		}
		kind := ev.Kind
		ev.Kind, ev.Detail = EventUnparsable, fmt.Sprintf("%s does not parse: %v", kind, err)
		return &finding{event: ev}
	}
	ev.Names = certNames(cert)
	var matching []string
	for _, name := range ev.Names {
		found := ps.match(name)
		if found == nil {
			continue
		}
		matching = append(matching, name)
		for _, p := range found {
			if !slices.Contains(ev.Matched, p) {
				ev.Matched = append(ev.Matched, p)
			}
		}
	}
	if matching == nil {
		return nil
	}
	ev.Issuer, ev.Subject = cert.Issuer.String(), cert.Subject.String()
	ev.NotBefore, ev.NotAfter = cert.NotBefore.UTC(), cert.NotAfter.UTC()
	ev.Serial = cert.SerialNumber.Text(16)
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil { // the ledger takes none such
		return &finding{event: ev}
	}
	ev.Serial = serial.String()
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return &finding{event: ev, caID: caID, serial: serial, cert: &tracked{Names: matching, SPKI: hex.EncodeToString(spki[:]), Times: []wire.Millis{e.at}}}
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func eventID(origin string, index uint64) string { return fmt.Sprintf("%s#%d", origin, index) }

// certNames returns every name that a relying party could take the certificate to be for, each once.
func certNames(c *x509.Certificate) []string {
	var names []string
	add := func(list ...string) {
		for _, n := range list {
			if n != "" && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	add(c.DNSNames...)
	add(c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		add(ip.String())
	}
	for _, u := range c.URIs {
		add(u.String())
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSAN) {
			add(otherNames(e.Value)...)
		}
	}
	// Subject.CommonName is the last one only.
	for _, a := range c.Subject.Names {
		if a.Type.Equal(oidCommonName) || a.Type.Equal(oidEmail) {
			add(fmt.Sprint(a.Value))
		}
	}
	return names
}

// otherNames returns the strings in the otherName values of a SubjectAltName, which crypto/x509 leaves out: a user principal name, an
// SmtpUTF8Mailbox (RFC 9598), an SRVName (RFC 4985).
func otherNames(san []byte) []string {
	var (
		out  []string
		list cryptobyte.String
		data = cryptobyte.String(san)
	)
	if !data.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return out
		}
		if tag == cbasn1.Tag(0).ContextSpecific().Constructed() {
			out = stringsIn(value, out, 0)
		}
	}
	return out
}

// stringsIn adds the character strings in DER to out.
func stringsIn(der cryptobyte.String, out []string, depth int) []string {
	const (
		deepest   = 8
		bmpString = cbasn1.Tag(30)
	)
	for !der.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !der.ReadAnyASN1(&value, &tag) {
			return out
		}
		switch {
		case tag&0x20 != 0: // constructed
			if depth < deepest {
				out = stringsIn(value, out, depth+1)
			}
		case tag == bmpString:
			out = append(out, strings.ReplaceAll(string(value), "\x00", ""))
		case tag == cbasn1.UTF8String || tag == cbasn1.IA5String || tag == cbasn1.PrintableString || tag == cbasn1.T61String:
			if utf8.Valid(value) {
				out = append(out, string(value))
			}
		}
	}
	return out
}
