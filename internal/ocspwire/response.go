package ocspwire

import (
	"crypto/x509/pkix"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ResponseStatus is OCSPResponseStatus (RFC 6960 section 4.2.1).
type ResponseStatus int

// Response statuses. 4 is not used.
const (
	Successful       ResponseStatus = 0
	MalformedRequest ResponseStatus = 1
	InternalError    ResponseStatus = 2
	TryLater         ResponseStatus = 3
	SigRequired      ResponseStatus = 5
	Unauthorized     ResponseStatus = 6
)

var responseStatusNames = map[ResponseStatus]string{
	Successful: "successful", MalformedRequest: "malformedRequest", InternalError: "internalError",
	TryLater: "tryLater", SigRequired: "sigRequired", Unauthorized: "unauthorized",
}

func (s ResponseStatus) String() string {
	if n, ok := responseStatusNames[s]; ok {
		return n
	}
	return "undefined status"
}

// CertStatus is the choice of RFC 6960's CertStatus.
type CertStatus int

// Certificate statuses. The zero value is none of them, so that a forgotten field is not "good".
const (
	Good    CertStatus = 1
	Revoked CertStatus = 2
	Unknown CertStatus = 3
)

func (s CertStatus) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case Unknown:
		return "unknown"
	}
	return "no status"
}

// NoReason is the Reason of a revocation whose response gives none.
const NoReason = -1

// SingleResponse is the status of one certificate (RFC 6960 section 4.2.1).
type SingleResponse struct {
	ID         CertID
	Status     CertStatus
	RevokedAt  time.Time // Revoked only
	Reason     int       // Revoked only: CRLReason, or NoReason
	ThisUpdate time.Time
	NextUpdate time.Time // zero: absent
	Extensions []pkix.Extension
}

// ResponderID names who signed: exactly one of the fields is set.
type ResponderID struct {
	Name    []byte // byName: DER of the subject
	KeyHash []byte // byKey: SHA-1 of the public key's bits
}

// Response is a BasicOCSPResponse (RFC 6960 section 4.2.1). Times have a resolution of seconds, in UTC.
type Response struct {
	Responder  ResponderID
	ProducedAt time.Time
	Responses  []SingleResponse
	Extensions []pkix.Extension // responseExtensions
	Nonce      []byte           // content of the nonce extension, nil if absent
	Certs      [][]byte         // DER, to help the client find the signer's certificate

	// Set by ParseResponse; Sign ignores them.
	TBS          []byte // DER of tbsResponseData, what is signed
	SignatureAlg []byte // DER of the AlgorithmIdentifier
	Signature    []byte
}

// ErrorResponse is the DER of an OCSPResponse that carries only a status. Requires status != Successful.
func ErrorResponse(status ResponseStatus) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(status)) })
	return b.BytesOrPanic()
}
