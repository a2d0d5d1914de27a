//go:build !linux

package proc

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// look asks ps, which every Unix has.
func look(pid int) (info, error) {
	out, err := exec.Command("ps", "-o", "state=,rss=,lstart=", "-p", strconv.Itoa(pid)).Output()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) < 3 {
		return info{}, ErrGone
	}
	kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return info{}, fmt.Errorf("ps: rss of process %d: %w", pid, err)
	}
	seen := info{start: strings.Join(fields[2:], " "), rss: kilobytes << 10}
	switch fields[0][0] {
	case 'Z':
		seen.state = Gone
	case 'T':
		seen.state = Frozen
	default:
		seen.state = Running
	}
	return seen, nil
}
