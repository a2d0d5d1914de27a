package cli

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
)

// parseSubject reads an RFC 4514 distinguished name of the usual attributes, such as "CN=Example CA,O=Example,C=NL". A comma
// or backslash inside a value is written with a backslash before it.
func parseSubject(s string) (pkix.Name, error) {
	var name pkix.Name
	fields := map[string]*[]string{
		"O": &name.Organization, "OU": &name.OrganizationalUnit, "C": &name.Country,
		"ST": &name.Province, "L": &name.Locality,
	}
	for _, part := range splitUnescaped(s) {
		key, value, ok := strings.Cut(part, "=")
		key, value = strings.ToUpper(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch field := fields[key]; {
		case !ok || value == "":
			return name, fmt.Errorf("%w: --subject %q: %q must be ATTRIBUTE=value", errUsage, s, part)
		case key == "CN" && name.CommonName == "":
			name.CommonName = value
		case field != nil:
			*field = append(*field, value)
		default:
			return name, fmt.Errorf("%w: --subject %q: attribute %q must be CN (once), O, OU, C, ST or L", errUsage, s, key)
		}
	}
	return name, nil
}

// splitUnescaped splits at commas without a backslash before them and removes the escapes.
func splitUnescaped(s string) []string {
	var parts []string
	var b strings.Builder
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == ',':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteRune(r)
		}
	}
	return append(parts, b.String())
}
