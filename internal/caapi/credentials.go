package caapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/pemcert"
	"github.com/certanchor/certanchor/internal/problem"
)

// HMAC is the key of a client that signs its requests (RFC 9421).
type HMAC struct {
	Name string // the client's at the CA; default: that of KeyFile, without its extension
	Key  []byte // 16 to 64 octets; or
	// KeyFile holds it in hexadecimal, readable by its owner only, as certanchor ca client --hmac writes it.
	KeyFile string
}

func (h HMAC) read() (HMAC, error) {
	if h.KeyFile != "" {
		text, err := readToken(h.KeyFile)
		if err != nil {
			return h, err
		}
		if h.Key, err = hex.DecodeString(text); err != nil {
			return h, fmt.Errorf("HMAC key file %s: must hold one key in hexadecimal", h.KeyFile)
		}
		if h.Name == "" {
			h.Name = strings.TrimSuffix(filepath.Base(h.KeyFile), filepath.Ext(h.KeyFile))
		}
	}
	if h.Key == nil {
		return h, nil
	}
	return h, httpsig.CheckKey(h.Key)
}

// TLS says how https connections to a CA are made.
type TLS struct {
	CA   string // roots for the CA's TLS certificate, PEM file; default: the system's
	Cert string // the client's certificate, PEM file, as a credential
	Key  string // its key, PEM file
}

func (t TLS) client() (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		roots, err := pemcert.Read(t.CA)
		if err != nil {
			return nil, fmt.Errorf("TLS roots: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		for _, c := range roots {
			conf.RootCAs.AddCert(c)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("client certificate and key belong together")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate %q, key %q: %w", t.Cert, t.Key, err)
		}
		// Shown whatever authorities the server names.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = conf
	return &http.Client{Timeout: httpTimeout, Transport: transport}, nil
}

// oneCredential: a CA refuses requests with several.
func (c *Config) oneCredential() error {
	var given []string
	for name, set := range map[string]bool{
		"token": c.Token != "" || c.TokenFile != "", "HMAC key": c.HMAC.Key != nil || c.HMAC.KeyFile != "", "client certificate": c.TLS.Cert != "" || c.TLS.Key != "",
	} {
		if set {
			given = append(given, name)
		}
	}
	if len(given) > 1 {
		return wire.Errorf(wire.InvalidArgument, "credentials", strings.Join(given, ", "), "must be one of them")
	}
	return nil
}

// tooEarly: the server says that the signature was made too early for it to know that it is no repetition.
func tooEarly(body []byte) bool {
	var p problem.Problem
	return json.Unmarshal(body, &p) == nil && p.Field == "Signature-Input"
}
