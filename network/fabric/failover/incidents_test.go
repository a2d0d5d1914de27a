package failover

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

const (
	diskEnv    = "CERTANCHOR_VERIFIED_DISK" // directory, writes that succeed
	diskFailed = "a write fails"
)

// fullDisk fails every write after as many.
type fullDisk struct{ left atomic.Int64 }

func (d *fullDisk) String() string { return "full disk" }

func (d *fullDisk) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && d.left.Add(-1) < 0 {
		fmt.Println(diskFailed)
		return syscall.ENOSPC
	}
	return nil
}

// Mammoth 2024: a disk ran full in the middle of a batch. Here what was verified is whole, block by block: the next process goes on from there, and
// still knows which transactions are valid.
func TestMammoth2024DiskFullWhileABlockIsVerified(t *testing.T) {
	chain := readChain(t)
	if args := strings.Fields(os.Getenv(diskEnv)); len(args) > 0 {
		fill(t, args[0], args[1], chain)
	}
	failed, kept := 0, uint64(0)
	for _, writes := range []int{0, 2, 5, 9, 14, 20, 33, 47} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", diskEnv, dir, writes))
		out, err := cmd.CombinedOutput()
		if bytes.Contains(out, []byte(diskFailed)) {
			failed++
		} else if err != nil {
			t.Fatalf("after %d writes, without a fault: %v\n%s", writes, err, out)
		}
		s, err := openStore(dir, vfs.Default, slog.New(slog.DiscardHandler))
		check(t, err)
		g, err := openGate(s, "certanchor", "certanchor", chain[0])
		check(t, err)
		height, _ := g.height()
		kept += height
		for i, b := range chain { // those before height are compared, the others verified
			if i > 0 && uint64(i) < height {
				lie := proto.Clone(b).(*common.Block)
				flags := lie.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
				if flags[0] == byte(peer.TxValidationCode_VALID) {
					flags[0] = byte(peer.TxValidationCode_MVCC_READ_CONFLICT)
				} else {
					flags[0] = byte(peer.TxValidationCode_VALID)
				}
				if _, err := g.admit(lie); err == nil {
					t.Errorf("after %d writes: block %d with another flag is let through", writes, i)
				}
			}
			if _, err := g.admit(b); err != nil {
				t.Fatalf("after %d writes, at height %d: %v", writes, height, err)
			}
		}
		check(t, s.db.Close())
	}
	if failed < 6 || kept == 0 {
		t.Errorf("%d processes met a full disk, and %d blocks were there afterwards: want 6 at least, and some", failed, kept)
	}
}

// fill verifies until the disk is full, and ends the process.
func fill(t *testing.T, dir, writes string, chain []*common.Block) {
	left, err := strconv.Atoi(writes)
	check(t, err)
	disk := &fullDisk{}
	disk.left.Store(int64(left))
	s, err := openStore(dir, errorfs.Wrap(vfs.Default, disk), slog.New(slog.DiscardHandler))
	check(t, err)
	g, err := openGate(s, "certanchor", "certanchor", chain[0])
	check(t, err)
	for _, b := range chain {
		_, err := g.admit(b)
		check(t, err)
	}
	os.Exit(0) // as it is, without what closing would write
}

func readChain(t *testing.T) (blocks []*common.Block) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "verify", "testdata", "chain.blocks.gz"))
	check(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	check(t, err)
	all, err := io.ReadAll(z)
	check(t, err)
	for len(all) > 0 {
		size, n := binary.Uvarint(all)
		b := &common.Block{}
		check(t, proto.Unmarshal(all[n:n+int(size)], b))
		blocks, all = append(blocks, b), all[n+int(size):]
	}
	return blocks
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
