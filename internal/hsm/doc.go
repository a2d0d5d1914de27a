// Package hsm signs with keys in PKCS #11 tokens: hardware security modules, smart cards, SoftHSM.
//
// A key is named by an RFC 7512 URI, wherever the configuration could name a file; Open finds it and returns a crypto.Signer. The key never leaves the
// token. What a token does that a file does not is dealt with here: a signature is bounded in time, a session that is lost is opened
// anew, once for each signature and not more often than every reopenPause, and a PIN that the token refused is not tried again, since
// tokens lock themselves after a few.
//
// Signatures of ECDSA keys are randomised in a token, unlike those that certanchor makes with key files: whoever must repeat one keeps it.
//
// uri.go and errors.go are the package's face, key.go and token.go its work; nocgo.go stands in for both where there is no cgo, which
// PKCS #11 needs.
package hsm
