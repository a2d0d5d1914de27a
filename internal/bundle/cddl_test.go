package bundle

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The description and the types have the same rules, with the same keys, required and optional ones alike.
func TestCDDLMatchesTypes(t *testing.T) {
	text, err := os.ReadFile("../../docs/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?ms)^([a-z]+) = \{\n(.*?)^\}`)
	field := regexp.MustCompile(`(?m)^  (\? )?(\d+) => `)
	described := map[string][]string{}
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		for _, f := range field.FindAllStringSubmatch(m[2], -1) {
			described[m[1]] = append(described[m[1]], f[1]+f[2])
		}
	}
	for name, typ := range map[string]reflect.Type{
		"bundle": reflect.TypeFor[Bundle](), "entry": reflect.TypeFor[Entry](), "leaf": reflect.TypeFor[Leaf](), "value": reflect.TypeFor[Value](),
	} {
		var fields []string
		for i := range typ.NumField() {
			key, options, _ := strings.Cut(typ.Field(i).Tag.Get("cbor"), ",")
			if strings.Contains(options, "omitempty") {
				key = "? " + key
			}
			fields = append(fields, key)
		}
		if !slices.Equal(fields, described[name]) {
			t.Errorf("%s: types have %q, docs/bundle.md has %q", name, fields, described[name])
		}
	}
}
