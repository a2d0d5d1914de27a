package conformance

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/certanchor/certanchor/client"
)

var noTime time.Time

// clients are programs that ask by themselves, as their users would have them do.
func (tb *table) clients(w *world) {
	good, gone, held := w.issue("client-good.test", "server"), w.issue("client-gone.test", "server"), w.issue("client-held.test", "server")
	w.revoke(gone, "keyCompromise", noTime)
	w.revoke(held, "certificateHold", noTime)
	signer := w.issue("client-signs.test", "client")
	keyFile := w.write("client-signs.key", keyPEM(w, signer.key))
	tb.section("Clients that ask by themselves", "The programs make their own requests and verify the answers.", "Client", "Must say", "Says")

	openssl := func(args ...string) func() error {
		must := args[0]
		return func() error {
			out, err := w.run("openssl", append([]string{"ocsp", "-issuer", w.caFile, "-CAfile", w.caFile, "-url", w.main.url}, args[1:]...)...)
			if strings.Contains(must, "Error") == (err == nil) || !strings.Contains(out, must) || err == nil && !strings.Contains(out, "Response verify OK") ||
				strings.Contains(out, "WARNING: no nonce") {
				return fmt.Errorf("openssl does not say %q: %w: %s", must, err, lastLines(out))
			}
			return nil
		}
	}
	ocsptool := func(must string, args ...string) func() error {
		return func() error {
			out, err := w.run("ocsptool", append([]string{"--ask=" + w.main.url, "--load-issuer", w.caFile, "--load-trust", w.caFile}, args...)...)
			if err != nil || !strings.Contains(out, "Certificate Status: "+must) || !strings.Contains(out, "Verifying OCSP Response: Success") {
				return fmt.Errorf("ocsptool does not say %q: %w: %s", must, err, lastLines(out))
			}
			return nil
		}
	}
	own := func(must client.Status, c *cert, change func(*client.Client)) func() error {
		return func() error {
			asks := &client.Client{}
			if change != nil {
				change(asks)
			}
			a, err := asks.Status(w.t.Context(), c.Certificate, w.ca)
			if err == nil && a.Status != must {
				err = fmt.Errorf("status is %s, must be %s", a.Status, must)
			}
			return err
		}
	}
	for _, c := range []struct {
		name, must string
		ask        func() error
	}{
		{"`openssl ocsp -cert`", "good", openssl(": good", "-cert", good.file)},
		{"`openssl ocsp -cert -no_nonce`", "good", openssl(": good", "-no_nonce", "-cert", good.file)},
		{"`openssl ocsp -sha256 -cert`", "good", openssl(": good", "-sha256", "-cert", good.file)},
		{"`openssl ocsp -sha512 -cert`", "good", openssl(": good", "-sha512", "-cert", good.file)},
		{"`openssl ocsp -cert` of a revoked one", "revoked (keyCompromise)", openssl("Reason: keyCompromise", "-cert", gone.file)},
		{"`openssl ocsp -cert` of one on hold", "revoked (certificateHold)", openssl("Reason: certificateHold", "-cert", held.file)},
		{"`openssl ocsp -cert -cert -serial`", "good, revoked, unknown", openssl("4711: unknown", "-cert", good.file, "-cert", gone.file, "-serial", "4711")},
		{"`openssl ocsp -serial`, never issued", "unauthorized", openssl("Responder Error: unauthorized", "-serial", "4711")},
		{"`openssl ocsp -cert -signer`", "good", openssl(": good", "-cert", good.file, "-signer", signer.file, "-signkey", keyFile)},
		{"`ocsptool --ask`", "good", ocsptool("good", "--load-cert", good.file)},
		{"`ocsptool --ask --nonce`", "good", ocsptool("good", "--nonce", "--load-cert", good.file)},
		{"`ocsptool --ask --nonce` of a revoked one", "revoked", ocsptool("revoked", "--nonce", "--load-cert", gone.file)},
		{"Go package `client`, responder from the certificate", "good", own(client.Good, good, nil)},
		{"Go package `client`, no nonce", "good", own(client.Good, good, func(c *client.Client) { c.NoNonce = true })},
		{"Go package `client`, nonce of 128 octets, prefers ECDSA with SHA-512", "good", own(client.Good, good, func(c *client.Client) {
			c.NonceLength, c.PreferredAlgorithms = 128, []x509.SignatureAlgorithm{x509.ECDSAWithSHA512}
		})},
		{"Go package `client`, of a revoked one", "revoked", own(client.Revoked, gone, nil)},
	} {
		tb.row(c.name, c.must, c.ask())
	}
}
