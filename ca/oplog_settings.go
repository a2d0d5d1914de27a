package ca

import (
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// OperatorsLogSettings tune the operators' log.
type OperatorsLogSettings struct {
	Name        string        `yaml:"name,omitempty"`         // of a further bridge of the CA: 1 to 32 of a-z, 0-9 and -, at each another; empty: the first one's
	AnchorEvery time.Duration `yaml:"anchor_every,omitempty"` // between anchors of the log's head in the ledger, if it grew; default 1m
}

// overdueAfter is how many intervals a record may wait for its anchor before the CA calls itself not ready.
const overdueAfter = 5

func (o OperatorsLogSettings) withDefaults() OperatorsLogSettings {
	if o.AnchorEvery == 0 {
		o.AnchorEvery = time.Minute
	}
	return o
}

func (o OperatorsLogSettings) validate() error {
	if e := o.withDefaults().AnchorEvery; e < 100*time.Millisecond || e > time.Hour {
		return invalid("operators_log.anchor_every", e.String(), "must be 100ms to 1h")
	}
	if err := wire.CheckOperatorsName(o.Name); err != nil {
		return invalid("operators_log.name", o.Name, "%v", err)
	}
	return nil
}
