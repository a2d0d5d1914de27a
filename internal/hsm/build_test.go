//go:build cgo

package hsm_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestProgramBuiltWithoutCgoSaysSo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-run", "^TestWithoutCgo$", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutCgo") {
		t.Errorf("%v\n%s", err, out)
	}
}
