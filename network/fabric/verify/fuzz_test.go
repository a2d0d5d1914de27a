package verify_test

import (
	"errors"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network/fabric/verify"
)

// in is the world in another test.
func (w world) in(t testing.TB) *world {
	w.t = t
	return &w
}

// FuzzBlock looks for blocks that make the verifier panic, or fail with something else than the name of a rule.
func FuzzBlock(f *testing.F) {
	w := newWorld(f)
	for _, b := range append(w.blocks, readChain(f)[4:8]...) {
		f.Add(marshal(f, b))
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var b common.Block
		if proto.Unmarshal(encoded, &b) != nil {
			return
		}
		w := w.in(t)
		v := w.verifier()
		_, err := v.Block(&b)
		if b.Header == nil {
			b.Header = &common.BlockHeader{}
		}
		b.Header.Number, b.Header.PreviousHash = 2, w.previous()
		b.Metadata = &common.BlockMetadata{Metadata: [][]byte{nil, nil, make([]byte, len(b.GetData().GetData()))}}
		reseal(t, &b, w.last, w.orderers)
		_, sealed := v.Block(&b)
		for _, err := range []error{err, sealed} {
			if err != nil && !errors.As(err, new(*verify.Error)) {
				t.Errorf("%T: %v", err, err)
			}
		}
	})
}

// FuzzEnvelope looks for envelopes about which the verifier cannot make up its mind: one flag is right, every other is wrong.
func FuzzEnvelope(f *testing.F) {
	w := newWorld(f)
	c := w.call()
	c.sets = []*rwset.NsReadWriteSet{readWrite(f, ccName, "k", nil)}
	f.Add(c.envelope(f))
	for _, b := range append(w.blocks, readChain(f)[4:12]...) {
		f.Add(b.GetData().GetData()[0])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := w.in(t)
		accepted, v := 0, w.verifier()
		for flag := range peer.TxValidationCode_name {
			_, err := v.Block(w.next([]peer.TxValidationCode{peer.TxValidationCode(flag)}, data))
			if err == nil {
				accepted++
				v = w.verifier()
			} else if !errors.As(err, new(*verify.Error)) {
				t.Fatalf("%T: %v", err, err)
			}
			var e *verify.Error
			if errors.As(err, &e) && e.Field != flagsField {
				return // not for a block at all
			}
		}
		if accepted > 1 {
			t.Errorf("%d flags are accepted", accepted)
		}
	})
}

// BenchmarkBlock verifies blocks of some hundred transactions, each endorsed by three.
func BenchmarkBlock(b *testing.B) {
	const txs = 200
	w := newWorld(b)
	data, flags := make([][]byte, txs), make([]peer.TxValidationCode, txs)
	for i := range data {
		c := w.call()
		c.sets = []*rwset.NsReadWriteSet{readWrite(b, ccName, string(rune('a'+i)), nil)}
		data[i] = c.envelope(b)
	}
	block := w.next(flags, data...)
	for b.Loop() {
		b.StopTimer()
		v := w.verifier()
		b.StartTimer()
		if _, err := v.Block(block); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*txs), "µs/tx")
}
