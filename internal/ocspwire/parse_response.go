package ocspwire

import (
	"bytes"
	"encoding/asn1"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ParseResponse reads a DER OCSPResponse. It returns a nil Response with any status but Successful, and does not verify the
// signature: Verify does. The result refers to der's memory. Errors: *MalformedError.
func ParseResponse(der []byte) (ResponseStatus, *Response, error) {
	var (
		s                   = cryptobyte.String(der)
		body, rb, inner     cryptobyte.String
		basic               cryptobyte.String
		status              int
		oid                 asn1.ObjectIdentifier
		known, bytesPresent bool
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Enum(&status) {
		return 0, nil, malformed("OCSPResponse", "", "must be one SEQUENCE that begins with an ENUMERATED (RFC 6960 section 4.2.1)")
	}
	if _, known = responseStatusNames[ResponseStatus(status)]; !known {
		return 0, nil, malformed("responseStatus", strconv.Itoa(status), "must be 0, 1, 2, 3, 5 or 6 (RFC 6960 section 4.2.1)")
	}
	if !body.ReadOptionalASN1(&rb, &bytesPresent, explicit0) || !body.Empty() {
		return 0, nil, malformed("responseBytes", "", "must be in [0], with nothing after it")
	}
	// RFC 6960 section 4.2.1: if responseStatus is one of the error conditions, responseBytes is not set.
	if bytesPresent != (ResponseStatus(status) == Successful) {
		return 0, nil, malformed("responseBytes", "", "must be present when the status is successful, and only then (RFC 6960 section 4.2.1)")
	}
	if !bytesPresent {
		return ResponseStatus(status), nil, nil
	}
	if !rb.ReadASN1(&inner, cbasn1.SEQUENCE) || !rb.Empty() || !inner.ReadASN1ObjectIdentifier(&oid) ||
		!inner.ReadASN1(&basic, cbasn1.OCTET_STRING) || !inner.Empty() {
		return 0, nil, malformed("responseBytes", "", "must be an OBJECT IDENTIFIER and an OCTET STRING")
	}
	if !oid.Equal(OIDBasic) {
		return 0, nil, malformed("responseType", oid.String(), "must be id-pkix-ocsp-basic")
	}
	r, err := readBasic(basic)
	if err != nil {
		return 0, nil, err
	}
	return Successful, r, nil
}

func readBasic(s cryptobyte.String) (*Response, error) {
	var (
		r              Response
		body, tbs, alg cryptobyte.String
		err            error
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return nil, malformed("BasicOCSPResponse", "", "must be one SEQUENCE that begins with ResponseData (RFC 6960 section 4.2.1)")
	}
	if !readAlgorithm(&body, &alg) || !body.ReadASN1BitStringAsBytes(&r.Signature) {
		return nil, malformed("BasicOCSPResponse", "", "must have a signatureAlgorithm and a BIT STRING of whole octets")
	}
	r.TBS, r.SignatureAlg = tbs, alg
	if r.Certs, err = readCerts(&body); err != nil {
		return nil, within("BasicOCSPResponse", err)
	}
	if err := r.readTBS(tbs); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *Response) readTBS(tbs cryptobyte.String) error {
	var (
		body, list, exts cryptobyte.String
		present          bool
		err              error
	)
	if !tbs.ReadASN1(&body, cbasn1.SEQUENCE) {
		return malformed("tbsResponseData", "", "must be a SEQUENCE")
	}
	if body.PeekASN1Tag(explicit0) {
		return malformed("tbsResponseData.version", "present", "must be v1, which DER leaves out (X.690 section 11.5)")
	}
	if err := r.readResponder(&body); err != nil {
		return err
	}
	if r.ProducedAt, err = readTime(&body); err != nil {
		return within("tbsResponseData.producedAt", err)
	}
	if !body.ReadASN1(&list, cbasn1.SEQUENCE) || list.Empty() {
		return malformed("tbsResponseData.responses", "", "must be a SEQUENCE OF at least one SingleResponse")
	}
	for !list.Empty() {
		single, err := readSingle(&list)
		if err != nil {
			return within("responses["+strconv.Itoa(len(r.Responses))+"]", err)
		}
		r.Responses = append(r.Responses, single)
	}
	if !body.ReadOptionalASN1(&exts, &present, explicit1) || !body.Empty() {
		return malformed("tbsResponseData", "", "only responseExtensions [1] may follow responses")
	}
	if !present {
		return nil
	}
	if r.Extensions, err = readExtensions(&exts, nil); err != nil {
		return within("responseExtensions", err)
	}
	if ext, ok := findExtension(r.Extensions, OIDExtendedRevoke); ok && !bytes.Equal(ext.Value, []byte{0x05, 0x00}) {
		return malformed("responseExtensions.extendedRevoke", "", "must be NULL (RFC 6960 section 4.4.8)")
	}
	if r.Nonce, err = readNonce(r.Extensions); err != nil {
		return within("responseExtensions", err)
	}
	return nil
}

// readResponder reads ResponderID ::= CHOICE { byName [1] Name, byKey [2] KeyHash }, explicitly tagged.
func (r *Response) readResponder(body *cryptobyte.String) error {
	var outer, val cryptobyte.String
	switch {
	case body.PeekASN1Tag(explicit1):
		if body.ReadASN1(&outer, explicit1) && outer.ReadASN1Element(&val, cbasn1.SEQUENCE) && outer.Empty() {
			r.Responder.Name = val
			return nil
		}
	case body.PeekASN1Tag(explicit2):
		if body.ReadASN1(&outer, explicit2) && outer.ReadASN1(&val, cbasn1.OCTET_STRING) && outer.Empty() && len(val) == 20 {
			r.Responder.KeyHash = val
			return nil
		}
	}
	return malformed("tbsResponseData.responderID", "", "must be byName [1] with a Name or byKey [2] with a SHA-1 hash (RFC 6960 section 4.2.1)")
}

func readSingle(list *cryptobyte.String) (SingleResponse, error) {
	var (
		s          SingleResponse
		body, next cryptobyte.String
		exts       cryptobyte.String
		present    bool
		err        error
	)
	if !list.ReadASN1(&body, cbasn1.SEQUENCE) {
		return s, malformed("", "", "must be a SEQUENCE")
	}
	if err = s.ID.read(&body); err != nil {
		return s, within("certID", err)
	}
	if err = s.readStatus(&body); err != nil {
		return s, within("certStatus", err)
	}
	if s.ThisUpdate, err = readTime(&body); err != nil {
		return s, within("thisUpdate", err)
	}
	if !body.ReadOptionalASN1(&next, &present, explicit0) {
		return s, malformed("nextUpdate", "", "must be DER")
	}
	if present {
		if s.NextUpdate, err = readTime(&next); err != nil {
			return s, within("nextUpdate", err)
		}
		if !next.Empty() {
			return s, malformed("nextUpdate", "", "must be one GeneralizedTime")
		}
	}
	if !body.ReadOptionalASN1(&exts, &present, explicit1) || !body.Empty() {
		return s, malformed("", "", "only singleExtensions [1] may follow nextUpdate")
	}
	if present {
		if err = s.readExtensions(&exts); err != nil {
			return s, within("singleExtensions", err)
		}
	}
	return s, nil
}

func (s *SingleResponse) readExtensions(exts *cryptobyte.String) (err error) {
	if s.Extensions, err = readExtensions(exts, nil); err != nil {
		return err
	}
	if _, found := findExtension(s.Extensions, OIDExtendedRevoke); found {
		return malformed("extendedRevoke", "present", "must be among responseExtensions only (RFC 6960 section 4.4.8)")
	}
	return checkTimes(s.Extensions)
}

// readStatus reads CertStatus: good [0] IMPLICIT NULL, revoked [1] IMPLICIT RevokedInfo or unknown [2] IMPLICIT NULL.
func (s *SingleResponse) readStatus(body *cryptobyte.String) error {
	var (
		val cryptobyte.String
		tag cbasn1.Tag
	)
	if !body.ReadAnyASN1(&val, &tag) {
		return malformed("", "", "must be a CertStatus (RFC 6960 section 4.2.1)")
	}
	switch {
	case tag == implicit0 && val.Empty():
		s.Status = Good
		return nil
	case tag == implicit2 && val.Empty():
		s.Status = Unknown
		return nil
	case tag == explicit1:
		s.Status = Revoked
		return s.readRevoked(val)
	}
	return malformed("", "", "must be good [0] NULL, revoked [1] RevokedInfo or unknown [2] NULL (RFC 6960 section 4.2.1)")
}

func (s *SingleResponse) readRevoked(val cryptobyte.String) (err error) {
	var (
		outer   cryptobyte.String
		present bool
	)
	if s.RevokedAt, err = readTime(&val); err != nil {
		return within("revocationTime", err)
	}
	if !val.ReadOptionalASN1(&outer, &present, explicit0) || !val.Empty() {
		return malformed("", "", "only revocationReason [0] may follow revocationTime")
	}
	s.Reason = NoReason
	if !present {
		return nil
	}
	// RFC 5280 section 5.3.1: CRLReason has the values 0 to 10 without 7.
	if !outer.ReadASN1Enum(&s.Reason) || !outer.Empty() || s.Reason < 0 || s.Reason == 7 || s.Reason > 10 {
		return malformed("revocationReason", "", "must be an ENUMERATED of RFC 5280 section 5.3.1")
	}
	return nil
}

// readTime reads a GeneralizedTime. RFC 5280 section 4.1.2.5.2: in UTC (Z), with seconds, without fractions.
func readTime(s *cryptobyte.String) (time.Time, error) {
	const layout = "20060102150405Z"
	var raw cryptobyte.String
	if !s.ReadASN1(&raw, cbasn1.GeneralizedTime) {
		return time.Time{}, malformed("", "", "must be a GeneralizedTime")
	}
	t, err := time.Parse(layout, string(raw))
	if err != nil || t.Format(layout) != string(raw) {
		return time.Time{}, malformed("", strconv.Quote(string(raw[:min(len(raw), 24)])), "must be YYYYMMDDHHMMSSZ (RFC 5280 section 4.1.2.5.2)")
	}
	return t, nil
}
