package conformance

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

func nonceQuestions(w *world) (qs []*question) {
	a := asker{w, w.main}
	item := []ocspwire.RequestItem{{ID: a.id(crypto.SHA1, w.issue("nonce.test", "server").SerialNumber)}}
	for _, n := range []int{1, 16, 32, 128} {
		nonce := make([]byte, n)
		_, err := rand.Read(nonce)
		w.must(err)
		qs = append(qs, a.asking(fmt.Sprintf("nonce of %s", octets(n)), good(), &ocspwire.Request{Items: item, Nonce: nonce}))
	}
	for _, n := range []int{0, 129} {
		qs = append(qs, a.asking(fmt.Sprintf("nonce of %s", octets(n)), refused("malformedRequest"), &ocspwire.Request{Items: item, Nonce: bytes.Repeat([]byte{7}, n)}))
	}
	bare := []pkix.Extension{{Id: ocspwire.OIDNonce, Value: []byte("0123456789abcdef")}}
	return append(qs, a.asking("nonce not in an OCTET STRING", refused("malformedRequest"), &ocspwire.Request{Items: item, Extensions: bare}))
}

func octets(n int) string {
	if n == 1 {
		return "1 octet"
	}
	return fmt.Sprintf("%d octets", n)
}

func extensionQuestions(w *world) []*question {
	a := asker{w, w.main}
	id := a.id(crypto.SHA1, w.issue("extended.test", "server").SerialNumber)
	with := func(name string, want answer, exts ...pkix.Extension) *question {
		return a.asking(name, want, &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}, Extensions: exts})
	}
	single := func(name string, want answer, exts ...pkix.Extension) *question {
		return a.asking(name, want, &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id, Extensions: exts}}})
	}
	odd := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	accept := func(critical bool, types ...asn1.ObjectIdentifier) pkix.Extension {
		ext, err := ocspwire.AcceptableResponsesExtension(types...)
		w.must(err)
		ext.Critical = critical
		return ext
	}
	locator := ocspwire.ServiceLocator{Issuer: w.ca.RawSubject}
	return []*question{
		with("unknown extension", good(), pkix.Extension{Id: odd, Value: []byte{5, 0}}),
		with("unknown critical extension", refused("malformedRequest"), pkix.Extension{Id: odd, Critical: true, Value: []byte{5, 0}}),
		single("unknown extension of one certificate", good(), pkix.Extension{Id: odd, Value: []byte{5, 0}}),
		single("unknown critical extension of one certificate", refused("malformedRequest"), pkix.Extension{Id: odd, Critical: true, Value: []byte{5, 0}}),
		with("the same extension twice", refused("malformedRequest"), pkix.Extension{Id: odd, Value: []byte{5, 0}}, pkix.Extension{Id: odd, Value: []byte{5, 0}}),
		with("acceptable responses: basic", good(), accept(false, ocspwire.OIDBasic)),
		with("acceptable responses: basic, critical", good(), accept(true, ocspwire.OIDBasic)),
		with("acceptable responses: another and basic", good(), accept(false, odd, ocspwire.OIDBasic)),
		with("acceptable responses without basic", refused("unauthorized"), accept(false, odd)),
		with("acceptable responses without basic, critical", refused("unauthorized"), accept(true, odd)),
		with("acceptable responses, not a list", refused("malformedRequest"), pkix.Extension{Id: ocspwire.OIDResponse, Value: []byte{5, 0}}),
		single("service locator", good(), locator.Extension()),
	}
}

func requestorQuestions(w *world) []*question {
	a := asker{w, w.main}
	asked := w.issue("asked.test", "server")
	item := []ocspwire.RequestItem{{ID: a.id(crypto.SHA1, asked.SerialNumber)}}
	var qs []*question
	for _, n := range []*ocspwire.GeneralName{
		{Choice: ocspwire.OtherName, ID: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{0x0c, 1, 'x'}},
		{Choice: ocspwire.RFC822Name, Text: "who@example.com"}, {Choice: ocspwire.DNSName, Text: "example.com"},
		{Choice: ocspwire.X400Address, Value: []byte{0x30, 0}}, ocspwire.DirectoryNameOf(asked.RawSubject),
		{Choice: ocspwire.EDIPartyName, Value: []byte{0xa1, 3, 0x0c, 1, 'x'}}, {Choice: ocspwire.URI, Text: "https://example.com/who"},
		{Choice: ocspwire.IPAddress, Value: []byte{192, 0, 2, 1}}, {Choice: ocspwire.RegisteredID, ID: asn1.ObjectIdentifier{1, 2, 3}},
	} {
		qs = append(qs, a.asking("requestorName: "+n.Choice.String(), good(), &ocspwire.Request{Items: item, RequestorName: n}))
	}
	return append(qs, signedQuestions(w, item)...)
}

// signedQuestions: by default a signature is ignored, and `signed_requests: verify` believes holders of certificates on the ledger only.
func signedQuestions(w *world, item []ocspwire.RequestItem) []*question {
	ignore, verify := asker{w, w.main}, asker{w, w.bridges["verify"]}
	client, gone := w.issue("client.test", "client"), w.issue("client-revoked.test", "client")
	w.revoke(gone, "keyCompromise", time.Time{})
	signed := func(c *cert) []byte {
		der, err := (&ocspwire.Request{Items: item}).Sign(c.key, c.Certificate)
		w.must(err)
		return der
	}
	genuine := signed(client)
	forged := bytes.Clone(genuine)
	// The last octet of the signature; its certificate follows, in [0] and a SEQUENCE.
	at := bytes.LastIndex(forged, client.Raw)
	req, err := ocspwire.ParseRequest(genuine, 1)
	w.must(err)
	at = bytes.LastIndex(forged[:at], req.Signature.Value) + len(req.Signature.Value) - 1
	forged[at] ^= 1
	return []*question{
		ignore.raw("signed", good(), genuine),
		ignore.raw("signed wrongly; signatures are ignored by default", good(), forged),
		verify.raw("signed, `signed_requests: verify`", good(), genuine),
		verify.asking("not signed, `signed_requests: verify`", good(), &ocspwire.Request{Items: item}),
		verify.raw("signed wrongly, `signed_requests: verify`", refused("unauthorized"), forged),
		verify.raw("signed with a revoked certificate, `signed_requests: verify`", refused("unauthorized"), signed(gone)),
		verify.raw("signed with a stranger's certificate, `signed_requests: verify`", refused("unauthorized"), signed(w.stranger())),
	}
}

// stranger has a certificate that no CA on the ledger has issued.
func (w *world) stranger() *cert {
	key := newKey(w, "P-256")
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "stranger"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	w.must(err)
	parsed, err := x509.ParseCertificate(der)
	w.must(err)
	return &cert{Certificate: parsed, key: key}
}

func algorithmQuestions(w *world) (qs []*question) {
	serial := w.issue("signature.test", "server").SerialNumber
	ask := func(key, name string, alg x509.SignatureAlgorithm, prefs ...x509.SignatureAlgorithm) {
		a := asker{w, w.bridges[key]}
		if key == "P-256" {
			a.b = w.main
		}
		req := &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: a.id(crypto.SHA1, serial)}}}
		if len(prefs) > 0 {
			ext, err := ocspwire.PreferredAlgorithmsExtension(prefs...)
			w.must(err)
			req.Extensions = append(req.Extensions, ext)
		}
		qs = append(qs, a.asking(key+" key, "+name, good().by(alg), req))
	}
	ask("P-256", "no preference", x509.ECDSAWithSHA256)
	ask("P-256", "prefers ECDSA with SHA-384", x509.ECDSAWithSHA384, x509.ECDSAWithSHA384)
	ask("P-256", "prefers RSA, which it has not", x509.ECDSAWithSHA256, x509.SHA256WithRSA)
	ask("P-256", "prefers RSA, else ECDSA with SHA-512", x509.ECDSAWithSHA512, x509.SHA256WithRSA, x509.ECDSAWithSHA512)
	ask("P-384", "no preference", x509.ECDSAWithSHA384)
	ask("RSA", "no preference", x509.SHA256WithRSA)
	ask("RSA", "prefers PKCS #1 with SHA-512", x509.SHA512WithRSA, x509.SHA512WithRSA)
	for _, alg := range []x509.SignatureAlgorithm{x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS} {
		ask("RSA", "prefers "+alg.String(), alg, alg)
		if alg != x509.SHA256WithRSAPSS {
			qs[len(qs)-1].unable = map[string]*limit{"GnuTLS": gnutlsPSS}
		}
	}
	ask("Ed25519", "no preference", x509.PureEd25519)
	return qs
}
