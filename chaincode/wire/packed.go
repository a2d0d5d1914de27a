package wire

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/cryptobyte"
)

// maxUnpacked bounds what a PackCerts frame may expand to: a full batch of arguments' worth of certificates.
const maxUnpacked = MaxArgBytes

// The coders are made on first use: programs that only verify proofs do not need them.
var (
	encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true)) // so that the header gives the size, be it ever so small
	})
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxUnpacked), zstd.WithDecoderMaxWindow(maxUnpacked))
	})
)

// PackCerts compresses certificates for an IssueArg: one zstd frame (RFC 8878) of opaque<1..2^24-1> vectors (RFC 8446 section 3.4).
// Certificates of one CA share most of their text, and every byte of an argument is copied and hashed a dozen times. It panics
// on a certificate of more than 2^24-1 bytes; UnpackCerts refuses anything beyond MaxCertDER.
func PackCerts(certs [][]byte) []byte {
	b := cryptobyte.NewBuilder(nil)
	for _, der := range certs {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(der) })
	}
	enc, err := encoder()
	if err != nil { // fixed options
		panic(err)
	}
	return enc.EncodeAll(b.BytesOrPanic(), nil)
}

// UnpackCerts undoes PackCerts. It returns 1 to MaxBatch certificates of 1 to MaxCertDER bytes each, MaxArgBytes together, and
// refuses anything else, without allocating more than that. Errors are *Error with code InvalidArgument.
func UnpackCerts(packed []byte) ([][]byte, error) {
	dec, err := decoder()
	if err != nil {
		return nil, fmt.Errorf("wire: zstd: %w", err)
	}
	// A frame that says how much it holds cannot surprise, and what another frame would add is noticed.
	var header zstd.Header
	if err := header.Decode(packed); err != nil || !header.HasFCS || header.FrameContentSize > maxUnpacked {
		return nil, Errorf(InvalidArgument, "certs", fmt.Sprintf("%d bytes", len(packed)), "must be one zstd frame (RFC 8878) whose header gives its size, at most %d bytes", maxUnpacked)
	}
	raw, err := dec.DecodeAll(packed, nil)
	if err == nil && uint64(len(raw)) != header.FrameContentSize {
		err = fmt.Errorf("its header says %d bytes, there are %d", header.FrameContentSize, len(raw))
	}
	if err != nil {
		return nil, Errorf(InvalidArgument, "certs", fmt.Sprintf("%d bytes", len(packed)), "must be one zstd frame (RFC 8878) of at most %d bytes: %v", maxUnpacked, err)
	}
	var certs [][]byte
	for s := cryptobyte.String(raw); !s.Empty(); {
		var der cryptobyte.String
		if !s.ReadUint24LengthPrefixed(&der) || len(der) == 0 || len(der) > MaxCertDER {
			return nil, Errorf(InvalidArgument, fmt.Sprintf("certs[%d]", len(certs)), fmt.Sprintf("%d bytes", len(der)), "must be 1 to %d bytes after a length of 3 bytes", MaxCertDER)
		}
		if len(certs) == MaxBatch {
			return nil, Errorf(InvalidArgument, "certs", fmt.Sprintf("more than %d", MaxBatch), "must be 1 to %d entries", MaxBatch)
		}
		certs = append(certs, der)
	}
	if len(certs) == 0 {
		return nil, Errorf(InvalidArgument, "certs", "0", "must be 1 to %d entries", MaxBatch)
	}
	return certs, nil
}
