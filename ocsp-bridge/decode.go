package ocspbridge

import (
	"errors"
	"net/url"
	"strings"
)

// sextets are the values of base64's letters, in both of its alphabets; 0xff: none. A space is a '+' that some program on the way took for the
// form encoding of one.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" {
		t[c] = byte(i)
	}
	t['+'], t['-'], t[' '] = 62, 62, 62
	t['/'], t['_'] = 63, 63
	return t
}()

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
	size := len(text) / 4 * 3
	switch len(text) % 4 {
	case 1:
		return nil, errPathBase64
	case 2:
		size++
	case 3:
		size += 2
	}
	if size > limit {
		return nil, errPathLong
	}
	if size > len(buf.data) {
		buf.data = make([]byte, size)
	}
	var (
		out  = buf.data[:0]
		bits uint32
		n    uint
	)
	for i := range len(text) {
		v := sextets[text[i]]
		if v == 0xff {
			return nil, errPathBase64
		}
		bits = bits<<6 | uint32(v)
		if n += 6; n >= 8 {
			n -= 8
			out = append(out, byte(bits>>n))
		}
	}
	if bits&(1<<n-1) != 0 { // one spelling of each request
		return nil, errPathBase64
	}
	return out, nil
}

// plainCertID returns the CertID of a request that consists of nothing else: OCSPRequest, tbsRequest, requestList and Request are SEQUENCEs around
// it, each ending where the others do. It returns nil for any other request, and does not look into the CertID: whether it is one
// shows when it is found among those that were parsed.
func plainCertID(der []byte) []byte {
	for range 4 {
		if len(der) < 2 || der[0] != 0x30 {
			return nil
		}
		switch n := int(der[1]); {
		case n < 0x80 && n == len(der)-2:
			der = der[2:]
		// X.690 section 10.1: the shortest form of length.
		case n == 0x81 && len(der) >= 3+0x80 && int(der[2]) == len(der)-3:
			der = der[3:]
		default:
			return nil
		}
	}
	return der
}
