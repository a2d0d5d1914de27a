package fabric

import (
	"github.com/hyperledger/fabric-chaincode-go/v2/shim"

	"github.com/certanchor/certanchor/chaincode"
)

// state is the ledger's state behind a stub.
type state struct{ stub shim.ChaincodeStubInterface }

var _ chaincode.State = state{}

func (s state) Get(key string) ([]byte, error) {
	value, err := s.stub.GetState(key)
	if len(value) == 0 { // Fabric has no empty values
		return nil, err
	}
	return value, err
}

// GetMany uses one message for many keys where the peer enables it (chaincode.runtimeParams); the shim falls back to one
// message for each key where it does not. A peer can answer with fewer values than keys, without saying which are missing;
// then every key is asked for by itself.
func (s state) GetMany(keys []string) ([][]byte, error) {
	values, err := s.stub.GetMultipleStates(keys...)
	if err != nil {
		return nil, err
	}
	if len(values) == len(keys) {
		for i := range values {
			if len(values[i]) == 0 {
				values[i] = nil
			}
		}
		return values, nil
	}
	values = make([][]byte, len(keys))
	for i, key := range keys {
		if values[i], err = s.Get(key); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (s state) Put(key string, value []byte) error { return s.stub.PutState(key, value) }
func (s state) Delete(key string) error            { return s.stub.DelState(key) }
