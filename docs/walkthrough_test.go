package docs

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program builds certanchor, once for all pages.
func program(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "certanchor"), "../cmd/certanchor").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// commands are the blocks of a page that are marked as sh.
func commands(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, part := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, ok := strings.Cut(part, "```")
		if !ok {
			t.Fatalf("%s: a block has no end", page)
		}
		script.WriteString(block)
	}
	if script.Len() == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return script.String()
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestPagesCommandsWork runs the pages' commands as they stand there, but for the addresses.
func TestPagesCommandsWork(t *testing.T) {
	bin := program(t)
	for _, page := range []string{"keys.md", "walkthrough-new-ca.md"} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			script := strings.NewReplacer("127.0.0.1:8888", free(t), "127.0.0.1:8889", free(t)).Replace(commands(t, page))
			// What a page leaves running ends with it; the shell does not go on after a failure.
			script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" + script
			cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				log, _ := os.ReadFile(filepath.Join(cmd.Dir, "serve.log")) // absent on pages that start nothing
				t.Fatalf("%v\n%s\n%s", err, out, log)
			}
		})
	}
}
