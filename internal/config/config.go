// Package config reads certanchor's YAML configuration. One file format serves every command; each reads the sections it
// needs. Unknown keys, wrong types and missing files are errors that name the key, the value and the rule.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/certanchor/certanchor/network/fabric"
)

// Engines of the ledger section.
const (
	EngineEmbedded = "embedded"
	EngineFabric   = "fabric"
)

// Ledger says which ledger to use and as whom.
type Ledger struct {
	Engine   string         `yaml:"engine"`             // embedded or fabric
	Embedded *Embedded      `yaml:"embedded,omitempty"` // for engine embedded
	Fabric   *fabric.Config `yaml:"fabric,omitempty"`   // for engine fabric
}

// Embedded names a ledger on this machine: either a directory that this process opens for itself, or the socket of a
// `certanchor ledger serve` that holds it for several processes.
type Embedded struct {
	Dir          string        `yaml:"dir,omitempty"`
	Socket       string        `yaml:"socket,omitempty"`
	MSPID        string        `yaml:"msp_id,omitempty"`        // the one organisation; default LocalMSP
	Channel      string        `yaml:"channel,omitempty"`       // the ledger's name; default certanchor
	TickInterval time.Duration `yaml:"tick_interval,omitempty"` // default 15s
	Role         string        `yaml:"role,omitempty"`          // operator, auditor or administrator; default: what the command needs
}

// Error is a fault in a configuration: which key of which file, with which value, breaks which rule.
type Error struct {
	File, Key, Value, Rule string
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("configuration %s: %s: %s", e.File, e.Key, e.Rule)
	}
	return fmt.Sprintf("configuration %s: %s %q: %s", e.File, e.Key, e.Value, e.Rule)
}

// Load reads path. Relative paths inside it are relative to its directory.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, &Error{File: path, Key: "--config", Value: path, Rule: "the file does not exist"}
		}
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	f, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	f.resolve(filepath.Dir(path))
	return f, nil
}

// Parse reads data as the contents of the file named path, for messages.
func Parse(path string, data []byte) (*File, error) {
	var f File
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, parseError(path, data, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, &Error{File: path, Key: "document", Value: "2", Rule: "a configuration file holds one YAML document"}
	}
	f.Path = path
	if err := f.checkFiles(); err != nil {
		return nil, err
	}
	return &f, nil
}

// parseError turns the YAML library's errors into this package's, keeping line and column.
func parseError(path string, data []byte, err error) error {
	var (
		unknown *yaml.UnknownFieldError
		typed   *yaml.TypeError
		dup     *yaml.DuplicateKeyError
		other   yaml.Error
	)
	switch {
	case errors.As(err, &unknown):
		return at(path, unknown.Token, unknown.Token.Value, "", "is not a key of this section; see docs/configuration.md")
	case errors.As(err, &typed):
		key := "value"
		if typed.StructFieldName != nil {
			key = *typed.StructFieldName
		}
		return at(path, typed.Token, key, typed.Token.Value, fmt.Sprintf("must be of type %s", typed.DstType))
	case errors.As(err, &dup):
		return at(path, dup.Token, dup.Token.Value, "", "occurs twice")
	case errors.As(err, &other) && other.GetToken() != nil:
		if key, value := culprit(data, func(v ast.Node) bool { return v.GetToken().Position.Offset == other.GetToken().Position.Offset }); key != nil {
			return at(path, key.GetToken(), key.String(), value.String(), other.GetMessage())
		}
		return at(path, other.GetToken(), "syntax", other.GetToken().Value, other.GetMessage())
	}
	// What a type's own parser says (a duration, an address) quotes the value and has no position.
	key, value := culprit(data, func(v ast.Node) bool { return strings.Contains(err.Error(), strconv.Quote(v.GetToken().Value)) })
	if key == nil {
		return &Error{File: path, Key: "document", Rule: err.Error()}
	}
	return at(path, key.GetToken(), key.String(), value.GetToken().Value, err.Error())
}

func at(path string, tk *token.Token, key, value, rule string) *Error {
	return &Error{File: fmt.Sprintf("%s:%d:%d", path, tk.Position.Line, tk.Position.Column), Key: key, Value: value, Rule: rule}
}

// culprit finds the first mapping entry whose value matches.
func culprit(data []byte, match func(ast.Node) bool) (key, value ast.Node) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, nil
	}
	find := finder(func(n ast.Node) bool {
		entry, ok := n.(*ast.MappingValueNode)
		if ok && key == nil && entry.Value != nil && match(entry.Value) {
			key, value = entry.Key, entry.Value
		}
		return key == nil
	})
	for _, doc := range file.Docs {
		ast.Walk(find, doc)
	}
	return key, value
}

// finder visits nodes until it returns false.
type finder func(ast.Node) bool

// Visit implements ast.Visitor.
func (f finder) Visit(n ast.Node) ast.Visitor {
	if !f(n) {
		return nil
	}
	return f
}

// Check refuses a ledger section that does not name one ledger.
func (l *Ledger) Check(file string) error {
	switch l.Engine {
	case EngineEmbedded:
		e := l.Embedded
		if e == nil || (e.Dir == "") == (e.Socket == "") {
			return &Error{File: file, Key: "ledger.embedded", Value: "", Rule: "must have either dir (opened by this process) or socket (of certanchor ledger serve)"}
		}
		if e.Socket != "" && (e.MSPID != "" || e.Channel != "" || e.TickInterval != 0) {
			return &Error{File: file, Key: "ledger.embedded.socket", Value: e.Socket, Rule: "msp_id, channel and tick_interval are properties of the ledger behind the socket and must be left out"}
		}
		if l.Fabric != nil {
			return &Error{File: file, Key: "ledger.fabric", Value: "", Rule: "must not be set with engine embedded"}
		}
	case EngineFabric:
		if l.Fabric == nil {
			return &Error{File: file, Key: "ledger.fabric", Value: "", Rule: "is missing; engine fabric needs it"}
		}
		if l.Embedded != nil {
			return &Error{File: file, Key: "ledger.embedded", Value: "", Rule: "must not be set with engine fabric"}
		}
	default:
		return &Error{File: file, Key: "ledger.engine", Value: l.Engine, Rule: "must be embedded or fabric"}
	}
	return nil
}
