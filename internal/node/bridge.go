package node

import (
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/pemcert"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// bridgeConfig reads what a section and the files that it names say. What comes from the ledger and from CAs is left open.
func bridgeConfig(file string, section *config.OCSPBridge) (ocspbridge.Config, error) {
	conf := ocspbridge.Config{
		Dir: section.Dir, Settings: section.Settings, CRL: section.CRL, Responders: section.Responders,
		NoTicker: section.NoTicker, NoIntegrator: section.NoIntegrator,
		PublicURL:   cmp.Or(section.PublicURL, listenURL(section.Listen, section.TLS)),
		MembersOnly: section.LogsAccess == config.LogsMembers,
	}
	for _, read := range []func(string, *config.OCSPBridge, *ocspbridge.Config) error{readTrust, readPeers, readForwards, readTokenKeys, readSeal} {
		if err := read(file, section, &conf); err != nil {
			return conf, err
		}
	}
	var err error
	conf.Enrollers, err = httpEnrollers(file, section.Enrol)
	return conf, err
}

func readTrust(file string, section *config.OCSPBridge, conf *ocspbridge.Config) error {
	if section.Policy == "" {
		return nil
	}
	text, err := os.ReadFile(section.Policy)
	if err == nil {
		conf.Trust, err = ocspbridge.LoadTrust(text, section.PolicyFingerprint)
	}
	if err != nil {
		return &config.Error{File: file, Key: "ocsp_bridge.policy", Value: section.Policy, Rule: err.Error()}
	}
	return nil
}

// readTokenKeys opens the keys that are in PKCS #11 tokens, but for those of responders, which are read again at each reload.
func readTokenKeys(file string, section *config.OCSPBridge, conf *ocspbridge.Config) error {
	if section.ResponderKey != "" {
		key, err := hsm.Open("ocsp_bridge.responder_key", section.ResponderKey)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		conf.ResponderKey = key
	}
	conf.LogKeys = map[wire.CAID]crypto.Signer{}
	for i, l := range section.LogKeys {
		key := fmt.Sprintf("ocsp_bridge.log_keys[%d]", i)
		certs, err := pemcert.Read(l.Issuer)
		if err != nil {
			return &config.Error{File: file, Key: key + ".issuer", Value: l.Issuer, Rule: err.Error()}
		}
		signer, err := hsm.Open(key+".key", l.Key)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		conf.LogKeys[wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo)] = signer
	}
	return nil
}

// peerTimeout bounds a request to another organisation's bridge.
const peerTimeout = 5 * time.Second

func readPeers(file string, section *config.OCSPBridge, conf *ocspbridge.Config) error {
	for i, p := range section.Peers {
		tls, err := clientTLS(section, p.TLSCA)
		if err != nil {
			return &config.Error{File: file, Key: fmt.Sprintf("ocsp_bridge.peers[%d]", i), Value: p.TLSCA, Rule: err.Error()}
		}
		conf.Peers = append(conf.Peers, ocspbridge.Peer{
			MSPID: p.MSPID, URL: p.URL, LogKey: p.LogKey, CosignerKey: p.CosignerKey,
			HTTP: &http.Client{Timeout: peerTimeout, Transport: transport(tls)},
		})
	}
	return nil
}

func readForwards(file string, section *config.OCSPBridge, conf *ocspbridge.Config) error {
	for i, s := range section.Submit {
		key := fmt.Sprintf("ocsp_bridge.submit[%d]", i)
		certs, err := pemcert.Read(s.Issuer)
		if err != nil {
			return &config.Error{File: file, Key: key + ".issuer", Value: s.Issuer, Rule: err.Error()}
		}
		tls, err := clientTLS(section, s.TLSCA)
		if err != nil {
			return &config.Error{File: file, Key: key, Value: s.TLSCA, Rule: err.Error()}
		}
		conf.Forwards = append(conf.Forwards, ocspbridge.Forward{
			CAID: wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo), URL: s.URL, HTTP: &http.Client{Transport: transport(tls)},
		})
	}
	return nil
}

// clientTLS is how this organisation reaches another's server: it shows its own server certificate, where members are asked for one.
func clientTLS(section *config.OCSPBridge, roots string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		certs, err := pemcert.Read(roots)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		for _, cert := range certs {
			c.RootCAs.AddCert(cert)
		}
	}
	if section.TLS != nil {
		cert, err := tls.LoadX509KeyPair(section.TLS.Cert, section.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert, tls.key: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// transport keeps connections for many submissions at once.
func transport(c *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: c, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: peerTimeout,
	}
}
