package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
)

// Revoke is from the call of the CA's API on, idle, one at a time.
type Revoke struct {
	Noop         Latency `json:"noop_commit"`  // a transaction that writes nothing, in the same run: the baseline
	Acknowledged Latency `json:"acknowledged"` // until the call returns
	Visible      Latency `json:"visible"`      // until another organisation's responder first says revoked
	Ratio        float64 `json:"p50_ratio"`    // visible to no-op
}

func (r Revoke) String() string {
	return fmt.Sprintf("  revoke call, idle, one at a time\n    no-op commit (baseline)           %s\n    until acknowledged                %s\n    until revoked at another's OCSP   %s\n    ratio of p50                      %.2f",
		r.Noop, r.Acknowledged, r.Visible, r.Ratio)
}

// measureRevoke revokes n certificates. The other organisation's responder is asked all the while, a millisecond apart.
func measureRevoke(ctx context.Context, d *deploy.Deployment, l network.Ledger, n int) (Revoke, error) {
	var r Revoke
	api, err := d.Client()
	if err != nil {
		return r, err
	}
	certs := make([]*x509.Certificate, n)
	serials := make([]string, n)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range n {
		group.Go(func() (err error) {
			certs[i], serials[i], err = issueOne(gctx, api)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return r, err
	}
	if r.Noop, err = sequence(ctx, n, noop(l)); err != nil {
		return r, err
	}
	asked := &client.Client{OCSPURL: d.Orgs[1].OCSPURL()}
	visible := make([]time.Duration, n)
	r.Acknowledged, err = sequence(ctx, n, func(ctx context.Context, i int) error {
		start := time.Now()
		seen := make(chan error, 1)
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		go func() {
			_, err := deploy.AwaitStatus(ctx, asked, certs[i], d.CACert, client.Revoked)
			visible[i] = time.Since(start)
			seen <- err
		}()
		change, acknowledged, err := api.Revoke(ctx, caapi.RevokeRequest{Serial: serials[i], Reason: "keyCompromise"})
		if err != nil {
			return err
		}
		if !acknowledged {
			return fmt.Errorf("not acknowledged: %s", change.Detail)
		}
		return <-seen
	})
	r.Visible = summarize(visible)
	r.Ratio = r.Visible.P50 / r.Noop.P50
	return r, err
}

func issueOne(ctx context.Context, api *caapi.Client) (*x509.Certificate, string, error) {
	csr, err := newRequest()
	if err != nil {
		return nil, "", err
	}
	got, err := api.Issue(ctx, caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
	if err != nil {
		return nil, "", err
	}
	block, _ := pem.Decode([]byte(got.Certificate))
	if block == nil {
		return nil, "", fmt.Errorf("the CA answered without a certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return cert, got.Serial, err
}

// newRequest makes a key and a CSR for it, PEM.
func newRequest() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "bench.example"}, DNSNames: []string{"bench.example"},
	}, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), nil
}
