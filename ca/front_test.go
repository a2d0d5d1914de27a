package ca

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"path/filepath"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/sct"
)

// newFront is a CA bridge that takes submissions, and certificate-transparency-go's client for it, which verifies each SCT.
func newFront(t *testing.T) (*world, *ctclient.LogClient) {
	t.Helper()
	key, err := sct.LoadOrCreate(filepath.Join(t.TempDir(), "log.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.CT = &Submissions{Key: key, Prefix: "https://ca.example"} })
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key.SPKI()})
	c, err := ctclient.New(w.url, http.DefaultClient, jsonclient.Options{PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	return w, c
}

func TestOtherSoftwareSubmitsAsToACTLog(t *testing.T) {
	w, c := newFront(t)
	ca := w.elsewhere()
	der, _ := ca.Issue(t, shortLived)
	chain := []ct.ASN1Cert{{Data: der}, {Data: ca.DER}}
	first, err := c.AddChain(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.AddChain(t.Context(), chain)
	if err != nil || string(again.Signature.Signature) != string(first.Signature.Signature) || again.Timestamp != first.Timestamp || w.logSize() != 1 {
		t.Fatalf("a duplicate: %+v, %v; %d in the log", again, err, w.logSize())
	}
	pre, _, final := ca.Precert(t, shortLived)
	if _, err := c.AddPreChain(t.Context(), []ct.ASN1Cert{{Data: pre}, {Data: ca.DER}}); err != nil {
		t.Fatal(err)
	}
	der, _ = final(cctest.SCTList())
	if _, err := c.AddChain(t.Context(), []ct.ASN1Cert{{Data: der}, {Data: ca.DER}}); err != nil {
		t.Fatal(err)
	}
	roots, err := c.GetAcceptedRoots(t.Context())
	if err != nil || len(roots) != 1 {
		t.Fatalf("%d roots, %v", len(roots), err)
	}
	if cert, err := x509.ParseCertificate(roots[0].Data); err != nil || !cert.Equal(ca.Cert) {
		t.Errorf("the root is another: %v", err)
	}
}

func TestCertificateOfAnotherCAIsNotTaken(t *testing.T) {
	w, c := newFront(t)
	other := cctest.NewCA(t)
	der, _ := other.Issue(t)
	if _, err := c.AddChain(t.Context(), []ct.ASN1Cert{{Data: der}, {Data: other.DER}}); err == nil {
		t.Fatal("it was taken")
	}
	if w.logSize() != 0 {
		t.Errorf("%d in the log", w.logSize())
	}
}
