package bench

import (
	"fmt"

	"github.com/certanchor/certanchor/internal/deploy"
)

// Bound is what could be reached at most of what the no-op commits if, beside it, only the CA's signatures were verified, and all else
// that is done for a certificate took no time: each endorser and the CA bridge verify each once.
type Bound struct {
	Verify        float64 `json:"verify_us"`     // one signature, one core
	Verifications int     `json:"verifications"` // of each certificate's signature, over all processes
	Noop          float64 `json:"noop_cpu_us"`   // of each certificate's bytes, over all processes
	Ratio         float64 `json:"ratio"`         // to the no-op, while processors are what limits
	Rate          float64 `json:"certificates_per_s"`
}

func (b *Bound) String() string {
	return fmt.Sprintf("bound %.2f of the no-op, %.0f certificates/s: %d signatures verified at %.0f µs beside the no-op's %.0f µs of CPU",
		b.Ratio, b.Rate, b.Verifications, b.Verify, b.Noop)
}

func newBound(noop *NoopResult, verify float64, verifications int) *Bound {
	b := &Bound{Verify: verify, Verifications: verifications}
	for _, used := range noop.CPU {
		b.Noop += used
	}
	if all := b.Noop + verify*float64(verifications); all > 0 {
		b.Ratio = b.Noop / all
	}
	b.Rate = b.Ratio * noop.Rate
	return b
}

// bound measures what verifying a signature of the first CA takes, with the services idle.
func (b *issueBench) bound(d *deploy.Deployment) error {
	a, err := b.authority(d, 0)
	if err != nil {
		return err
	}
	verify, err := a.verify()
	if err != nil {
		return err
	}
	endorsers := len(d.Orgs)/2 + 1
	b.res.Bound = newBound(b.res.Noop, verify, endorsers+1)
	b.say("  %s", b.res.Bound)
	return nil
}
