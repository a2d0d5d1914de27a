package crl

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Points returns the URLs in a certificate's cRLDistributionPoints (RFC 5280 section 4.2.1.13), in their order: the scopes whose CRLs list
// it. None: it has no such extension. Only as much of the certificate is looked at as is needed to find them, so that it is fast, and what
// is in it otherwise does not matter. Names of other kinds are passed over. Errors: it is no certificate, or the extension is not DER.
func Points(der []byte) ([]string, error) {
	var cert, tbs, exts, list cryptobyte.String
	s := cryptobyte.String(der)
	hasExts := false
	if !s.ReadASN1(&cert, sequence) || !cert.ReadASN1(&tbs, sequence) ||
		!tbs.SkipOptionalASN1(tag0Inside) || // version
		!tbs.SkipASN1(cbasn1.INTEGER) || // serialNumber
		!tbs.SkipASN1(sequence) || // signature
		!tbs.SkipASN1(sequence) || // issuer
		!tbs.SkipASN1(sequence) || // validity
		!tbs.SkipASN1(sequence) || // subject
		!tbs.SkipASN1(sequence) || // subjectPublicKeyInfo
		!tbs.SkipOptionalASN1(cbasn1.Tag(1).ContextSpecific()) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(2).ContextSpecific()) ||
		!tbs.ReadOptionalASN1(&exts, &hasExts, cbasn1.Tag(3).ContextSpecific().Constructed()) {
		return nil, malformed("certificate", "", "must be DER (RFC 5280 section 4.1)")
	}
	if !hasExts {
		return nil, nil
	}
	if !exts.ReadASN1(&list, sequence) || !exts.Empty() {
		return nil, malformed("extensions", "", "must be one SEQUENCE")
	}
	for !list.Empty() {
		var ext, value cryptobyte.String
		var id cryptobyte.String
		if !list.ReadASN1(&ext, sequence) || !ext.ReadASN1Element(&id, cbasn1.OBJECT_IDENTIFIER) || !ext.SkipOptionalASN1(cbasn1.BOOLEAN) || !ext.ReadASN1(&value, octetString) {
			return nil, malformed("extensions", "", "must be a SEQUENCE of Extension")
		}
		if bytes.Equal(id, oid(idPoints)) {
			return readPoints(value)
		}
	}
	return nil, nil
}

// readPoints returns the URLs in CRLDistributionPoints.
func readPoints(s cryptobyte.String) (urls []string, err error) {
	bad := malformed("cRLDistributionPoints", "", "must be a SEQUENCE of DistributionPoint (RFC 5280 section 4.2.1.13)")
	var list, point, name, names, value cryptobyte.String
	if !s.ReadASN1(&list, sequence) || !s.Empty() || list.Empty() {
		return nil, bad
	}
	for !list.Empty() {
		var named, full bool
		if !list.ReadASN1(&point, sequence) || !point.ReadOptionalASN1(&name, &named, tag0Inside) {
			return nil, bad
		}
		if !named || !name.ReadOptionalASN1(&names, &full, tag0Inside) || !full { // a cRLIssuer, or a name relative to it
			continue
		}
		for !names.Empty() {
			var tag cbasn1.Tag
			if !names.ReadAnyASN1(&value, &tag) {
				return nil, bad
			}
			if tag == tagURI {
				urls = append(urls, string(value))
			}
		}
	}
	return urls, nil
}
