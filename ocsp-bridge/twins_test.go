package ocspbridge_test

import (
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/policy"
)

// The CA signs certificates with a serial number that is on the ledger, for other keys, and their holders revoke them. The one on the
// ledger stays good, in OCSP, in its description and in its bundle, which the others' revocations neither delay nor crowd out of.
func TestTwinsOfACertificateDoNotConcernIt(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	_, file := b.get("/policy", nil)
	signed, err := policy.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := loadPolicy(t, file, signed[0].Policy.Fingerprint())
	w.integrate()
	b.applied(w.nextTick())

	revokeTwin := func() {
		key := cctest.NewKey(t)
		template := &x509.Certificate{
			SerialNumber: cert.SerialNumber, Subject: cert.Subject, DNSNames: cert.DNSNames, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
			KeyUsage: cert.KeyUsage, ExtKeyUsage: cert.ExtKeyUsage, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, w.ca.Cert, key.Public(), w.ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		twin, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		b.applied(w.submit(wire.FnRevoke, cctest.SignIntent(t, key, der, w.ca.Intent(t, channel, twin, wire.KeyCompromise, w.clock.Now()))))
	}
	good := func(when string) {
		t.Helper()
		if v, err := b.verdict(p, cert); err != nil || v.Status != client.Good || v.Newer != 0 {
			t.Errorf("%s: verdict %+v, %v", when, v, err)
		}
		b.want(cert, "good")
		var st struct {
			State     string
			Changes   int
			Pending   int
			StatusLog []any `json:"status_log"`
		}
		b.get("/v1/status/"+w.ca.ID.String()+"/"+cctest.Serial(t, cert).String(), &st)
		if st.State != "valid" || st.Changes != 0 || st.Pending != 0 || len(st.StatusLog) != 0 {
			t.Errorf("%s: status is %+v", when, st)
		}
	}
	for range 40 {
		revokeTwin()
	}
	good("pending")
	b.applied(w.integrate())
	good("newer than the map")
	b.applied(w.nextTick())
	good("in the map")
	for range 20 {
		revokeTwin()
	}
	b.applied(w.submit(wire.FnRevoke, w.ca.RevokeArg(t, channel, cert.Raw, wire.Superseded, w.clock.Now())))
	for range 20 {
		revokeTwin()
	}
	b.applied(w.integrate())
	for _, when := range []string{"newer", "in the map"} {
		if v, err := b.verdict(p, cert); err != nil || v.Status != client.Revoked || v.Reason != "superseded" {
			t.Errorf("revoked among its twins, %s: verdict %+v, %v", when, v, err)
		}
		b.applied(w.nextTick())
	}
}
