package bench

import (
	"fmt"
	"strings"
	"time"
)

// bounds of a Histogram's buckets in milliseconds; the last bucket has what is longer.
var bounds = []float64{5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 5000}

// Timing is samples of one kind, summed up and by bucket.
type Timing struct {
	Latency
	Histogram []Bucket `json:"histogram"` // without the empty ones at both ends
}

// Bucket counts samples longer than the bucket's before, up to UpTo.
type Bucket struct {
	UpTo  float64 `json:"up_to_ms"` // 0: no bound
	Count int     `json:"count"`
}

func timing(samples []time.Duration) Timing {
	buckets := make([]Bucket, len(bounds)+1)
	for i, b := range bounds {
		buckets[i].UpTo = b
	}
	first, last := len(buckets), -1
	for _, s := range samples {
		i := 0
		for i < len(bounds) && ms(s) > bounds[i] {
			i++
		}
		buckets[i].Count++
		first, last = min(first, i), max(last, i)
	}
	t := Timing{Latency: summarize(samples)}
	if last >= first {
		t.Histogram = buckets[first : last+1]
	}
	return t
}

// bars draws the histogram, a line for each bucket.
func (t Timing) bars(indent string) string {
	const width = 50
	most := 1
	for _, b := range t.Histogram {
		most = max(most, b.Count)
	}
	var s strings.Builder
	for _, b := range t.Histogram {
		name := "longer"
		if b.UpTo > 0 {
			name = fmt.Sprintf("<= %.0f ms", b.UpTo)
		}
		fmt.Fprintf(&s, "\n%s%11s %6d %s", indent, name, b.Count, strings.Repeat("#", (b.Count*width+most-1)/most))
	}
	return s.String()
}
