package ctapi

import (
	"strings"
	"testing"
	"time"
)

func TestLogListSaysWhatCannotBeInIt(t *testing.T) {
	l, _ := fixture(t)
	good := l.Listed("", "https://log.example/static", 0)
	with := func(change func(*ListedLog)) []Operator {
		l := good
		change(&l)
		return []Operator{{Name: "Org1MSP", Logs: []ListedLog{l}}}
	}
	for name, c := range map[string]struct {
		version   string
		operators []Operator
		want      string
	}{
		"no version":       {"", nil, "version"},
		"another version":  {"v1", nil, "version"},
		"no name":          {"1", []Operator{{}}, "operators[0].name"},
		"no mail address":  {"1", []Operator{{Name: "x", Email: []string{"nobody"}}}, "operators[0].email"},
		"no key":           {"1", with(func(l *ListedLog) { l.Key = nil }), "operators[0].logs[0].key"},
		"no submission":    {"1", with(func(l *ListedLog) { l.Submission = "" }), "submission_url"},
		"monitoring, ftp":  {"1", with(func(l *ListedLog) { l.Monitoring = "ftp://log.example" }), "monitoring_url"},
		"URL with a query": {"1", with(func(l *ListedLog) { l.Monitoring = "https://log.example/?a" }), "monitoring_url"},
	} {
		if _, err := LogList(c.version, time.Unix(0, 0), c.operators); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q named", name, err, c.want)
		}
	}
}
