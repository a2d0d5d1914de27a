package verify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// FuzzTransaction reads payloads as if their signatures were good, which a fuzzer does not get past, and looks for panics.
func FuzzTransaction(f *testing.F) {
	action, err := proto.Marshal(&peer.TransactionAction{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, action)
	encoded, err := os.ReadFile(filepath.Join("..", "testdata", "issue-1.block"))
	if err != nil {
		f.Fatal(err)
	}
	var b common.Block
	var e common.Envelope
	if err := errors.Join(proto.Unmarshal(encoded, &b), proto.Unmarshal(b.GetData().GetData()[0], &e)); err != nil {
		f.Fatal(err)
	}
	f.Add(e.GetPayload(), action)
	f.Fuzz(func(t *testing.T, payload, results []byte) {
		var p common.Payload
		var signer common.SignatureHeader
		tx := &transaction{verdict: valid}
		if proto.Unmarshal(payload, &p) != nil || tx.readHeader(p.GetHeader(), &signer) != nil || tx.readProposal(&p) != nil {
			tx.action = &endorsed{}
		}
		if tx.readResults() != valid {
			tx.action = &endorsed{}
			if tx.action.readSets(results) != nil {
				return
			}
		}
		up := newUpdates(NewMemory())
		for _, n := range tx.action.namespaces {
			_ = n.supported()
		}
		if v, err := up.check(tx); v == valid && err == nil {
			up.apply(1, tx)
			_ = up.changes()
		}
		_ = tx.action.toCheck()
	})
}

func TestQuorums(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 10: 7} {
		if got := bftQuorum(n); got != want {
			t.Errorf("%d consenters: %d, want %d", n, got, want)
		}
	}
}
