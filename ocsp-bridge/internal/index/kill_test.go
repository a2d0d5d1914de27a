package index

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/certanchor/certanchor/network"
)

const childEnv = "CERTANCHOR_INDEX_CHILD"

// TestIndexIsWholeAfterKillAtEveryStep kills a process with SIGKILL at each step of applying each block, and checks that the
// next one goes on from whole blocks to the same result as a process that was never killed.
func TestIndexIsWholeAfterKillAtEveryStep(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		killChild(t, dir)
		return
	}
	c := story(t)
	whole := open(t, t.TempDir())
	apply(t, whole, c.blocks...)
	want := contents(t, whole)

	for _, step := range []string{"built", "written", "published"} {
		for n := range c.blocks {
			t.Run(fmt.Sprintf("%s-%d", step, n), func(t *testing.T) {
				dir := t.TempDir()
				runChild(t, dir, plan{Step: step, Block: n, Blocks: c.blocks})
				ix := open(t, filepath.Join(dir, "index"))
				height := ix.View().Height
				if height > uint64(n)+1 || step == "built" && height > uint64(n) {
					t.Fatalf("killed at step %q of block %d, the index has %d blocks", step, n, height)
				}
				feedOf(t, c.blocks[:height]).compare(ix, 3) // what a reader is told meanwhile
				apply(t, ix, c.blocks[height:]...)
				if got := contents(t, ix); !slices.Equal(got, want) {
					t.Errorf("contents differ: %d entries, want %d", len(got), len(want))
				}
				feedOf(t, c.blocks).compare(ix, 3)
			})
		}
	}
}

// plan is what a child does before it dies.
type plan struct {
	Step   string
	Block  int
	Blocks []*network.Block
}

func runChild(t *testing.T, dir string, p plan) {
	t.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(p); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plan"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestIndexIsWholeAfterKillAtEveryStep$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("child did not die of SIGKILL: %v\n%s", err, out)
	}
}

func killChild(t *testing.T, dir string) {
	f, err := os.ReadFile(filepath.Join(dir, "plan"))
	if err != nil {
		t.Fatal(err)
	}
	var p plan
	if err := gob.NewDecoder(bytes.NewReader(f)).Decode(&p); err != nil {
		t.Fatal(err)
	}
	ix := open(t, filepath.Join(dir, "index"))
	block := -1
	ix.hook = func(step string) {
		if block == p.Block && step == p.Step {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			select {} // until the signal arrives
		}
	}
	for block = range p.Blocks {
		apply(t, ix, p.Blocks[block])
	}
}

// contents lists everything the store holds.
func contents(t *testing.T, ix *Index) []string {
	t.Helper()
	it, err := ix.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for it.First(); it.Valid(); it.Next() {
		all = append(all, fmt.Sprintf("%x=%x", it.Key(), it.Value()))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}
