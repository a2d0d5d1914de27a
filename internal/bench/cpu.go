package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/deploy"
)

// CPU is processor time in microseconds for each certificate, by kind of process: where the time goes, on a busy machine too.
type CPU map[string]float64

// cpuRoles in the order of printing.
var cpuRoles = []string{"peer", "orderer", "chaincode", "ca", "ocsp-bridge", "certanchor"}

func (c CPU) String() string {
	var parts []string
	for _, r := range cpuRoles {
		if c[r] > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f", r, c[r]))
		}
	}
	return "CPU µs a certificate: " + strings.Join(parts, ", ")
}

// cpuClock reads what each kind of process has used so far. It is empty where there is no /proc.
func cpuClock(ctx context.Context, d *deploy.Deployment) (map[string]time.Duration, error) {
	pids := d.PIDs()
	if d.Network != nil {
		status, err := d.Network.Status(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range status.Nodes {
			pids[n.Name] = n.PID
		}
	}
	used := map[string]time.Duration{}
	for name, pid := range pids {
		role := name[strings.LastIndexByte(name, '.')+1:]
		t, err := processTime(pid)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		used[role] += t
	}
	return used, nil
}

// processTime is utime and stime of proc_pid_stat(5), in clock ticks of 10 ms.
func processTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the program's name, may contain anything but ends with the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("process %d: /proc has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range []string{fields[utime], fields[stime]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// perCertificate divides what was used since before among n certificates.
func perCertificate(before, after map[string]time.Duration, n int) CPU {
	c := CPU{}
	for role, t := range after {
		if n > 0 {
			c[role] = float64((t - before[role]).Microseconds()) / float64(n)
		}
	}
	return c
}
