package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// incidents are the headings of incidents.md.
var incidents = []string{
	"Yeti 2022", "Venafi 2017", "Aviator 2016", "Mammoth 2024", "Raio 2025", "Mammoth 2025", "A backup was restored, and the log forked", "An fsync was skipped",
}

// TestEveryKnownIncidentHasTheTestsThatItsPageNames: the tests are where the page says, so that `go test` runs them.
func TestEveryKnownIncidentHasTheTestsThatItsPageNames(t *testing.T) {
	page, err := os.ReadFile("incidents.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(page), "\n## ")[1:]
	if len(sections) != len(incidents) {
		t.Fatalf("%d sections, want %d", len(sections), len(incidents))
	}
	named := regexp.MustCompile("`([a-z0-9/-]+)\\.(Test[A-Za-z0-9]+)`")
	for i, section := range sections {
		if !strings.HasPrefix(section, incidents[i]) {
			t.Errorf("section %d begins with %.40q, want %q", i+1, section, incidents[i])
		}
		tests := named.FindAllStringSubmatch(section, -1)
		if len(tests) == 0 {
			t.Errorf("%s: no test", incidents[i])
		}
		// A name of an own, without blanks, is in the name of a test.
		if name := strings.ReplaceAll(incidents[i], " ", ""); strings.Contains(incidents[i], " 20") && !strings.Contains(section, "Test"+name) && !strings.Contains(section, name+"`") {
			t.Errorf("%s: no test is named after it", incidents[i])
		}
		for _, test := range tests {
			if !declared(t, test[1], test[2]) {
				t.Errorf("%s: %s has no %s", incidents[i], test[1], test[2])
			}
		}
	}
}

// declared looks for a test in a package's files.
func declared(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	declaration := regexp.MustCompile(`(?m)^func ` + name + `\(t \*testing\.T\) +\{`)
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if declaration.Match(code) {
			return true
		}
	}
	return false
}
