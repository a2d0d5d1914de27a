package conformance

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

// responders has openssl be the responder, for certificates of the same CA, and this project's client read its answers.
func (tb *table) responders(w *world) {
	tb.section("Answers of another responder", "`openssl ocsp -index` answers openssl's own requests; this project's client must read and verify what it says. "+
		"Those of the project name themselves by key, or by name where `responder_id` says so.", "Responder", "Client must read", "Reads")
	o := w.opensslResponder()
	for _, c := range []struct {
		name, key string
		ask, sign []string
		want      answer
	}{
		{"by name", "P-256", []string{"-cert", o.good.file}, nil, good()},
		{"by key", "P-256", []string{"-cert", o.good.file}, []string{"-resp_key_id"}, good()},
		{"nonce", "P-256", []string{"-nonce", "-cert", o.good.file}, nil, good()},
		{"revoked", "P-256", []string{"-cert", o.gone.file}, nil, revoked("superseded")},
		{"unknown", "P-256", []string{"-serial", "4711"}, nil, unknown()},
		{"three certificates", "P-256", []string{"-cert", o.good.file, "-cert", o.gone.file, "-serial", "4711"}, nil,
			answer{statuses: []string{"good", "revoked", "unknown"}, reasons: []string{"superseded"}}},
		{"CertID in SHA-256", "P-256", []string{"-sha256", "-cert", o.good.file}, nil, good()},
		{"CertID in SHA-512", "P-256", []string{"-sha512", "-cert", o.good.file}, nil, good()},
		{"P-384 key, SHA-384", "P-384", []string{"-cert", o.good.file}, []string{"-rmd", "sha384"}, good().by(x509.ECDSAWithSHA384)},
		{"RSA key", "RSA", []string{"-cert", o.good.file}, nil, good().by(x509.SHA256WithRSA)},
		{"RSA key, SHA-512", "RSA", []string{"-cert", o.good.file}, []string{"-rmd", "sha512"}, good().by(x509.SHA512WithRSA)},
		{"RSA key, RSASSA-PSS", "RSA", []string{"-cert", o.good.file}, []string{"-rsigopt", "rsa_padding_mode:pss", "-rsigopt", "rsa_pss_saltlen:-1"}, good().by(x509.SHA256WithRSAPSS)},
	} {
		tb.row(c.name, c.want.must(), o.answers(c.key, c.ask, c.sign, c.want))
	}
}

// responder is openssl with an index of the CA's certificates and a delegate's key of each kind.
type responder struct {
	w          *world
	index      string
	good, gone *cert
}

func (w *world) opensslResponder() *responder {
	w.t.Helper()
	o := &responder{w: w, good: w.issue("openssl-good.test", "server"), gone: w.issue("openssl-gone.test", "server")}
	const layout = "060102150405Z"
	line := func(c *cert, state, when string) string {
		return strings.Join([]string{state, c.NotAfter.UTC().Format(layout), when, strings.ToUpper(evenHex(c)), "unknown", "/CN=" + c.Subject.CommonName}, "\t") + "\n"
	}
	o.index = w.write("index.txt", []byte(line(o.good, "V", "")+line(o.gone, "R", time.Now().UTC().Add(-time.Minute).Format(layout)+",superseded")))
	for _, kind := range []string{"P-256", "P-384", "RSA"} {
		key := newKey(w, kind)
		w.write("openssl-"+kind+".pem", toPEM("CERTIFICATE", w.certify("openssl "+kind, key.Public())))
		w.write("openssl-"+kind+".key", keyPEM(w, key))
	}
	return o
}

func evenHex(c *cert) string { return fmt.Sprintf("%x", c.SerialNumber.Bytes()) }

// answers has openssl ask and answer, and reads the answer.
func (o *responder) answers(key string, ask, sign []string, want answer) error {
	w := o.w
	if _, err := w.run("openssl", append([]string{"ocsp", "-issuer", w.caFile, "-no_nonce", "-reqout", "openssl.req"}, ask...)...); err != nil {
		return err
	}
	q := asker{w, w.main}.raw("", want, w.read("openssl.req"))
	if q.req == nil {
		return fmt.Errorf("openssl's request is not read: %x", q.der)
	}
	// The index's responder takes the nonce of -reqin as it is.
	out, err := w.run("openssl", append([]string{"ocsp", "-index", o.index, "-CA", w.caFile, "-rsigner", "openssl-" + key + ".pem", "-rkey", "openssl-" + key + ".key",
		"-no_nonce", "-reqin", "openssl.req", "-respout", "openssl.resp", "-ndays", "1"}, sign...)...)
	if err != nil {
		return fmt.Errorf("openssl does not answer: %w: %s", err, lastLines(out))
	}
	if _, resp, err := ocspwire.ParseResponse(w.read("openssl.resp")); err != nil || (resp.Responder.Name == nil) != slices.Contains(sign, "-resp_key_id") {
		return fmt.Errorf("responder ID is not of the kind that openssl was told: %w", err)
	}
	got, err := ownJudge(w, q, w.read("openssl.resp"))
	if err != nil {
		return err
	}
	if differs := judges[0].agrees(got, &q.want); differs != "" {
		return fmt.Errorf("%s", differs)
	}
	return nil
}
