package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/httpserve"
	"github.com/certanchor/certanchor/internal/keyfile"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// Addresses that services listen on when the configuration names none.
const (
	DefaultCAListen   = "127.0.0.1:8888"
	DefaultOCSPListen = "127.0.0.1:8889"
)

// File is a configuration file. Every key is described in docs/configuration.md.
type File struct {
	Ledger     Ledger      `yaml:"ledger"`
	CA         *CA         `yaml:"ca,omitempty"`
	OCSPBridge *OCSPBridge `yaml:"ocsp_bridge,omitempty"`
	Client     *Client     `yaml:"client,omitempty"`

	Path string `yaml:"-"` // where it was read from, for messages
}

// Client is the section of certanchor cert, proof, verify and monitor: defaults of their flags.
type Client struct {
	CAURL             string     `yaml:"ca_url,omitempty"`             // base URL of the CA's API
	TokenFile         string     `yaml:"token_file,omitempty"`         // token for it; or
	HMACKeyFile       string     `yaml:"hmac_key_file,omitempty"`      // key of a client that signs its requests to it; or
	CATLS             *ClientTLS `yaml:"ca_tls,omitempty"`             // certificate for it, and the roots of its own
	HMACName          string     `yaml:"hmac_name,omitempty"`          // that client's name; default: that of the file
	Issuer            string     `yaml:"issuer,omitempty"`             // the CA's certificate, PEM file
	OCSPURL           string     `yaml:"ocsp_url,omitempty"`           // responder to ask instead of the one a certificate names
	BridgeURL         string     `yaml:"bridge_url,omitempty"`         // base URL of an organisation's OCSP bridge, for proofs
	Channel           string     `yaml:"channel,omitempty"`            // name of the ledger
	LogKeys           []string   `yaml:"log_keys,omitempty"`           // verifier keys to trust
	Policy            string     `yaml:"policy,omitempty"`             // policy file of the consortium
	PolicyFingerprint string     `yaml:"policy_fingerprint,omitempty"` // of a version in it that is trusted; empty: the file is, as it is
	TLS               *ClientTLS `yaml:"tls,omitempty"`                // how to connect to the bridge; default: as any HTTP client does
}

// ClientTLS says how TLS connections to a bridge are made.
type ClientTLS struct {
	CA   string `yaml:"ca,omitempty"`   // roots for the bridge's TLS certificate, PEM file; default: the system's
	Cert string `yaml:"cert,omitempty"` // client certificate, PEM file, for a bridge that only members may read
	Key  string `yaml:"key,omitempty"`  // its key, PEM file
}

// CA is the section of the CA bridge.
type CA struct {
	Dir         string         `yaml:"dir"`              // made by certanchor ca init
	Listen      string         `yaml:"listen,omitempty"` // host:port; default DefaultCAListen
	TLS         *httpserve.TLS `yaml:"tls,omitempty"`    // required unless listen is a loopback address
	Passphrase  keyfile.Source `yaml:"passphrase"`
	CT          *CTSubmission  `yaml:"ct,omitempty"`        // take certificates that other software signed; absent: no
	Fronts      []Front        `yaml:"fronts,omitempty"`    // other organisations' fronts of this CA's log, whose SCTs profiles may embed
	WeakKeys    []string       `yaml:"weak_keys,omitempty"` // files: lists of keys that are not certified
	ca.Settings `yaml:",inline"`
}

// CTSubmission is how the CA bridge takes certificates that other software signed with the CA's key.
type CTSubmission struct {
	KeyFile   string `yaml:"key_file"`             // or the PKCS #11 URI of it: the log's key, which the organisation's OCSP bridge has in its directory: ct/<CA ID>.pem; made when absent
	SCTFile   string `yaml:"sct_file,omitempty"`   // with a key in a PKCS #11 token: the file with its first SCTs, in the OCSP bridge's directory: ct/<CA ID>.scts
	PublicURL string `yaml:"public_url,omitempty"` // URL that /ct/v1/ is below; default: the one it listens on
}

// OCSPBridge is the section of the OCSP bridge.
type OCSPBridge struct {
	Dir                 string                 `yaml:"dir"`                          // index, responder keys and log key; made when absent
	Listen              string                 `yaml:"listen,omitempty"`             // host:port; default DefaultOCSPListen
	TLS                 *httpserve.TLS         `yaml:"tls,omitempty"`                // required unless listen is a loopback address, or InsecureHTTP
	HTTPAddress         string                 `yaml:"http_address,omitempty"`       // host:port for OCSP and CRLs alone, over plain HTTP; default: none
	InsecureHTTP        bool                   `yaml:"insecure_http,omitempty"`      // everything over plain HTTP on any address, as behind a proxy that has TLS
	Enrol               []Enrolment            `yaml:"enrol,omitempty"`              // CAs that certify this responder over their API
	Responders          []ocspbridge.KeyPair   `yaml:"responders,omitempty"`         // responder certificates got in another way
	ResponderKey        string                 `yaml:"responder_key,omitempty"`      // PKCS #11 URI of the key that enrolled responder certificates are for; default: a new key in a file for each
	LogKeys             []LogKey               `yaml:"log_keys,omitempty"`           // keys of CT logs in PKCS #11 tokens; default: files that are made
	NoTicker            bool                   `yaml:"no_ticker,omitempty"`          // leave the ledger's clock to other organisations
	NoIntegrator        bool                   `yaml:"no_integrator,omitempty"`      // leave the status log to other organisations
	PublicURL           string                 `yaml:"public_url,omitempty"`         // that clients reach this server at; default: the one it listens on
	Policy              string                 `yaml:"policy,omitempty"`             // policy file of the consortium
	PolicyFingerprint   string                 `yaml:"policy_fingerprint,omitempty"` // of a version in it, trusted for that reason
	Peers               []Peer                 `yaml:"peers,omitempty"`              // the other organisations' bridges
	Submit              []Submission           `yaml:"submit,omitempty"`             // where submissions to CAs' logs go
	LogsAccess          string                 `yaml:"logs_access,omitempty"`        // LogsOpen (default) or LogsMembers
	CRL                 ocspbridge.CRLSettings `yaml:"crl,omitempty"`                // CRLs of the CAs, served here
	ocspbridge.Settings `yaml:",inline"`
}

// LogKey is the key of the certificate transparency log of one CA.
type LogKey struct {
	Issuer string `yaml:"issuer"` // the CA's certificate, PEM file
	Key    string `yaml:"key"`    // PKCS #11 URI
}

// Values of OCSPBridge.LogsAccess.
const (
	LogsOpen    = "open"
	LogsMembers = "members" // clients with a certificate of tls.client_ca
)

// Peer is another organisation's bridge.
type Peer struct {
	MSPID       string `yaml:"msp_id"`
	URL         string `yaml:"url"`              // base URL
	LogKey      string `yaml:"log_key"`          // signed-note verifier key
	CosignerKey string `yaml:"cosigner_key"`     // signed-note verifier key
	TLSCA       string `yaml:"tls_ca,omitempty"` // roots for its TLS certificate, PEM file; default: the system's
}

// Submission is where certificates of one CA are submitted.
type Submission struct {
	Issuer string `yaml:"issuer"`           // the CA's certificate, PEM file
	URL    string `yaml:"url"`              // that /ct/v1/ is below: of the CA bridge, or of a log at another organisation's bridge
	TLSCA  string `yaml:"tls_ca,omitempty"` // roots for its TLS certificate, PEM file; default: the system's
}

// Enrolment is where the responder certificate of one CA comes from.
type Enrolment struct {
	Issuer    string `yaml:"issuer"`     // the CA's certificate, PEM file
	URL       string `yaml:"url"`        // base URL of the CA's API
	TokenFile string `yaml:"token_file"` // token of a client with the role responder
}

// UnmarshalYAML starts from the defaults, so that a key that is not set keeps its own.
func (o *OCSPBridge) UnmarshalYAML(unmarshal func(any) error) error {
	type plain OCSPBridge
	p := plain{Listen: DefaultOCSPListen, Settings: ocspbridge.DefaultSettings()}
	if err := unmarshal(&p); err != nil {
		return err
	}
	*o = OCSPBridge(p)
	return nil
}

// UnmarshalYAML starts from the defaults.
func (c *CA) UnmarshalYAML(unmarshal func(any) error) error {
	type plain CA
	p := plain{Listen: DefaultCAListen}
	if err := unmarshal(&p); err != nil {
		return err
	}
	*c = CA(p)
	return nil
}

// NeedCA returns the ca section, checked.
func (f *File) NeedCA() (*CA, error) {
	if f.CA == nil {
		return nil, f.missing("ca")
	}
	if f.CA.Dir == "" {
		return nil, f.missing("ca.dir")
	}
	if ca.KeyURI(f.CA.Dir) == "" { // a token has a PIN, which its URI says the place of
		if err := f.CA.Passphrase.Validate("ca.passphrase"); err != nil {
			return nil, f.rule("", err)
		}
	}
	if ct := f.CA.CT; ct != nil && (ct.KeyFile == "" || ct.PublicURL != "" && !isURL(ct.PublicURL)) {
		return nil, &Error{File: f.Path, Key: "ca.ct", Value: ct.PublicURL, Rule: "needs key_file, and a public_url that is an http or https URL"}
	}
	if ct := f.CA.CT; ct != nil && hsm.IsURI(ct.KeyFile) == (ct.SCTFile == "") {
		return nil, &Error{File: f.Path, Key: "ca.ct.sct_file", Value: ct.SCTFile, Rule: "must be set if key_file is a PKCS #11 URI, and only then"}
	}
	if o := f.CA.Operators; o != nil && f.CA.TLS == nil {
		return nil, &Error{File: f.Path, Key: "ca.operators", Value: o.MSP, Rule: "needs ca.tls: certificates are shown in TLS"}
	}
	if err := f.checkFronts(f.CA.Fronts); err != nil {
		return nil, err
	}
	if err := f.CA.Settings.Validate(); err != nil {
		return nil, f.rule("ca.", err)
	}
	return f.CA, nil
}

// NeedClient returns the client section, checked.
func (f *File) NeedClient() (*Client, error) {
	c := f.Client
	if c == nil {
		return nil, f.missing("client")
	}
	if c.PolicyFingerprint != "" && c.Policy == "" {
		return nil, &Error{File: f.Path, Key: "client.policy_fingerprint", Value: c.PolicyFingerprint, Rule: "needs policy, the file that has the version with it"}
	}
	for key, t := range map[string]*ClientTLS{"client.tls": c.TLS, "client.ca_tls": c.CATLS} {
		if t != nil && (t.Cert == "") != (t.Key == "") {
			return nil, &Error{File: f.Path, Key: key, Value: t.Cert + t.Key, Rule: "cert and key belong together"}
		}
	}
	return c, nil
}

// NeedOCSPBridge returns the ocsp_bridge section, checked.
func (f *File) NeedOCSPBridge() (*OCSPBridge, error) {
	b := f.OCSPBridge
	if b == nil {
		return nil, f.missing("ocsp_bridge")
	}
	if b.Dir == "" {
		return nil, f.missing("ocsp_bridge.dir")
	}
	for _, e := range b.Enrol {
		if e.Issuer == "" || e.URL == "" || e.TokenFile == "" {
			return nil, &Error{File: f.Path, Key: "ocsp_bridge.enrol", Value: e.URL, Rule: "needs issuer, url and token_file"}
		}
	}
	if b.ResponderKey != "" && !hsm.IsURI(b.ResponderKey) {
		return nil, &Error{File: f.Path, Key: "ocsp_bridge.responder_key", Value: b.ResponderKey, Rule: "must be a PKCS #11 URI; without one, keys are made in files"}
	}
	for i, l := range b.LogKeys {
		if l.Issuer == "" || !hsm.IsURI(l.Key) {
			return nil, &Error{File: f.Path, Key: fmt.Sprintf("ocsp_bridge.log_keys[%d]", i), Value: l.Issuer, Rule: "needs issuer, and a key that is a PKCS #11 URI"}
		}
	}
	if err := b.Settings.Validate(); err != nil {
		return nil, f.rule("ocsp_bridge.", err)
	}
	return b, f.checkLogs(b)
}

// checkLogs checks what the logs are served with.
func (f *File) checkLogs(b *OCSPBridge) error {
	at := func(key, value, rule string) error {
		return &Error{File: f.Path, Key: "ocsp_bridge." + key, Value: value, Rule: rule}
	}
	switch {
	case b.LogsAccess != "" && b.LogsAccess != LogsOpen && b.LogsAccess != LogsMembers:
		return at("logs_access", b.LogsAccess, "must be open or members")
	case b.LogsAccess == LogsMembers && (b.TLS == nil || b.TLS.ClientCA == ""):
		return at("logs_access", b.LogsAccess, "needs tls.client_ca, which says who a member is")
	case (b.Policy == "") != (b.PolicyFingerprint == ""):
		return at("policy_fingerprint", b.PolicyFingerprint, "must be set with policy, and only with it: the file is trusted for the version that has it")
	case b.TLS != nil && b.InsecureHTTP:
		return at("insecure_http", "true", "must not be set with tls, which would go unused")
	case b.TLS == nil && !b.InsecureHTTP && !httpserve.Loopback(b.Listen):
		return at("listen", b.Listen, "must be a loopback address, or tls must be set: submissions, revocations, the logs of members and the operator's pages do not cross a network "+
			"in the clear. Clients that ask for OCSP and CRLs over plain HTTP have http_address; behind a proxy that has TLS, insecure_http: true allows this")
	case b.HTTPAddress != "" && !isAddress(b.HTTPAddress):
		return at("http_address", b.HTTPAddress, "must be host:port")
	case b.PublicURL != "" && !isURL(b.PublicURL):
		return at("public_url", b.PublicURL, "must be an http or https URL without query and fragment")
	}
	for i, p := range b.Peers {
		if p.MSPID == "" || p.LogKey == "" || p.CosignerKey == "" || !isURL(p.URL) {
			return at(fmt.Sprintf("peers[%d]", i), p.URL, "needs msp_id, url (http or https), log_key and cosigner_key")
		}
	}
	for i, s := range b.Submit {
		if s.Issuer == "" || !isURL(s.URL) {
			return at(fmt.Sprintf("submit[%d]", i), s.URL, "needs issuer and url (http or https)")
		}
	}
	return nil
}

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != ""
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == ""
}

// rule names the file of an error that names the key below a section.
func (f *File) rule(section string, err error) error {
	var we *wire.Error
	if errors.As(err, &we) {
		return &Error{File: f.Path, Key: section + we.Field, Value: we.Value, Rule: we.Rule}
	}
	key, rule, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		key, rule = strings.TrimSuffix(section, "."), err.Error()
	}
	return &Error{File: f.Path, Key: section + key, Rule: rule}
}

func (f *File) missing(key string) error {
	return &Error{File: f.Path, Key: key, Rule: "is missing"}
}

// resolve makes relative paths relative to dir.
func (f *File) resolve(dir string) {
	for _, p := range f.paths() {
		if *p != "" && !filepath.IsAbs(*p) && !hsm.IsURI(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// checkFiles refuses a key in a token where only a file is read.
func (f *File) checkFiles() error {
	keys := map[string]string{}
	tls := func(section string, t *httpserve.TLS) {
		if t != nil {
			keys[section+".tls.key"] = t.Key
		}
	}
	if c := f.Ledger.Fabric; c != nil {
		keys["ledger.fabric.key"] = c.Key
	}
	if f.CA != nil {
		tls("ca", f.CA.TLS)
	}
	if f.OCSPBridge != nil {
		tls("ocsp_bridge", f.OCSPBridge.TLS)
	}
	if f.Client != nil && f.Client.TLS != nil {
		keys["client.tls.key"] = f.Client.TLS.Key
	}
	if f.Client != nil && f.Client.CATLS != nil {
		keys["client.ca_tls.key"] = f.Client.CATLS.Key
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if hsm.IsURI(keys[key]) {
			return &Error{File: f.Path, Key: key, Value: "pkcs11:", Rule: "must be a file: keys of TLS and of Fabric identities are not taken from PKCS #11 tokens"}
		}
	}
	return nil
}

func (f *File) paths() []*string {
	var ps []*string
	tls := func(t *httpserve.TLS) {
		if t != nil {
			ps = append(ps, &t.Cert, &t.Key, &t.ClientCA)
		}
	}
	if e := f.Ledger.Embedded; e != nil {
		ps = append(ps, &e.Dir, &e.Socket)
	}
	if c := f.Ledger.Fabric; c != nil {
		ps = append(ps, &c.TLSCA, &c.Cert, &c.Key, &c.GenesisBlock)
		for i := range c.FallbackPeers {
			ps = append(ps, &c.FallbackPeers[i].TLSCA)
		}
	}
	if c := f.CA; c != nil {
		ps = append(ps, &c.Dir, &c.Passphrase.File)
		if c.CT != nil {
			ps = append(ps, &c.CT.KeyFile, &c.CT.SCTFile)
		}
		if c.CRL != nil {
			ps = append(ps, &c.CRL.TLSCA)
		}
		if c.Operators != nil {
			ps = append(ps, &c.Operators.MSP)
		}
		ps = append(ps, frontPaths(c.Fronts)...)
		for i := range c.WeakKeys {
			ps = append(ps, &c.WeakKeys[i])
		}
		tls(c.TLS)
	}
	if c := f.Client; c != nil {
		ps = append(ps, &c.TokenFile, &c.HMACKeyFile, &c.Issuer, &c.Policy)
		if t := c.CATLS; t != nil {
			ps = append(ps, &t.CA, &t.Cert, &t.Key)
		}
		if t := c.TLS; t != nil {
			ps = append(ps, &t.CA, &t.Cert, &t.Key)
		}
	}
	if b := f.OCSPBridge; b != nil {
		ps = append(ps, &b.Dir, &b.Policy)
		tls(b.TLS)
		if x := b.CRL.Indirect; x != nil {
			ps = append(ps, &x.Cert, &x.Key)
		}
		for i := range b.LogKeys {
			ps = append(ps, &b.LogKeys[i].Issuer)
		}
		for i := range b.Peers {
			ps = append(ps, &b.Peers[i].TLSCA)
		}
		for i := range b.Submit {
			ps = append(ps, &b.Submit[i].Issuer, &b.Submit[i].TLSCA)
		}
		for i := range b.Enrol {
			ps = append(ps, &b.Enrol[i].Issuer, &b.Enrol[i].TokenFile)
		}
		for i := range b.Responders {
			ps = append(ps, &b.Responders[i].CertFile, &b.Responders[i].KeyFile, &b.Responders[i].Passphrase.File)
		}
	}
	return ps
}
