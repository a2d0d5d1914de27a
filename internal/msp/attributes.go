package msp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// attributesOID is where an identity's certificate carries its attributes (fabric-ca, and the cid package of fabric-chaincode-go).
var attributesOID = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// maxAttributes is more than any CA puts there, in octets.
const maxAttributes = 16 << 10

// Role returns the attribute that says what the holder of a certificate may do, as the contract reads it; empty if there is none.
func Role(cert *x509.Certificate) (string, error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(attributesOID) {
			continue
		}
		attrs, err := parseAttributes(e.Value)
		if err != nil {
			return "", fmt.Errorf("attributes (extension %s): %w", attributesOID, err)
		}
		return attrs[wire.RoleAttribute], nil
	}
	return "", nil
}

// parseAttributes reads {"attrs":{"name":"value"}}. A name that occurs twice, or is spelled otherwise, is an error: the contract's library and
// this one would have to agree which one counts.
func parseAttributes(data []byte) (map[string]string, error) {
	if len(data) > maxAttributes || !utf8.Valid(data) {
		return nil, fmt.Errorf("must be UTF-8 of at most %d octets", maxAttributes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var attrs map[string]string
	err := object(dec, func(name string) error {
		if name != "attrs" {
			return fmt.Errorf(`name %q: must be "attrs"`, name)
		}
		attrs = map[string]string{}
		return object(dec, func(name string) error {
			t, err := dec.Token()
			if err != nil {
				return err
			}
			v, ok := t.(string)
			if !ok {
				return fmt.Errorf("%q: must be a string", name)
			}
			attrs[name] = v
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one JSON object")
	}
	return attrs, nil
}

// object reads an object; member reads the value of each name in it.
func object(dec *json.Decoder, member func(name string) error) error {
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("must be a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return errors.New("must be a JSON object")
		}
		if seen[name] {
			return fmt.Errorf("%q: must not occur twice", name)
		}
		seen[name] = true
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}
