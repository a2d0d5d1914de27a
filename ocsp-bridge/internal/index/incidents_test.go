package index

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/certanchor/certanchor/network"
)

// badDisk fails one write, or all from it on.
type badDisk struct {
	left  atomic.Int64 // writes that still succeed
	stays bool
}

func (d *badDisk) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	if left := d.left.Add(-1); left == -1 || left < 0 && d.stays {
		fmt.Println(diskFailed)
		return syscall.ENOSPC
	}
	return nil
}

func (d *badDisk) String() string { return "bad disk" }

const (
	diskEnv    = "CERTANCHOR_INDEX_DISK" // directory, writes that succeed, whether the fault stays
	diskFailed = "a write fails"
)

// Raio 2025: two transient write errors left a log with tiles missing, which nobody noticed until clients asked for them. Tiles are
// derived from this index. Here a process whose write fails ends, at whatever write that is, and what the next one has is whole.
func TestRaio2025TwoTransientWriteErrorsLeaveNoHashMissing(t *testing.T) {
	if inChild(t) {
		return
	}
	writesFail(t, false, [][]int{{0, 1}, {3, 3}, {7, 4}, {12, 6}, {16, 9}, {20, 2}, {25, 12}, {30, 20}, {36, 7}})
}

// Mammoth 2024: a disk ran full in the middle of a batch, and the log had to be given up. Here the index is as far as whole blocks
// go, and goes on when there is room again.
func TestMammoth2024DiskFullWhileABlockIsApplied(t *testing.T) {
	if inChild(t) {
		return
	}
	writesFail(t, true, [][]int{{0}, {2}, {5}, {9}, {14}, {18}, {22}, {27}, {33}, {40}})
}

// writesFail has processes apply a story while writes fail, one process after the other for each fault, and then one without.
func writesFail(t *testing.T, stays bool, faults [][]int) {
	c := story(t)
	whole := open(t, t.TempDir())
	apply(t, whole, c.blocks...)
	want := contents(t, whole)
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(c.blocks); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, turns := range faults {
		t.Run(strings.Trim(fmt.Sprint(turns), "[]"), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "blocks"), b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, turn := range turns {
				cmd := exec.Command(os.Args[0], "-test.run", "^"+strings.Split(t.Name(), "/")[0]+"$")
				cmd.Env = append(os.Environ(), diskEnv+"="+dir+" "+strconv.Itoa(turn)+" "+strconv.FormatBool(stays))
				out, err := cmd.CombinedOutput()
				if hit := bytes.Contains(out, []byte(diskFailed)); hit {
					failed++
				} else if err != nil {
					t.Fatalf("it fails without a fault: %v\n%s", err, out)
				}
			}
			ix := open(t, filepath.Join(dir, "index"))
			apply(t, ix, c.blocks[ix.View().Height:]...)
			if got := contents(t, ix); !slices.Equal(got, want) {
				t.Errorf("contents differ: %d entries, want %d", len(got), len(want))
			}
		})
	}
	if failed < len(faults) {
		t.Errorf("only %d writes failed", failed)
	}
}

// inChild applies the blocks as far as the disk lets it, if this process is a child.
func inChild(t *testing.T) bool {
	args := strings.Fields(os.Getenv(diskEnv))
	if len(args) == 0 {
		return false
	}
	left, err := strconv.Atoi(args[1])
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.ReadFile(filepath.Join(args[0], "blocks"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []*network.Block
	if err := gob.NewDecoder(bytes.NewReader(f)).Decode(&blocks); err != nil {
		t.Fatal(err)
	}
	disk := &badDisk{stays: args[2] == "true"}
	disk.left.Store(int64(left))
	ix, err := Open(Options{
		Dir: filepath.Join(args[0], "index"), Channel: "test", Now: time.Now, Log: slog.New(slog.DiscardHandler), fs: errorfs.Wrap(vfs.Default, disk),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range blocks[ix.View().Height:] {
		if err := ix.Apply(block); err != nil {
			t.Fatal(err)
		}
	}
	os.Exit(0) // as it is, without what closing would write
	return true
}
