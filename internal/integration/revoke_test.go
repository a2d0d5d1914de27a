package integration

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/network"
)

// thousandsAtOnce revokes every certificate with a key in one call: certificates that other software of the CA has signed, of which the CA bridge
// knows what the ledger says. Every organisation answers accordingly.
func (f *fabricCase) thousandsAtOnce(t *testing.T) {
	const n = 2*wire.MaxBatch + 100
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	caKey, err := f.d.Key(&f.d.CA)
	if err != nil {
		t.Fatal(err)
	}
	leaked, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(leaked.Public())
	if err != nil {
		t.Fatal(err)
	}
	certs := make([]*x509.Certificate, n)
	for i := range certs {
		certs[i] = signElsewhere(t, f.d.CACert, caKey, leaked.Public(), i)
	}
	for at := 0; at < n; at += wire.MaxBatch {
		var ders [][]byte
		for _, c := range certs[at:min(at+wire.MaxBatch, n)] {
			ders = append(ders, c.Raw)
		}
		arg := wire.Encode(wire.NewIssueArg(f.d.CAID(), ders))
		eventually(t, func() error {
			_, err := f.operator.Submit(ctx, wire.FnIssue, arg)
			if network.IsRejected(err) {
				t.Fatal(err)
			}
			return err
		})
	}
	api, err := f.d.Client()
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	b, err := api.BulkOf(ctx, caapi.BulkRequest{Key: key, Reason: "keyCompromise"}, "leak")
	if err != nil {
		t.Fatal(err)
	}
	for b.State == caapi.BulkRunning {
		if b, err = api.Bulk(ctx, b.ID, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if b.Total != n || b.Changed != n || !b.Acknowledged || !b.KeyBlocked {
		t.Fatalf("%+v", b)
	}
	for _, cert := range []*x509.Certificate{certs[0], certs[n/2], certs[n-1]} {
		// Invariant 2: the CA's own organisation at once, every other soon.
		if a, err := ask(t, f.d.Orgs[0], cert, f.d.CACert); err != nil || a.Status != client.Revoked {
			t.Errorf("after the acknowledgement: %v, %v", a, err)
		}
		for _, org := range f.d.Orgs[1:] {
			if a := awaitOCSP(t, f.d, org, cert, client.Revoked); a.Reason != "keyCompromise" {
				t.Errorf("%s: reason %s", org.MSPID, a.Reason)
			}
		}
	}
	eventually(t, func() error {
		placed := map[uint64]bool{}
		err := api.BulkResults(ctx, b.ID, "changed", 0, func(r *caapi.BulkResult) error {
			if r.StatusLogIndex == nil || r.Block == 0 || r.TxID == "" {
				return fmt.Errorf("%s: %+v", r.Serial, r)
			}
			placed[*r.StatusLogIndex] = true
			return nil
		})
		if err == nil && len(placed) != n {
			err = fmt.Errorf("%d places in the status log for %d changes", len(placed), n)
		}
		return err
	})
}

// signElsewhere is a certificate that the CA's key signs without the CA bridge.
func signElsewhere(t *testing.T, ca *x509.Certificate, key crypto.Signer, pub crypto.PublicKey, i int) *x509.Certificate {
	t.Helper()
	host := fmt.Sprintf("host%d.leak.example", i)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(0x5eed), 64), big.NewInt(int64(i))), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}, ca, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
