package index

import (
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// applyOperators looks at an anchored head of an operators' log and keeps nothing of it: no certificate's status depends on it, and
// certanchor audit operators reads it from the blocks.
func (a *applier) applyOperators(w network.Write) error {
	id, _, err := wire.ParseOperatorsKey(w.Key)
	if err != nil {
		return a.diverges("key", w.Key, "%v", err)
	}
	if a.view.cas[id] == nil {
		return a.diverges("key", w.Key, "its CA is not on the trust list")
	}
	if err := wire.Decode(w.Value, new(wire.OperatorsRecord)); err != nil {
		return a.unreadable(w, err)
	}
	return nil
}
