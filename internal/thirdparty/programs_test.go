package thirdparty

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// dir is where the programs are, for all tests of this process.
var dir string

func TestMain(m *testing.M) {
	keyfile.FewerIterations()
	tmp, err := os.MkdirTemp("", "thirdparty-")
	if err != nil {
		panic(err)
	}
	dir = tmp
	code := m.Run()
	if err := os.RemoveAll(tmp); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build builds all programs; the compiler's cache makes every time but the first quick. Without the race detector, which is
// for this project's code.
var build = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+string(filepath.Separator), "tool", "./static-fsck")
	cmd.Dir = "programs"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // no program needs a database in C
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", cmd, cmd.Dir, err, out)
	}
	return nil
})

// run runs one of the programs to its end and returns what it wrote.
func run(t *testing.T, program string, args ...string) (output string, err error) {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, program), args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, t.TempDir()
	err = cmd.Run()
	return out.String(), err
}
