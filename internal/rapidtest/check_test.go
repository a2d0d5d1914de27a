package rapidtest_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/internal/rapidtest"
)

func TestCheckTriesFewerCasesUnderTheRaceDetectorOnly(t *testing.T) {
	count := func(check func(func(*rapid.T))) (n int) {
		check(func(*rapid.T) { n++ })
		return n
	}
	all := count(func(p func(*rapid.T)) { rapid.Check(t, p) })
	fewer := count(func(p func(*rapid.T)) { rapidtest.Check(t, 4, p) })
	if want := map[bool]int{true: max(1, all/4), false: all}[rapidtest.Raced]; fewer != want {
		t.Errorf("%d of %d cases, want %d", fewer, all, want)
	}
	if again := count(func(p func(*rapid.T)) { rapid.Check(t, p) }); again != all {
		t.Errorf("afterwards rapid.Check tries %d of %d", again, all)
	}
}
