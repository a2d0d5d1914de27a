// Package rapidtest looks at properties whose cases are dear.
package rapidtest

import (
	"flag"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// Check is rapid.Check for a property whose cases take tens of milliseconds or more. Under the race detector, which makes each case up to ten
// times as long and sees the same accesses in each, one of per cases is tried; without it all are. -rapid.checks counts as ever. The flag is the
// process's: a test that is parallel to others must not call it. per is at least 1.
func Check(t *testing.T, per int, property func(*rapid.T)) {
	t.Helper()
	if Raced {
		const name = "rapid.checks"
		all := flag.Lookup(name).Value.String()
		n, err := strconv.Atoi(all)
		if err == nil {
			err = flag.Set(name, strconv.Itoa(max(1, n/per)))
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
