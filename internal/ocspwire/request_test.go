package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

const manyItems = 100

func marshal(t testing.TB, r *Request) []byte {
	t.Helper()
	der, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRequestsOfOpenSSLAreRead(t *testing.T) {
	p := newPKI(t, nil, nil)
	dir := p.write(t, nil)
	for _, h := range Hashes() {
		name := strings.ToLower(strings.ReplaceAll(h.String(), "-", ""))
		openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-"+name, "-cert", "leaf.pem", "-"+name, "-serial", "0x7f", "-reqout", "req")
		der, err := os.ReadFile(filepath.Join(dir, "req"))
		if err != nil {
			t.Fatal(err)
		}
		req, err := ParseRequest(der, manyItems)
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		if len(req.Items) != 2 || !req.Items[0].ID.Same(p.id(t, h)) || req.Items[1].ID.Serial.Int64() != 0x7f {
			t.Errorf("%s: items are %+v", h, req.Items)
		}
		if len(req.Nonce) != 16 {
			t.Errorf("%s: nonce is %x, openssl sends 16 octets", h, req.Nonce)
		}
	}
}

func TestSignedRequestsOfOpenSSLVerify(t *testing.T) {
	p := newPKI(t, nil, nil)
	dir := p.write(t, nil)
	openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-signer", "delegate.pem", "-signkey", "delegate.key", "-reqout", "req")
	der, err := os.ReadFile(filepath.Join(dir, "req"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := ParseRequest(der, manyItems)
	if err != nil {
		t.Fatal(err)
	}
	if req.Signature == nil || len(req.Signature.Certs) != 1 || !bytes.Equal(req.Signature.Certs[0], p.delegate.Raw) {
		t.Fatalf("signature is %+v", req.Signature)
	}
	// OpenSSL puts the signer's name into requestorName, as a directoryName.
	if n := req.RequestorName; n == nil || n.Choice != DirectoryName || !bytes.Equal(n.Value, p.delegate.RawSubject) {
		t.Errorf("requestorName is %s", n)
	}
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	if got, err := req.Verify(RequestorOptions{Roots: roots, Now: p.now}); err != nil || !got.Equal(p.delegate) {
		t.Errorf("requestor is %v, error %v", got, err)
	}
}

func TestXCryptoAgreesOnRequests(t *testing.T) {
	p := newPKI(t, nil, nil)
	for _, h := range Hashes() {
		theirs, err := ocsp.CreateRequest(p.leaf, p.ca, &ocsp.RequestOptions{Hash: h})
		if err != nil {
			t.Fatal(err)
		}
		ours := marshal(t, &Request{Items: []RequestItem{{ID: p.id(t, h)}}})
		if !bytes.Equal(theirs, ours) {
			t.Errorf("%s: x/crypto builds %x, this package %x", h, theirs, ours)
		}
	}
}

func TestAbsentHashParametersMeanTheSame(t *testing.T) {
	p := newPKI(t, nil, nil)
	id := p.id(t, crypto.SHA256)
	der := marshal(t, &Request{Items: []RequestItem{{ID: CertID{Raw: withoutNull(t, id)}}}})
	req, err := ParseRequest(der, manyItems)
	if err != nil {
		t.Fatal(err)
	}
	if !req.Items[0].ID.Same(id) {
		t.Errorf("%+v is not the same as %+v", req.Items[0].ID, id)
	}
}

// withoutNull encodes id with absent parameters.
func withoutNull(t testing.TB, id CertID) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidOf(id.Hash)) })
		b.AddASN1OctetString(id.NameHash)
		b.AddASN1OctetString(id.KeyHash)
		b.AddASN1BigInt(id.Serial)
	})
	raw, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestNonceIsOneTo128Octets(t *testing.T) {
	p := newPKI(t, nil, nil)
	for n, ok := range map[int]bool{0: false, 1: true, 16: true, 32: true, 128: true, 129: false, 1000: false} {
		want := bytes.Repeat([]byte{7}, n)
		req, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}, Nonce: want}), manyItems)
		if (err == nil) != ok {
			t.Errorf("nonce of %d octets: error %v", n, err)
		}
		if ok && !bytes.Equal(req.Nonce, want) {
			t.Errorf("nonce of %d octets comes back as %x", n, req.Nonce)
		}
	}
	// RFC 2560's clients put the nonce into the extension without an OCTET STRING of its own.
	bare := &Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1)}}, Extensions: []pkix.Extension{{Id: OIDNonce, Value: []byte("0123456789")}}}
	if _, err := ParseRequest(marshal(t, bare), manyItems); err == nil {
		t.Error("a bare nonce is accepted")
	}
}

func TestMalformedRequestsAreRefusedWithTheRule(t *testing.T) {
	p := newPKI(t, nil, nil)
	id := p.id(t, crypto.SHA1)
	good := marshal(t, &Request{Items: []RequestItem{{ID: id}}})
	critical := func(b byte) []byte { // an extension with an explicit critical octet
		ext := []byte{0x30, 0x0a, 0x06, 0x03, 0x2a, 0x03, 0x04, 0x01, 0x01, b, 0x04, 0x00}
		ext[1] = byte(len(ext) - 2)
		return wrap(0x30, wrap(0x30, wrap(0x30, wrap(0x30, id.Raw)), wrap(0xa2, wrap(0x30, ext))))
	}
	short := id
	short.NameHash = short.NameHash[:19]
	for _, c := range []struct {
		what, want string
		der        []byte
	}{
		{"empty", "OCSPRequest", nil},
		{"trailing octet", "1 octets too long", append(bytes.Clone(good), 0)},
		{"cut off", "OCSPRequest", good[:len(good)-1]},
		{"no certificate", "at least one", marshal(t, &Request{})},
		{"too many certificates", "longer than 2", marshal(t, &Request{Items: []RequestItem{{ID: id}, {ID: id}, {ID: id}}})},
		{"explicit default version", "version", wrap(0x30, wrap(0x30, []byte{0xa0, 3, 2, 1, 0}, wrap(0x30, wrap(0x30, id.Raw))))},
		{"version 2", "version", wrap(0x30, wrap(0x30, []byte{0xa0, 3, 2, 1, 1}, wrap(0x30, wrap(0x30, id.Raw))))},
		{"long form length", "OCSPRequest", append([]byte{0x30, 0x81, good[1]}, good[2:]...)},
		{"hash of the wrong length", "must have the hash algorithm's length", marshal(t, &Request{Items: []RequestItem{{ID: CertID{Raw: withoutNull(t, short)}}}})},
		{"serial with a leading zero", "serialNumber", wrap(0x30, wrap(0x30, wrap(0x30, wrap(0x30, bytes.Replace(id.Raw, []byte{2, 5, 0x12}, []byte{2, 5, 0x00}, 1)))))},
		{"empty extensions", "at least one extension", wrap(0x30, wrap(0x30, wrap(0x30, wrap(0x30, id.Raw)), wrap(0xa2, wrap(0x30))))},
		{"critical FALSE", "critical", critical(0)},
		{"critical neither", "critical", critical(1)},
		{"repeated extension", "twice", marshal(t, &Request{Items: []RequestItem{{ID: id}}, Extensions: []pkix.Extension{{Id: OIDArchiveCutoff}, {Id: OIDArchiveCutoff}}})},
		{"signature without value", "optionalSignature", wrap(0x30, wrap(0x30, wrap(0x30, wrap(0x30, id.Raw))), wrap(0xa0, wrap(0x30, wrap(0x30))))},
	} {
		_, err := ParseRequest(c.der, 2)
		if m := new(MalformedError); !errors.As(err, &m) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", c.what, err, c.want)
		}
	}
}

// wrap is a DER element with a short length.
func wrap(tag byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	if len(body) < 128 {
		return append([]byte{tag, byte(len(body))}, body...)
	}
	return append([]byte{tag, 0x81, byte(len(body))}, body...)
}

func TestUnknownCriticalExtensionsAreFound(t *testing.T) {
	p := newPKI(t, nil, nil)
	odd := asn1.ObjectIdentifier{1, 2, 3}
	for _, c := range []struct {
		what string
		req  Request
		want bool
	}{
		{"none", Request{}, false},
		{"not critical", Request{Extensions: []pkix.Extension{{Id: odd}}}, false},
		{"critical nonce", Request{Extensions: []pkix.Extension{{Id: OIDNonce, Critical: true}}}, false},
		{"critical", Request{Extensions: []pkix.Extension{{Id: odd, Critical: true}}}, true},
		{"critical in an item", Request{Items: []RequestItem{{ID: p.id(t, crypto.SHA1), Extensions: []pkix.Extension{{Id: odd, Critical: true}}}}}, true},
	} {
		if _, got := c.req.UnknownCritical(); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestUnknownHashIsNotMalformed(t *testing.T) {
	md5 := wrap(0x30, wrap(0x30, []byte{6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5}), wrap(4, make([]byte, 16)), wrap(4, make([]byte, 16)), []byte{2, 1, 5})
	req, err := ParseRequest(marshal(t, &Request{Items: []RequestItem{{ID: CertID{Raw: md5}}}}), 1)
	if err != nil {
		t.Fatal(err)
	}
	if id := req.Items[0].ID; id.Hash != 0 || id.Serial.Cmp(big.NewInt(5)) != 0 || id.Same(id) {
		t.Errorf("CertID is %+v: an unknown algorithm must match nothing", id)
	}
}
