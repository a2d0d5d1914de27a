package chaincode

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// found executes Init. An endorser signs only the consortium that its own organisation has configured, so founding commits
// only when enough organisations to satisfy the endorsement policy have configured the same one. The answer is the record.
func (c *Contract) found(t *transaction, arg []byte) ([]byte, error) {
	var a wire.InitArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	asked := &wire.Consortium{V: wire.Version, MSPs: a.MSPs, TickInterval: a.TickInterval}
	if err := checkConsortium(asked); err != nil {
		return nil, err
	}
	if err := t.caller.in(asked.MSPs); err != nil {
		return nil, err
	}
	if err := t.caller.has(administrators); err != nil {
		return nil, err
	}
	if !slices.Equal(asked.MSPs, c.founding.MSPs) {
		return nil, wire.Errorf(wire.FailedPrecondition, "consortium", strings.Join(asked.MSPs, ","),
			"this endorser is configured for %s", strings.Join(c.founding.MSPs, ","))
	}
	if asked.TickInterval != c.founding.TickInterval {
		return nil, wire.Errorf(wire.FailedPrecondition, "tick_interval", fmt.Sprintf("%d ms", asked.TickInterval),
			"this endorser is configured for %d ms", c.founding.TickInterval)
	}
	record := wire.Encode(asked)
	existing, err := t.get(wire.ConsortiumKey)
	if err != nil {
		return nil, err
	}
	if existing == nil {
		t.put(wire.ConsortiumKey, record)
	} else if !bytes.Equal(existing, record) {
		return nil, wire.Errorf(wire.AlreadyExists, "consortium", strings.Join(asked.MSPs, ","), "the ledger was founded by another consortium or with another tick interval")
	}
	return record, nil
}
