package demo

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// openssl runs the openssl command, the independent judge of what this project serves, and returns its whole output.
func openssl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "openssl", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("openssl %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// keyAlgorithms are the openssl genpkey options of the keys the story uses.
var keyAlgorithms = map[string][]string{
	"rsa2048": {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	"p256":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
}

// makeCSR lets openssl make a key and a certificate signing request for name.
func makeCSR(ctx context.Context, algorithm, name, keyFile, csrFile string) error {
	args := append([]string{"genpkey", "-out", keyFile}, keyAlgorithms[algorithm]...)
	if _, err := openssl(ctx, args...); err != nil {
		return err
	}
	_, err := openssl(ctx, "req", "-new", "-key", keyFile, "-out", csrFile, "-subj", "/O=certanchor demo/CN="+name,
		"-addext", "subjectAltName=DNS:"+name)
	return err
}

// opensslOCSP asks url about one certificate (cert is "-cert FILE" or "-serial N") and returns openssl's words. openssl
// verifies the answer's signature and the delegation against the CA.
func opensslOCSP(ctx context.Context, url, caFile string, cert ...string) (string, error) {
	args := append([]string{"ocsp", "-issuer", caFile, "-CAfile", caFile, "-url", url, "-nonce"}, cert...)
	out, err := openssl(ctx, args...)
	if err != nil {
		return out, err
	}
	if !strings.Contains(out, "Response verify OK") {
		return out, fmt.Errorf("openssl does not accept the OCSP answer:\n%s", out)
	}
	return out, nil
}
