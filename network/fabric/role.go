package fabric

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// attributesOID is where an identity's certificate carries the attributes that chaincode sees (fabric-ca, and the cid package
// of fabric-chaincode-go).
var attributesOID = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// roleOf reads the role attribute from a submitter's certificate as the contract's endorsers do. A certificate that they could not
// read has no role: they refuse whoever has none.
func roleOf(certPEM []byte) string {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return ""
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(attributesOID) {
			continue
		}
		var value struct {
			Attrs map[string]string `json:"attrs"`
		}
		if json.Unmarshal(e.Value, &value) != nil {
			return ""
		}
		return value.Attrs[wire.RoleAttribute]
	}
	return ""
}
