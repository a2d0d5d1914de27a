package ca

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// registration is the strictest that package idna has: UTS #46 without mapping, with the rules of RFC 5891 section 4.2 and RFC 5893. It takes
// symbols that IDNA2008 does not.
var registration = idna.New(idna.ValidateForRegistration())

// exceptions are what RFC 5892 sections 2.6, 2.8 and A allow, somewhere, beside letters, digits and marks; where, package idna knows.
const exceptions = "-\u00b7\u0375\u05f3\u05f4\u06fd\u06fe\u0f0b\u200c\u200d\u3007\u30fb"

func isSymbol(r rune) bool {
	return !unicode.In(r, unicode.L, unicode.Mn, unicode.Mc, unicode.Nd) && !strings.ContainsRune(exceptions, r)
}

// dnsFault says what is wrong with a DNS name; empty: nothing. Internationalised names come as A-labels (RFC 5280 section 7.2): what a U-label looks like is for
// whoever shows it, and a label that only looks like an A-label shows as nobody knows what.
func dnsFault(name string) string {
	for i := range len(name) {
		if name[i] >= 0x80 {
			return "must be in ASCII: an internationalised name is given as A-labels, xn--... (RFC 5280 section 7.2)"
		}
	}
	if !validDNSName(name) {
		return "must be a host name in the preferred syntax, a wildcard only as its whole first label (RFC 5280 section 4.2.1.6)"
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		switch {
		case len(label) < 4 || label[2:4] != "--":
		case !strings.HasPrefix(label, "xn--"):
			return fmt.Sprintf("label %q: must not have hyphens in third and fourth place unless it is an A-label (RFC 5890 section 2.3.1)", label)
		case !isALabel(label):
			return fmt.Sprintf("label %q: must be an A-label, the one of a U-label that IDNA2008 allows (RFC 5890 section 2.3.2.1)", label)
		}
	}
	return ""
}

// isALabel: it stands for a U-label, and that stands for it.
func isALabel(label string) bool {
	u, err := registration.ToUnicode(label)
	if err != nil || u == label || strings.ContainsFunc(u, isSymbol) {
		return false
	}
	a, err := registration.ToASCII(u)
	return err == nil && a == label
}

// isUName reports whether text could be a host name with U-labels, which old software would compare with one.
func isUName(text string) bool {
	a, err := registration.ToASCII(strings.ToLower(text))
	return err == nil && a != strings.ToLower(text) && strings.Contains(a, ".") && validDNSName(a)
}
