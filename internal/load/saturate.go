package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Saturation is a closed loop: each connection sends its next request when it has the answer to the one before, so the server sets the rate.
type Saturation struct {
	Address     string   // host:port
	Requests    [][]byte // whole HTTP/1.1 requests, sent in turn; each connection begins at another one
	Connections int
	Duration    time.Duration
	LeastBody   int // an answer with a shorter body counts as failed
}

// Saturated is what a Saturation measured.
type Saturated struct {
	PerSecond float64 `json:"per_s"` // answers with status 200 and a body that is long enough
	Failed    int64   `json:"failed"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// Saturate runs a closed loop over connections that stay open. Errors: a server that cannot be reached, that ends a connection, or whose answers
// cannot be read (they must have a Content-Length).
func Saturate(ctx context.Context, s Saturation) (*Saturated, error) {
	if len(s.Requests) == 0 || s.Connections < 1 || s.Duration <= 0 {
		return nil, fmt.Errorf("load: %d requests, %d connections, %s: must be positive", len(s.Requests), s.Connections, s.Duration)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Duration)
	defer cancel()
	var (
		wg    sync.WaitGroup
		parts = make([]part, s.Connections)
		errs  = make([]error, s.Connections)
		start = time.Now()
	)
	for i := range parts {
		wg.Go(func() { errs[i] = parts[i].run(ctx, &s, i*len(s.Requests)/s.Connections) })
	}
	wg.Wait()
	took := time.Since(start)
	var (
		all    []time.Duration
		failed int64
	)
	for i := range parts {
		all = append(all, parts[i].took...)
		failed += parts[i].failed
	}
	q := quantiles(all)
	return &Saturated{PerSecond: float64(len(all)) / took.Seconds(), Failed: failed, P50: q(0.5), P99: q(0.99)}, errors.Join(errs...)
}

// part is one connection's.
type part struct {
	took   []time.Duration
	failed int64
}

func (p *part) run(ctx context.Context, s *Saturation, next int) error {
	conn, err := net.Dial("tcp", s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 8<<10)
	for ctx.Err() == nil {
		start := time.Now()
		if _, err := conn.Write(s.Requests[next%len(s.Requests)]); err != nil {
			return err
		}
		next++
		code, size, err := readAnswer(r)
		if err != nil {
			return err
		}
		if code != 200 || size < s.LeastBody {
			p.failed++
			continue
		}
		p.took = append(p.took, time.Since(start))
	}
	return nil
}

var contentLength = []byte("content-length:")

// readAnswer reads one answer and forgets it: no more work than is needed to find its end, so that the server has the machine.
func readAnswer(r *bufio.Reader) (code, size int, err error) {
	size = -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first:
			if len(line) < len("HTTP/1.1 200") {
				return 0, 0, fmt.Errorf("answer begins with %q", line)
			}
			if code, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, fmt.Errorf("answer begins with %q", line)
			}
		case len(line) == 0:
			if size < 0 {
				return 0, 0, errors.New("answer has no Content-Length")
			}
			_, err := r.Discard(size)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return code, size, err
		case len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil || size < 0 {
				return 0, 0, fmt.Errorf("answer has %q", line)
			}
		}
	}
}
