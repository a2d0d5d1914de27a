package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/cloudflare/cfssl/config"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// ResponderProfile is the profile of delegated OCSP responder certificates. It cannot be asked for by name.
const ResponderProfile = "ocsp-responder"

// maxResponderLife is invariant 9 (docs/invariants.md). Relying parties never ask for the status of a responder certificate
// (id-pkix-ocsp-nocheck), so its short life is its only revocation.
const maxResponderLife = wire.MaxResponderLife

const usageOCSP = "ocsp signing"

// defaultProfilesText is what Init writes. Notes:
//   - No "key encipherment": RFC 8813 section 3 forbids it with EC keys, and no TLS 1.3 or ECDHE handshake needs it.
//   - Every profile has a CSRWhitelist; without one cfssl copies whatever the requester put into the CSR.
//   - lint_error_level "warn": a certificate that zlint finds in error is not signed; lints of the public web PKI's
//     requirements are left out, those of the RFCs stay.
var defaultProfilesText = template.Must(template.New("profiles").Parse(`{
  "signing": {
    "default": { "expiry": "{{.Year}}" },
    "profiles": {
      "server": {
        "usages": ["digital signature", "server auth"],
        "expiry": "{{.Quarter}}",{{.URLs}}
        "CSRWhitelist": {{.Whitelist}},
        {{.Lint}}
      },
      "client": {
        "usages": ["digital signature", "client auth"],
        "expiry": "{{.Year}}",{{.URLs}}
        "CSRWhitelist": {{.Whitelist}},
        {{.Lint}}
      },
      "peer": {
        "usages": ["digital signature", "server auth", "client auth"],
        "expiry": "{{.Quarter}}",{{.URLs}}
        "CSRWhitelist": {{.Whitelist}},
        {{.Lint}}
      },
      "ocsp-responder": {
        "usages": ["digital signature", "ocsp signing"],
        "expiry": "{{.Responder}}",
        "ocsp_no_check": true,
        "CSRWhitelist": { "Subject": true, "PublicKeyAlgorithm": true, "PublicKey": true },
        {{.Lint}}
      }
    }
  }
}
`))

// defaultProfiles returns profiles.json for a CA that lives for life, with what o says about URLs.
func defaultProfiles(o *InitOptions, life time.Duration) []byte {
	var urls strings.Builder
	add := func(key string, v any) {
		quoted, err := json.Marshal(v)
		if err != nil { // strings and integers always marshal
			panic(err)
		}
		fmt.Fprintf(&urls, "\n        %q: %s,", key, quoted)
	}
	if o.OCSPURL != "" {
		add("ocsp_url", o.OCSPURL)
	}
	if len(o.CRLURLs) > 0 {
		add("crl_url", o.CRLURLs[0])
	}
	if len(o.CRLURLs) > 1 {
		add(keyMirrors, o.CRLURLs[1:])
	}
	if o.CRLShards != 0 {
		add(keyShards, o.CRLShards)
	}
	hours := func(d time.Duration) string { return fmt.Sprintf("%dh", int(min(d, life)/time.Hour)) }
	var b bytes.Buffer
	err := defaultProfilesText.Execute(&b, map[string]string{
		"Year": hours(365 * 24 * time.Hour), "Quarter": hours(90 * 24 * time.Hour), "Responder": hours(maxResponderLife), "URLs": urls.String(),
		"Whitelist": `{ "Subject": true, "PublicKeyAlgorithm": true, "PublicKey": true, "DNSNames": true, "IPAddresses": true, "EmailAddresses": true, "URIs": true }`,
		"Lint":      `"lint_error_level": "warn", "ignored_lint_sources": ["CABF_BR", "CABF_EV", "Mozilla", "Apple", "ETSI_ESI", "Community"]`,
	})
	if err != nil {
		panic(err) // the template and its data are fixed
	}
	return b.Bytes()
}

// loadProfiles reads profiles.json, of which what is used is what check has seen.
func loadProfiles(path string, check func([]byte) error) (*profiles, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := check(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := parseProfiles(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// parseProfiles accepts cfssl's configuration format as far as this CA carries it out. Errors name key, value and rule: what
// cfssl would ignore or leave to another program is refused. Keys that are this CA's own: profile_keys.go.
func parseProfiles(data []byte) (*profiles, error) {
	data, own, err := takeOwnKeys(data)
	if err != nil {
		return nil, err
	}
	// cfssl's own loader skips keys that it does not know.
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	strict := new(config.Config)
	if err := dec.Decode(strict); err != nil {
		return nil, fmt.Errorf("must be a cfssl configuration: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("must hold one JSON value")
	}
	authKeys, err := checkConfig(strict)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadConfig(data)
	if err != nil {
		return nil, err
	}
	if len(cfg.Signing.Profiles) == 0 {
		return nil, errors.New("signing.profiles: must not be empty")
	}
	adoptDefault(cfg.Signing, own)
	for _, name := range slices.Sorted(maps.Keys(cfg.Signing.Profiles)) {
		if err := checkProfile(name, cfg.Signing.Profiles[name]); err != nil {
			return nil, err
		}
	}
	if cfg.Signing.Profiles[ResponderProfile] == nil {
		return nil, fmt.Errorf("signing.profiles.%s: is missing", ResponderProfile)
	}
	// cfssl takes URLs that a profile leaves out from the default.
	if err := checkURLs("signing.default", cfg.Signing.Default); err != nil {
		return nil, err
	}
	p, err := newProfiles(cfg.Signing, own)
	if err != nil {
		return nil, err
	}
	p.cfssl = authKeys
	p.cfssl.allowNewKeys(own)
	return p, nil
}

func checkProfile(name string, p *config.SigningProfile) error {
	key := "signing.profiles." + name
	bad := func(sub string, value any, rule string) error {
		return fmt.Errorf("%s.%s %q: %s", key, sub, fmt.Sprint(value), rule)
	}
	_, eku, unknown := p.Usages()
	switch {
	case len(unknown) > 0:
		return bad("usages", unknown[0], "is not a usage that cfssl knows")
	case slices.Contains(p.Usage, "cert sign"), slices.Contains(p.Usage, "crl sign"), p.CAConstraint.IsCA:
		return bad("ca_constraint", p.Usage, "CA certificates are not issued here")
	case slices.Contains(eku, x509.ExtKeyUsageAny):
		return bad("usages", "any", "a certificate for any purpose would also be an OCSP responder's")
	case p.Expiry <= 0:
		return bad("expiry", p.ExpiryString, "must be positive")
	case p.Backdate < 0 || p.Backdate >= p.Expiry:
		return bad("backdate", p.BackdateString, "must not be negative and less than expiry")
	case p.CSRWhitelist == nil:
		return bad("CSRWhitelist", "", "must be set: without it the requester decides about every field")
	case !p.CSRWhitelist.PublicKey || !p.CSRWhitelist.PublicKeyAlgorithm:
		return bad("CSRWhitelist", "PublicKey", "PublicKey and PublicKeyAlgorithm must be true")
	}
	if err := checkUnused(bad, p); err != nil {
		return err
	}
	if err := checkPolicies(key, p.Policies); err != nil {
		return err
	}
	if err := checkURLs(key, p); err != nil {
		return err
	}
	return checkResponderProfile(name, p, eku, bad)
}

// checkUnused refuses settings that would let something past the ledger or that this CA does not carry out.
func checkUnused(bad func(string, any, string) error, p *config.SigningProfile) error {
	switch {
	case p.RemoteName != "" || p.AuthRemote.RemoteName != "":
		return bad("remote", p.RemoteName+p.AuthRemote.RemoteName, "must not be set: this CA signs with its own key")
	case p.CopyExtensions:
		return bad("copy_extensions", true, "must not be set: the requester would decide about extensions")
	case len(p.AllowedExtensions) > 0:
		return bad("allowed_extensions", p.AllowedExtensions, "must not be set: the API takes no extensions")
	case p.ClientProvidesSerialNumbers:
		return bad("ClientProvidesSerialNumbers", true, "must not be set: serial numbers are random")
	case !p.NotBefore.IsZero():
		return bad("not_before", p.NotBefore, "must not be set: certificates are valid from their signature on")
	case len(p.CTLogServers) > 0:
		return bad("ct_log_servers", p.CTLogServers, "must not be set: with "+keyAnchor+" "+anchorCT+" the SCTs are those of the fronts of ca.fronts")
	case p.CertStore != "":
		return bad("cert_store", p.CertStore, "must not be set: the journal and the ledger are the store")
	}
	return nil
}

// checkResponderProfile keeps the power to answer for the CA inside one short-lived profile.
func checkResponderProfile(name string, p *config.SigningProfile, eku []x509.ExtKeyUsage, bad func(string, any, string) error) error {
	signs := slices.Contains(eku, x509.ExtKeyUsageOCSPSigning)
	switch {
	case name != ResponderProfile && signs:
		return bad("usages", usageOCSP, "only the profile "+ResponderProfile+" may have it")
	case name != ResponderProfile && p.OCSPNoCheck:
		return bad("ocsp_no_check", true, "only the profile "+ResponderProfile+" may have it (RFC 6960 section 4.2.2.2.1)")
	case name != ResponderProfile:
		return nil
	case !signs || len(eku) != 1:
		return bad("usages", strings.Join(p.Usage, ", "), `must include "`+usageOCSP+`" and no other extended usage (RFC 6960 section 4.2.2.2)`)
	case !p.OCSPNoCheck:
		return bad("ocsp_no_check", false, "must be true (RFC 6960 section 4.2.2.2.1)")
	case !p.NotAfter.IsZero():
		return bad("not_after", p.NotAfter, "must not be set: expiry bounds its life")
	case p.Expiry > maxResponderLife:
		return bad("expiry", p.ExpiryString, fmt.Sprintf("must be at most %v: a responder certificate cannot be revoked", maxResponderLife))
	}
	return nil
}

func checkURLs(key string, p *config.SigningProfile) error {
	if err := checkURL(key+".ocsp_url", p.OCSP); err != nil {
		return err
	}
	for _, u := range p.IssuerURL {
		if err := checkURL(key+".issuer_urls", u); err != nil {
			return err
		}
	}
	return nil
}

// checkURL accepts an empty string and absolute http and https URLs.
func checkURL(field, raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return wire.Errorf(wire.InvalidArgument, field, raw, "must be an absolute http or https URL")
	}
	return nil
}
