package ocspbridge

import (
	"errors"
	"net/url"
	"strings"
)

// sextets are the values of base64's letters, in both of its alphabets, or noSextet. A space is a '+' that some program on the way took for the
// form encoding of one.
var sextets = func() (t [256]uint32) {
	for i := range t {
		t[i] = noSextet
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" {
		t[c] = uint32(i)
	}
	t['+'], t['-'], t[' '] = 62, 62, 62
	t['/'], t['_'] = 63, 63
	return t
}()

const noSextet = 1 << 31

var (
	errPathLong   = errors.New("request in the path is longer than max_request_bytes")
	errPathBase64 = errors.New("request in the path is not base64")
)

// decodePath undoes what clients do to a request in a GET path: RFC 6960 appendix A.1 says base64, then URL-encoding, which net/http has
// undone. Seen as well are no URL-encoding at all, URL-encoding twice, no padding, base64url, extra slashes in front, and '+' turned
// into a space on the way. The result is in buf.
func decodePath(text string, limit int, buf *buffer) ([]byte, error) {
	if strings.IndexByte(text, '%') >= 0 {
		var err error
		if text, err = url.PathUnescape(text); err != nil {
			return nil, err
		}
	}
	// A request's base64 begins with "M", so slashes in front are not part of it.
	text = strings.TrimRight(strings.TrimLeft(text, "/"), "=")
	whole, rest := len(text)/4*4, text[len(text)/4*4:]
	if size := whole/4*3 + len(rest)*3/4; size > limit {
		return nil, errPathLong
	} else if size > len(buf.data) {
		buf.data = make([]byte, size)
	}
	n := 0
	for i := 0; i+4 <= len(text); i += 4 {
		s0, s1, s2, s3 := sextets[text[i]], sextets[text[i+1]], sextets[text[i+2]], sextets[text[i+3]]
		if (s0|s1|s2|s3)&noSextet != 0 {
			return nil, errPathBase64
		}
		v := s0<<18 | s1<<12 | s2<<6 | s3
		out := buf.data[n : n+3 : n+3]
		out[0], out[1], out[2] = byte(v>>16), byte(v>>8), byte(v)
		n += 3
	}
	return appendRest(buf.data[:n], rest)
}

// appendRest decodes the two or three letters after the last four. The bits that are left over must not be set: one spelling of each request.
func appendRest(out []byte, rest string) ([]byte, error) {
	var v uint32
	for i := range len(rest) {
		s := sextets[rest[i]]
		if s == noSextet {
			return nil, errPathBase64
		}
		v = v<<6 | s
	}
	switch {
	case len(rest) == 0:
		return out, nil
	case len(rest) == 2 && v&0xf == 0:
		return append(out, byte(v>>4)), nil
	case len(rest) == 3 && v&0x3 == 0:
		return append(out, byte(v>>10), byte(v>>2)), nil
	}
	return nil, errPathBase64
}

// plainCertID returns the CertID of a request that consists of nothing else: OCSPRequest, tbsRequest, requestList and Request are SEQUENCEs around
// it, each ending where the others do, and it is one. It returns nil for any other request, and does not look into the CertID: whether it
// is one shows when it is found among those that were parsed, as the DER that it is and nothing after it.
func plainCertID(der []byte) []byte {
	for range 4 {
		if der = sequence(der); der == nil {
			return nil
		}
	}
	if sequence(der) == nil {
		return nil
	}
	return der
}

// sequence returns what is in a SEQUENCE, nil if der is not one from its beginning to its end.
func sequence(der []byte) []byte {
	if len(der) < 2 || der[0] != 0x30 {
		return nil
	}
	switch n := int(der[1]); {
	case n < 0x80 && n == len(der)-2:
		return der[2:]
	// X.690 section 10.1: the shortest form of length.
	case n == 0x81 && len(der) >= 3+0x80 && int(der[2]) == len(der)-3:
		return der[3:]
	}
	return nil
}
