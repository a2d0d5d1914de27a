package ca

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/cloudflare/cfssl/config"
)

// Values of a profile's anchoring.
const (
	anchorDirect = "direct" // the certificate is anchored, then released
	anchorCT     = "ct"     // its precertificate first, then the certificate with SCTs
)

const (
	maxSCTs   = 16
	mostNames = 1000 // that max_names may allow
)

// keyNames are the values of a profile's allowed_keys; a kind alone stands for all its sizes that are taken at all.
const keyNames = "rsa, rsa-2048 (or another number of bits), ecdsa, ecdsa-p256, ecdsa-p384"

var keyName = regexp.MustCompile(`^(rsa(-[0-9]{4})?|ecdsa(-p256|-p384)?)$`)

// issueRules is a profile's part in what is issued that cfssl's format does not have, or not as strictly.
type issueRules struct {
	scts      int            // 0: anchored directly
	keys      []string       // empty: every key that is taken at all
	names     *regexp.Regexp // name_whitelist; nil: all
	wildcards bool
	private   bool // private names and addresses
	ips       bool
	maxNames  int
	server    bool // for TLS servers
}

// newRules reads them. Errors name key, value and rule.
func newRules(key string, p *config.SigningProfile, k ownKeys) (*issueRules, error) {
	r := &issueRules{keys: k.keys, wildcards: k.wildcards == nil || *k.wildcards, private: k.private == nil || *k.private, ips: k.ips == nil || *k.ips, maxNames: maxNames}
	if k.maxNames != nil {
		r.maxNames = *k.maxNames
	}
	anchoring := anchorDirect
	if k.anchoring != nil {
		anchoring = *k.anchoring
	}
	if k.scts != nil {
		r.scts = *k.scts
	}
	bad := func(sub, value, rule string) (*issueRules, error) {
		return nil, fmt.Errorf("%s.%s %q: %s", key, sub, value, rule)
	}
	ocsp := strings.HasSuffix(key, "."+ResponderProfile)
	switch {
	case anchoring != anchorDirect && anchoring != anchorCT:
		return bad(keyAnchor, anchoring, "must be "+anchorDirect+" or "+anchorCT)
	case anchoring == anchorCT && ocsp:
		return bad(keyAnchor, anchoring, "must be "+anchorDirect+": what answers for the CA must not wait for others' SCTs")
	case anchoring == anchorCT && k.scts == nil:
		return bad(keySCTs, "", "must be set with "+keyAnchor+" "+anchorCT+": of how many organisations")
	case anchoring == anchorDirect && k.scts != nil:
		return bad(keySCTs, fmt.Sprint(r.scts), "needs "+keyAnchor+" "+anchorCT)
	case k.scts != nil && (r.scts < 1 || r.scts > maxSCTs):
		return bad(keySCTs, fmt.Sprint(r.scts), fmt.Sprintf("must be a number of 1 to %d", maxSCTs))
	case r.maxNames < 1 || r.maxNames > mostNames:
		return bad(keyMaxNames, fmt.Sprint(r.maxNames), fmt.Sprintf("must be a number of 1 to %d", mostNames))
	case k.keys != nil && len(k.keys) == 0:
		return bad(keyKeys, "[]", "must not be empty: no key could be certified")
	}
	for _, name := range k.keys {
		if !keyName.MatchString(name) {
			return bad(keyKeys, name, "must be one of "+keyNames)
		}
	}
	r.server = slices.Contains(p.Usage, "server auth")
	if p.NameWhitelist != nil {
		// cfssl looks for a match anywhere in the name: good\.example would let evil.com/good.example pass. Here the whole name must match.
		names, err := regexp.Compile(`\A(?:` + p.NameWhitelistString + `)\z`)
		if err != nil {
			return bad("name_whitelist", p.NameWhitelistString, fmt.Sprintf("must be a regular expression that can be anchored: %v", err))
		}
		r.names = names
	}
	return r, nil
}

// check holds a request, whose key and names are well-formed, against the rules of the profile name. Errors are *wire.Error.
func (r *issueRules) check(csr *x509.CertificateRequest, name string) error {
	if kind, size := keyKind(csr); len(r.keys) > 0 && !slices.Contains(r.keys, kind) && !slices.Contains(r.keys, size) {
		return invalid("csr.public_key", size, "must be one of the profile %s: %s", name, strings.Join(r.keys, ", "))
	}
	if n := len(csr.DNSNames) + len(csr.IPAddresses) + len(csr.EmailAddresses) + len(csr.URIs); n > r.maxNames {
		return invalid("csr.subject_alt_name", fmt.Sprintf("%d names", n), "must have at most %d names, says %s of the profile %s", r.maxNames, keyMaxNames, name)
	}
	if cn := csr.Subject.CommonName; r.server && isUName(cn) {
		return invalid("csr.subject.CN", cn, "must be in ASCII if it is a host name, an internationalised one as A-labels, xn--... (RFC 5280 section 7.2)")
	}
	for _, n := range namesOf(csr) {
		if err := r.checkName(n, name); err != nil {
			return err
		}
	}
	return nil
}

// keyKind names a key as allowed_keys does, without and with its size.
func keyKind(csr *x509.CertificateRequest) (kind, size string) {
	switch k := csr.PublicKey.(type) {
	case *rsa.PublicKey:
		return "rsa", fmt.Sprintf("rsa-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ecdsa", "ecdsa-" + strings.ToLower(strings.ReplaceAll(k.Params().Name, "-", ""))
	}
	return "", csr.PublicKeyAlgorithm.String()
}

// requested is one name of a request.
type requested struct {
	field, value string
	host         string     // the DNS name in it, if there is one
	ip           netip.Addr // or the address
}

// namesOf lists the common name and all alternative names. A common name that could be a host's or an address is judged as one: old software
// takes it for one.
func namesOf(csr *x509.CertificateRequest) []requested {
	var names []requested
	if cn := csr.Subject.CommonName; cn != "" {
		n := requested{field: "csr.subject.CN", value: cn}
		if ip, err := netip.ParseAddr(cn); err == nil {
			n.ip = ip
		} else if validDNSName(cn) {
			n.host = cn
		}
		names = append(names, n)
	}
	for i, d := range csr.DNSNames {
		names = append(names, requested{field: fmt.Sprintf("csr.dns_names[%d]", i), value: d, host: d})
	}
	for i, a := range csr.IPAddresses {
		ip, _ := netip.AddrFromSlice(a)
		names = append(names, requested{field: fmt.Sprintf("csr.ip_addresses[%d]", i), value: a.String(), ip: ip.Unmap()})
	}
	for i, m := range csr.EmailAddresses {
		_, domain, _ := strings.Cut(m, "@")
		names = append(names, requested{field: fmt.Sprintf("csr.email_addresses[%d]", i), value: m, host: domain})
	}
	for i, u := range csr.URIs {
		names = append(names, uriName(i, u))
	}
	return names
}

func uriName(i int, u *url.URL) requested {
	n := requested{field: fmt.Sprintf("csr.uris[%d]", i), value: u.String()}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		n.ip = ip
	} else {
		n.host = u.Hostname()
	}
	return n
}

func (r *issueRules) checkName(n requested, profile string) error {
	certain := n.field != "csr.subject.CN" || strings.Contains(n.host, ".") // Alice is no host
	switch {
	case r.names != nil && !r.names.MatchString(n.value):
		return invalid(n.field, n.value, "must match name_whitelist of the profile %s as a whole", profile)
	case !r.wildcards && strings.HasPrefix(n.host, "*."):
		return invalid(n.field, n.value, "must not be a wildcard, says %s of the profile %s", keyWildcard, profile)
	case !r.ips && n.ip.IsValid():
		return invalid(n.field, n.value, "must not be an IP address, says %s of the profile %s", keyIPs, profile)
	case !r.private && n.ip.IsValid() && !isPublicIP(n.ip):
		return invalid(n.field, n.value, "must not be a private or reserved address, says %s of the profile %s", keyPrivate, profile)
	case !r.private && certain && n.host != "" && !isPublicName(n.host):
		return invalid(n.field, n.value, "must not be a private or reserved name, says %s of the profile %s", keyPrivate, profile)
	}
	return nil
}

// privateSuffixes are top-level domains and others that are set aside from the public DNS: RFC 2606 section 2, RFC 6761, RFC 6762 appendix G, RFC
// 7686, RFC 8375, RFC 9476, RFC 9665, and .internal (ICANN, 2024).
var privateSuffixes = []string{
	"test", "example", "invalid", "localhost", "local", "onion", "alt", "home.arpa", "service.arpa", "internal", "intranet", "private", "corp", "home", "lan", "mail",
	"example.com", "example.net", "example.org",
}

// isPublicName: a name in the public DNS has at least two labels, and no suffix that is never delegated.
func isPublicName(host string) bool {
	host = strings.ToLower(strings.TrimPrefix(host, "*."))
	if !strings.Contains(host, ".") {
		return false
	}
	for _, s := range privateSuffixes {
		if host == s || strings.HasSuffix(host, "."+s) {
			return false
		}
	}
	return true
}

// reserved are the blocks of the IANA special-purpose registries (RFC 6890) that are not globally reachable, beyond those that package
// netip knows.
var reserved = func() (blocks []netip.Prefix) {
	for _, b := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		blocks = append(blocks, netip.MustParsePrefix(b))
	}
	return blocks
}()

func isPublicIP(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !slices.ContainsFunc(reserved, func(b netip.Prefix) bool { return b.Contains(ip) })
}
