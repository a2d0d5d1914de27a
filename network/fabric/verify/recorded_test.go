package verify_test

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

var (
	record   = flag.Bool("record", false, "keep the blocks of TestRealChain for the tests that need no network")
	recorded = filepath.Join("testdata", "chain.blocks.gz")
)

func writeChain(t testing.TB, blocks []*common.Block) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(recorded), 0o755))
	f, err := os.Create(recorded)
	must(t, err)
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	must(t, err)
	for _, b := range blocks {
		encoded := marshal(t, b)
		_, err = z.Write(append(binary.AppendUvarint(nil, uint64(len(encoded))), encoded...))
		must(t, err)
	}
	must(t, z.Close())
	must(t, f.Close())
}

func readChain(t testing.TB) []*common.Block {
	t.Helper()
	f, err := os.Open(recorded)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	all, err := io.ReadAll(z)
	must(t, err)
	var blocks []*common.Block
	for len(all) > 0 {
		size, n := binary.Uvarint(all)
		blocks = append(blocks, unmarshal(t, all[n:n+int(size)], &common.Block{}))
		all = all[n+int(size):]
	}
	return blocks
}

// TestRecordedChain verifies blocks that a Fabric 3.1.1 network made: go test -run TestRealChain -record.
func TestRecordedChain(t *testing.T) {
	blocks := readChain(t)
	verifyChain(t, blocks, nil)
	testMutations(t, blocks, nil, revocationIn(t, blocks))
}

func revocationIn(t testing.TB, blocks []*common.Block) (id string) {
	v := newReal(t, blocks)
	for _, b := range blocks {
		parsed, err := v.Block(b)
		must(t, err)
		for _, tx := range parsed.Txs {
			if tx.Function == wire.FnSetStatus && tx.Valid {
				id = tx.ID
			}
		}
	}
	return id
}

// testMutations changes one thing in a chain after the other. With the orderers' keys, the change is sealed again, as a hostile quorum
// of orderers would: then what is inside has to give it away.
func testMutations(t *testing.T, blocks []*common.Block, orderers map[uint32]*party, revocation string) {
	v, lastConfig, revocationFound := newReal(t, blocks), uint64(0), false
	for number, b := range blocks {
		if number > 0 {
			next := blocks[min(number+1, len(blocks)-1)]
			for name, bad := range mutations(t, b, blocks[number-1], next) {
				if proto.Equal(bad, b) {
					continue // one transaction in another order
				}
				var e *verify.Error
				if _, err := v.Block(bad); !errors.As(err, &e) {
					t.Fatalf("block %d: %s was not found: %v", number, name, err)
				}
			}
			if len(b.GetData().GetData()) > 0 && orderers != nil {
				flipSealed(t, v, b, lastConfig, orderers)
			}
		}
		parsed, err := v.Block(b)
		must(t, err)
		if isConfig(t, b) {
			lastConfig = uint64(number)
		}
		for _, tx := range parsed.Txs {
			if tx.ID != revocation {
				continue
			}
			// A hostile peer hides the revocation.
			lie := clone(b)
			lie.Metadata.Metadata[2][tx.Index] = byte(peer.TxValidationCode_MVCC_READ_CONFLICT)
			fresh := newReal(t, blocks)
			for _, before := range blocks[:number] {
				_, err := fresh.Block(before)
				must(t, err)
			}
			_, err := fresh.Block(lie)
			refused(t, err, tx.Index, flagsField, "MVCC_READ_CONFLICT", "must be VALID", revocation)
			revocationFound = true
		}
	}
	if !revocationFound {
		t.Errorf("no revocation in the chain")
	}
}

func isConfig(t testing.TB, b *common.Block) bool {
	p := unmarshal(t, unmarshal(t, b.GetData().GetData()[0], &common.Envelope{}).GetPayload(), &common.Payload{})
	return unmarshal(t, p.GetHeader().GetChannelHeader(), &common.ChannelHeader{}).GetType() == int32(common.HeaderType_CONFIG)
}

// mutations are what somebody without the orderers' keys can do to a block: one of each kind.
func mutations(t testing.TB, b, previous, next *common.Block) map[string]*common.Block {
	all := map[string]*common.Block{"the next block instead": next, "the block before once more": previous}
	add := func(name string, change func(*common.Block)) {
		bad := clone(b)
		change(bad)
		all[name] = bad
	}
	add("header.number", func(b *common.Block) { b.Header.Number ^= 1 })
	for i := 0; i < 32; i += 7 {
		add(fmt.Sprintf("header.previous_hash[%d]", i), func(b *common.Block) { b.Header.PreviousHash[i] ^= 0x10 })
		add(fmt.Sprintf("header.data_hash[%d]", i), func(b *common.Block) { b.Header.DataHash[i] ^= 0x10 })
	}
	for i, raw := range b.GetData().GetData() {
		for at := 0; at < len(raw); at += 1 + len(raw)/40 {
			add(fmt.Sprintf("data[%d][%d]", i, at), func(b *common.Block) { b.Data.Data[i][at] ^= 1 })
		}
		add(fmt.Sprintf("data[%d] twice", i), func(b *common.Block) { b.Data.Data = append(b.Data.Data, b.Data.Data[i]) })
		add(fmt.Sprintf("data[%d] missing", i), func(b *common.Block) { b.Data.Data = slices.Delete(b.Data.Data, i, i+1) })
		for bit := range 8 {
			add(fmt.Sprintf("flag %d, bit %d", i, bit), func(b *common.Block) { b.Metadata.Metadata[2][i] ^= 1 << bit })
		}
	}
	add("data in another order", func(b *common.Block) { slices.Reverse(b.Data.Data); slices.Reverse(b.Metadata.Metadata[2]) })
	m := unmarshal(t, b.GetMetadata().GetMetadata()[0], &common.Metadata{})
	signatures := func(name string, change func(*common.Metadata)) {
		changed := proto.Clone(m).(*common.Metadata)
		change(changed)
		add(name, func(b *common.Block) { b.Metadata.Metadata[0] = marshal(t, changed) })
	}
	for at := range m.GetValue() {
		signatures(fmt.Sprintf("metadata.signatures.value[%d]", at), func(m *common.Metadata) { m.Value[at] ^= 1 })
	}
	const quorum = 3
	signatures("all signatures but two", func(m *common.Metadata) { m.Signatures = m.Signatures[:quorum-1] })
	signatures("one signature three times", func(m *common.Metadata) {
		m.Signatures = []*common.MetadataSignature{m.Signatures[0], m.Signatures[0], m.Signatures[0]}
	})
	for at := range m.GetSignatures()[0].GetSignature() {
		signatures(fmt.Sprintf("metadata.signatures, octet %d of each but two", at), func(m *common.Metadata) {
			for _, s := range m.Signatures[quorum-1:] {
				if at < len(s.Signature) {
					s.Signature[at] ^= 1
				}
			}
			m.Signatures[0].Signature[0] ^= 1
		})
	}
	return all
}

// flipSealed flips bits in transactions that are valid and seals the block again.
func flipSealed(t *testing.T, v *verify.Verifier, b *common.Block, lastConfig uint64, orderers map[uint32]*party) {
	if isConfig(t, b) {
		lastConfig = b.GetHeader().GetNumber()
	}
	for i, raw := range b.GetData().GetData() {
		if b.GetMetadata().GetMetadata()[2][i] != byte(peer.TxValidationCode_VALID) {
			continue
		}
		for at := i % 13; at < len(raw); at += 1 + len(raw)/25 {
			bad := clone(b)
			bad.Data.Data[i][at] ^= 1 << (at % 8)
			reseal(t, bad, lastConfig, orderers)
			var e *verify.Error
			if _, err := v.Block(bad); !errors.As(err, &e) {
				t.Fatalf("block %d: bit %d of octet %d of transaction %d, sealed by hostile orderers, was not found: %v", b.GetHeader().GetNumber(), at%8, at, i, err)
			}
		}
	}
}
