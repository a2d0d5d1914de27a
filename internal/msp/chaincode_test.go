package msp

import (
	"encoding/json"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// chaincodeRole reads attributes as fabric-chaincode-go's cid package does.
func chaincodeRole(data []byte) string {
	var value struct {
		Attrs map[string]string `json:"attrs"`
	}
	if json.Unmarshal(data, &value) != nil {
		return ""
	}
	return value.Attrs[wire.RoleAttribute]
}
