package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/internal/certsig"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// AdoptOptions describe a CA that exists and is to be run by this software.
type AdoptOptions struct {
	Dir        string              // must not exist or be empty
	Chain      []*x509.Certificate // the CA's certificate and those above it up to the root, issuer after issued
	Key        crypto.Signer       // from ReadPlainKey; or
	KeyURI     string              // RFC 7512 URI of the key in a PKCS #11 token, where it must be
	Passphrase []byte              // of the key file, at least keyfile.MinPassphrase bytes; not used with KeyURI
	Profiles   []byte              // a configuration of cfssl's; nil: those of a new CA
	OCSPURL    string              // for profiles that name none; may be empty
	CRLURLs    []string            // with {ca} and {shard}; for profiles that name none; may be empty
	CRLShards  int                 // with CRLURLs; 0: the complete CRL is there
	Now        func() time.Time    // default time.Now

	iterations int // as InitOptions has it
}

// AdoptResult says what Adopt made.
type AdoptResult struct {
	OperatorToken string   // path of the token file
	Notes         []string // what was added to the profiles, and what they will not do
}

// Adopt makes the directory of a CA that has its key and certificate already. Like Init it leaves nothing behind when it fails, and it changes
// nothing elsewhere: the key's file in the clear stays where it is, for its owner to destroy.
func Adopt(o AdoptOptions) (_ *AdoptResult, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Chain) == 0 {
		return nil, errors.New("certificate: must be given")
	}
	cert := o.Chain[0]
	in := &InitOptions{
		Dir: o.Dir, Subject: cert.Subject, Validity: cert.NotAfter.Sub(o.Now()).Truncate(time.Hour), OCSPURL: o.OCSPURL, CRLURLs: o.CRLURLs, CRLShards: o.CRLShards,
		KeyURI: o.KeyURI, Passphrase: o.Passphrase, Now: o.Now, iterations: o.iterations,
	}
	if err := in.checkPlace(); err != nil {
		return nil, err
	}
	if err := checkChain(o.Chain); err != nil {
		return nil, err
	}
	key := o.Key
	if o.KeyURI != "" {
		if key, err = hsm.Open("key", o.KeyURI); err != nil {
			return nil, err
		}
	} else if err := keyfile.CheckNew(o.Passphrase); err != nil {
		return nil, err
	}
	res := &AdoptResult{OperatorToken: filepath.Join(o.Dir, OperatorTokenFile)}
	text := o.Profiles
	if text == nil {
		text = defaultProfiles(in, in.Validity-caBackdate)
	} else if text, res.Notes, err = amendProfiles(text, in); err != nil {
		return nil, err
	}
	policy, err := parseProfiles(text)
	if err != nil {
		return nil, fmt.Errorf("profiles: %w", err)
	}
	// What a start would refuse is refused now.
	if _, err := newIssuer(cert, o.Chain[1:], key, policy, o.Now); err != nil {
		return nil, err
	}
	return res, in.place(func(dir string) error { return o.populate(dir, in, key, text) })
}

// checkChain verifies that each certificate was issued by the next, and that the last one is a root.
func checkChain(chain []*x509.Certificate) error {
	for i, c := range chain {
		issuer := c
		if i+1 < len(chain) {
			issuer = chain[i+1]
		}
		if err := certsig.Check(c, issuer); err != nil {
			if i+1 == len(chain) {
				return fmt.Errorf("certificate %q: the certificates above it must follow it in the file, up to the root: %w", c.Subject, err)
			}
			return fmt.Errorf("certificate %q: must be issued by the next in the file, %q: %w", c.Subject, issuer.Subject, err)
		}
	}
	return nil
}

// checkPlace is check for a CA that has its name and key.
func (o *InitOptions) checkPlace() error {
	if o.Validity < minValidity {
		return fmt.Errorf("certificate %q: must be valid for another %v at least", o.Subject, minValidity)
	}
	if o.Dir == "" {
		return errors.New("dir: must name a directory")
	}
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("dir %q: must not exist or be empty; it holds %q: %w", o.Dir, entries[0].Name(), os.ErrExist)
	}
	return checkURL("ocsp_url", o.OCSPURL)
}

// place prepares the directory beside its place and renames it into it.
func (o *InitOptions) place(populate func(dir string) error) (err error) {
	parent := filepath.Dir(filepath.Clean(o.Dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".ca-adopt-") // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := populate(tmp); err != nil {
		return err
	}
	if err := keyfile.SyncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, o.Dir); err != nil { // as in Init
		return fmt.Errorf("couldn't put the CA into place: %w", err)
	}
	return keyfile.SyncDir(parent)
}

func (o *AdoptOptions) populate(dir string, in *InitOptions, key crypto.Signer, profiles []byte) error {
	if err := in.saveKey(filepath.Join(dir, keyFile), key); err != nil {
		return err
	}
	if err := keyfile.WriteNew(filepath.Join(dir, certFile), encodeCert(o.Chain[0].Raw), 0o644); err != nil {
		return err
	}
	if above := o.Chain[1:]; len(above) > 0 {
		var text []byte
		for _, c := range above {
			text = append(text, encodeCert(c.Raw)...)
		}
		if err := keyfile.WriteNew(filepath.Join(dir, chainFile), text, 0o644); err != nil {
			return err
		}
	}
	// Keys of cfssl's clients may be in it.
	if err := keyfile.WriteNew(filepath.Join(dir, profilesFile), profiles, 0o600); err != nil {
		return err
	}
	_, err := AddClient(dir, "operator", RoleOperator)
	return err
}

// maxPlainKey is longer than any key's file.
const maxPlainKey = 64 << 10

// ReadPlainKey reads a private key as cfssl and openssl write it without a passphrase: PEM, PKCS #8, PKCS #1 or SEC 1.
func ReadPlainKey(path string) (crypto.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPlainKey))
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("%s: must hold a private key in PEM (PKCS #8, PKCS #1 or SEC 1)", path)
		}
		var key any
		switch block.Type {
		case "EC PARAMETERS": // openssl ecparam -genkey writes them before the key
			continue
		case "ENCRYPTED PRIVATE KEY":
			err = errEncrypted
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			err = fmt.Errorf("holds a PEM block %q", block.Type)
		}
		if block.Headers["DEK-Info"] != "" {
			err = errEncrypted
		}
		signer, ok := key.(crypto.Signer)
		if err == nil && !ok {
			err = fmt.Errorf("holds a %T, which cannot sign", key)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: must hold a private key in PEM: %w", path, err)
		}
		return signer, nil
	}
}

var errEncrypted = errors.New("it is encrypted; `openssl pkey -in FILE -out PLAIN` on a disk that forgets, such as a tmpfs, takes the passphrase off")

// everyName is the whitelist of those who had none: cfssl then takes all of a CSR. Extensions are not among it.
var everyName = map[string]bool{
	"Subject": true, "PublicKeyAlgorithm": true, "PublicKey": true, "DNSNames": true, "IPAddresses": true, "EmailAddresses": true, "URIs": true,
}

// amendProfiles adds to a configuration of cfssl's what this CA wants and cfssl does not have, and notes each addition. What cannot be carried out
// is left, for parseProfiles to name.
func amendProfiles(data []byte, o *InitOptions) (out []byte, notes []string, err error) {
	if _, _, err := takeOwnKeys(data); err != nil {
		return nil, nil, fmt.Errorf("profiles: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var doc map[string]any
	if err := dec.Decode(&doc); err != nil {
		return nil, nil, fmt.Errorf("profiles: must be a cfssl configuration: %w", err)
	}
	signing, _ := doc["signing"].(map[string]any)
	named, _ := signing["profiles"].(map[string]any)
	if named == nil {
		return data, nil, nil // parseProfiles says what is missing
	}
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	standard, _ := signing["default"].(map[string]any)
	if standard["usages"] != nil {
		amendProfile("signing.default", standard, nil, o, note)
	} else {
		note("signing.default has no usages: a request without a profile is refused, where cfssl would take usages of its own")
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if p, ok := named[name].(map[string]any); ok && name != ResponderProfile {
			amendProfile("signing.profiles."+name, p, standard, o, note)
		}
	}
	if named[ResponderProfile] == nil {
		var own map[string]any
		if err := json.Unmarshal(defaultProfiles(o, o.Validity), &own); err != nil {
			return nil, nil, err
		}
		named[ResponderProfile] = own["signing"].(map[string]any)["profiles"].(map[string]any)[ResponderProfile]
		note("added signing.profiles.%s: OCSP bridges get their certificates with it", ResponderProfile)
	}
	out, err = json.MarshalIndent(doc, "", "  ")
	return append(out, '\n'), notes, err
}

// amendProfile amends one. What it does not say itself it takes from standard, the default profile, as far as cfssl has it so.
func amendProfile(key string, p, standard map[string]any, o *InitOptions, note func(string, ...any)) {
	if p["CSRWhitelist"] == nil {
		p["CSRWhitelist"] = everyName
		note("added %s.CSRWhitelist, with all names: without it cfssl takes everything from a CSR; take out what requesters are not to decide", key)
	}
	if p["ocsp_url"] == nil && standard["ocsp_url"] == nil && o.OCSPURL != "" {
		p["ocsp_url"] = o.OCSPURL
		note("added %s.ocsp_url %s", key, o.OCSPURL)
	}
	if p["crl_url"] == nil && standard["crl_url"] == nil && len(o.CRLURLs) > 0 {
		p["crl_url"] = o.CRLURLs[0]
		if len(o.CRLURLs) > 1 {
			p[keyMirrors] = o.CRLURLs[1:]
		}
		if o.CRLShards != 0 {
			p[keyShards] = o.CRLShards
		}
		note("added %s.crl_url %s", key, o.CRLURLs[0])
	}
	if names, _ := p["name_whitelist"].(string); names != "" {
		note("%s.name_whitelist %q must match names as a whole here; cfssl takes a match anywhere in them", key, names)
	}
	usages, _ := p["usages"].([]any)
	for _, u := range usages {
		if u == "key encipherment" || u == "data encipherment" {
			note("%s has the usage %q: requests with EC keys, which cfssl makes unless told otherwise, will be refused (RFC 8813 section 3); take it out if its clients have such keys", key, u)
		}
	}
}
