package conformance

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/ocsp-conformance.md anew")

const golden = "docs/ocsp-conformance.md"

// table collects what the run showed.
type table struct {
	t   *testing.T
	out bytes.Buffer
}

func (tb *table) section(title, text string, columns ...string) {
	fmt.Fprintf(&tb.out, "\n## %s\n\n%s\n\n| %s |\n|%s\n", title, text, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

// row writes a line. A cell that is not agreement fails the test, and stands in the table for all to see.
func (tb *table) row(name, must string, cells ...error) {
	fmt.Fprintf(&tb.out, "| %s | %s |", name, must)
	for _, err := range cells {
		var unable *unableError
		switch {
		case err == nil:
			tb.out.WriteString(" yes |")
		case errors.As(err, &unable):
			tb.out.WriteString(" unable" + unable.mark + " |")
		default:
			tb.out.WriteString(" **no** |")
			tb.t.Errorf("%s: %v", name, err)
		}
	}
	tb.out.WriteString("\n")
}

// unableError is the cell of a judge that cannot read a right answer.
type unableError struct{ *limit }

func (e *unableError) Error() string { return e.why }

// limits explains such cells.
func (tb *table) limits(ls ...*limit) {
	for _, l := range ls {
		fmt.Fprintf(&tb.out, "\n%s %s\n", l.mark, l.why)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// compare fails when the committed table is not what this run showed.
func (tb *table) compare() {
	tb.t.Helper()
	file := filepath.Join(root(tb.t), golden)
	got := tb.out.Bytes()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			tb.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if g, w := lineAt(gotLines, i), lineAt(wantLines, i); g != w {
			tb.t.Fatalf("%s, line %d, is not what this run showed (go test ./internal/conformance -update writes it anew):\ncommitted: %s\nthis run:  %s", golden, i+1, w, g)
		}
	}
}

func lineAt(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}
