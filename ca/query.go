package ca

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unique"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
)

// query is a caapi.Query that has been checked.
type query struct {
	profile, client    string
	name, subject      catalogue.Pattern
	issued, expires    interval
	state              wire.CertState // 0: any
	unnamed, unwritten bool           // whether it asks for names, or for what only the journal knows
}

// interval is a half-open interval of times; 0 is no bound.
type interval struct{ from, to wire.Millis }

func (i interval) has(t wire.Millis) bool { return t >= i.from && (i.to == 0 || t < i.to) }

// parseQuery checks a query. Errors name the field.
func (s *Server) parseQuery(q *caapi.Query) (*query, error) {
	if *q == (caapi.Query{}) {
		return nil, invalid("query", "", "must have one field at least: profile, client, name, subject, issued_from, issued_to, expires_from, expires_to, state")
	}
	p := &query{profile: q.Profile, client: q.Client, name: catalogue.Pattern(q.Name), subject: catalogue.Pattern(q.Subject)}
	p.unnamed, p.unwritten = q.Name != "" || q.Subject != "", q.Profile != "" || q.Client != ""
	if q.Profile != "" && s.issuer.policy.Profiles[q.Profile] == nil && !s.usedProfile(q.Profile) {
		return nil, invalid("query.profile", q.Profile, "must be a profile of this CA, or one that it has issued with")
	}
	if len(q.Client) > maxPattern || strings.ContainsFunc(q.Client, unicode.IsControl) {
		return nil, invalid("query.client", q.Client, "must be a client's name, of at most %d bytes and without control characters", maxPattern)
	}
	for _, n := range []struct{ field, value string }{{"query.name", q.Name}, {"query.subject", q.Subject}} {
		if err := checkPattern(n.field, n.value); err != nil {
			return nil, err
		}
	}
	var err error
	if p.issued, err = parseInterval("issued", q.IssuedFrom, q.IssuedTo); err != nil {
		return nil, err
	}
	if p.expires, err = parseInterval("expires", q.ExpiresFrom, q.ExpiresTo); err != nil {
		return nil, err
	}
	switch q.State {
	case "":
	case stateName(wire.CertValid):
		p.state = wire.CertValid
	case stateName(wire.CertHeld):
		p.state = wire.CertHeld
	case stateName(wire.CertRevoked):
		p.state = wire.CertRevoked
	default:
		return nil, invalid("query.state", q.State, "must be valid, held or revoked")
	}
	return p, nil
}

// maxPattern bounds a name that is asked for.
const maxPattern = 512

func checkPattern(field, value string) error {
	if len(value) > maxPattern {
		return invalid(field, fmt.Sprintf("%d bytes", len(value)), "must have at most %d bytes", maxPattern)
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return invalid(field, value, "must not have control characters")
	}
	rest, end := strings.CutPrefix(value, "*")
	if strings.Contains(rest, "*") || end && len(rest) < 2 {
		return invalid(field, value, "may have one asterisk, at the beginning and before what the name ends with, as in *.example.org")
	}
	return nil
}

func parseInterval(name, from, to string) (i interval, err error) {
	if i.from, err = parseTime("query."+name+"_from", from); err != nil {
		return i, err
	}
	if i.to, err = parseTime("query."+name+"_to", to); err != nil {
		return i, err
	}
	if i.to != 0 && i.to <= i.from {
		return i, invalid("query."+name+"_to", to, "must be after %s_from, %s", name, from)
	}
	return i, nil
}

// parseTime reads a time in RFC 3339 form; 0 for none.
func parseTime(field, text string) (wire.Millis, error) {
	if text == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Unix() <= 0 {
		return 0, invalid(field, text, "must be a time after 1970 in RFC 3339 form")
	}
	return wire.MillisOf(t), nil
}

// matches reports whether c is meant. unnamed: it might be, but the ledger has no names of it.
func (q *query) matches(c *catalogue.Cert, b *book) (meant, unnamed bool) {
	if q.state != 0 && c.State != q.state || !q.issued.has(c.Recorded) || !q.expires.has(c.NotAfter) {
		return false, false
	}
	if q.unwritten {
		e := b.findSerial(c.Serial)
		if e == nil || q.profile != "" && e.profile.Value() != q.profile || q.client != "" && e.client.Value() != q.client {
			return false, false
		}
	}
	if !q.unnamed {
		return true, false
	}
	if !c.Named {
		return false, true
	}
	if q.subject != "" && !q.subject.Match(c.Subject) {
		return false, false
	}
	if q.name == "" {
		return true, false
	}
	for _, n := range c.Names {
		if q.name.Match(n) {
			return true, false
		}
	}
	return false, false
}

func (s *Server) usedProfile(name string) bool {
	return slices.ContainsFunc(s.line.list(), func(g *Server) bool { return g.book.usedProfile(name) })
}

// usedProfile reports whether a certificate was issued with a profile, which need not be there any more.
func (b *book) usedProfile(name string) bool {
	p := unique.Make(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.bySerial {
		if e.profile == p {
			return true
		}
	}
	return false
}
