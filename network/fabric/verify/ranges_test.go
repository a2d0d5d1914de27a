package verify

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestSummariesOfRangeQueriesAreFabrics compares trees over 0 to 200 results with what rwsetutil.RangeQueryResultsHelper of Fabric
// 3.1.1 makes of the same.
func TestSummariesOfRangeQueriesAreFabrics(t *testing.T) {
	for degree, want := range map[int]string{
		2:  "a654075f0461eb48918837f9db5c7d4e5c8e42100677b9ccf9799dad53c91cfd",
		3:  "3c0dbd7b24f0fed777f941147220ac43f179650b2600fb081ad2fc070324cb02",
		50: "3e1ffc0052017227e11c1b9877b7c946d4545aec2f5d8bf6be4f2924fae2cfbf",
	} {
		all := sha256.New()
		var present []entry
		for n := range 201 {
			top, hashes, err := summarize(degree, present)
			if err != nil {
				t.Fatal(err)
			}
			if top == 0 {
				fmt.Fprintln(all, n, "none")
			} else {
				fmt.Fprintf(all, "%d %d %x\n", n, top, hashes)
			}
			present = append(present, entry{fmt.Sprintf("key%04d", n), encodeVersion(uint64(n/3), uint64(n%3))})
		}
		if got := fmt.Sprintf("%x", all.Sum(nil)); got != want {
			t.Errorf("degree %d: %s, want %s", degree, got, want)
		}
	}
}
