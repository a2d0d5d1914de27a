package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// witnessFile is beside the store, not in it.
const witnessFile = "witness"

// witness remembers outside the store how far the ledger has come. A write-ahead log whose last part was damaged looks to Pebble
// like one that a crash cut short, and opens as an older ledger: acknowledged transactions would be gone without a word. The
// witness is written after a block is durable and is not synced, so it costs next to nothing; after a power failure it
// may be behind, never ahead. It is a lower bound: the ledger must hold at least that block, with that hash.
type witness struct {
	file *os.File // nil: none is kept, for tests in memory
}

const witnessSize = 8 + sha256.Size + sha256.Size // height, hash of the last block, checksum of both

func openWitness(dir string) (witness, error) {
	f, err := os.OpenFile(filepath.Join(dir, witnessFile), os.O_RDWR|os.O_CREATE, 0o600)
	return witness{file: f}, err
}

// note remembers that the ledger has height blocks, the last one with hash.
func (w witness) note(height uint64, hash []byte) error {
	if w.file == nil {
		return nil
	}
	line := binary.BigEndian.AppendUint64(nil, height)
	line = append(line, hash...)
	sum := sha256.Sum256(line)
	_, err := w.file.WriteAt(append(line, sum[:]...), 0) // within a sector: old or new, not half
	return err
}

// read returns what was noted last; height 0 when that is not known.
func (w witness) read() (height uint64, hash []byte, err error) {
	if w.file == nil {
		return 0, nil, nil
	}
	line := make([]byte, witnessSize)
	if _, err := w.file.ReadAt(line, 0); errors.Is(err, io.EOF) {
		return 0, nil, nil // new, or from before a power failure
	} else if err != nil {
		return 0, nil, err
	}
	noted, sum := line[:witnessSize-sha256.Size], sha256.Sum256(line[:witnessSize-sha256.Size])
	if !bytes.Equal(sum[:], line[len(noted):]) {
		return 0, nil, nil
	}
	return binary.BigEndian.Uint64(noted), noted[8:], nil
}

// checkWitness compares the newest view with the witness.
func (n *Node) checkWitness(v *view) error {
	height, hash, err := n.witness.read()
	if err != nil || height == 0 {
		return err
	}
	if height > v.height {
		return fmt.Errorf("it has %d blocks, but there were %d: the end of the store's log is lost", v.height, height)
	}
	got, err := v.hashOf(height-1, nil)
	if err == nil && !bytes.Equal(got, hash) {
		err = fmt.Errorf("block %d has hash %x, it was %x", height-1, got, hash)
	}
	return err
}

func (w witness) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
