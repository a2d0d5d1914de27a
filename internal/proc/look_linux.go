package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// look reads /proc/PID/stat; see proc_pid_stat(5).
func look(pid int) (info, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return info{}, ErrGone
	}
	if err != nil {
		return info{}, err
	}
	// The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
	_, rest, found := cutLast(content, ')')
	fields := bytes.Fields(rest)
	const state, start, rss = 0, 19, 21 // the page counts from 1, and two fields are cut off: its 3, 22 and 24
	if !found || len(fields) <= rss {
		return info{}, fmt.Errorf("/proc/%d/stat: cannot read %q", pid, content)
	}
	pages, err := strconv.ParseInt(string(fields[rss]), 10, 64)
	if err != nil {
		return info{}, fmt.Errorf("/proc/%d/stat: rss: %w", pid, err)
	}
	seen := info{start: string(fields[start]), rss: pages * int64(os.Getpagesize())}
	switch fields[state][0] {
	case 'Z', 'X', 'x':
		seen.state = Gone
	case 'T', 't':
		seen.state = Frozen
	default:
		seen.state = Running
	}
	return seen, nil
}

func cutLast(s []byte, sep byte) (before, after []byte, found bool) {
	if i := bytes.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, nil, false
}
