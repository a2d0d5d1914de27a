package config

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
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

// Client is the section of certanchor cert: defaults of its flags.
type Client struct {
	CAURL     string   `yaml:"ca_url,omitempty"`     // base URL of the CA's API
	TokenFile string   `yaml:"token_file,omitempty"` // token for it
	Issuer    string   `yaml:"issuer,omitempty"`     // the CA's certificate, PEM file
	OCSPURL   string   `yaml:"ocsp_url,omitempty"`   // responder to ask instead of the one a certificate names
	BridgeURL string   `yaml:"bridge_url,omitempty"` // base URL of an organisation's OCSP bridge, for proofs
	Channel   string   `yaml:"channel,omitempty"`    // name of the ledger
	LogKeys   []string `yaml:"log_keys,omitempty"`   // verifier keys to trust
}

// CA is the section of the CA bridge.
type CA struct {
	Dir         string         `yaml:"dir"`              // made by certanchor ca init
	Listen      string         `yaml:"listen,omitempty"` // host:port; default DefaultCAListen
	TLS         *httpserve.TLS `yaml:"tls,omitempty"`    // required unless listen is a loopback address
	Passphrase  keyfile.Source `yaml:"passphrase"`
	ca.Settings `yaml:",inline"`
}

// OCSPBridge is the section of the OCSP bridge.
type OCSPBridge struct {
	Dir                 string               `yaml:"dir"`                  // index, responder keys and log key; made when absent
	Listen              string               `yaml:"listen,omitempty"`     // host:port; default DefaultOCSPListen
	TLS                 *httpserve.TLS       `yaml:"tls,omitempty"`        // required unless listen is a loopback address
	Enrol               []Enrolment          `yaml:"enrol,omitempty"`      // CAs that certify this responder over their API
	Responders          []ocspbridge.KeyPair `yaml:"responders,omitempty"` // responder certificates got in another way
	NoTicker            bool                 `yaml:"no_ticker,omitempty"`  // leave the ledger's clock to other organisations
	ocspbridge.Settings `yaml:",inline"`
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
	if err := f.CA.Passphrase.Validate("ca.passphrase"); err != nil {
		return nil, f.rule("", err)
	}
	if err := f.CA.Settings.Validate(); err != nil {
		return nil, f.rule("ca.", err)
	}
	return f.CA, nil
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
	if err := b.Settings.Validate(); err != nil {
		return nil, f.rule("ocsp_bridge.", err)
	}
	return b, nil
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
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (f *File) paths() []*string {
	var ps []*string
	tls := func(t *httpserve.TLS) {
		if t != nil {
			ps = append(ps, &t.Cert, &t.Key)
		}
	}
	if e := f.Ledger.Embedded; e != nil {
		ps = append(ps, &e.Dir, &e.Socket)
	}
	if c := f.Ledger.Fabric; c != nil {
		ps = append(ps, &c.TLSCA, &c.Cert, &c.Key)
	}
	if c := f.CA; c != nil {
		ps = append(ps, &c.Dir, &c.Passphrase.File)
		tls(c.TLS)
	}
	if c := f.Client; c != nil {
		ps = append(ps, &c.TokenFile, &c.Issuer)
	}
	if b := f.OCSPBridge; b != nil {
		ps = append(ps, &b.Dir)
		tls(b.TLS)
		for i := range b.Enrol {
			ps = append(ps, &b.Enrol[i].Issuer, &b.Enrol[i].TokenFile)
		}
		for i := range b.Responders {
			ps = append(ps, &b.Responders[i].CertFile, &b.Responders[i].KeyFile)
		}
	}
	return ps
}
