package caimport

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// The labels of certificates in PEM (RFC 7468 section 5). openssl's TRUSTED CERTIFICATE is one with something of its own after it.
var certLabels = map[string]bool{"CERTIFICATE": true, "X509 CERTIFICATE": true, "TRUSTED CERTIFICATE": true}

// splitCerts finds the certificates in a stream: PEM, with whatever text between, or DER, one after the other. It holds one at a time.
func splitCerts(in io.Reader, name string, s *sink) error {
	r := bufio.NewReaderSize(in, maxLine)
	begin, err := r.Peek(2)
	if err != nil && err != io.EOF {
		return err
	}
	if looksDER(begin) {
		return splitDER(r, name, s)
	}
	return splitPEM(r, name, s)
}

// looksDER: a SEQUENCE of more than 127 octets. No text begins so.
func looksDER(begin []byte) bool { return len(begin) >= 2 && begin[0] == 0x30 && begin[1] > 0x80 }

// splitDER reads one DER element after the other. What is no SEQUENCE of a possible length makes the rest unreadable.
func splitDER(r *bufio.Reader, name string, s *sink) error {
	for offset := int64(0); ; {
		w := Where{Source: name, Offset: offset}
		head, err := r.Peek(6)
		if len(head) == 0 && err == io.EOF {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		n, ok := derLength(head)
		if !ok || n > wire.MaxCertDER {
			return s.bad(bad(w, "DER", fmt.Sprintf("%x", head), "must be a SEQUENCE of at most %d octets; what follows was not read", wire.MaxCertDER))
		}
		der := make([]byte, n)
		if got, err := io.ReadFull(r, der); err == io.ErrUnexpectedEOF || err == io.EOF {
			return s.bad(bad(w, "DER", fmt.Sprintf("%d octets", got), "must have the %d octets that its header says", n))
		} else if err != nil {
			return err
		}
		if err := s.record(&Record{Where: w, DER: der}); err != nil {
			return err
		}
		offset += int64(n)
	}
}

// derLength is the length of a SEQUENCE, its header included, of which the first octets are given.
func derLength(head []byte) (n int, ok bool) {
	if len(head) < 2 || head[0] != 0x30 {
		return 0, false
	}
	if head[1] < 0x80 {
		return 2 + int(head[1]), true
	}
	octets := int(head[1] & 0x7f)
	if octets < 1 || octets > 4 || len(head) < 2+octets {
		return 0, false
	}
	for _, b := range head[2 : 2+octets] {
		n = n<<8 | int(b)
	}
	return n + 2 + octets, true
}

// pemBlock is a block that is being read.
type pemBlock struct {
	where Where
	label string
	text  []byte // base64, without white space
	big   bool
}

// splitPEM reads blocks line by line (RFC 7468). Keys, requests and the like are passed by.
func splitPEM(r *bufio.Reader, name string, s *sink) error {
	var block *pemBlock
	for n := 1; ; n++ {
		line, tooLong, err := readLine(r)
		if err == io.EOF {
			if block != nil {
				return s.bad(bad(block.where, "PEM", block.label, "must end with its line of END"))
			}
			return nil
		}
		if err != nil {
			return err
		}
		w := Where{Source: name, Line: n}
		line = bytes.TrimSpace(line)
		label, begins := pemLabel(line, "-----BEGIN ")
		_, ends := pemLabel(line, "-----END ")
		switch {
		case begins:
			if block != nil {
				if err := s.bad(bad(block.where, "PEM", block.label, "must end before another block begins, in line %d", n)); err != nil {
					return err
				}
			}
			block = &pemBlock{where: w, label: label}
		case block == nil:
		case ends:
			if err := block.end(s, line); err != nil {
				return err
			}
			block = nil
		case tooLong || len(block.text)+len(line) > base64.StdEncoding.EncodedLen(wire.MaxCertDER+1024):
			block.big = true
		default:
			block.text = append(block.text, line...)
		}
	}
}

func pemLabel(line []byte, prefix string) (string, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(prefix))
	label, closed := bytes.CutSuffix(rest, []byte("-----"))
	return string(label), ok && closed
}

func (p *pemBlock) end(s *sink, line []byte) error {
	if !certLabels[p.label] {
		s.skip("PEM " + p.label)
		return nil
	}
	if p.big {
		return s.bad(bad(p.where, "PEM", p.label, "must have at most %d octets", wire.MaxCertDER))
	}
	if label, _ := pemLabel(line, "-----END "); label != p.label {
		return s.bad(bad(p.where, "PEM", label, "must end as it began, with %s (RFC 7468 section 3)", p.label))
	}
	der := make([]byte, base64.StdEncoding.DecodedLen(len(p.text)))
	n, err := base64.StdEncoding.Decode(der, p.text)
	if err != nil {
		return s.bad(bad(p.where, "PEM", p.label, "must be base64: %v", err))
	}
	if der = der[:n]; p.label == "TRUSTED CERTIFICATE" {
		if n, ok := derLength(der); ok && n < len(der) {
			der = der[:n]
		}
	}
	return s.record(&Record{Where: p.where, DER: der})
}

// serialIn reads a certificate's serial number and nothing else of it; nil: there is none that the ledger could have.
func serialIn(der []byte) wire.Serial {
	s := cryptobyte.String(der)
	var cert, tbs cryptobyte.String
	var serial []byte
	if !s.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1Integer(&serial) {
		return nil
	}
	if wire.Serial(serial).Check() != nil {
		return nil
	}
	return serial
}

// certFile is one file of certificates.
type certFile struct {
	path  string
	shown string // "": path
}

func (c *certFile) name() string {
	if c.shown != "" {
		return c.shown
	}
	return c.path
}
func (c *certFile) kind() string { return "certificates" }

func (c *certFile) read(s *sink) error {
	f, err := os.Open(c.path)
	if err != nil {
		return err
	}
	err = splitCerts(f, c.name(), s)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
