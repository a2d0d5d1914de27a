package ocspwire

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func TestOpenSSLAndXCryptoReadResponsesOfEveryKey(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t, key, nil)
			r := p.response(t)
			single := &r.Responses[0]
			single.Status, single.RevokedAt, single.Reason = Revoked, p.now.Add(-time.Minute), ocsp.KeyCompromise
			der := p.signed(t, r)

			dir := p.write(t, map[string][]byte{"resp": der})
			out := openssl(t, dir, "ocsp", "-respin", "resp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-CAfile", "ca.pem", "-no_nonce")
			for _, want := range []string{"Response verify OK", "leaf.pem: revoked", "Reason: keyCompromise"} {
				if !strings.Contains(out, want) {
					t.Errorf("openssl does not say %q:\n%s", want, out)
				}
			}
			if name == "Ed25519" { // x/crypto/ocsp does not know it
				return
			}
			theirs, err := ocsp.ParseResponseForCert(der, p.leaf, p.ca)
			if err != nil {
				t.Fatal(err)
			}
			if theirs.Status != ocsp.Revoked || theirs.RevocationReason != ocsp.KeyCompromise || !theirs.RevokedAt.Equal(single.RevokedAt) ||
				!theirs.ThisUpdate.Equal(single.ThisUpdate) || !theirs.NextUpdate.Equal(single.NextUpdate) || !theirs.ProducedAt.Equal(p.now) {
				t.Errorf("x/crypto reads %+v", theirs)
			}
		})
	}
}

func TestResponsesOfOpenSSLVerify(t *testing.T) {
	p := newPKI(t, nil, nil)
	expiry := p.leaf.NotAfter.UTC().Format("060102150405Z")
	dir := p.write(t, map[string][]byte{
		"index.txt": []byte("R\t" + expiry + "\t" + p.now.UTC().Add(-time.Minute).Format("060102150405Z") + ",superseded\t1234567890\tunknown\t/CN=leaf\n"),
	})
	openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-reqout", "req")
	for _, by := range []string{"-resp_key_id", "-no_nonce"} { // by key; by name
		args := []string{"ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "delegate.pem", "-rkey", "delegate.key", "-reqin", "req", "-respout", "resp", "-ndays", "1"}
		if by == "-resp_key_id" {
			args = append(args, by)
		}
		openssl(t, dir, args...)
		req, err := os.ReadFile(filepath.Join(dir, "req"))
		if err != nil {
			t.Fatal(err)
		}
		der, err := os.ReadFile(filepath.Join(dir, "resp"))
		if err != nil {
			t.Fatal(err)
		}
		asked, err := ParseRequest(req, 1)
		if err != nil {
			t.Fatal(err)
		}
		opts := p.options(t)
		opts.Nonce, opts.Skew = asked.Nonce, time.Minute
		single, signer, err := parse(t, der).Verify(opts)
		if err != nil {
			t.Fatal(err)
		}
		if single.Status != Revoked || single.Reason != ocsp.Superseded || !signer.Equal(p.delegate) {
			t.Errorf("answer is %+v by %s", single, signer.Subject)
		}
	}
}

func TestSeveralStatusesAndTheNonceComeBack(t *testing.T) {
	p := newPKI(t, nil, nil)
	r := p.response(t)
	r.Nonce = []byte("0123456789abcdef0123456789abcdef")
	for i, s := range []CertStatus{Revoked, Unknown} {
		id, err := NewCertID(crypto.SHA384, p.ca, big.NewInt(int64(100+i)))
		if err != nil {
			t.Fatal(err)
		}
		r.Responses = append(r.Responses, SingleResponse{ID: id, Status: s, RevokedAt: p.now, Reason: NoReason, ThisUpdate: p.now})
	}
	got := parse(t, p.signed(t, r))
	if len(got.Responses) != 3 || got.Responses[0].Status != Good || got.Responses[1].Status != Revoked || got.Responses[2].Status != Unknown {
		t.Fatalf("responses are %+v", got.Responses)
	}
	if got.Responses[1].Reason != NoReason || !got.Responses[1].NextUpdate.IsZero() {
		t.Errorf("revoked one is %+v", got.Responses[1])
	}
	if !bytes.Equal(got.Nonce, r.Nonce) {
		t.Errorf("nonce is %q", got.Nonce)
	}
	if !got.ProducedAt.Equal(p.now) {
		t.Errorf("producedAt is %s, want %s to the second", got.ProducedAt, p.now)
	}
}

func TestUnfinishedResponsesAreNotSigned(t *testing.T) {
	p := newPKI(t, nil, nil)
	for what, breakIt := range map[string]func(*Response){
		"no status": func(r *Response) { r.Responses[0].Status = 0 },
		"no CertID": func(r *Response) { r.Responses[0].ID = CertID{} },
		"reason 7": func(r *Response) {
			r.Responses[0].Status, r.Responses[0].RevokedAt, r.Responses[0].Reason = Revoked, p.now, 7
		},
		"no time":          func(r *Response) { r.Responses[0].Status = Revoked },
		"nobody":           func(r *Response) { r.Responder = ResponderID{} },
		"two responders":   func(r *Response) { r.Responder.Name = p.ca.RawSubject },
		"bad extension":    func(r *Response) { r.Responses[0].Extensions = []pkix.Extension{{Id: OIDArchiveCutoff}} },
		"nothing answered": func(r *Response) { r.Responses = nil },
		"year 10000":       func(r *Response) { r.ProducedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		r := p.response(t)
		breakIt(r)
		if _, err := r.Sign(p.key); err == nil {
			t.Errorf("%s: is signed", what)
		}
	}
	if _, err := p.response(t).Sign(ecKey(t, elliptic.P224())); err == nil {
		t.Error("P-224: is signed")
	}
	if _, err := p.response(t).SignWith(p.key, x509.PureEd25519); err == nil {
		t.Error("Ed25519 by an ECDSA key: is signed")
	}
}

func TestErrorResponsesAreWhatXCryptoHas(t *testing.T) {
	for status, theirs := range map[ResponseStatus][]byte{
		MalformedRequest: ocsp.MalformedRequestErrorResponse, InternalError: ocsp.InternalErrorErrorResponse,
		TryLater: ocsp.TryLaterErrorResponse, SigRequired: ocsp.SigRequredErrorResponse, Unauthorized: ocsp.UnauthorizedErrorResponse,
	} {
		if ours := ErrorResponse(status); !bytes.Equal(ours, theirs) {
			t.Errorf("%s: %x, x/crypto has %x", status, ours, theirs)
		}
		got, resp, err := ParseResponse(theirs)
		if err != nil || got != status || resp != nil {
			t.Errorf("%s reads as %v, %v, %v", status, got, resp, err)
		}
	}
	for _, der := range [][]byte{{0x30, 3, 0x0a, 1, 4}, {0x30, 3, 0x0a, 1, 0}, {0x30, 3, 0x0a, 1, 7}} {
		if _, _, err := ParseResponse(der); err == nil {
			t.Errorf("%x is accepted", der)
		}
	}
}

func TestResponsesThatMustNotBeBelieved(t *testing.T) {
	for _, c := range []struct {
		what     string
		want     error
		delegate func(*x509.Certificate)
		response func(*pki, *Response)
		options  func(*pki, *VerifyOptions)
	}{
		{what: "good one"},
		{what: "delegate without OCSPSigning", want: ErrSigner, delegate: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
		{what: "delegate without nocheck", want: ErrSigner, delegate: func(c *x509.Certificate) { c.ExtraExtensions = nil }},
		{what: "delegate's nocheck not NULL", want: ErrSigner, delegate: func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{4, 0} }},
		{what: "delegate may not sign", want: ErrSigner, delegate: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }},
		{what: "delegate expired", want: ErrSigner, delegate: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}},
		{what: "delegate not there", want: ErrSigner, response: func(_ *pki, r *Response) { r.Certs = nil }},
		{what: "certificate is not one", want: ErrSigner, response: func(_ *pki, r *Response) { r.Certs = [][]byte{{0x30, 0}} }},
		{what: "another CA's", want: ErrSigner, options: func(p *pki, o *VerifyOptions) { o.Issuer = newPKI(t, nil, nil).ca }},
		{what: "leaf as signer", want: ErrSigner, response: func(p *pki, r *Response) { r.Certs = [][]byte{p.leaf.Raw} }},
		{what: "in the issuer's name", want: ErrSignature, response: func(p *pki, r *Response) { r.Responder = ResponderID{Name: p.ca.RawSubject} }},
		{what: "nonce missing", want: ErrNonce, options: func(_ *pki, o *VerifyOptions) { o.Nonce = []byte("1") }},
		{what: "nonce of another", want: ErrNonce, response: func(_ *pki, r *Response) { r.Nonce = []byte("2") }, options: func(_ *pki, o *VerifyOptions) { o.Nonce = []byte("1") }},
		{what: "another serial", want: ErrNotAsked, options: func(_ *pki, o *VerifyOptions) { o.ID.Serial = big.NewInt(9) }},
		{what: "from the future", want: ErrNotNow, response: func(p *pki, r *Response) { r.Responses[0].ThisUpdate = p.now.Add(2 * time.Minute) }},
		{what: "outdated", want: ErrNotNow, options: func(p *pki, o *VerifyOptions) { o.Now = p.now.Add(10 * time.Minute) }},
		{what: "too old for the client", want: ErrNotNow, response: func(p *pki, r *Response) {
			r.Responses[0].ThisUpdate = p.now.Add(-20 * time.Minute)
			r.Responses[0].NextUpdate = time.Time{}
		}, options: func(_ *pki, o *VerifyOptions) { o.MaxAge = 5 * time.Minute }},
		{what: "backwards", want: ErrNotNow, response: func(p *pki, r *Response) { r.Responses[0].NextUpdate = p.now.Add(-time.Second) }},
		{what: "within the skew", response: func(p *pki, r *Response) { r.Responses[0].ThisUpdate = p.now.Add(30 * time.Second) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPKI(t, nil, c.delegate)
			r, opts := p.response(t), p.options(t)
			opts.Skew = time.Minute
			if c.response != nil {
				c.response(p, r)
			}
			if c.options != nil {
				c.options(p, &opts)
			}
			_, _, err := parse(t, p.signed(t, r)).Verify(opts)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
}

func TestContradictingStatusesAndUnknownCriticalExtensionsAreRefused(t *testing.T) {
	p := newPKI(t, nil, nil)
	odd := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	for what, breakIt := range map[string]func(*Response){
		"two statuses of one certificate": func(r *Response) { r.Responses = append(r.Responses, r.Responses[0]) },
		"critical response extension":     func(r *Response) { r.Extensions = []pkix.Extension{odd} },
		"critical single extension":       func(r *Response) { r.Responses[0].Extensions = []pkix.Extension{odd} },
	} {
		r := p.response(t)
		breakIt(r)
		_, _, err := parse(t, p.signed(t, r)).Verify(p.options(t))
		if m := new(MalformedError); !errors.As(err, &m) {
			t.Errorf("%s: error is %v", what, err)
		}
	}
}

func TestIssuerItselfMaySign(t *testing.T) {
	p := newPKI(t, nil, nil)
	r := p.response(t)
	r.Certs, r.Responder = nil, ResponderID{Name: p.ca.RawSubject}
	der, err := r.Sign(p.caKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, signer, err := parse(t, der).Verify(p.options(t)); err != nil || signer != p.ca {
		t.Errorf("signer %v, error %v", signer, err)
	}
}

func TestFlippedBitsAreNoticed(t *testing.T) {
	p := newPKI(t, nil, nil)
	r := parse(t, p.signed(t, p.response(t)))
	r.TBS = bytes.Clone(r.TBS) // the other fields stay what they are
	for i := range r.TBS {
		r.TBS[i] ^= 1
		if _, _, err := r.Verify(p.options(t)); !errors.Is(err, ErrSignature) {
			t.Fatalf("octet %d: error is %v", i, err)
		}
		r.TBS[i] ^= 1
	}
}
