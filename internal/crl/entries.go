package crl

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// DER tags, X.690.
const (
	tagInteger    = 0x02
	tagBitString  = 0x03
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagUTCTime    = 0x17
	tagTime       = 0x18 // GeneralizedTime
	tagSequence   = 0x30
	tagDirectory  = 0xa4 // [4] of GeneralName
)

const (
	reasonSize     = 12 // octets of the extension
	invaliditySize = 26
)

// The parts of entry extensions that are the same in each. RFC 5280 section 5.3: reasonCode and invalidityDate are not critical,
// certificateIssuer is.
var (
	reasonHead     = []byte{tagSequence, reasonSize - 2, 6, 3, 0x55, 0x1d, idReason, tagOctets, 3, tagEnumerated, 1}
	invalidityHead = []byte{tagSequence, invaliditySize - 2, 6, 3, 0x55, 0x1d, idInvalidity, tagOctets, 17}
	issuerHead     = []byte{6, 3, 0x55, 0x1d, idIssuer, 1, 1, 0xff}
)

// headSize is how many octets tag and length of n octets take.
func headSize(n int) int {
	if n < 128 {
		return 2
	}
	return 2 + (bits.Len(uint(n))+7)/8
}

func appendTag(b []byte, tag byte, n int) []byte {
	if n < 128 {
		return append(b, tag, byte(n))
	}
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(n))
	octets := headSize(n) - 2
	return append(append(b, tag, 0x80|byte(octets)), wide[8-octets:]...)
}

// groupSize is how long appendGroup makes a group. RFC 5280 section 5.3.3: certificateIssuer on the first entry holds for those that follow.
func groupSize(g Group) (n int) {
	for i := range g.Entries {
		size := entrySize(&g.Entries[i])
		if i == 0 {
			size += issuerSize(g.Name)
			size += extensionsHead(&g.Entries[i], g.Name)
		} else {
			size += extensionsHead(&g.Entries[i], nil)
		}
		n += headSize(size) + size
	}
	return n
}

// entrySize is how long an entry is without its own head, that of its extensions, and certificateIssuer.
func entrySize(e *Entry) int {
	n := 2 + len(e.Serial) + timeSize(e.Time) + extensionsSize(e)
	if e.Serial[0] >= 0x80 {
		n++
	}
	return n
}

func extensionsSize(e *Entry) (n int) {
	if e.Invalidity != 0 {
		n += invaliditySize
	}
	if e.Reason != 0 || e.Remove { // RFC 5280 section 5.3.1: never unspecified
		n += reasonSize
	}
	return n
}

func extensionsHead(e *Entry, name []byte) int {
	if n := extensionsSize(e) + issuerSize(name); n > 0 {
		return headSize(n)
	}
	return 0
}

// issuerSize is how long certificateIssuer is.
func issuerSize(name []byte) int {
	if name == nil {
		return 0
	}
	n := issuerContent(name)
	return headSize(n) + n
}

func issuerContent(name []byte) int {
	names := headSize(len(name)) + len(name)
	octets := headSize(names) + names
	return len(issuerHead) + headSize(octets) + octets
}

func appendGroup(b []byte, g Group) []byte {
	for i := range g.Entries {
		name := g.Name
		if i > 0 {
			name = nil
		}
		b = appendEntry(b, &g.Entries[i], name)
	}
	return b
}

func appendEntry(b []byte, e *Entry, name []byte) []byte {
	b = appendTag(b, tagSequence, entrySize(e)+issuerSize(name)+extensionsHead(e, name))
	if e.Serial[0] >= 0x80 {
		b = append(b, tagInteger, byte(len(e.Serial)+1), 0)
	} else {
		b = append(b, tagInteger, byte(len(e.Serial)))
	}
	b = append(b, e.Serial...)
	b = appendTime(b, e.Time)
	n := extensionsSize(e) + issuerSize(name)
	if n == 0 {
		return b
	}
	b = appendTag(b, tagSequence, n)
	if name != nil {
		b = appendIssuer(b, name)
	}
	if e.Invalidity != 0 { // RFC 5280 section 5.3.2: a GeneralizedTime, whichever the year
		b = appendGeneralized(append(b, invalidityHead...), e.Invalidity.Time())
	}
	switch {
	case e.Remove:
		b = append(append(b, reasonHead...), removeFromCRL)
	case e.Reason != 0:
		b = append(append(b, reasonHead...), byte(e.Reason))
	}
	return b
}

func appendIssuer(b, name []byte) []byte {
	names := headSize(len(name)) + len(name)
	b = append(appendTag(b, tagSequence, issuerContent(name)), issuerHead...)
	b = appendTag(b, tagOctets, headSize(names)+names)
	b = appendTag(b, tagSequence, names)
	return append(appendTag(b, tagDirectory, len(name)), name...)
}

// firstGeneralized is 2050-01-01T00:00:00Z. RFC 5280 section 5.1.2.4: dates through 2049 are UTCTime, later ones GeneralizedTime.
const firstGeneralized Seconds = 2524608000

func timeSize(s Seconds) int {
	if s < firstGeneralized {
		return 2 + len("YYMMDDhhmmssZ")
	}
	return 2 + len("YYYYMMDDhhmmssZ")
}

func appendTime(b []byte, s Seconds) []byte {
	t := s.Time()
	if s >= firstGeneralized {
		return appendGeneralized(b, t)
	}
	b = appendTwo(append(b, tagUTCTime, 13), t.Year()%100)
	return appendRest(b, t)
}

func appendGeneralized(b []byte, t time.Time) []byte {
	b = append(b, tagTime, 15)
	b = appendTwo(appendTwo(b, t.Year()/100), t.Year()%100)
	return appendRest(b, t)
}

func appendRest(b []byte, t time.Time) []byte {
	_, month, day := t.Date()
	hour, minute, second := t.Clock()
	for _, n := range [...]int{int(month), day, hour, minute, second} {
		b = appendTwo(b, n)
	}
	return append(b, 'Z')
}

func appendTwo(b []byte, n int) []byte { return append(b, '0'+byte(n/10), '0'+byte(n%10)) }
