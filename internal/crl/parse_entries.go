package crl

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// leastEntry is the shortest entry: a serial of one octet and a UTCTime.
const leastEntry = 2 + 3 + 15

// ReadEntries reads the entries of a CRL that ParseHeader has read, checks each, and sorts them. It may be called once; Parse has done it.
func (l *List) ReadEntries() error {
	var body cryptobyte.String
	list, group := l.entries, -1
	l.entries = nil
	byName := map[string]int{} // a group's place
	for n := 0; !list.Empty(); n++ {
		if !list.ReadASN1(&body, sequence) {
			return malformed(entryField(n), "", "must be a SEQUENCE")
		}
		e, name, err := l.readEntry(body, n)
		if err != nil {
			return err
		}
		switch {
		case name != nil:
			known := false
			if group, known = byName[string(name)]; !known {
				group, l.Groups = len(l.Groups), append(l.Groups, Group{Name: name})
				byName[string(name)] = group
			}
		case group < 0:
			// RFC 5280 section 5.3.3: without certificateIssuer on the first entry, the issuer is the CRL's.
			group, l.Groups = 0, []Group{{Entries: make([]Entry, 0, 1+len(list)/(2*leastEntry))}}
		}
		g := &l.Groups[group]
		g.Entries = append(g.Entries, e)
	}
	for _, g := range l.Groups {
		if !slices.IsSortedFunc(g.Entries, compareSerials) {
			Sort(g.Entries)
		}
		for i := range g.Entries[:max(len(g.Entries), 1)-1] {
			if bytes.Equal(g.Entries[i].Serial, g.Entries[i+1].Serial) {
				return malformed("revokedCertificates", g.Entries[i].Serial.String(), "must not be listed twice")
			}
		}
	}
	return nil
}

func entryField(n int) string { return "revokedCertificates[" + strconv.Itoa(n) + "]" }

// readEntry returns the entry, and the certificate issuer's name if it has one.
func (l *List) readEntry(s cryptobyte.String, n int) (e Entry, name []byte, err error) {
	var serial []byte
	if !s.ReadASN1Integer(&serial) || wire.Serial(serial).Check() != nil {
		return e, nil, malformed(entryField(n)+".userCertificate", "", "must be a positive INTEGER of at most 20 octets (RFC 5280 section 4.1.2.2)")
	}
	e.Serial = serial
	if e.Time, err = readTime(&s, "revocationDate"); err != nil {
		return e, nil, err
	}
	if s.Empty() {
		return e, nil, nil
	}
	err = eachExtension(s, "crlEntryExtensions", func(id byte, critical bool, value cryptobyte.String) error {
		ok := false
		switch id {
		case idReason:
			ok = !critical && e.readReason(value, l.Base != 0)
		case idInvalidity:
			ok = !critical && e.readInvalidity(value)
		case idIssuer:
			name, ok = readIssuer(value)
			ok = ok && critical && l.Indirect
		}
		if !ok {
			return malformed(entryField(n)+"."+extensionName(id), "", "must be a reasonCode, not unspecified, and removeFromCRL only in a delta CRL; an invalidityDate; or, "+
				"in an indirect CRL, a critical certificateIssuer (RFC 5280 section 5.3)")
		}
		return nil
	})
	if err == nil && e.Remove && e.Invalidity != 0 {
		err = malformed(entryField(n), e.Serial.String(), "removeFromCRL goes with no invalidityDate")
	}
	return e, name, err
}

func (e *Entry) readReason(s cryptobyte.String, delta bool) bool {
	var reason int
	if !s.ReadASN1Enum(&reason) || !s.Empty() || reason <= 0 {
		return false
	}
	if reason == removeFromCRL {
		e.Remove = true
		return delta
	}
	e.Reason = wire.Reason(reason)
	return e.Reason.Known()
}

func (e *Entry) readInvalidity(s cryptobyte.String) bool {
	var ok bool
	e.Invalidity, ok = readGeneralized(&s)
	return ok && s.Empty() && e.Invalidity > 0
}

// readIssuer reads GeneralNames with one directoryName.
func readIssuer(s cryptobyte.String) (name []byte, ok bool) {
	var names, dir, inner cryptobyte.String
	ok = s.ReadASN1(&names, sequence) && s.Empty() && names.ReadASN1(&dir, tagDirName) && names.Empty()
	if !ok {
		return nil, false
	}
	name = dir
	return name, dir.ReadASN1(&inner, sequence) && dir.Empty()
}

// readTime reads a Time as RFC 5280 section 5.1.2.4 has it: UTCTime through 2049, GeneralizedTime after that, in UTC, to the second.
func readTime(s *cryptobyte.String, field string) (Seconds, error) {
	var (
		t    Seconds
		ok   bool
		text cryptobyte.String
	)
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		if ok = s.ReadASN1(&text, cbasn1.UTCTime) && len(text) == 13; ok {
			century := "20"
			if text[0] >= '5' { // RFC 5280 section 4.1.2.5.1
				century = "19"
			}
			t, ok = readDigits(append([]byte(century), text...))
		}
	} else if t, ok = readGeneralized(s); ok {
		ok = t >= firstGeneralized
	}
	if !ok || t <= 0 {
		return 0, malformed(field, string(text[:min(len(text), maxShown)]), "must be a UTCTime YYMMDDhhmmssZ of 1970 to 2049, or a GeneralizedTime YYYYMMDDhhmmssZ of 2050 or later (RFC 5280 section 5.1.2.4)")
	}
	return t, nil
}

func readGeneralized(s *cryptobyte.String) (Seconds, bool) {
	var text cryptobyte.String
	if !s.ReadASN1(&text, cbasn1.GeneralizedTime) {
		return 0, false
	}
	return readDigits(text)
}

// readDigits reads YYYYMMDDhhmmssZ.
func readDigits(text []byte) (Seconds, bool) {
	if len(text) != 15 || text[14] != 'Z' {
		return 0, false
	}
	var two [7]int
	for i := range 14 {
		d := text[i] - '0'
		if d > 9 {
			return 0, false
		}
		two[i/2] = 10*two[i/2] + int(d)
	}
	t := time.Date(100*two[0]+two[1], time.Month(two[2]), two[3], two[4], two[5], two[6], 0, time.UTC)
	s := Seconds(t.Unix())
	// What does not exist, the 31st of April or the 61st second, was turned into something that does.
	return s, bytes.Equal(appendGeneralized(nil, t)[2:], text)
}
