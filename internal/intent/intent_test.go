package intent_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
)

// TestTheContractTakesWhatEveryKindOfKeySigns: by way of the file form.
func TestTheContractTakesWhatEveryKindOfKeySigns(t *testing.T) {
	l := newLedger(t)
	for name, key := range keys(t) {
		cert := certify(t, l.ca, key)
		terms := l.terms()
		terms.Invalidity = terms.Now.Add(-time.Hour)
		arg, err := intent.Sign(key, cert, l.ca.Cert, terms)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		read, err := intent.Parse(intent.Marshal(arg))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		result, refusal := l.l.Submit(t, cctest.Auditor("Org4MSP"), wire.FnRevoke, wire.Encode(read))
		if refusal != nil {
			t.Fatalf("%s: %v", name, refusal)
		}
		var res wire.RevokeResult
		cctest.Decode(t, result, &res)
		if !res.Changed || res.Reason != wire.KeyCompromise {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

// TestTheLongestLifetimeIsTheContracts: and the default is good with a signer's clock that is ahead.
func TestTheLongestLifetimeIsTheContracts(t *testing.T) {
	l := newLedger(t)
	for name, c := range map[string]struct {
		lifetime, ahead time.Duration
		good            bool
	}{
		"longest":                     {intent.MaxLifetime, 0, true},
		"longest, clock a second off": {intent.MaxLifetime, time.Second, false},
		"default, clock an hour off":  {0, time.Hour, true},
		"expired":                     {time.Minute, -2 * time.Minute, false},
	} {
		_, cert := l.ca.Issue(t)
		terms := l.terms()
		terms.Lifetime, terms.Now = c.lifetime, terms.Now.Add(c.ahead)
		arg, err := intent.Sign(cctest.LeafKey(), cert, l.ca.Cert, terms)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, refusal := l.l.Endorse(t, cctest.Operator("Org2MSP"), wire.FnRevoke, wire.Encode(arg)); (refusal == nil) != c.good {
			t.Errorf("%s: %v", name, refusal)
		}
	}
}

func TestSignRefusesWhatTheContractWould(t *testing.T) {
	l := newLedger(t)
	_, cert := l.ca.Issue(t)
	other := cctest.NewCA(t)
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for field, sign := range map[string]func(intent.Terms) error{
		"channel": func(o intent.Terms) error { o.Channel = ""; return signed(l, cert, o) },
		"reason":  func(o intent.Terms) error { o.Reason = wire.CertificateHold; return signed(l, cert, o) },
		"invalidity": func(o intent.Terms) error {
			o.Invalidity = o.Now.Add(time.Second)
			return signed(l, cert, o)
		},
		"lifetime": func(o intent.Terms) error { o.Lifetime = intent.MaxLifetime + 1; return signed(l, cert, o) },
		"issuer": func(o intent.Terms) error {
			_, err := intent.Sign(cctest.LeafKey(), cert, other.Cert, o)
			return err
		},
		"key": func(o intent.Terms) error {
			_, err := intent.Sign(cctest.NewKey(t), cert, l.ca.Cert, o)
			return err
		},
		"cert.public_key": func(o intent.Terms) error {
			_, err := intent.Sign(weak, certify(t, l.ca, weak), l.ca.Cert, o)
			return err
		},
	} {
		err := sign(l.terms())
		if we := new(wire.Error); !errors.As(err, &we) || we.Field != field || we.Code != wire.InvalidArgument {
			t.Errorf("%s: %v", field, err)
		}
	}
	unknown := l.terms()
	unknown.Reason = 8
	if err := signed(l, cert, unknown); err == nil {
		t.Error("removeFromCRL was signed")
	}
	terms := l.terms()
	terms.Invalidity = time.Unix(-1, 0)
	if err := signed(l, cert, terms); err == nil {
		t.Error("an invalidity date before 1970 was signed")
	}
}

// TestCheckAgreesWithTheContract: what it refuses, the contract refuses for the same field.
func TestCheckAgreesWithTheContract(t *testing.T) {
	l := newLedger(t)
	good, other := l.sign(), l.sign()
	for name, spoil := range map[string]func(a *wire.RevokeArg){
		"no certificate":         func(a *wire.RevokeArg) { a.Cert = nil },
		"not a certificate":      func(a *wire.RevokeArg) { a.Cert = []byte("certificate") },
		"too big":                func(a *wire.RevokeArg) { a.Cert = make([]byte, wire.MaxCertDER+1) },
		"no intent":              func(a *wire.RevokeArg) { a.Intent = nil },
		"another's certificate":  func(a *wire.RevokeArg) { a.Cert = other.Cert },
		"another's intent":       func(a *wire.RevokeArg) { a.Intent = other.Intent },
		"another's signature":    func(a *wire.RevokeArg) { a.Signature = other.Signature },
		"no signature":           func(a *wire.RevokeArg) { a.Signature = nil },
		"a flip in the intent":   func(a *wire.RevokeArg) { a.Intent[len(a.Intent)-1] ^= 1 },
		"a signature over other": func(a *wire.RevokeArg) { a.Signature = mustSign(t, a.Intent) },
	} {
		a := &wire.RevokeArg{V: good.V, Cert: bytes.Clone(good.Cert), Intent: bytes.Clone(good.Intent), Signature: bytes.Clone(good.Signature)}
		spoil(a)
		_, _, err := intent.Check(a)
		got := new(wire.Error)
		if !errors.As(err, &got) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, want := l.l.Endorse(t, cctest.Auditor("Org4MSP"), wire.FnRevoke, wire.Encode(a))
		if want == nil || want.Code != got.Code || want.Field != got.Field {
			t.Errorf("%s: %v; the contract says %v", name, got, want)
		}
	}
	if i, cert, err := intent.Check(good); err != nil || i.CAID != l.ca.ID || !bytes.Equal(cert.Raw, good.Cert) {
		t.Errorf("a good one: %+v, %v", i, err)
	}
}

func TestParseRefusesWhatIsNotOneIntent(t *testing.T) {
	l := newLedger(t)
	arg := l.sign()
	text, raw := intent.Marshal(arg), wire.Encode(arg)
	for name, data := range map[string][]byte{
		"nothing":         nil,
		"blank":           []byte("\n"),
		"text":            []byte("revoke it"),
		"too big":         make([]byte, intent.MaxFile+1),
		"another block":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		"two":             append(bytes.Clone(text), text...),
		"headers":         pem.EncodeToMemory(&pem.Block{Type: intent.PEMType, Headers: map[string]string{"A": "b"}, Bytes: raw}),
		"cut":             raw[:len(raw)-1],
		"extended":        append(bytes.Clone(raw), 0),
		"cut in the text": text[:len(text)/2],
		"another version": wire.Encode(&wire.RevokeArg{V: 2, Cert: arg.Cert, Intent: arg.Intent, Signature: arg.Signature}),
	} {
		if _, err := intent.Parse(data); err == nil {
			t.Errorf("%s was read", name)
		} else if we := new(wire.Error); !errors.As(err, &we) || we.Field != "body" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What mail and editors do to a PEM file.
	crlf := append([]byte("the intent:\r\n"), bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))...)
	for name, data := range map[string][]byte{"PEM": text, "CBOR": raw, "CRLF, and words before": append(crlf, " \r\n"...)} {
		if got, err := intent.Parse(data); err != nil || !bytes.Equal(wire.Encode(got), raw) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	l := newLedger(f)
	arg := l.sign()
	f.Add(intent.Marshal(arg))
	f.Add(wire.Encode(arg))
	f.Add([]byte("-----BEGIN " + intent.PEMType + "-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		arg, err := intent.Parse(data)
		if err != nil {
			return
		}
		again, err := intent.Parse(intent.Marshal(arg))
		if err != nil || !bytes.Equal(wire.Encode(again), wire.Encode(arg)) {
			t.Errorf("%x is another when written and read: %v", data, err)
		}
		if _, _, err := intent.Check(arg); err != nil && !strings.Contains(err.Error(), ": ") {
			t.Errorf("no rule: %v", err)
		}
	})
}

func signed(l *ledger, cert *x509.Certificate, o intent.Terms) error {
	l.t.Helper()
	_, err := intent.Sign(cctest.LeafKey(), cert, l.ca.Cert, o)
	return err
}

// mustSign signs an intent without the context that keeps it from being a signature of something else.
func mustSign(t *testing.T, intent []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(intent)
	signature, err := cctest.LeafKey().Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}
