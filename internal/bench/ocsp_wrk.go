package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/load"
)

// findWrk returns the load generator's path, empty if it is not installed.
func findWrk() string {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return ""
	}
	return path
}

// runWrk has wrk send the target's requests in turn.
func (r *ocspRun) runWrk(ctx context.Context, t ocspTarget) (*load.Saturated, error) {
	script := filepath.Join(r.dir, "wrk.lua")
	if err := os.WriteFile(script, wrkScript(t.requests), 0o600); err != nil {
		return nil, err
	}
	threads := min(runtime.NumCPU(), r.o.Connections)
	cmd := exec.CommandContext(ctx, r.wrk, "--latency", "-t", strconv.Itoa(threads), "-c", strconv.Itoa(r.o.Connections),
		"-d", fmt.Sprintf("%ds", int(max(r.o.Duration, time.Second).Seconds())), "-s", script, "http://"+t.address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

// wrkScript is Lua that sends whole requests in turn.
func wrkScript(requests [][]byte) []byte {
	var b bytes.Buffer
	b.WriteString("local requests = {\n")
	for _, req := range requests {
		b.WriteByte('"')
		for _, c := range req {
			fmt.Fprintf(&b, `\%03d`, c)
		}
		b.WriteString("\",\n")
	}
	b.WriteString("}\nlocal at = 0\nfunction request()\n  at = at % #requests + 1\n  return requests[at]\nend\n")
	return b.Bytes()
}

var (
	wrkRate    = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([0-9.]+)(us|ms|s)\b`)
	wrkFailed  = regexp.MustCompile(`(?m)^\s+Non-2xx or 3xx responses: (\d+)`)
	wrkSocket  = regexp.MustCompile(`(?m)^\s+Socket errors: (.*)$`)
)

// parseWrk reads wrk's report.
func parseWrk(out string) (*load.Saturated, error) {
	rate := wrkRate.FindStringSubmatch(out)
	if rate == nil {
		return nil, fmt.Errorf("wrk: no rate in its report: %s", out)
	}
	if m := wrkSocket.FindStringSubmatch(out); m != nil {
		return nil, fmt.Errorf("wrk: socket errors: %s", m[1])
	}
	s := new(load.Saturated)
	var err error
	if s.PerSecond, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return nil, fmt.Errorf("wrk: %w", err)
	}
	if m := wrkFailed.FindStringSubmatch(out); m != nil {
		if s.Failed, err = strconv.ParseInt(m[1], 10, 64); err != nil {
			return nil, fmt.Errorf("wrk: %w", err)
		}
	}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(strings.TrimSpace(m[2] + m[3]))
		if err != nil {
			return nil, fmt.Errorf("wrk: %w", err)
		}
		if m[1] == "50" {
			s.P50 = ms(d)
		} else {
			s.P99 = ms(d)
		}
	}
	return s, nil
}
