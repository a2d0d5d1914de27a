package cctest

import (
	"github.com/certanchor/certanchor/chaincode/wire"
)

// Decode reads data into v, a pointer to one of wire's top-level types.
func Decode(t TB, data []byte, v any) {
	t.Helper()
	var err error
	switch v := v.(type) {
	case *wire.Consortium:
		err = wire.Decode(data, v)
	case *wire.CARecord:
		err = wire.Decode(data, v)
	case *wire.CertRecord:
		err = wire.Decode(data, v)
	case *wire.LogHead:
		err = wire.Decode(data, v)
	case *wire.Clock:
		err = wire.Decode(data, v)
	case *wire.Proposal:
		err = wire.Decode(data, v)
	case *wire.Vote:
		err = wire.Decode(data, v)
	case *wire.StatusLeaf:
		err = wire.Decode(data, v)
	case *wire.Revocation:
		err = wire.Decode(data, v)
	case *wire.Rule:
		err = wire.Decode(data, v)
	case *wire.StatusHead:
		err = wire.Decode(data, v)
	case *wire.MapCert:
		err = wire.Decode(data, v)
	case *wire.MapHolder:
		err = wire.Decode(data, v)
	case *wire.MapCA:
		err = wire.Decode(data, v)
	case *wire.MapLeaf:
		err = wire.Decode(data, v)
	case *wire.RevokeIntent:
		err = wire.Decode(data, v)
	case *wire.RevokeArg:
		err = wire.Decode(data, v)
	case *wire.RevokeResult:
		err = wire.Decode(data, v)
	case *wire.DecideArg:
		err = wire.Decode(data, v)
	case *wire.DecideResult:
		err = wire.Decode(data, v)
	case *wire.IntegrateArg:
		err = wire.Decode(data, v)
	case *wire.IntegrateResult:
		err = wire.Decode(data, v)
	case *wire.IssueArg:
		err = wire.Decode(data, v)
	case *wire.SetStatusArg:
		err = wire.Decode(data, v)
	case *wire.RegisterCAArg:
		err = wire.Decode(data, v)
	case *wire.RegisterCAResult:
		err = wire.Decode(data, v)
	case *wire.IssueResult:
		err = wire.Decode(data, v)
	case *wire.ImportArg:
		err = wire.Decode(data, v)
	case *wire.ImportResult:
		err = wire.Decode(data, v)
	case *wire.SetStatusResult:
		err = wire.Decode(data, v)
	case *wire.TickResult:
		err = wire.Decode(data, v)
	case *wire.OperatorsRecord:
		err = wire.Decode(data, v)
	case *wire.AnchorOperatorsArg:
		err = wire.Decode(data, v)
	case *wire.AnchorOperatorsResult:
		err = wire.Decode(data, v)
	case *wire.ReadResult:
		err = wire.Decode(data, v)
	default:
		t.Fatalf("%T is not one of wire's top-level types", v)
	}
	if err != nil {
		t.Fatal(err)
	}
}
