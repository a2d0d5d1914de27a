package crls

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Mammoth 2024: a disk ran full in the middle of a write. Here the CRL before it stays, whole, and is served, also by the next process;
// nothing is left over; and the new one is taken when there is room again.
func TestMammoth2024DiskFullWhileACRLIsKept(t *testing.T) {
	w, ca := someRevoked(t)
	b := w.open(t.TempDir(), len(w.blocks))
	before := w.sign(ca, b.contents(ca, "", 0))
	if out, err := b.offer(ca, before); err != nil || !out.Taken {
		t.Fatalf("the first CRL: %+v, %v", out, err)
	}
	w.set(&w.certs[3], wire.OpRevoke, wire.Superseded)
	applied := w.open(b.dir, len(w.blocks))
	newer := w.sign(ca, applied.contents(ca, "", 0))
	for _, room := range []int{0, 1, len(newer) / 2, len(newer) - 1} {
		applied.cfg.write = func(f *os.File, data []byte) (int, error) {
			n, err := f.Write(data[:room])
			return n, errors.Join(err, syscall.ENOSPC)
		}
		if out, err := applied.offer(ca, newer); !errors.Is(err, syscall.ENOSPC) || out.Taken {
			t.Errorf("with room for %d octets: %+v, %v", room, out, err)
		}
		applied.wantKept(ca.ID, before)
		if left, err := filepath.Glob(filepath.Join(b.dir, "*", ".new-*")); err != nil || len(left) > 0 {
			t.Errorf("with room for %d octets: %v is left over, %v", room, left, err)
		}
	}
	applied.reopen()
	applied.wantKept(ca.ID, before)
	if out, err := applied.offer(ca, newer); err != nil || !out.Taken {
		t.Errorf("with room again: %+v, %v", out, err)
	}
	applied.wantKept(ca.ID, newer)
}

// wantKept checks what is on disk and, while it agrees with the ledger, what is served.
func (b *bridge) wantKept(id wire.CAID, want []byte) {
	b.w.t.Helper()
	file, err := os.ReadFile(filepath.Join(b.dir, id.String(), NameFull))
	if err != nil || !bytes.Equal(file, want) {
		b.w.t.Errorf("%d octets are on disk, %v: want the %d of the CRL", len(file), err, len(want))
	}
	list, ok := b.Store.lists[key{id, NameFull}]
	if !ok || !bytes.Equal(list.list.DER, want) {
		b.w.t.Errorf("another CRL is kept in memory")
	}
}
