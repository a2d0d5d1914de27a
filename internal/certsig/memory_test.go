package certsig

import "testing"

func TestTheMemoryIsBounded(t *testing.T) {
	for i := range 3 * generation {
		remember(digest([]byte{byte(i), byte(i >> 8)}, []byte{byte(i >> 16)}))
	}
	verified.mu.Lock()
	defer verified.mu.Unlock()
	if n := len(verified.young) + len(verified.older); n > 2*generation {
		t.Errorf("%d signatures are remembered", n)
	}
}
