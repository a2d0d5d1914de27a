package sct

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// Kept has the first signature that a log's key made of each entry, on disk: the memory of a key whose signatures are randomised, such as one in a
// PKCS #11 token. It is safe for concurrent use, also by several processes on one machine that have the same file open.
//
// The file is slots of 64 octets. The first says whose it is; that of entry n is at 64 * (n+1) and has r and s, or zeros. A slot never
// spans two sectors, so it is written or not. What is read is verified like a signature from elsewhere.
type Kept struct {
	path string
	file *os.File

	mu     sync.Mutex   // held while a slot is looked at and filled
	wanted atomic.Int64 // signatures that were read or written so far

	syncing sync.Mutex // guards what follows
	synced  int64      // of wanted, those that are on disk
	failed  error      // of an earlier sync: what the system has of the file is not known any more
}

const (
	slotBytes = 64
	half      = slotBytes / 2

	// maxIndex is of 40 bits, as static-ct-api's leaf_index has them.
	maxIndex = 1<<40 - 1
)

// keptMagic comes before the log ID in the first slot.
var keptMagic = []byte("certanchor kept SCTs, version 1\n")

// OpenKept opens the file at path for the log id, or makes it. Errors: it is of another log, or not such a file.
func OpenKept(path string, id LogID) (_ *Kept, err error) {
	k := &Kept{path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("kept SCTs: %w", err)
	}
	if k.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("kept SCTs: %w", err)
	}
	if err = k.locked(func() error { return k.begin(id) }); err != nil {
		return nil, errors.Join(fmt.Errorf("kept SCTs %s: %w", path, err), k.file.Close())
	}
	return k, nil
}

// begin writes the first slot into an empty file, and checks that of another.
func (k *Kept) begin(id LogID) error {
	want := append(bytes.Clone(keptMagic), id[:]...)
	got := make([]byte, slotBytes)
	n, err := k.file.ReadAt(got, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n == 0:
		if _, err := k.file.WriteAt(want, 0); err != nil {
			return err
		}
		return errors.Join(k.file.Sync(), keyfile.SyncDir(filepath.Dir(k.path)))
	case n < slotBytes || !bytes.Equal(got[:len(keptMagic)], keptMagic):
		return errors.New("is not a file of kept SCTs")
	case !bytes.Equal(got, want):
		return fmt.Errorf("is of log ID %x: must be of %x, the configured key's", got[len(keptMagic):], id[:])
	}
	return nil
}

// Close closes the file.
func (k *Kept) Close() error { return k.file.Close() }

// locked keeps other goroutines and processes out while fn runs.
func (k *Kept) locked(fn func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := syscall.Flock(int(k.file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return errors.Join(fn(), syscall.Flock(int(k.file.Fd()), syscall.LOCK_UN))
}

// first returns the signature over leaf, DER, that is kept, after it is on disk; sign makes one if there is none.
func (k *Kept) first(public *ecdsa.PublicKey, leaf []byte, sign func() ([]byte, error)) ([]byte, error) {
	index, err := leafIndex(leaf)
	if err != nil {
		return nil, err
	}
	der, err := k.read(public, index, leaf)
	if err == nil && der == nil {
		// Outside the lock: a token may take its time. Of two that are made at once the first that is written counts.
		if der, err = sign(); err == nil {
			der, err = k.write(public, index, leaf, der)
		}
	}
	if err == nil {
		err = k.sync()
	}
	if err != nil {
		return nil, fmt.Errorf("kept SCTs %s: entry %d: %w", k.path, index, err)
	}
	return der, nil
}

// read returns the signature of an entry, nil if there is none.
func (k *Kept) read(public *ecdsa.PublicKey, index uint64, leaf []byte) ([]byte, error) {
	var slot [slotBytes]byte
	n, err := k.file.ReadAt(slot[:], int64(index+1)*slotBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n == 0 || slot == [slotBytes]byte{} {
		return nil, nil
	}
	digest := sha256.Sum256(leaf)
	r, s := new(big.Int).SetBytes(slot[:half]), new(big.Int).SetBytes(slot[half:])
	if !ecdsa.Verify(public, digest[:], r, s) {
		return nil, errors.New("what is kept is not this log's signature of it: the file is damaged, or of another ledger")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}

// write keeps der, unless somebody was faster, and returns what is kept.
func (k *Kept) write(public *ecdsa.PublicKey, index uint64, leaf, der []byte) (kept []byte, err error) {
	var (
		inner cryptobyte.String
		slot  [slotBytes]byte
	)
	r, s, in := new(big.Int), new(big.Int), cryptobyte.String(der)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !in.Empty() || !inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) || !inner.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*half || s.BitLen() > 8*half {
		return nil, errors.New("the token must give an ECDSA P-256 signature")
	}
	r.FillBytes(slot[:half])
	s.FillBytes(slot[half:])
	err = k.locked(func() error {
		if kept, err = k.read(public, index, leaf); err != nil || kept != nil {
			return err
		}
		if _, err := k.file.WriteAt(slot[:], int64(index+1)*slotBytes); err != nil {
			return err
		}
		// Read back and verified: what the token made goes out only if it is right.
		kept, err = k.read(public, index, leaf)
		return err
	})
	return kept, err
}

// sync returns when what was read or written before is on disk. What another process has written counts too: it may not have come so far.
// Those that wait for a sync share the next one.
func (k *Kept) sync() error {
	mine := k.wanted.Add(1)
	k.syncing.Lock()
	defer k.syncing.Unlock()
	if k.failed != nil || k.synced >= mine {
		return k.failed
	}
	now := k.wanted.Load()
	if k.failed = k.file.Sync(); k.failed == nil {
		k.synced = now
	}
	return k.failed
}

// leafIndex is the place that a leaf of a static-ct-api log has in it: CtExtensions that are one leaf_index.
func leafIndex(leaf []byte) (uint64, error) {
	_, extensions, err := parseLeaf(leaf)
	if err != nil {
		return 0, err
	}
	var (
		kind uint8
		data cryptobyte.String
	)
	s := cryptobyte.String(extensions)
	if !s.ReadUint8(&kind) || kind != 0 || !s.ReadUint16LengthPrefixed(&data) || len(data) != 5 || !s.Empty() {
		return 0, errLeaf
	}
	index := uint64(0)
	for _, b := range data {
		index = index<<8 | uint64(b)
	}
	return min(index, maxIndex), nil
}
