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
	RequestorName *GeneralName // nil if absent
	Items         []RequestItem
	Extensions    []pkix.Extension
	Nonce         []byte            // content of the nonce extension, nil if absent; Marshal adds the extension
	Signature     *RequestSignature // nil for an unsigned request; Verify checks it
}

// RequestItem is one certificate asked about.
type RequestItem struct {
	ID         CertID
	Extensions []pkix.Extension
}

// RequestSignature is the optionalSignature of a request.
type RequestSignature struct {
	TBS       []byte // DER of tbsRequest, what is signed
	Algorithm []byte // DER of the AlgorithmIdentifier
	Value     []byte
	Certs     [][]byte // DER; nil if absent
}

// ParseRequest reads a DER OCSPRequest of at most maxItems CertIDs. The result refers to der's memory.
// Errors: *MalformedError, to be answered malformedRequest.
func ParseRequest(der []byte, maxItems int) (*Request, error) {
	r := new(Request)
	if err := r.Unmarshal(der, maxItems); err != nil {
		return nil, err
	}
	return r, nil
}

// Unmarshal is ParseRequest into r. It reuses what an earlier Unmarshal into r allocated, the Items, their Serials and the
// Extensions, so what was read before changes under whoever kept it. After an error r is of no use but to be reused.
func (r *Request) Unmarshal(der []byte, maxItems int) error {
	*r = Request{Items: r.Items[:0], Extensions: r.Extensions[:0]}
	var (
		s         = cryptobyte.String(der)
		body, tbs cryptobyte.String
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) {
		return malformed("OCSPRequest", "", "must be a DER SEQUENCE (RFC 6960 section 4.1.1)")
	}
	if !s.Empty() {
		return malformed("OCSPRequest", strconv.Itoa(len(s))+" octets too long", "must end where its SEQUENCE ends")
	}
	if !body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) {
		return malformed("tbsRequest", "", "must be a SEQUENCE (RFC 6960 section 4.1.1)")
	}
	if err := r.readTBS(tbs, maxItems); err != nil {
		return err
	}
	if body.Empty() {
		return nil
	}
	sig, err := readSignature(&body)
	if err != nil {
		return within("optionalSignature", err)
	}
	sig.TBS = tbs
	r.Signature = sig
	return nil
}

func (r *Request) readTBS(tbs cryptobyte.String, maxItems int) error {
	var body, list, exts cryptobyte.String
	if !tbs.ReadASN1(&body, cbasn1.SEQUENCE) {
		return malformed("tbsRequest", "", "must be a SEQUENCE")
	}
	// RFC 6960 section 4.1.1: version is v1, the default, which DER does not encode (X.690 section 11.5).
	if body.PeekASN1Tag(explicit0) {
		return malformed("tbsRequest.version", "present", "must be v1, which DER leaves out (X.690 section 11.5)")
	}
	if err := r.readRequestorName(&body); err != nil {
		return within("tbsRequest.requestorName", err)
	}
	if !body.ReadASN1(&list, cbasn1.SEQUENCE) {
		return malformed("tbsRequest.requestList", "", "must be a SEQUENCE OF Request")
	}
	if err := r.readItems(list, maxItems); err != nil {
		return err
	}
	if body.Empty() {
		return nil
	}
	if !body.ReadASN1(&exts, explicit2) || !body.Empty() {
		return malformed("tbsRequest", "", "only requestExtensions [2] may follow requestList")
	}
	if err := r.readRequestExtensions(&exts); err != nil {
		return within("requestExtensions", err)
	}
	return nil
}

// readRequestExtensions also checks the contents of those that a responder acts on, so that nothing is answered on a misreading.
func (r *Request) readRequestExtensions(s *cryptobyte.String) (err error) {
	if r.Extensions, err = readExtensions(s, r.Extensions); err != nil {
		return err
	}
	if r.Nonce, err = readNonce(r.Extensions); err != nil {
		return err
	}
	if _, err = readAcceptable(r.Extensions); err != nil {
		return err
	}
	_, err = readPreferred(r.Extensions)
	return err
}

// readRequestorName reads requestorName [1] EXPLICIT GeneralName OPTIONAL.
func (r *Request) readRequestorName(body *cryptobyte.String) error {
	if !body.PeekASN1Tag(explicit1) {
		return nil
	}
	var outer cryptobyte.String
	if !body.ReadASN1(&outer, explicit1) {
		return malformed("", "", "must be DER")
	}
	name, err := ParseGeneralName(outer)
	if err != nil {
		return err
	}
	r.RequestorName = name
	return nil
}

func (r *Request) readItems(list cryptobyte.String, maxItems int) error {
	if list.Empty() {
		return malformed("tbsRequest.requestList", "empty", "must ask about at least one certificate")
	}
	for !list.Empty() {
		n := len(r.Items)
		if n == maxItems {
			return malformed("tbsRequest.requestList", "longer than "+strconv.Itoa(maxItems), "must not ask about more certificates than this responder allows")
		}
		if n < cap(r.Items) {
			r.Items = r.Items[:n+1]
		} else {
			r.Items = append(r.Items, RequestItem{})
		}
		if err := r.Items[n].read(&list); err != nil {
			return within("requestList["+strconv.Itoa(n)+"]", err)
		}
	}
	return nil
}

func (it *RequestItem) read(list *cryptobyte.String) (err error) {
	var body, exts cryptobyte.String
	it.Extensions = it.Extensions[:0]
	if !list.ReadASN1(&body, cbasn1.SEQUENCE) {
		return malformed("", "", "must be a SEQUENCE")
	}
	if err = it.ID.read(&body); err != nil {
		return within("reqCert", err)
	}
	if body.Empty() {
		return nil
	}
	if !body.ReadASN1(&exts, explicit0) || !body.Empty() {
		return malformed("", "", "only singleRequestExtensions [0] may follow reqCert")
	}
	if it.Extensions, err = readExtensions(&exts, it.Extensions); err != nil {
		return within("singleRequestExtensions", err)
	}
	if _, err = it.ServiceLocator(); err != nil {
		return within("singleRequestExtensions", err)
	}
	return nil
}

// readSignature reads optionalSignature [0] EXPLICIT Signature.
func readSignature(body *cryptobyte.String) (*RequestSignature, error) {
	var (
		sig              RequestSignature
		outer, seq, algo cryptobyte.String
	)
	if !body.ReadASN1(&outer, explicit0) || !body.Empty() || !outer.ReadASN1(&seq, cbasn1.SEQUENCE) || !outer.Empty() {
		return nil, malformed("", "", "must be one Signature SEQUENCE in [0], with nothing after it")
	}
	if !readAlgorithm(&seq, &algo) || !seq.ReadASN1BitStringAsBytes(&sig.Value) {
		return nil, malformed("", "", "must be an AlgorithmIdentifier and a BIT STRING of whole octets")
	}
	sig.Algorithm = algo
	var err error
	sig.Certs, err = readCerts(&seq)
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

// readCerts reads certs [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL, the last component. The result is nil only if it is absent.
func readCerts(s *cryptobyte.String) ([][]byte, error) {
	if s.Empty() {
		return nil, nil
	}
	var outer, list cryptobyte.String
	if !s.ReadASN1(&outer, explicit0) || !s.Empty() {
		return nil, malformed("certs", "", "must be in [0], with nothing after it")
	}
	if !outer.ReadASN1(&list, cbasn1.SEQUENCE) || !outer.Empty() {
		return nil, malformed("certs", "", "must be a SEQUENCE OF Certificate")
	}
	certs := [][]byte{}
	for !list.Empty() {
		var cert cryptobyte.String
		if !list.ReadASN1Element(&cert, cbasn1.SEQUENCE) {
			return nil, malformed("certs", "", "must be a SEQUENCE OF Certificate")
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// UnknownCritical returns the first critical extension, of the request or one of its items, that this package does not read. A
// responder that does not know it must not answer as if it were not there (RFC 6960 section 4.4). A critical service locator
// is among them: who sends it wants the request routed, and nothing here routes.
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

// Marshal encodes a request. Requires at least one item with ID.Raw set, as NewCertID and ParseRequest leave it. A Nonce comes
// after Extensions, and replaces one that is among them. A Signature is repeated as it is; Sign makes one.
func (r *Request) Marshal() ([]byte, error) {
	tbs, err := r.marshalTBS()
	if err != nil {
		return nil, err
	}
	return marshalRequest(tbs, r.Signature)
}

func (r *Request) marshalTBS() ([]byte, error) {
	var name []byte
	if r.RequestorName != nil {
		var err error
		if name, err = r.RequestorName.Marshal(); err != nil {
			return nil, err
		}
	}
	exts := withNonce(r.Extensions, r.Nonce)
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if name != nil {
			b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(name) })
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
	return b.Bytes()
}

func marshalRequest(tbs []byte, sig *RequestSignature) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		if sig != nil {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { addSignature(b, sig.Algorithm, sig.Value, sig.Certs) })
		}
	})
	return b.Bytes()
}

// addSignature adds SEQUENCE { algorithm, BIT STRING, certs [0] OPTIONAL }.
func addSignature(b *cryptobyte.Builder, alg, value []byte, certs [][]byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(alg)
		b.AddASN1BitString(value)
		addCerts(b, certs)
	})
}

func addCerts(b *cryptobyte.Builder, certs [][]byte) {
	if certs == nil {
		return
	}
	b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, c := range certs {
				b.AddBytes(c)
			}
		})
	})
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
