package ca

import (
	"errors"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

func TestFrontsThatCannotBeAreRefused(t *testing.T) {
	dir, key := ctDir(t, 2)
	p, err := newPanel(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	node, err := openNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	for name, tc := range map[string]struct {
		change      func(*Config)
		field, rule string
	}{
		"too few":        {func(c *Config) { c.Fronts = nil }, "signing.profiles.server.scts", "number of fronts that are configured, 1"},
		"none":           {func(c *Config) { c.Fronts, c.CT = nil, nil }, "signing.profiles.server.scts", "configured, 0"},
		"own one twice":  {func(c *Config) { c.Fronts = []Front{{URL: "https://a.example", Key: p.keys[0].SPKI()}} }, "signing.profiles.server.scts", "configured, 1"},
		"one key twice":  {func(c *Config) { c.Fronts[1].Key = c.Fronts[0].Key }, "fronts[1].key", "another log's"},
		"no key":         {func(c *Config) { c.Fronts[1].Key = nil }, "fronts[1].key", "SubjectPublicKeyInfo"},
		"no URL":         {func(c *Config) { c.Fronts[0].URL = "org2" }, "fronts[0].url", "http or https URL"},
		"too many":       {func(c *Config) { c.Fronts = make([]Front, maxFronts+1) }, "fronts", "at most 64"},
		"negative delay": {func(c *Config) { c.Settings.FrontTimeout = -1 }, "front_timeout", "positive"},
	} {
		cfg := Config{Dir: dir, Key: key}
		p.configure(&cfg)
		tc.change(&cfg)
		s, err := New(cfg, node.Connect(wire.RoleOperator))
		we, ok := errors.AsType[*wire.Error](err)
		if !ok || we.Field != tc.field || !strings.Contains(we.Rule, tc.rule) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestProfileWithBadAnchoringIsRefused(t *testing.T) {
	for keys, want := range map[string]string{
		`"anchoring": "log", "scts": 1`:       `server.anchoring "log": must be direct or ct`,
		`"anchoring": 1`:                      `server.anchoring 1: must be direct or ct`,
		`"anchoring": null`:                   `server.anchoring null: must be direct or ct`,
		`"anchoring": "ct"`:                   `server.scts "": must be set`,
		`"scts": 2`:                           `server.scts "2": needs anchoring ct`,
		`"anchoring": "direct", "scts": 2`:    `server.scts "2": needs anchoring ct`,
		`"anchoring": "ct", "scts": 0`:        `server.scts "0": must be a number of 1 to 16`,
		`"anchoring": "ct", "scts": 17`:       `server.scts "17": must be a number of 1 to 16`,
		`"anchoring": "ct", "scts": "3"`:      `server.scts "3": must be a number of 1 to 16`,
		`"ct_log_servers": ["https://l/"]`:    `ct_log_servers`,
		`"anchoring": "ct", "sct": 3`:         `sct`,
		`"anchoring": "ct", "scts": 1.5e0000`: `must be a number`,
	} {
		if _, err := parseProfiles(inServer(keys)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", keys, err, want)
		}
	}
	def := strings.Replace(string(inServer(`"anchoring": "direct"`)), `"default": {`, `"default": { "anchoring": "ct", "scts": 3,`, 1)
	p, err := parseProfiles([]byte(def))
	if err != nil {
		t.Fatal(err)
	}
	if p.rules["server"].scts != 0 || p.rules["client"].scts != 3 || p.rules[ResponderProfile].scts != 0 {
		t.Errorf("server %+v, client %+v, responder %+v", p.rules["server"], p.rules["client"], p.rules[ResponderProfile])
	}
	responder := strings.Replace(string(inServer(`"anchoring": "direct"`)), `"ocsp-responder": {`, `"ocsp-responder": { "anchoring": "ct", "scts": 3,`, 1)
	if _, err := parseProfiles([]byte(responder)); err == nil || !strings.Contains(err.Error(), "ocsp-responder.anchoring") {
		t.Errorf("responder: %v", err)
	}
}

// TestJournalThatContradictsItselfIsRefused: records of a certificate with SCTs come in their order only.
func TestJournalThatContradictsItselfIsRefused(t *testing.T) {
	place := &wire.LogEntry{Index: 1, Time: 1, LeafHash: make([]byte, 32)}
	pre := &record{Kind: kindPrecert, Cert: []byte{1}, Request: make([]byte, 32), Need: 1}
	preAnchored, stamped := &record{Kind: kindPreAnchored, Log: place}, &record{Kind: kindStamped, SCTs: []byte{1}}
	final, anchored := &record{Kind: kindFinal, Cert: []byte{2}}, &record{Kind: kindAnchored, Log: place}
	refused, abandoned := &record{Kind: kindRefused}, &record{Kind: kindAbandoned}
	for name, rs := range map[string][]*record{
		"final before SCTs":           {pre, preAnchored, final},
		"SCTs before the ledger":      {pre, stamped},
		"anchored without final":      {pre, preAnchored, anchored},
		"anchored with SCTs only":     {pre, preAnchored, stamped, anchored},
		"twice on the ledger":         {pre, preAnchored, preAnchored},
		"second SCTs":                 {pre, preAnchored, stamped, stamped},
		"second final":                {pre, preAnchored, stamped, final, final},
		"promise refused":             {pre, preAnchored, refused},
		"promise abandoned":           {pre, preAnchored, stamped, abandoned},
		"after the end":               {pre, preAnchored, stamped, final, anchored, final},
		"no number of SCTs":           {{Kind: kindPrecert, Cert: []byte{1}, Request: make([]byte, 32)}},
		"too many SCTs":               {{Kind: kindPrecert, Cert: []byte{1}, Request: make([]byte, 32), Need: maxSCTs + 1}},
		"SCTs of a certificate":       {{Kind: kindSigned, Cert: []byte{1}, Request: make([]byte, 32), Need: 1}},
		"no place":                    {pre, {Kind: kindPreAnchored}},
		"no SCTs":                     {pre, preAnchored, {Kind: kindStamped}},
		"no certificate":              {pre, preAnchored, stamped, {Kind: kindFinal}},
		"precertificate of nothing":   {preAnchored},
		"precertificate after direct": {{Kind: kindSigned, Cert: []byte{1}, Request: make([]byte, 32)}, preAnchored},
		"precertificate signed twice": {pre, pre},
	} {
		b := newBook()
		for i, r := range rs {
			c := *r
			c.Serial = wire.Serial{7}
			err := b.apply(&c, position{})
			if last := i == len(rs)-1; last != (err != nil) {
				t.Errorf("%s: record %d: %v", name, i, err)
			}
		}
	}
}
