package crl

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// ContentType of the encoding that WriteTo makes: a CBOR sequence (RFC 8742) of deterministic items (RFC 8949 section 4.2.1).
//
// The first item is the array [version, caID, scope, number, base, thisUpdate, count]: uint, 32-octet byte string, text string, uint,
// uint, uint, uint; times are seconds since 1970. It is followed by count entries, each the array [serial, time, reason, invalidity]:
// byte string, uint, uint, uint. Reason is the CRLReason: 8 marks a removal. Invalidity 0 is none.
const ContentType = "application/cbor-seq"

const (
	encodingVersion = 1
	headerItems     = 7
	entryItems      = 4
	removeFromCRL   = 8 // CRLReason, RFC 5280 section 5.3.1
)

// CBOR major types, RFC 8949 section 3.1.
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
)

// WriteTo writes c's encoding: the same octets for the same contents. Errors: of Check, before anything is written; of w.
func (c *Contents) WriteTo(w io.Writer) (n int64, err error) {
	if err := c.Check(); err != nil {
		return 0, err
	}
	const flushAt = 32 << 10
	b := make([]byte, 0, flushAt+4096)
	b = appendHead(b, majorArray, headerItems)
	b = appendHead(b, majorUint, encodingVersion)
	b = append(appendHead(b, majorBytes, uint64(len(c.CAID))), c.CAID[:]...)
	b = append(appendHead(b, majorText, uint64(len(c.Scope))), c.Scope...)
	b = appendHead(b, majorUint, c.Number)
	b = appendHead(b, majorUint, c.Base)
	b = appendHead(b, majorUint, uint64(c.ThisUpdate.Unix()))
	b = appendHead(b, majorUint, uint64(len(c.Entries)))
	for i := range c.Entries {
		b = c.Entries[i].append(b)
		if len(b) >= flushAt {
			m, err := w.Write(b)
			if n += int64(m); err != nil {
				return n, err
			}
			b = b[:0]
		}
	}
	m, err := w.Write(b)
	return n + int64(m), err
}

func (e *Entry) append(b []byte) []byte {
	reason := uint64(e.Reason)
	if e.Remove {
		reason = removeFromCRL
	}
	b = appendHead(b, majorArray, entryItems)
	b = append(appendHead(b, majorBytes, uint64(len(e.Serial))), e.Serial...)
	b = appendHead(b, majorUint, uint64(e.Time))
	b = appendHead(b, majorUint, reason)
	return appendHead(b, majorUint, uint64(e.Invalidity))
}

// appendHead appends an item's head in its shortest form (RFC 8949 section 4.2.1).
func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// ReadContents reads what WriteTo writes, up to the end of r, and nothing else: what it accepts has one encoding and passes Check. It takes
// memory in proportion to what it has read, never to what is announced: bound r.
func ReadContents(r io.Reader) (*Contents, error) {
	d := decoder{r: bufio.NewReaderSize(r, 32<<10)}
	c := new(Contents)
	count := d.header(c)
	for i := uint64(0); i < count && d.err == nil; i++ {
		c.Entries = append(c.Entries, d.entry())
	}
	if d.err != nil {
		return nil, fmt.Errorf("crl: contents: %w", d.err)
	}
	switch _, err := d.r.ReadByte(); {
	case err == nil:
		return nil, fmt.Errorf("crl: contents: %w", refused("count", fmt.Sprint(count), "must be the number of entries that follow: there is more"))
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("crl: contents: %w", err)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("crl: contents: %w", err)
	}
	return c, nil
}

// decoder reads items until err is set.
type decoder struct {
	r    *bufio.Reader
	err  error
	slab []byte  // room for serial numbers, handed out piece by piece
	item [9]byte // head of the item at hand
}

func (d *decoder) header(c *Contents) (count uint64) {
	if n := d.head("contents", majorArray); d.err == nil && n != headerItems {
		d.fail("contents", n, "must be an array of 7 items")
	}
	if v := d.head("version", majorUint); d.err == nil && v != encodingVersion {
		d.fail("version", v, "must be 1: this program reads no other")
	}
	if n := d.head("ca_id", majorBytes); d.err == nil && n != uint64(len(c.CAID)) {
		d.fail("ca_id", n, "must have 32 octets")
	}
	d.read(c.CAID[:])
	n := d.head("scope", majorText)
	if d.err == nil && n > MaxScope {
		d.fail("scope", n, "must have at most 1024 octets")
	}
	if d.err == nil {
		scope := make([]byte, n)
		d.read(scope)
		c.Scope = string(scope)
	}
	c.Number, c.Base = d.head("number", majorUint), d.head("base", majorUint)
	c.ThisUpdate = d.seconds("this_update").Time()
	return d.head("count", majorUint)
}

func (d *decoder) entry() (e Entry) {
	if n := d.head("entry", majorArray); d.err == nil && n != entryItems {
		d.fail("entry", n, "must be an array of 4 items")
	}
	n := d.head("serial", majorBytes)
	if d.err == nil && n > wire.MaxSerial {
		d.fail("serial", n, "must have at most 20 octets")
	}
	if d.err != nil {
		return e
	}
	e.Serial = d.room(int(n))
	d.read(e.Serial)
	e.Time = d.seconds("time")
	reason := d.head("reason", majorUint)
	if e.Remove = reason == removeFromCRL; !e.Remove {
		e.Reason = wire.Reason(reason)
	}
	e.Invalidity = d.seconds("invalidity")
	return e
}

// room returns n octets of a slab: one allocation for many serial numbers.
func (d *decoder) room(n int) []byte {
	if len(d.slab) < n {
		d.slab = make([]byte, 16<<10)
	}
	s := d.slab[:n:n]
	d.slab = d.slab[n:]
	return s
}

func (d *decoder) seconds(field string) Seconds {
	n := d.head(field, majorUint)
	if d.err == nil && n > uint64(MaxSeconds) {
		d.fail(field, n, "must be before the year 10000")
	}
	return Seconds(n)
}

// head reads an item's head of the given major type, which must be the shortest.
func (d *decoder) head(field string, major byte) uint64 {
	b := d.item[:]
	d.read(b[:1])
	if d.err != nil {
		return 0
	}
	if b[0]>>5 != major || b[0]&31 > 27 {
		d.fail(field, uint64(b[0]), fmt.Sprintf("must begin an item of CBOR major type %d of definite length", major))
		return 0
	}
	n := uint64(b[0] & 31)
	if n < 24 {
		return n
	}
	size := 1 << (n - 24)
	d.read(b[1 : 1+size])
	var wide [8]byte
	copy(wide[8-size:], b[1:1+size])
	n = binary.BigEndian.Uint64(wide[:])
	var shortest [9]byte
	if d.err == nil && !bytes.Equal(appendHead(shortest[:0], major, n), b[:1+size]) {
		d.fail(field, n, "must be in its shortest encoding (RFC 8949 section 4.2.1)")
	}
	return n
}

func (d *decoder) read(b []byte) {
	if d.err != nil {
		return
	}
	if _, err := io.ReadFull(d.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		d.err = err
	}
}

func (d *decoder) fail(field string, value uint64, rule string) {
	if d.err == nil {
		d.err = refused(field, fmt.Sprint(value), "%s", rule)
	}
}

// At is ThisUpdate as Contents want it, of a ledger time.
func At(m wire.Millis) time.Time { return SecondsOf(m).Time() }
