package client_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/client"
)

func TestMonitorRefusesUnsafeConfigurations(t *testing.T) {
	w := newLogsWorld(t)
	deliver := func(context.Context, []client.Event) error { return nil }
	good := client.MonitorConfig{URL: w.server.URL, Match: []string{"example.org"}, Policy: w.policy(), Deliver: deliver}
	path, state := stateIn(t)
	w.watch(state)
	for want, tweak := range map[string]func(*client.MonitorConfig){
		"URL":         func(c *client.MonitorConfig) { c.URL = "log.example" },
		"Deliver":     func(c *client.MonitorConfig) { c.Deliver = nil },
		"one pattern": func(c *client.MonitorConfig) { c.Match = nil },
		"A-labels":    func(c *client.MonitorConfig) { c.Match = []string{"bücher.example"} },
		"domain name": func(c *client.MonitorConfig) { c.Match = []string{"exa mple"} },
		"exactly one": func(c *client.MonitorConfig) { c.LogKeys = w.logKey() },
		"forged":      func(c *client.MonitorConfig) { c.Policy = nil },
		"Interval":    func(c *client.MonitorConfig) { c.Interval = -1 },
		"Parallel":    func(c *client.MonitorConfig) { c.Parallel = 1000 },
		"patterns":    func(c *client.MonitorConfig) { c.StateFile, c.Match = path, []string{"example.net"} },
		"no such":     func(c *client.MonitorConfig) { c.StateFile = "/nonexistent/dir/state" },
	} {
		c := good
		tweak(&c)
		if _, err := client.NewMonitor(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for what, data := range map[string]string{
		"nothing": "", "no JSON": "x", "another version": `{"version":9,"channel":"testchannel"}`, "another field": `{"versions":1}`,
		"another channel": `{"version":1,"channel":"x"}`, "no logs": `{"version":1,"channel":"testchannel","patterns":["example.org"]}`,
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		c := good
		c.StateFile = path
		if _, err := client.NewMonitor(c); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("state file with %s: %v", what, err)
		}
	}
}
