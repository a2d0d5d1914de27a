package intent

import (
	"bytes"
	"encoding/pem"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const (
	// PEMType is the label of the file form: PEM around the encoded wire.RevokeArg. It is no secret key, but whoever has the file can revoke the
	// certificate until the intent expires, as its holder wanted.
	PEMType = "CERTANCHOR REVOKE INTENT"

	// ContentType of the file form over HTTP. The handler takes plain CBOR too, and looks at the body only.
	ContentType = "application/x-pem-file"

	// MaxFile bounds a file or request, in octets: a certificate of wire.MaxCertDER, and a signature, in base64.
	MaxFile = 128 << 10
)

// Marshal returns the file form of arg.
func Marshal(arg *wire.RevokeArg) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: PEMType, Bytes: wire.Encode(arg)})
}

// Parse reads the file form, or the encoding alone. Nothing is verified: Check does. Errors: *wire.Error.
func Parse(data []byte) (*wire.RevokeArg, error) {
	if len(data) == 0 || len(data) > MaxFile {
		return nil, invalid("body", "", "must have 1 to %d bytes, has %d", MaxFile, len(data))
	}
	raw := data
	if data[0] < 0x80 { // text; a CBOR map begins with a byte above it
		block, rest := pem.Decode(data)
		switch {
		case block == nil:
			return nil, invalid("body", "", "must be a PEM block %q or the CBOR within it", PEMType)
		case block.Type != PEMType:
			return nil, invalid("body", block.Type, "must be a PEM block %q", PEMType)
		case len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0:
			return nil, invalid("body", PEMType, "must be one PEM block without headers, and nothing after it")
		}
		raw = block.Bytes
	}
	arg := new(wire.RevokeArg)
	if err := wire.Decode(raw, arg); err != nil {
		return nil, invalid("body", fmt.Sprintf("%d bytes", len(raw)), "%v", err)
	}
	return arg, nil
}
