package load

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestSaturateSendsEveryRequestAndCountsAnswers(t *testing.T) {
	var seen [3]atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil {
			t.Error(err)
		}
		seen[n].Add(1)
		switch n {
		case 1:
			fmt.Fprint(w, "x") // too short
		case 2:
			http.Error(w, strings.Repeat("no", 100), http.StatusTeapot)
		default:
			fmt.Fprint(w, strings.Repeat("x", 100))
		}
	}))
	defer server.Close()
	var requests [][]byte
	for n := range seen {
		requests = append(requests, fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", n))
	}
	const duration = 300 * time.Millisecond
	got, err := Saturate(t.Context(), Saturation{
		Address: strings.TrimPrefix(server.URL, "http://"), Requests: requests, Connections: 4, Duration: duration, LeastBody: 50,
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen[0].Load() == 0 || got.Failed != seen[1].Load()+seen[2].Load() {
		t.Errorf("%d, %d and %d requests were seen; failed: %d", seen[0].Load(), seen[1].Load(), seen[2].Load(), got.Failed)
	}
	if most := float64(seen[0].Load()) / duration.Seconds(); got.PerSecond <= 0 || got.PerSecond > most {
		t.Errorf("%.0f answers/s, want at most %.0f", got.PerSecond, most)
	}
	if got.P50 <= 0 || got.P99 < got.P50 {
		t.Errorf("p50 is %v, p99 %v", got.P50, got.P99)
	}
}

func TestSaturateSaysWhatIsWrongWithAServer(t *testing.T) {
	if _, err := Saturate(t.Context(), Saturation{Address: "127.0.0.1:1", Requests: [][]byte{{1}}, Connections: 1, Duration: time.Second}); err == nil {
		t.Error("no server, no error")
	}
	if _, err := Saturate(t.Context(), Saturation{Address: "127.0.0.1:1", Connections: 1, Duration: time.Second}); err == nil {
		t.Error("no requests, no error")
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("HTTP/1.1 304 Not Modified\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\ncontent-length:0\n\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
	f.Fuzz(func(t *testing.T, text string) {
		code, size, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if err == nil && (size < 0 || size > len(text) || !strings.Contains(text, fmt.Sprint(code))) {
			t.Errorf("status %d, %d octets", code, size)
		}
	})
}
