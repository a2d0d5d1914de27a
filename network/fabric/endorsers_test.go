package fabric

import (
	"slices"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func choiceOf(n int) *endorserChoice {
	ids := []string{"Org1MSP", "Org2MSP", "Org3MSP", "Org4MSP", "Org5MSP", "Org6MSP", "Org7MSP"}[:n]
	c := newEndorserChoice("Org1MSP")
	c.know(&wire.Consortium{V: wire.Version, MSPs: ids})
	return c
}

func TestUnknownMembershipIsLeftToTheGateway(t *testing.T) {
	if first, instead := newEndorserChoice("Org1MSP").sets(time.Now()); first != nil || instead != nil {
		t.Errorf("got %v, %v", first, instead)
	}
}

func TestEverySetIsAMajorityWithTheOwnOrganisation(t *testing.T) {
	for n := 1; n <= 7; n++ {
		c := choiceOf(n)
		asked := map[string]bool{}
		for range 2 * n {
			first, instead := c.sets(time.Now())
			for _, set := range append([][]string{first}, instead...) {
				if len(set) != n/2+1 || set[0] != "Org1MSP" || len(slices.Compact(slices.Sorted(slices.Values(set)))) != len(set) {
					t.Fatalf("of %d organisations: %v", n, set)
				}
			}
			for _, id := range first {
				asked[id] = true
			}
		}
		if len(asked) != n {
			t.Errorf("of %d organisations only %v are ever asked first", n, asked)
		}
	}
}

func TestWhicheverOrganisationIsFrozenAnotherSetDoesWithoutIt(t *testing.T) {
	for n := 4; n <= 7; n++ {
		c := choiceOf(n)
		for range n {
			first, instead := c.sets(time.Now())
			for _, frozen := range first[1:] {
				if !slices.ContainsFunc(instead, func(set []string) bool { return !slices.Contains(set, frozen) }) {
					t.Errorf("of %d organisations: %v needs %s, and so does each of %v", n, first, frozen, instead)
				}
			}
		}
	}
}

func TestSlowOrganisationIsAvoidedForAWhileAndThenTriedAgain(t *testing.T) {
	c := choiceOf(4)
	now := time.Unix(1_800_000_000, 0)
	slow, done := []string{"Org1MSP", "Org2MSP", "Org3MSP"}, []string{"Org1MSP", "Org3MSP", "Org4MSP"}
	c.answered(done, slow, now)
	for range 8 {
		if first, _ := c.sets(now.Add(firstAvoidance / 2)); slices.Contains(first, "Org2MSP") {
			t.Errorf("%v is asked although Org2MSP has just been slow", first)
		}
	}
	later := now.Add(firstAvoidance + 1)
	tried := false
	for range 8 {
		first, _ := c.sets(later)
		tried = tried || slices.Contains(first, "Org2MSP")
	}
	if !tried {
		t.Error("Org2MSP is never tried again")
	}
	c.answered(done, slow, later) // slow again: twice as long
	if first, _ := c.sets(later.Add(firstAvoidance + 1)); slices.Contains(first, "Org2MSP") {
		t.Errorf("%v is asked although Org2MSP has been slow twice", first)
	}
	c.answered(slow, nil, later.Add(lastAvoidance)) // it answers: forgiven
	c.answered(done, slow, later.Add(lastAvoidance))
	if until := c.avoided["Org2MSP"].last; until != firstAvoidance {
		t.Errorf("after an answer the next avoidance is %v, want %v", until, firstAvoidance)
	}
}

func TestWhenAllAreSlowAMajorityIsStillAsked(t *testing.T) {
	c := choiceOf(4)
	now := time.Now()
	all := []string{"Org2MSP", "Org3MSP", "Org4MSP"}
	c.answered(nil, all, now)
	if first, _ := c.sets(now); len(first) != 3 {
		t.Errorf("got %v", first)
	}
}
