package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// frame compresses octets that need not be certificates.
func frame(t testing.TB, raw []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(raw, nil)
}

// bomb is a frame of blocks that repeat one octet: each four octets of it become up to 128 KiB. Its header says what it likes.
func bomb(says uint32, size int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x58}, says) // magic, 4 octets of size, a window of 2 MiB
	for size > 0 {
		n := min(size, 128<<10)
		size -= n
		header := uint32(n<<3 | 1<<1) // RFC 8878 section 3.1.1.2: RLE_Block
		if size == 0 {
			header |= 1
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 'x')
	}
	return b
}

// sized is a frame header that promises size octets, and one small block.
func sized(size uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, size)
	return append(b, 1<<3|1, 0, 0, 'x')
}

func TestUnpackCertsUndoesPackCerts(t *testing.T) {
	full := make([][]byte, MaxBatch)
	for i := range full {
		full[i] = fill(byte(i), 1+i)
	}
	for _, certs := range [][][]byte{{{1}}, {{1}, {1}, {2, 3}}, {fill(7, MaxCertDER)}, full} {
		packed := PackCerts(certs)
		got, err := UnpackCerts(packed)
		if err != nil || !slices.EqualFunc(got, certs, bytes.Equal) {
			t.Errorf("%d certificates became %d, %v", len(certs), len(got), err)
		}
		if !bytes.Equal(packed, PackCerts(certs)) {
			t.Error("the same certificates are packed in two ways")
		}
	}
}

func TestUnpackCertsRefuses(t *testing.T) {
	good := PackCerts([][]byte{fill(1, 2000), {2}})
	for _, c := range []struct {
		name, field string
		packed      []byte
	}{
		{"nothing", "certs", nil},
		{"an empty frame", "certs", frame(t, nil)},
		{"no certificates", "certs", PackCerts(nil)},
		{"one too many", "certs", PackCerts(make1(MaxBatch + 1))},
		{"an empty certificate", "certs[1]", PackCerts([][]byte{{1}, {}})},
		{"a large certificate", "certs[0]", PackCerts([][]byte{make([]byte, MaxCertDER+1)})},
		{"a length beyond the end", "certs[0]", frame(t, []byte{0, 0, 2, 1})},
		{"half a length", "certs[1]", frame(t, []byte{0, 0, 1, 1, 0})},
		{"no frame", "certs", []byte("certificate")},
		{"octets after the frame", "certs", append(slices.Clone(good), 0)},
		{"truncated", "certs", good[:len(good)-1]},
		{"more than an argument", "certs", bomb(maxUnpacked+1, maxUnpacked+1)},
		{"a gigabyte", "certs", bomb(1<<30, 1<<30)},
		{"a gigabyte that says it is little", "certs", bomb(100, 1<<30)},
		{"less than it says", "certs", bomb(1000, 100)},
		{"two frames", "certs", slices.Concat(good, good)},
		{"no size", "certs", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x58}, 1<<3|1, 0, 0, 'x')},
		{"a promise of an exabyte", "certs", sized(1 << 60)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := UnpackCerts(c.packed)
			var e *Error
			if !errors.As(err, &e) || e.Code != InvalidArgument || e.Field != c.field {
				t.Errorf("%d octets: %v, want a refusal of %s", len(c.packed), err, c.field)
			}
		})
	}
	for n := range good {
		if _, err := UnpackCerts(good[:n]); err == nil {
			t.Errorf("%d of %d octets are accepted", n, len(good))
		}
	}
}

func make1(n int) [][]byte { return slices.Repeat([][]byte{{1}}, n) }

// A frame of some kB that expands without bound costs no more memory than an argument may have.
func TestBombsAreCheap(t *testing.T) {
	for name, packed := range map[string][]byte{"many blocks": bomb(maxUnpacked, 1<<30), "a large promise": sized(1 << 60), "frame after frame": bytes.Repeat(bomb(maxUnpacked/2, maxUnpacked/2), 64)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := UnpackCerts(packed)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > 8*maxUnpacked {
			t.Errorf("%s: %d octets take %d bytes, %v", name, len(packed), grown, err)
		}
	}
}

// FuzzUnpackCerts: what is accepted is within the limits, and packs to something that means the same.
func FuzzUnpackCerts(f *testing.F) {
	f.Add(PackCerts([][]byte{{1}, {2, 3}}))
	f.Add(PackCerts([][]byte{[]byte(strings.Repeat("certificate", 200))}))
	f.Add(frame(f, []byte{0, 0, 2, 1}))
	f.Add(bomb(1<<20, 1<<20))
	f.Add(sized(1 << 40))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packed []byte) {
		certs, err := UnpackCerts(packed)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code != InvalidArgument {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		total := 0
		for _, der := range certs {
			if len(der) == 0 || len(der) > MaxCertDER {
				t.Fatalf("a certificate of %d octets", len(der))
			}
			total += len(der)
		}
		if len(certs) == 0 || len(certs) > MaxBatch || total > MaxArgBytes {
			t.Fatalf("%d certificates of %d octets", len(certs), total)
		}
		again, err := UnpackCerts(PackCerts(certs))
		if err != nil || !slices.EqualFunc(again, certs, bytes.Equal) {
			t.Fatalf("packed again: %d certificates, %v", len(again), err)
		}
	})
}
