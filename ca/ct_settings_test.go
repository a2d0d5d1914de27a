package ca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/sct"
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
	own := Config{Dir: dir}
	p.configure(&own)
	var many []Front
	for n := range maxFronts + 1 {
		k, err := sct.LoadOrCreate(filepath.Join(t.TempDir(), fmt.Sprint(n)))
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, Front{CAID: own.Fronts[0].CAID, URL: "https://a.example", Key: k.SPKI()})
	}
	for name, tc := range map[string]struct {
		change      func(*Config)
		field, rule string
	}{
		"one key twice":  {func(c *Config) { c.Fronts[1].Key = c.Fronts[0].Key }, "fronts[1].key", "another log's"},
		"no key":         {func(c *Config) { c.Fronts[1].Key = nil }, "fronts[1].key", "SubjectPublicKeyInfo"},
		"no URL":         {func(c *Config) { c.Fronts[0].URL = "org2" }, "fronts[0].url", "http or https URL"},
		"too many":       {func(c *Config) { c.Fronts = many }, "fronts", "at most 64"},
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

// TestNothingIsPromisedWithoutEnoughFronts: the own one, named again, and those of another CA's log do not count.
func TestNothingIsPromisedWithoutEnoughFronts(t *testing.T) {
	for name, change := range map[string]func(*Config, *panel){
		"only the own one": func(c *Config, _ *panel) { c.Fronts = nil },
		"none":             func(c *Config, _ *panel) { c.Fronts, c.CT = nil, nil },
		"own one twice":    func(c *Config, p *panel) { c.Fronts[0].Key = p.keys[0].SPKI() },
		"another CA's":     func(c *Config, _ *panel) { c.Fronts[0].CAID[0]++ },
	} {
		dir, _ := ctDir(t, 2)
		p, err := newPanel(dir, 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.close)
		w := startWorld(t, dir, func(c *Config) {
			p.configure(c)
			change(c, p)
		})
		register(t, w.node, dir)
		before := w.fingerprint()
		code, _, b := w.call("POST", caapi.PathCertificates, body(t, caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}), nil)
		if pr := asProblem(t, b); code != 409 || pr.Field != "profile" || pr.Value != "server" || !strings.Contains(pr.Rule, "SCTs of 2 fronts") || w.fingerprint() != before {
			t.Errorf("%s: %d %s", name, code, b)
		}
		if _, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "client"}, ""); err != nil {
			t.Errorf("%s: another profile: %v", name, err)
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

// TestProfileInTheDocumentationIsOne: docs/profiles.md shows a profile that can be used.
func TestProfileInTheDocumentationIsOne(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```json\n")
	profile, _, ended := strings.Cut(rest, "```")
	if !ok || !ended {
		t.Fatal("no example")
	}
	def := string(defaultProfiles(&InitOptions{}, DefaultValidity))
	p, err := parseProfiles([]byte(strings.Replace(def, `"server": {`, strings.TrimSpace(profile)+`, "other": {`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if r := p.rules["server"]; r.scts != 3 || r.maxNames != 20 || r.wildcards || r.private || len(r.keys) != 2 || p.Profiles["other"] == nil {
		t.Errorf("%+v", r)
	}
}
