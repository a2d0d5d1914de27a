package client_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/client"
)

func ExampleClient_Status() {
	cert, issuer := load("cert.pem"), load("issuer.pem")
	c := &client.Client{OCSPURL: "http://ocsp.org2.example/ocsp"} // any organisation's responder answers for any CA
	answer, err := c.Status(context.Background(), cert, issuer)
	if err != nil {
		log.Fatal(err) // no answer that can be relied on: neither good nor revoked
	}
	switch answer.Status {
	case client.Good:
		fmt.Println("good at", answer.ThisUpdate)
	case client.Revoked:
		fmt.Println("revoked since", answer.RevokedAt, "for", answer.Reason)
	case client.Unknown:
		fmt.Println("never issued")
	}
}

// A proof is fetched once and can be kept, next to the certificate, and verified anywhere.
func ExampleClient_FetchProof() {
	cert, issuer := load("cert.pem"), load("issuer.pem")
	c := &client.Client{LogURL: "http://ocsp.org2.example"}
	proof, err := c.FetchProof(context.Background(), cert, issuer)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("cert.tlog-proof", proof, 0o644); err != nil {
		log.Fatal(err)
	}
}

func ExampleVerifyInclusion() {
	cert, issuer := load("cert.pem"), load("issuer.pem")
	proof, err := os.ReadFile(filepath.Join("testdata", "cert.tlog-proof"))
	if err != nil {
		log.Fatal(err)
	}
	vkey, err := os.ReadFile(filepath.Join("testdata", "log.vkey")) // published by the organisation
	if err != nil {
		log.Fatal(err)
	}
	keys, err := client.ParseLogKeys(string(vkey))
	if err != nil {
		log.Fatal(err)
	}
	in, err := client.VerifyInclusion(cert, issuer, proof, client.Origin("testchannel", issuer), keys...)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("entry %d of %d, signed by %v\n", in.Index, in.Size, in.SignedBy)
	// Output: entry 3 of 7, signed by [testchannel/Org1MSP]
}

func load(name string) *x509.Certificate {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	return cert
}

var update = flag.Bool("update", false, "write testdata again, from a ledger made for it")

// TestExampleDataVerifies makes the examples' files with -update; ExampleVerifyInclusion verifies them.
func TestExampleDataVerifies(t *testing.T) {
	if !*update {
		return
	}
	w := newWorld(t)
	w.issue()
	w.issue()
	cert := w.issue()
	for range 3 {
		w.issue()
	}
	proof, err := w.client().FetchProof(t.Context(), cert, w.ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cert.pem":        pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		"issuer.pem":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.DER}),
		"cert.tlog-proof": proof,
		"log.vkey":        []byte(w.bridge.VKey() + "\n"),
	} {
		if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
