package chaincode_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestSourcesCannotDisagree reads what every endorser executes: executing it twice on one machine, as all other tests do, would
// not notice a clock that shows the same second, nor a map order that happens to be the same.
func TestSourcesCannotDisagree(t *testing.T) {
	set := token.NewFileSet()
	imports := importer.ForCompiler(set, "source", nil) // reads what they import once
	for _, dir := range []string{".", "wire", "../internal/ctleaf", "../internal/status"} {
		files := parseSources(t, set, imports, dir)
		for _, f := range files.list {
			for _, imp := range f.Imports {
				switch path := strings.Trim(imp.Path.Value, `"`); path {
				case "math/rand", "math/rand/v2", "crypto/rand", "os", "net", "net/http", "runtime", "unsafe":
					t.Errorf("%s: imports %s", files.set.Position(imp.Pos()), path)
				}
			}
		}
		checkStatements(t, files)
	}
}

type sources struct {
	set  *token.FileSet
	list []*ast.File
	info *types.Info
}

func parseSources(t *testing.T, set *token.FileSet, imports types.Importer, dir string) sources {
	t.Helper()
	s := sources{set: set, info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(s.set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.list = append(s.list, f)
	}
	if len(s.list) == 0 {
		t.Fatalf("%s: %v", dir, fs.ErrNotExist)
	}
	conf := types.Config{Importer: imports}
	if _, err := conf.Check(dir, s.set, s.list, s.info); err != nil {
		t.Fatal(err)
	}
	return s
}

func checkStatements(t *testing.T, s sources) {
	t.Helper()
	for _, f := range s.list {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt:
				t.Errorf("%s: starts or awaits a goroutine", s.set.Position(n.Pos()))
			case *ast.RangeStmt:
				if _, isMap := s.info.TypeOf(n.X).Underlying().(*types.Map); isMap {
					t.Errorf("%s: ranges over a map", s.set.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && x.Name == "sync" && n.Sel.Name != "OnceValues" { // what is made once is the same for all
					t.Errorf("%s: shares state", s.set.Position(n.Pos()))
				}
				if ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Since" || n.Sel.Name == "Until") {
					t.Errorf("%s: reads a clock", s.set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
