package ca

import (
	"crypto/hmac"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/cloudflare/cfssl/csr"
	"github.com/cloudflare/cfssl/signer"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// signRequest is the body of cfssl's sign, and what is inside that of authsign.
type signRequest struct {
	csr, profile, label string
	over                override
	bundle              bool
}

// parseSignRequest reads every field that a client of cfssl may send. What this CA does not carry out must say nothing.
func parseSignRequest(body []byte) (*signRequest, error) {
	o := readObject(body)
	q := &signRequest{csr: o.text("certificate_request"), profile: o.text("profile"), label: o.text("label"), bundle: o.flag("bundle")}
	q.over.hosts = o.texts("hosts")
	if old := o.text("hostname"); old != "" {
		if q.over.hosts != nil {
			o.fail(invalid("hostname", old, "must not be given with hosts, which says the same"))
		}
		q.over.hosts = strings.Split(old, ",")
	}
	if q.over.hosts != nil && len(q.over.hosts) == 0 {
		o.fail(invalid("hosts", "[]", "must be absent, or have a name: an empty list would take all names out of the certificate"))
	}
	q.over.subject = takeSubject(o.object("subject"))
	o.none("serial", "must not be given: serial numbers are random")
	o.none("serial_sequence", "must not be given: serial numbers are random")
	o.none("crl_override", "must not be given: the profile decides where the CRL is (crl_url)")
	o.none("extensions", "must not be given: the profile decides about extensions")
	o.none("NotBefore", "must not be given: the profile decides about the validity (backdate)")
	o.none("NotAfter", "must not be given: the profile decides about the validity (expiry)")
	o.none("ReturnPrecert", "must not be given: a certificate leaves this CA when it is on the ledger")
	o.none("metadata", "must not be given: nothing is stored beside the certificate")
	if err := o.end(); err != nil {
		return nil, err
	}
	if q.csr == "" {
		return nil, invalid("certificate_request", "", "must be given and not be empty")
	}
	return q, nil
}

// takeSubject reads a subject as cfssl's sign has it. cfssl reads more of a name than it puts into a certificate; that is refused.
func takeSubject(o *object) *signer.Subject {
	if o == nil {
		return nil
	}
	s := &signer.Subject{CN: o.text("CN"), SerialNumber: o.text("SerialNumber")}
	for _, n := range o.objects("names") {
		s.Names = append(s.Names, takeName(n))
		n.none("E", "must not be given: a mail address is a name of its own, in hosts (RFC 5280 section 4.1.2.6)")
		n.none("OID", "must not be given: other attributes can come in the CSR only")
		n.none("SerialNumber", "must not be given here; subject has one of its own")
		_ = n.end() // kept by o
	}
	_ = o.end()
	return s
}

func takeName(n *object) csr.Name {
	return csr.Name{C: n.text("C"), ST: n.text("ST"), L: n.text("L"), O: n.text("O"), OU: n.text("OU")}
}

// authRequest is the body of authsign and authinfo: cfssl's "standard" authentication.
type authRequest struct {
	token   []byte // HMAC-SHA256 of request
	request []byte // JSON
}

// tokenSize is HMAC-SHA256's.
const tokenSize = 32

// maxAddress is longer than any address.
const maxAddress = 256

// parseAuthRequest reads the envelope. timestamp and remote_address are not under the HMAC: whoever repeats a request may put there what
// they like. As with cfssl's own standard provider nothing depends on them.
func parseAuthRequest(body []byte) (*authRequest, error) {
	o := readObject(body)
	a := &authRequest{token: o.bytes("token"), request: o.bytes("request")}
	if t, given := o.integer("timestamp"); given && t < 0 {
		o.fail(invalid("timestamp", fmt.Sprint(t), "must be seconds since 1970"))
	}
	if at := o.bytes("remote_address"); len(at) > maxAddress {
		o.fail(invalid("remote_address", fmt.Sprintf("%d bytes", len(at)), "must have at most %d bytes", maxAddress))
	}
	if err := o.end(); err != nil {
		return nil, err
	}
	if len(a.request) == 0 {
		return nil, invalid("request", "", "must be given and not be empty")
	}
	if len(a.token) != tokenSize {
		return nil, invalid("token", fmt.Sprintf("%d bytes", len(a.token)), "must be an HMAC-SHA256, of %d bytes", tokenSize)
	}
	return a, nil
}

// madeWith tells whether the token was made with key, in a time that does not depend on how much of it is right.
func (a *authRequest) madeWith(key []byte) bool { return hmac.Equal(a.token, hmacOf(key, a.request)) }

// infoRequest is the body of info.
type infoRequest struct{ label, profile string }

func parseInfoRequest(body []byte) (*infoRequest, error) {
	o := readObject(body)
	q := &infoRequest{label: o.text("label"), profile: o.text("profile")}
	return q, o.end()
}

// newCertRequest is the body of newcert.
type newCertRequest struct {
	request        *csr.CertificateRequest
	profile, label string
	bundle         bool
}

// parseNewCertRequest allows kinds of keys that checkKey allows too, up to a size that does not keep a processor busy for long.
func parseNewCertRequest(body []byte) (*newCertRequest, error) {
	o := readObject(body)
	q := &newCertRequest{request: csr.New(), profile: o.text("profile"), label: o.text("label"), bundle: o.flag("bundle")}
	if in := o.object("request"); in != nil {
		q.takeRequest(in)
	} else {
		o.fail(invalid("request", "", "must be given"))
	}
	return q, o.end()
}

func (q *newCertRequest) takeRequest(in *object) {
	r := q.request
	r.CN, r.SerialNumber, r.Hosts = in.text("CN"), in.text("serialnumber"), in.texts("hosts")
	for _, n := range in.objects("names") {
		name := takeName(n)
		name.E = n.text("E") // refused with the CSR, and its reason
		n.none("OID", "must not be given: other attributes can come in a CSR of the requester's own only")
		n.none("SerialNumber", "must not be given here; serialnumber stands beside names")
		_ = n.end()
		r.Names = append(r.Names, name)
	}
	if key := in.object("key"); key != nil {
		r.KeyRequest.A = key.text("algo")
		size, _ := key.integer("size")
		r.KeyRequest.S = int(size)
		_ = key.end()
		if !newKeySizes(r.KeyRequest.A, size) {
			in.fail(invalid(in.path+"key", fmt.Sprintf("%s %d", r.KeyRequest.A, size), "must be ecdsa of size 256 or 384, or rsa of size 2048, 3072 or 4096"))
		}
	}
	in.none("ca", "must not be given: CA certificates are not issued here")
	in.none("delegation_enabled", "must not be given: the profile decides about extensions")
	in.none("extensions", "must not be given: the profile decides about extensions")
	in.none("crl_url", "must not be given: the profile decides where the CRL is")
	_ = in.end()
}

func newKeySizes(algo string, size int64) bool {
	return algo == "ecdsa" && slices.Contains([]int64{256, 384}, size) || algo == "rsa" && slices.Contains([]int64{2048, 3072, 4096}, size)
}

// certInfoRequest is the body of certinfo: one of the two.
type certInfoRequest struct {
	certificate string // PEM
	serial      wire.Serial
	aki         string
}

func parseCertInfoRequest(body []byte) (*certInfoRequest, error) {
	o := readObject(body)
	q := &certInfoRequest{certificate: o.text("certificate"), aki: o.text("authority_key_id")}
	serial := o.text("serial")
	o.none("domain", "must not be given: this CA connects to nobody on a requester's behalf; fetch the certificate and send it as certificate")
	if err := o.end(); err != nil {
		return nil, err
	}
	switch {
	case q.certificate != "" && (serial != "" || q.aki != ""):
		return nil, invalid("serial", serial, "must not be given with certificate")
	case q.certificate != "":
		return q, nil
	case serial == "":
		return nil, invalid("certificate", "", "must be given, or else serial and authority_key_id")
	}
	var err error
	q.serial, err = decimalSerial(serial)
	return q, err
}

// cfsslRevocation is the body of revoke.
type cfsslRevocation struct {
	serial wire.Serial
	aki    string
	reason wire.Reason
}

func parseCFSSLRevocation(body []byte) (*cfsslRevocation, error) {
	o := readObject(body)
	serial, aki, reason := o.text("serial"), o.text("authority_key_id"), o.text("reason")
	err := o.end()
	if err != nil {
		return nil, err
	}
	q := &cfsslRevocation{aki: aki}
	if q.serial, err = decimalSerial(serial); err != nil {
		return nil, err
	}
	q.reason, err = cfsslReason(reason)
	return q, err
}

// decimalSerial reads a serial number as cfssl writes it.
func decimalSerial(s string) (wire.Serial, error) {
	const most = 49 // digits of 2^160
	if s == "" || len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return nil, invalid("serial", s, "must be a decimal number of at most %d digits", most)
	}
	n, _ := new(big.Int).SetString(s, 10)
	return wire.SerialOf(n)
}

// cfsslReason reads a reason as cfssl does: a name in any spelling of upper and lower case, or RFC 5280's number; none is unspecified.
func cfsslReason(s string) (wire.Reason, error) {
	if s == "" {
		return wire.Unspecified, nil
	}
	for r := wire.Unspecified; r <= wire.AACompromise; r++ {
		name := r.String()
		if _, err := wire.ParseReason(name); err == nil && (strings.EqualFold(name, s) || s == fmt.Sprint(uint(r))) {
			return r, nil
		}
	}
	rule := "must be the name or the number of a reason (RFC 5280 section 5.3.1): unspecified 0, keyCompromise 1, cACompromise 2, affiliationChanged 3, " +
		"superseded 4, cessationOfOperation 5, certificateHold 6, privilegeWithdrawn 9 or aACompromise 10"
	if strings.EqualFold(s, "removeFromCRL") || s == "8" {
		rule = "must not be removeFromCRL: a hold ends with POST /v1/releases"
	}
	return 0, invalid("reason", s, "%s", rule)
}
