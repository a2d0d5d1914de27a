package chaincode

import (
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// maxKey bounds the keys of a Read. The contract's own are shorter.
const maxKey = 256

// read answers any member, whatever its role. Before the ledger is founded, members are those that this endorser is configured
// for, so that an administrator can see that Init is still to come.
func (c *Contract) read(t *transaction, arg []byte) ([]byte, error) {
	var a wire.ReadArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	if err := checkBatch("keys", len(a.Keys)); err != nil {
		return nil, err
	}
	for i, key := range a.Keys {
		if key == "" || len(key) > maxKey || key[0] == 0 {
			return nil, wire.Errorf(wire.InvalidArgument, fmt.Sprintf("keys[%d]", i), key, "must be 1 to %d bytes and not begin with NUL", maxKey)
		}
	}
	values, err := t.getMany(append([]string{wire.ConsortiumKey}, a.Keys...))
	if err != nil {
		return nil, err
	}
	consortium := c.founding
	if values[0] != nil {
		consortium = wire.Consortium{}
		if err := wire.Decode(values[0], &consortium); err != nil {
			return nil, corrupt(wire.ConsortiumKey, err)
		}
	}
	if err := t.caller.in(consortium.MSPs); err != nil {
		return nil, err
	}
	return wire.Encode(&wire.ReadResult{V: wire.Version, Values: values[1:]}), nil
}
