package wire

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var (
	ruleBlock = regexp.MustCompile(`(?ms)^([a-z-]+) = \{\n(.*?)^\}`)
	fieldLine = regexp.MustCompile(`(?m)^  (\? )?(\d+) => `)
)

// The description and the types have the same rules, with the same keys, required and optional ones alike.
func TestCDDLMatchesTypes(t *testing.T) {
	text, err := os.ReadFile("../../docs/ledger.cddl")
	if err != nil {
		t.Fatal(err)
	}
	described := make(map[string][]string)
	for _, m := range ruleBlock.FindAllStringSubmatch(string(text), -1) {
		for _, f := range fieldLine.FindAllStringSubmatch(m[2], -1) {
			described[m[1]] = append(described[m[1]], strings.TrimSpace(f[1]+f[2]))
		}
	}
	types := map[string]reflect.Type{
		"log-entry": reflect.TypeFor[LogEntry](), "status-change": reflect.TypeFor[StatusChange](), "status-result": reflect.TypeFor[StatusResult](),
		"map-quorum": reflect.TypeFor[MapQuorum](), "import-item": reflect.TypeFor[ImportItem](), "import-entry": reflect.TypeFor[ImportEntry](),
		"operators-head": reflect.TypeFor[OperatorsHead](),
	}
	for _, s := range samples {
		types[s.rule] = reflect.TypeOf(s.v).Elem()
	}
	for rule, typ := range types {
		var fields []string
		for i := range typ.NumField() {
			key, options, _ := strings.Cut(typ.Field(i).Tag.Get("cbor"), ",")
			if strings.Contains(options, "omitempty") {
				key = "? " + key
			}
			fields = append(fields, key)
		}
		if got := strings.Join(described[rule], " "); got != strings.Join(fields, " ") {
			t.Errorf("%s is described with keys %q, %v has %q", rule, got, typ, fields)
		}
		delete(described, rule)
	}
	for rule := range described {
		t.Errorf("%s is described and has no type", rule)
	}
}
