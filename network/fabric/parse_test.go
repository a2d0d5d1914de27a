package fabric

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/gateway"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/rwset/kvrwset"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/hyperledger/fabric-gateway/pkg/client"

	"github.com/certanchor/certanchor/network"
)

// endorsed makes an envelope of chaincode cc calling function with arg, in which namespace writes.
func endorsed(t *testing.T, l *Ledger, namespace string, writes ...*kvrwset.KVWrite) (*common.Envelope, string) {
	t.Helper()
	proposal, err := l.contract.NewProposal("Issue", client.WithBytesArguments([]byte("arg")))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := proposal.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var proposed gateway.ProposedTransaction
	if err := proto.Unmarshal(encoded, &proposed); err != nil {
		t.Fatal(err)
	}
	return envelopeOf(t, proposed.GetProposal(), namespace, writes), proposal.TransactionID()
}

func TestParseBlock(t *testing.T) {
	_, l := startPeer(t)
	valid, id := endorsed(t, l, "cc", &kvrwset.KVWrite{Key: "b", Value: []byte("2")}, &kvrwset.KVWrite{Key: "a", IsDelete: true})
	conflict, _ := endorsed(t, l, "cc")
	config := &common.Envelope{Payload: marshal(t, &common.Payload{Header: &common.Header{
		ChannelHeader: marshal(t, &common.ChannelHeader{Type: int32(common.HeaderType_CONFIG)}),
	}})}
	data := [][]byte{[]byte("no envelope"), marshal(t, config), marshal(t, valid), marshal(t, conflict)}
	flags := []byte{byte(peer.TxValidationCode_BAD_PAYLOAD), 0, 0, byte(peer.TxValidationCode_MVCC_READ_CONFLICT)}

	b, err := parseBlock(newBlock(7, []byte("prev"), data, flags), "cc")
	if err != nil {
		t.Fatal(err)
	}
	if b.Number != 7 || string(b.PrevHash) != "prev" || len(b.Hash) != 32 || len(b.Txs) != 2 {
		t.Fatalf("block %d after %q with hash %x and %d transactions", b.Number, b.PrevHash, b.Hash, len(b.Txs))
	}
	if since := time.Since(b.Txs[0].Time); since < 0 || since > time.Minute || b.Txs[0].Time.Location() != time.UTC {
		t.Errorf("time %v", b.Txs[0].Time)
	}
	want := network.Tx{
		ID: id, Index: 2, Time: b.Txs[0].Time, MSPID: "Org1MSP", Valid: true, Code: "VALID", Function: "Issue",
		Arg: []byte("arg"), Result: []byte("answer"), Writes: []network.Write{{Key: "a"}, {Key: "b", Value: []byte("2")}},
	}
	if !reflect.DeepEqual(b.Txs[0], want) {
		t.Errorf("%+v, want %+v", b.Txs[0], want)
	}
	if c := b.Txs[1]; c.Valid || c.Code != "MVCC_READ_CONFLICT" || c.Index != 3 {
		t.Errorf("%+v, want an invalid one", c)
	}
}

func TestParseBlockShowsWritesThatAnotherChaincodeCaused(t *testing.T) {
	_, l := startPeer(t)
	envelope, _ := endorsed(t, l, "ours", &kvrwset.KVWrite{Key: "k", Value: []byte("v")})
	block := newBlock(1, nil, [][]byte{marshal(t, envelope)}, []byte{0})
	b, err := parseBlock(block, "ours") // the transaction calls cc, which has called ours
	if err != nil || len(b.Txs) != 1 || b.Txs[0].Function != "" || b.Txs[0].Arg != nil || b.Txs[0].Result != nil || len(b.Txs[0].Writes) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err = parseBlock(block, "third"); err != nil || len(b.Txs) != 0 {
		t.Errorf("another chaincode's: %+v, %v", b, err)
	}
}

func TestParseBlockRefusesWhatThePeerCannotHaveChecked(t *testing.T) {
	_, l := startPeer(t)
	envelope, _ := endorsed(t, l, "cc")
	good := [][]byte{marshal(t, envelope)}
	otherHash := newBlock(1, nil, good, []byte{0})
	otherHash.Header.DataHash[0] ^= 1
	noFlags := newBlock(1, nil, good, nil)
	noFlags.Metadata = nil
	for name, c := range map[string]struct {
		block *common.Block
		says  string
	}{
		"nothing":                         {nil, "header"},
		"no header":                       {&common.Block{}, "header"},
		"other data than the header says": {otherHash, "hash"},
		"no validity flags":               {noFlags, "flags"},
		"too few validity flags":          {newBlock(1, nil, good, nil), "flags"},
		"garbage that is called valid":    {newBlock(1, nil, [][]byte{[]byte("no envelope")}, []byte{0}), "transaction 0"},
	} {
		if b, err := parseBlock(c.block, "cc"); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, want an error about %s", name, b, err, c.says)
		}
	}
}

// TestRealBlocks parses consecutive blocks that a Fabric 3.1.1 peer delivered.
func TestRealBlocks(t *testing.T) {
	var last []byte
	for _, name := range []string{"issue-1.block", "issue-2.block"} {
		b, err := parseBlock(realBlock(t, name), "certanchor")
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && !bytes.Equal(b.PrevHash, last) {
			t.Errorf("%s does not follow the one before: the hash is not Fabric's", name)
		}
		last = b.Hash
		if len(b.Txs) != 1 || !b.Txs[0].Valid || b.Txs[0].Function != "Issue" || b.Txs[0].MSPID != "Org1MSP" || len(b.Txs[0].Writes) != 2 {
			t.Errorf("%s: %+v", name, b.Txs)
		}
	}
}

func realBlock(t testing.TB, name string) *common.Block {
	t.Helper()
	encoded, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var b common.Block
	if err := proto.Unmarshal(encoded, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// FuzzParseBlock looks for blocks that make parseBlock panic. Data is fuzzed apart from the header, whose hash is made to fit.
func FuzzParseBlock(f *testing.F) {
	for _, name := range []string{"issue-1.block", "issue-2.block"} {
		b := realBlock(f, name)
		f.Add(b.GetData().GetData()[0], byte(0))
		f.Add(b.GetData().GetData()[0], byte(peer.TxValidationCode_MVCC_READ_CONFLICT))
	}
	f.Fuzz(func(t *testing.T, envelope []byte, flag byte) {
		b, err := parseBlock(newBlock(1, nil, [][]byte{envelope}, []byte{flag}), "certanchor")
		if err != nil && peer.TxValidationCode(flag) != peer.TxValidationCode_VALID {
			t.Errorf("an invalid transaction stopped the stream: %v", err)
		}
		if err == nil && len(b.Txs) > 1 {
			t.Errorf("%d transactions of one envelope", len(b.Txs))
		}
	})
}
