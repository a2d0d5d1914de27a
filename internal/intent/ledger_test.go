package intent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/network"
)

// ledger is Org4MSP's connection to a ledger that runs the contract, with a CA of Org1MSP.
type ledger struct {
	t  testing.TB
	ca *cctest.CA

	mu        sync.Mutex // held for all below
	l         *cctest.Ledger
	height    uint64
	submitted int
	faults    []error // that the next submissions end with
	evaluated chan struct{}
	gate      chan struct{} // nil: open
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	l := &ledger{t: t, ca: cctest.NewCA(t), l: cctest.NewLedger(t, chaincode.Config{
		MSPs: []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP"}, TickInterval: 15 * time.Second,
	}), height: 10}
	l.l.Found(t)
	l.l.Register(t, l.ca, "Org1MSP")
	return l
}

func (l *ledger) Channel() string { return cctest.Channel }

func (l *ledger) Height(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.height, nil
}

func (l *ledger) Evaluate(_ context.Context, function string, arg []byte) ([]byte, error) {
	if l.gate != nil {
		l.evaluated <- struct{}{}
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, refusal := l.l.Endorse(l.t, cctest.Auditor("Org4MSP"), function, arg)
	if refusal != nil {
		return nil, &network.RejectedError{Function: function, Reason: refusal}
	}
	return e.Result, nil
}

func (l *ledger) Submit(_ context.Context, function string, arg []byte) (network.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) > 0 {
		err := l.faults[0]
		l.faults = l.faults[1:]
		return network.Receipt{}, err
	}
	result, refusal := l.l.Submit(l.t, cctest.Auditor("Org4MSP"), function, arg)
	if refusal != nil {
		return network.Receipt{}, &network.RejectedError{Function: function, Reason: refusal}
	}
	l.submitted++
	l.height++
	return network.Receipt{TxID: "tx" + strconv.Itoa(l.submitted), Block: l.height - 1, Result: result}, nil
}

// terms are good now, on this ledger.
func (l *ledger) terms() intent.Terms {
	return intent.Terms{Channel: cctest.Channel, Reason: wire.KeyCompromise, Now: l.l.Now}
}

// sign makes an intent for a new certificate of cctest.LeafKey.
func (l *ledger) sign() *wire.RevokeArg {
	l.t.Helper()
	_, cert := l.ca.Issue(l.t)
	arg, err := intent.Sign(cctest.LeafKey(), cert, l.ca.Cert, l.terms())
	if err != nil {
		l.t.Fatal(err)
	}
	return arg
}

// certify has ca sign a certificate for key.
func certify(t testing.TB, ca *cctest.CA, key crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "holder"}, DNSNames: []string{"holder.example"},
		NotBefore: cctest.LeafNotBefore, NotAfter: cctest.LeafNotAfter, BasicConstraintsValid: true,
	}, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// keys has one key of each kind that the contract takes.
func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	made := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		made[name] = must(t)(ecdsa.GenerateKey(curve, rand.Reader))
	}
	made["RSA"] = must(t)(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	made["Ed25519"] = must(t)(ed, err)
	return made
}

func must(t testing.TB) func(crypto.Signer, error) crypto.Signer {
	return func(key crypto.Signer, err error) crypto.Signer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}
