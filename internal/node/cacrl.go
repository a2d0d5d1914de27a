package node

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// defaultCRLs has a CA make CRLs when its configuration does not say: wherever it knows an OCSP bridge of its organisation. own is
// the base URL of the one in this process, if there is one.
func defaultCRLs(conf *config.File, own string) {
	section := conf.CA
	if section == nil || section.CRL == nil && own == "" && len(section.Responders) == 0 {
		return
	}
	implied := section.CRL == nil
	crl := ca.CRLSettings{}
	if !implied {
		crl = *section.CRL
	}
	crl.Contents = cmp.Or(crl.Contents, own)
	if implied {
		if cert, _, err := ca.LoadCertificate(section.Dir); err == nil && cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
			slog.Warn("no CRLs are made: the CA certificate does not have the key usage cRLSign", "ca", section.Dir)
			return
		}
	}
	changed := *section
	changed.CRL = &crl
	conf.CA = &changed
}

// ownURL is where this organisation's other services reach the OCSP bridge of this process.
func ownURL(b *config.OCSPBridge) string {
	if b == nil {
		return ""
	}
	if b.TLS != nil && b.PublicURL != "" {
		return b.PublicURL // the name in its certificate
	}
	return listenURL(b.Listen, b.TLS)
}

// crlHTTP reaches the OCSP bridges that CRLs are published to. There is no timeout for a whole request: one of them is a stream without an end.
func crlHTTP(file string, section *config.CA) (*http.Client, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if section.CRL != nil && section.CRL.TLSCA != "" {
		certs, err := pemcert.Read(section.CRL.TLSCA)
		if err != nil {
			return nil, &config.Error{File: file, Key: "ca.crl.tls_ca", Value: section.CRL.TLSCA, Rule: err.Error()}
		}
		t.RootCAs = x509.NewCertPool()
		for _, cert := range certs {
			t.RootCAs.AddCert(cert)
		}
	}
	if err := showCertificate(t, file, section); err != nil {
		return nil, err
	}
	tr := transport(t)
	tr.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: tr}, nil
}

// showCertificate has the CA show a certificate where members are asked for one: its bridge gives contents of CRLs to members alone then.
func showCertificate(t *tls.Config, file string, section *config.CA) error {
	var cert, key string
	if section.TLS != nil {
		cert, key = section.TLS.Cert, section.TLS.Key
	}
	if c := section.CRL; c != nil && (c.TLSCert != "" || c.TLSKey != "") {
		if c.TLSCert == "" || c.TLSKey == "" {
			return &config.Error{File: file, Key: "ca.crl.tls_cert", Value: c.TLSCert, Rule: "must be there with ca.crl.tls_key, and not without it"}
		}
		cert, key = c.TLSCert, c.TLSKey
	}
	if cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return &config.Error{File: file, Key: "ca.crl.tls_cert", Value: cert, Rule: err.Error()}
	}
	t.Certificates = []tls.Certificate{pair}
	return nil
}
