package client

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// pattern is one thing that a Monitor looks for. Exactly one of domain, mail and prefix is set.
type pattern struct {
	text   string       // as it was given, in lower case
	domain string       // A-labels, lower case, no dot at the end
	below  bool         // only names below domain
	mail   string       // one address
	prefix netip.Prefix // addresses
}

// parsePattern reads a domain name, *.domain, an e-mail address, an IP address or a prefix in CIDR notation. Errors name the rule.
func parsePattern(s string) (pattern, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return pattern{text: text, prefix: prefix.Masked()}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return pattern{text: text, prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	if local, domain, ok := cutLast(text, '@'); ok {
		if local == "" || strings.ContainsFunc(local, separates) {
			return pattern{}, badPattern(s, "must have a name before the @")
		}
		if err := checkDomain(s, domain); err != nil {
			return pattern{}, err
		}
		return pattern{text: text, mail: text}, nil
	}
	domain, below := strings.CutPrefix(strings.TrimSuffix(text, "."), "*.")
	if err := checkDomain(s, domain); err != nil {
		return pattern{}, err
	}
	return pattern{text: text, domain: domain, below: below}, nil
}

// CheckMatch says whether a Monitor can look for s. The error names the rule.
func CheckMatch(s string) error {
	_, err := parsePattern(s)
	return err
}

func badPattern(s, rule string) error { return fmt.Errorf("match %q: %s", s, rule) }

// checkDomain refuses what no dNSName can be, so that a slip does not make a monitor that never finds anything.
func checkDomain(given, domain string) error {
	for _, r := range domain {
		if r > 0x7f {
			return badPattern(given, "must be in ASCII: write internationalised labels as they stand in certificates, xn--... (RFC 5890 A-labels)")
		}
	}
	if len(domain) > 253 {
		return badPattern(given, "must be at most 253 octets (RFC 1035 section 2.3.4)")
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return badPattern(given, "must be a domain name, *.domain, an e-mail address, an IP address or a CIDR prefix")
		}
	}
	return nil
}

// dns reports whether name, in lower case, is or covers a name that p is about.
func (p *pattern) dns(name string) bool {
	if p.domain == "" {
		return false
	}
	name = strings.TrimSuffix(name, ".")
	if name == p.domain {
		return !p.below
	}
	if strings.HasSuffix(name, "."+p.domain) {
		return true
	}
	// *.org is a certificate for example.org as well.
	first, rest, _ := strings.Cut(name, ".")
	label, parent, _ := strings.Cut(p.domain, ".")
	before, after, wild := strings.Cut(first, "*")
	return wild && !p.below && parent != "" && rest == parent && len(before)+len(after) <= len(label) &&
		strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}

func (p *pattern) ip(a netip.Addr) bool { return p.prefix.IsValid() && p.prefix.Contains(a.Unmap()) }

// piece reports whether p is about one name without separators, in lower case.
func (p *pattern) piece(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return p.ip(a)
	}
	if _, domain, ok := cutLast(s, '@'); ok {
		return p.mail != "" && p.mail == s || p.dns(domain)
	}
	if p.dns(s) {
		return true
	}
	host, _, port := strings.Cut(s, ":")
	return port && p.dns(host)
}

// patterns are what one Monitor looks for.
type patterns []pattern

// match returns the patterns that a name matches. A common name is free text: each word of it is looked at.
func (ps patterns) match(name string) []string {
	var found []string
	words := strings.FieldsFunc(dots.Replace(strings.ToLower(name)), separates)
	for i := range ps {
		for _, w := range words {
			if ps[i].piece(w) {
				found = append(found, ps[i].text)
				break
			}
		}
	}
	return found
}

// dots are the characters that IDNA reads as a full stop (RFC 3490 section 3.1).
var dots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// separates reports whether r cannot be part of a host name or an address.
func separates(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`,;/\"<>()[]`, r) }

// within returns the patterns that octets contain which nobody can read: as ASCII in any case, or with zeros in between, as in a
// BMPString; addresses as the iPAddress of a GeneralName. It finds too much rather than too little.
func (ps patterns) within(raw []byte) []string {
	var found []string
	lower := bytes.ToLower(raw)
	narrow := bytes.ReplaceAll(lower, []byte{0}, nil)
	for i := range ps {
		p := &ps[i]
		text := []byte(p.domain + p.mail) // one of them
		if len(text) > 0 && (bytes.Contains(lower, text) || bytes.Contains(narrow, text)) || p.prefix.IsValid() && p.address(raw) {
			found = append(found, p.text)
		}
	}
	return found
}

func (p *pattern) address(raw []byte) bool {
	const iPAddress = 0x87 // RFC 5280 section 4.2.1.6: [7] IMPLICIT OCTET STRING
	for i := 0; i+2 < len(raw); i++ {
		n := int(raw[i+1])
		if raw[i] != iPAddress || i+2+n > len(raw) {
			continue
		}
		if a, ok := netip.AddrFromSlice(raw[i+2 : i+2+n]); ok && p.ip(a) {
			return true
		}
	}
	return false
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
