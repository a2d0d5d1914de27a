package ocspwire

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Request is an OCSPRequest (RFC 6960 section 4.1.1).
type Request struct {
	RequestorName []byte // DER of a GeneralName, nil if absent
	Items         []RequestItem
	Extensions    []pkix.Extension
	Nonce         []byte            // content of the nonce extension, nil if absent; Marshal adds the extension
	Signature     *RequestSignature // nil for an unsigned request; parsed, not verified
}

// RequestItem is one certificate asked about.
type RequestItem struct {
	ID         CertID
	Extensions []pkix.Extension
}

// RequestSignature is the optionalSignature of a request. Nothing here verifies it.
type RequestSignature struct {
	TBS       []byte // DER of tbsRequest, what is signed
	Algorithm []byte // DER of the AlgorithmIdentifier
	Value     []byte
	Certs     [][]byte // DER
}

// ParseRequest reads a DER OCSPRequest of at most maxItems CertIDs. The result refers to der's memory.
// Errors: *MalformedError, to be answered malformedRequest.
func ParseRequest(der []byte, maxItems int) (*Request, error) {
	var (
		req       Request
		s         = cryptobyte.String(der)
		body, tbs cryptobyte.String
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) {
		return nil, malformed("OCSPRequest", "", "must be a DER SEQUENCE (RFC 6960 section 4.1.1)")
	}
	if !s.Empty() {
		return nil, malformed("OCSPRequest", strconv.Itoa(len(s))+" octets too long", "must end where its SEQUENCE ends")
	}
	if !body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return nil, malformed("tbsRequest", "", "must be a SEQUENCE (RFC 6960 section 4.1.1)")
	}
	if err := req.readTBS(tbs, maxItems); err != nil {
		return nil, err
	}
	if !body.Empty() {
		sig, err := readSignature(&body)
		if err != nil {
			return nil, err
		}
		sig.TBS = tbs
		req.Signature = sig
	}
	return &req, nil
}

func (r *Request) readTBS(tbs cryptobyte.String, maxItems int) error {
	var body, list cryptobyte.String
	if !tbs.ReadASN1(&body, cbasn1.SEQUENCE) {
		return malformed("tbsRequest", "", "must be a SEQUENCE")
	}
	// RFC 6960 section 4.1.1: version is v1, the default, which DER does not encode (X.690 section 11.5).
	if body.PeekASN1Tag(explicit0) {
		return malformed("tbsRequest.version", "present", "must be v1, which DER leaves out (X.690 section 11.5)")
	}
	if err := r.readRequestorName(&body); err != nil {
		return err
	}
	if !body.ReadASN1(&list, cbasn1.SEQUENCE) {
		return malformed("tbsRequest.requestList", "", "must be a SEQUENCE OF Request")
	}
	if err := r.readItems(list, maxItems); err != nil {
		return err
	}
	var (
		exts    cryptobyte.String
		present bool
		err     error
	)
	if !body.ReadOptionalASN1(&exts, &present, explicit2) || !body.Empty() {
		return malformed("tbsRequest", "", "only requestExtensions [2] may follow requestList")
	}
	if present {
		if r.Extensions, err = readExtensions(&exts, "requestExtensions"); err != nil {
			return err
		}
		if r.Nonce, err = readNonce(r.Extensions, "requestExtensions"); err != nil {
			return err
		}
	}
	return nil
}

// readRequestorName carries requestorName [1] EXPLICIT GeneralName as it is, whichever of the choices it is.
func (r *Request) readRequestorName(body *cryptobyte.String) error {
	var (
		outer, name cryptobyte.String
		present     bool
		tag         cbasn1.Tag
	)
	if !body.ReadOptionalASN1(&outer, &present, explicit1) {
		return malformed("tbsRequest.requestorName", "", "must be DER")
	}
	if !present {
		return nil
	}
	// RFC 5280 section 4.2.1.6: GeneralName is a CHOICE of context tags 0 to 8.
	if !outer.ReadAnyASN1Element(&name, &tag) || !outer.Empty() || tag&0xc0 != 0x80 || tag&0x1f > 8 {
		return malformed("tbsRequest.requestorName", "", "must be one GeneralName (RFC 5280 section 4.2.1.6)")
	}
	r.RequestorName = name
	return nil
}

func (r *Request) readItems(list cryptobyte.String, maxItems int) error {
	if list.Empty() {
		return malformed("tbsRequest.requestList", "empty", "must ask about at least one certificate")
	}
	for !list.Empty() {
		if len(r.Items) == maxItems {
			return malformed("tbsRequest.requestList", "longer than "+strconv.Itoa(maxItems), "must not ask about more certificates than this responder allows")
		}
		field := "requestList[" + strconv.Itoa(len(r.Items)) + "]"
		var (
			item       RequestItem
			body, exts cryptobyte.String
			present    bool
			err        error
		)
		if !list.ReadASN1(&body, cbasn1.SEQUENCE) {
			return malformed(field, "", "must be a SEQUENCE")
		}
		if item.ID, err = readCertID(&body, field+".reqCert"); err != nil {
			return err
		}
		if !body.ReadOptionalASN1(&exts, &present, explicit0) || !body.Empty() {
			return malformed(field, "", "only singleRequestExtensions [0] may follow reqCert")
		}
		if present {
			if item.Extensions, err = readExtensions(&exts, field+".singleRequestExtensions"); err != nil {
				return err
			}
		}
		r.Items = append(r.Items, item)
	}
	return nil
}

// readSignature reads optionalSignature [0] EXPLICIT Signature.
func readSignature(body *cryptobyte.String) (*RequestSignature, error) {
	const field = "optionalSignature"
	var (
		sig              RequestSignature
		outer, seq, algo cryptobyte.String
	)
	if !body.ReadASN1(&outer, explicit0) || !body.Empty() || !outer.ReadASN1(&seq, cbasn1.SEQUENCE) || !outer.Empty() {
		return nil, malformed(field, "", "must be one Signature SEQUENCE in [0], with nothing after it")
	}
	if !readAlgorithm(&seq, &algo) || !seq.ReadASN1BitStringAsBytes(&sig.Value) {
		return nil, malformed(field, "", "must be an AlgorithmIdentifier and a BIT STRING")
	}
	sig.Algorithm = algo
	var err error
	sig.Certs, err = readCerts(&seq, field+".certs")
	return &sig, err
}

// readAlgorithm reads an AlgorithmIdentifier whole: one OBJECT IDENTIFIER and at most one parameter.
func readAlgorithm(s, out *cryptobyte.String) bool {
	var (
		body, param cryptobyte.String
		oid         asn1.ObjectIdentifier
		tag         cbasn1.Tag
	)
	if !s.ReadASN1Element(out, cbasn1.SEQUENCE) {
		return false
	}
	elem := *out
	return elem.ReadASN1(&body, cbasn1.SEQUENCE) && body.ReadASN1ObjectIdentifier(&oid) &&
		(body.Empty() || body.ReadAnyASN1Element(&param, &tag) && body.Empty())
}

// readCerts reads certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL, the last component.
func readCerts(s *cryptobyte.String, field string) ([][]byte, error) {
	var (
		outer, list cryptobyte.String
		present     bool
		certs       [][]byte
	)
	if !s.ReadOptionalASN1(&outer, &present, explicit0) || !s.Empty() {
		return nil, malformed(field, "", "must be in [0], with nothing after it")
	}
	if !present {
		return nil, nil
	}
	if !outer.ReadASN1(&list, cbasn1.SEQUENCE) || !outer.Empty() {
		return nil, malformed(field, "", "must be a SEQUENCE OF Certificate")
	}
	for !list.Empty() {
		var cert cryptobyte.String
		if !list.ReadASN1Element(&cert, cbasn1.SEQUENCE) {
			return nil, malformed(field, "", "must be a SEQUENCE OF Certificate")
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// UnknownCritical returns the first critical extension, of the request or one of its items, that is none of RFC 6960's own. A
// responder that does not know it must not answer as if it were not there (RFC 6960 section 4.4).
func (r *Request) UnknownCritical() (asn1.ObjectIdentifier, bool) {
	for _, e := range r.Extensions {
		if e.Critical && !e.Id.Equal(OIDNonce) && !e.Id.Equal(OIDResponse) && !e.Id.Equal(OIDPrefSigAlgs) {
			return e.Id, true
		}
	}
	for _, item := range r.Items {
		for _, e := range item.Extensions {
			if e.Critical {
				return e.Id, true
			}
		}
	}
	return nil, false
}

// Marshal encodes an unsigned request. Requires at least one item with ID.Raw set, as NewCertID and ParseRequest leave it.
// A Nonce comes after Extensions, and replaces one that is among them.
func (r *Request) Marshal() ([]byte, error) {
	exts := withNonce(r.Extensions, r.Nonce)
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if r.RequestorName != nil {
				b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(r.RequestorName) })
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, item := range r.Items {
					addItem(b, item)
				}
			})
			if len(exts) > 0 {
				b.AddASN1(explicit2, func(b *cryptobyte.Builder) { addExtensions(b, exts) })
			}
		})
	})
	return b.Bytes()
}

func addItem(b *cryptobyte.Builder, item RequestItem) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(item.ID.Raw)
		if len(item.Extensions) > 0 {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { addExtensions(b, item.Extensions) })
		}
	})
}

// withNonce returns exts with the nonce's extension in place of any they hold; exts themselves when there is no nonce.
func withNonce(exts []pkix.Extension, nonce []byte) []pkix.Extension {
	if nonce == nil {
		return exts
	}
	out := make([]pkix.Extension, 0, len(exts)+1)
	for _, e := range exts {
		if !e.Id.Equal(OIDNonce) {
			out = append(out, e)
		}
	}
	return append(out, nonceExtension(nonce))
}
