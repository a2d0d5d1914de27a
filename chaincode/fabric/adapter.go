package fabric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/cid"
	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-contract-api-go/v2/contractapi"
	"github.com/hyperledger/fabric-contract-api-go/v2/metadata"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"

	"github.com/certanchor/certanchor/chaincode"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// Executor executes transactions: a *chaincode.Contract, or in tests something that tampers with one.
type Executor interface {
	Invoke(st chaincode.State, tx chaincode.Tx, function string, arg []byte) ([]byte, error)
}

// NewChaincode returns executor as a Fabric chaincode. A refusal's message is (*wire.Error).Message.
func NewChaincode(executor Executor, log *slog.Logger) (shim.Chaincode, error) {
	api, err := contractapi.NewChaincode(&contract{
		Contract: contractapi.Contract{Name: "certanchor"},
		executor: executor,
		log:      log,
	})
	if err != nil {
		return nil, fmt.Errorf("contract-api: %w", err)
	}
	api.DefaultContract = "certanchor"
	api.Info.Title = "certanchor"
	api.TransactionSerializer = rawSerializer{}
	return strict{api}, nil
}

// strict accepts a call in exactly one form: the function's name and one argument. contract-api would also take "issue" or
// "certanchor:Issue" for Issue, and drop further arguments; a follower that reads arguments from blocks would then have to
// know the same rules.
type strict struct {
	api *contractapi.ContractChaincode
}

// metadataFunction is contract-api's own, which tools use to discover a contract. It touches no state.
const metadataFunction = contractapi.SystemContractName + ":GetMetadata"

var functions = []string{wire.FnInit, wire.FnRegisterCA, wire.FnIssue, wire.FnImport, wire.FnSetStatus, wire.FnRevoke, wire.FnDecide, wire.FnIntegrate, wire.FnTick, wire.FnAnchorOperators, wire.FnRead}

func (s strict) Init(shim.ChaincodeStubInterface) *peer.Response {
	return shim.Error(wire.Errorf(wire.InvalidArgument, "function", "", "the chaincode is not deployed with --init-required; call %s", wire.FnInit).Message())
}

func (s strict) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	args := stub.GetArgs()
	if len(args) > 0 && string(args[0]) == metadataFunction {
		return s.api.Invoke(stub)
	}
	if err := checkCall(args); err != nil {
		return shim.Error(err.Message())
	}
	return s.api.Invoke(stub)
}

func checkCall(args [][]byte) *wire.Error {
	if len(args) == 0 {
		return wire.Errorf(wire.InvalidArgument, "function", "", "must be one of %q", functions)
	}
	for _, f := range functions {
		if string(args[0]) != f {
			continue
		}
		if len(args) != 2 {
			return wire.Errorf(wire.InvalidArgument, "argument", fmt.Sprintf("%d arguments", len(args)-1), "%s takes exactly one", f)
		}
		return nil
	}
	return wire.Errorf(wire.InvalidArgument, "function", string(args[0]), "must be one of %q", functions)
}

// contract has one method for each function of the contract. Arguments and answers are CBOR in a Go string.
type contract struct {
	contractapi.Contract
	executor Executor
	log      *slog.Logger
}

// GetEvaluateTransactions names the functions that only read, for contract-api's metadata.
func (c *contract) GetEvaluateTransactions() []string { return []string{wire.FnRead} }

type txContext = contractapi.TransactionContextInterface

func (c *contract) Init(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnInit, arg)
}
func (c *contract) RegisterCA(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnRegisterCA, arg)
}
func (c *contract) Issue(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnIssue, arg)
}
func (c *contract) Import(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnImport, arg)
}
func (c *contract) SetStatus(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnSetStatus, arg)
}
func (c *contract) Revoke(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnRevoke, arg)
}
func (c *contract) Decide(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnDecide, arg)
}
func (c *contract) Integrate(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnIntegrate, arg)
}
func (c *contract) Tick(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnTick, arg)
}
func (c *contract) AnchorOperators(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnAnchorOperators, arg)
}
func (c *contract) Read(ctx txContext, arg string) (string, error) {
	return c.invoke(ctx, wire.FnRead, arg)
}

func (c *contract) invoke(ctx txContext, function, arg string) (string, error) {
	stub := ctx.GetStub()
	tx, refused := envelope(stub)
	if refused != nil {
		return "", errors.New(refused.Message())
	}
	if !chaincode.ReadOnly(function) {
		stub.StartWriteBatch()
	}
	result, err := c.executor.Invoke(state{stub}, tx, function, []byte(arg))
	if err == nil {
		return string(result), nil
	}
	refused, ok := errors.AsType[*wire.Error](err)
	if !ok {
		refused = wire.Errorf(wire.Internal, "function", function, "%v", err)
	}
	c.logRefusal(tx, function, refused)
	// contract-api sends what Error returns.
	return "", errors.New(refused.Message())
}

func (c *contract) logRefusal(tx chaincode.Tx, function string, e *wire.Error) {
	level := slog.LevelInfo
	if e.Code == wire.Internal {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "refused", "tx", tx.ID, "function", function, "msp", tx.Caller.MSPID,
		"role", tx.Caller.Role, "code", e.Code, "field", e.Field, "value", e.Value, "rule", e.Rule)
}

// envelope returns what the proposal says about a transaction. The peer has checked its signature and, by
// peer.authentication.timewindow, its time.
func envelope(stub shim.ChaincodeStubInterface) (chaincode.Tx, *wire.Error) {
	at, err := stub.GetTxTimestamp()
	if err != nil || at.CheckValid() != nil {
		return chaincode.Tx{}, wire.Errorf(wire.InvalidArgument, "time", at.String(), "the proposal must have a valid timestamp")
	}
	id, err := cid.New(stub)
	if err != nil {
		return chaincode.Tx{}, wire.Errorf(wire.PermissionDenied, "caller", "", "the submitting identity cannot be read: %v", err)
	}
	msp, err := id.GetMSPID()
	if err != nil {
		return chaincode.Tx{}, wire.Errorf(wire.PermissionDenied, "caller.msp", "", "the submitting identity cannot be read: %v", err)
	}
	role, _, err := id.GetAttributeValue(wire.RoleAttribute)
	if err != nil {
		return chaincode.Tx{}, wire.Errorf(wire.PermissionDenied, "caller.role", "", "the submitting identity's attributes cannot be read: %v", err)
	}
	return chaincode.Tx{ID: stub.GetTxID(), Channel: stub.GetChannelID(), Time: at.AsTime(), Caller: chaincode.Caller{MSPID: msp, Role: role}}, nil
}

// rawSerializer passes strings through. contract-api's own validates every argument and answer against a JSON schema, which
// for one string says nothing and costs time in proportion to its length.
type rawSerializer struct{}

func (rawSerializer) FromString(s string, _ reflect.Type, _ *metadata.ParameterMetadata, _ *metadata.ComponentMetadata) (reflect.Value, error) {
	return reflect.ValueOf(s), nil
}

func (rawSerializer) ToString(v reflect.Value, _ reflect.Type, _ *metadata.ReturnMetadata, _ *metadata.ComponentMetadata) (string, error) {
	return v.String(), nil
}
