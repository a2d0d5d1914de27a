package chaincode

import "github.com/certanchor/certanchor/chaincode/wire"

func importCerts(t *transaction, arg []byte) ([]byte, error) {
	var a wire.ImportArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	return nil, wire.Errorf(wire.FailedPrecondition, "function", wire.FnImport, "is not there yet")
}
