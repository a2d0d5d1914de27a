package sct

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
)

// Verify says whether the SCT is the promise of the log with the key public about a leaf, as package ctleaf makes it: the same time, the same
// extensions, and a signature over that leaf (RFC 6962 section 3.2). The log ID is for the caller, who knows whose key it is.
func (s *SCT) Verify(public *ecdsa.PublicKey, leaf []byte) error {
	at, extensions, err := parseLeaf(leaf)
	switch {
	case err != nil:
		return err
	case s.Time != at:
		return fmt.Errorf("sct: timestamp %d: must be that of the entry, %d", s.Time, at)
	case !bytes.Equal(s.Extensions, extensions):
		return fmt.Errorf("sct: extensions %x: must be those of the entry, %x", s.Extensions, extensions)
	case !verify(public, leaf, s.Signature):
		return errors.New("sct: signature: must verify with the log's key over the entry (RFC 6962 section 3.2)")
	}
	return nil
}

// maxList is the longest opaque<1..2^16-1> that MarshalList may make.
const maxList = 1<<16 - 1

// MarshalList returns a SignedCertificateTimestampList (RFC 6962 section 3.3), as the TLS structure: in a certificate's extension it stands in an OCTET
// STRING. Errors: no SCT, or more than 65535 octets of them.
func MarshalList(scts []*SCT) ([]byte, error) {
	list := []byte{0, 0}
	for _, s := range scts {
		b := s.Marshal()
		list = append(list, byte(len(b)>>8), byte(len(b)))
		list = append(list, b...)
	}
	n := len(list) - 2
	if n == 0 || n > maxList {
		return nil, fmt.Errorf("sct: a list has %d octets: must have 1 to %d (RFC 6962 section 3.3)", n, maxList)
	}
	list[0], list[1] = byte(n>>8), byte(n)
	return list, nil
}
