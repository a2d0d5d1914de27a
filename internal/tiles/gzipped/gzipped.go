// Package gzipped writes HTTP answers, compressed for those who can read that.
package gzipped

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// least is the size from which compression pays.
const least = 512

var writers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil { // a constant level
		panic(err)
	}
	return w
}}

// Write answers 200 with body: gzip-coded if the request accepts that. Content-Type is the caller's to set. The error is that of the
// connection.
func Write(w http.ResponseWriter, r *http.Request, body []byte) error {
	coded := len(body) >= least && Accepted(r)
	if coded {
		body = Compress(body)
	}
	return WriteCoded(w, body, coded)
}

// WriteCoded is Write of a body that Compress has made for a request that is Accepted, if coded, and of any other if not.
func WriteCoded(w http.ResponseWriter, body []byte, coded bool) error {
	h := w.Header()
	// RFC 9110 12.5.5: whichever form this answer has, a cache must not give it to everybody.
	h.Add("Vary", "Accept-Encoding")
	if coded {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	return err
}

// Compress returns the gzip coding of body.
func Compress(body []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(body) / 2)
	z, ok := writers.Get().(*gzip.Writer)
	if !ok { // New makes nothing else
		panic("gzipped: not a writer in the pool")
	}
	defer writers.Put(z)
	z.Reset(&out)
	if _, err := z.Write(body); err != nil { // a bytes.Buffer takes everything
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// Accepted reports whether the request accepts gzip (RFC 9110 section 12.5.3): it or "*" is listed with a weight that is not zero. A request
// that says nothing gets the plain form, which everybody can read.
func Accepted(r *http.Request) bool {
	named, wild := false, false
	for _, line := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			coding, parameters, _ := strings.Cut(part, ";")
			wanted := !zeroWeight(parameters)
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip":
				if !wanted {
					return false
				}
				named = true
			case "*":
				wild = wanted
			}
		}
	}
	return named || wild
}

func zeroWeight(parameters string) bool {
	name, value, ok := strings.Cut(parameters, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(name), "q") {
		return false
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	return err != nil || q <= 0
}
