package anchor

import (
	"flag"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// checkHeavy is rapid.Check for a property that takes seconds. Under the race detector, which makes each case ten times as long and looks at
// every access in each, a quarter of the cases does; without it there are all.
func checkHeavy(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	if raced {
		const name = "rapid.checks"
		all := flag.Lookup(name).Value.String()
		n, err := strconv.Atoi(all)
		if err == nil {
			err = flag.Set(name, strconv.Itoa(max(1, n/4)))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := flag.Set(name, all); err != nil {
				t.Error(err)
			}
		}()
	}
	rapid.Check(t, property)
}
