package fabric

import (
	"testing"
	"time"
)

func TestOthersAreAskedLaterWhenEverybodyIsBusy(t *testing.T) {
	c := newEndorserChoice("Org1MSP")
	const small, large = 1 << 10, 600 << 10
	if got := c.hedge(small); got != allowance(small) {
		t.Errorf("a quiet network: others are asked after %s", got)
	}
	for range 50 {
		c.took(30*time.Millisecond, small)
	}
	if got := c.hedge(large); got != allowance(large) {
		t.Errorf("after quick ones: others are asked after %s", got)
	}
	for range 50 {
		c.took(time.Second, large)
	}
	if got := c.hedge(large); got < 2*time.Second || got > hedgeMost {
		t.Errorf("when a large one usually takes a second: others are asked after %s", got)
	}
	for range 50 {
		c.took(time.Minute, small)
	}
	if got := c.hedge(small); got != hedgeMost {
		t.Errorf("when nothing answers: others are asked after %s", got)
	}
	for range 50 {
		c.took(30*time.Millisecond, small)
	}
	if got := c.hedge(small); got != allowance(small) {
		t.Errorf("when it is quiet again: others are asked after %s", got)
	}
}
