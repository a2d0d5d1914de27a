package ca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// TestCertificatesAreThoseOfCFSSLsSigner: what the CA signs is, octet for octet, what cfssl's local signer makes of the same request and profile.
func TestCertificatesAreThoseOfCFSSLsSigner(t *testing.T) {
	dir, key := newDir(t)
	cert, chain, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := parseProfiles(inServer(`"crl_url": "http://org1.example/crl/{ca}/{shard}.crl", "crl_shards": 4, "ocsp_url": "http://ocsp.example.org/", "issuer_urls": ["http://a.example/ca.cer"],
		"policies": [{"id": "1.3.6.1.4.1.99999.1", "qualifiers": [{"type": "id-qt-cps", "value": "http://cps.example/"}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	i, err := newIssuer(cert, chain, key, policy, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	theirs := plainPolicy(policy.Signing)
	for _, p := range theirs.Profiles {
		p.ClientProvidesSerialNumbers, p.ExtensionWhitelist = true, map[string]bool{oidCRLPoint.String(): true}
	}
	cfssl, err := local.NewSigner(i.linter.key, i.linter.issuer, signer.DefaultSigAlgo(i.linter.key), theirs)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://example.org/j")
	if err != nil {
		t.Fatal(err)
	}
	full := func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{
			CommonName: "Jördis Ünal", SerialNumber: "7", Country: []string{"DE"}, Organization: []string{"A", "B"}, OrganizationalUnit: []string{"U"}, Locality: []string{"L"},
			Province: []string{"P"}, StreetAddress: []string{"S 1"}, PostalCode: []string{"12345"},
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 12}, Value: "Dr."}, {Type: []int{2, 5, 4, 42}, Value: "Jördis"}, {Type: []int{1, 2, 3, 4}, Value: "x"}},
		}
		r.IPAddresses, r.EmailAddresses, r.URIs = []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")}, []string{"j@example.org"}, []*url.URL{uri}
	}
	bare := func(r *x509.CertificateRequest) { r.Subject = pkix.Name{} }
	only := func(r *x509.CertificateRequest) { r.DNSNames = nil }
	for name, tc := range map[string]struct {
		csr, profile string
		scts         int
	}{
		"plain":                 {newCSR(t, nil), "server", 0},
		"everything":            {newCSR(t, nil, full), "server", 0},
		"without a CRL":         {newCSR(t, nil, full), "client", 0},
		"RSA":                   {newCSR(t, rsaKey(t, 2048)), "server", 0},
		"no subject":            {newCSR(t, nil, bare), "peer", 0},
		"no alternative names":  {newCSR(t, nil, only), "peer", 0},
		"responder":             {newCSR(t, nil, only), ResponderProfile, 0},
		"precertificate":        {newCSR(t, nil, full), "server", 3},
		"precertificate, plain": {newCSR(t, nil), "client", 1},
		"made by openssl": {openssl(t, "", "req", "-new", "-nodes", "-keyout", "/dev/null", "-utf8", "-subj", "/CN=a.example.org/O=Ö/givenName=G/C=DE", "-addext", "subjectAltName=DNS:a.example.org,IP:192.0.2.7", "-newkey", "rsa:2048"),
			"server", 0},
	} {
		t.Run(name, func(t *testing.T) {
			csr, err := parseCSR(tc.csr)
			if err != nil {
				t.Fatal(err)
			}
			serial := big.NewInt(0x1234567890)
			from := time.Now().UTC().Truncate(time.Second)
			o := &order{csr: csr, profile: tc.profile, from: from, to: from.Add(time.Hour), serial: serial, scts: tc.scts}
			if o.point, err = policy.extension(tc.profile, wire.CAID{1}, serial); err != nil {
				t.Fatal(err)
			}
			req := signer.SignRequest{Request: tc.csr, Profile: tc.profile, NotBefore: o.from, NotAfter: o.to, Serial: serial, ReturnPrecert: tc.scts > 0}
			for _, e := range o.point {
				req.Extensions = append(req.Extensions, signer.Extension{ID: config.OID(e.Id), Value: hex.EncodeToString(e.Value)})
			}
			out, err := cfssl.Sign(req)
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(out)
			want, err := draftOf(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			got, err := i.linter.draft(o, policy.Profiles[tc.profile])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.tbs, want.tbs) || !bytes.Equal(got.algo, want.algo) || got.hash != want.hash {
				t.Errorf("%x\nfrom cfssl\n%x", got.tbs, want.tbs)
			}
		})
	}
}
