package status

import (
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestEvaluateReadsTheRecord(t *testing.T) {
	for _, ca := range []*wire.CARecord{{State: wire.CAActive}, {State: wire.CASuspended}} {
		rec := &wire.CertRecord{State: wire.CertRevoked, Reason: wire.KeyCompromise, StatusTime: 3, Invalidity: 2, Change: 4, NotAfter: 1}
		want := Status{State: wire.CertRevoked, Reason: wire.KeyCompromise, Time: 3, Invalidity: 2, Change: 4}
		if got := Evaluate(ca, rec); got != want {
			t.Errorf("under a CA in state %d: %+v, want %+v", ca.State, got, want)
		}
	}
}
