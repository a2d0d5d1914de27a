package cctest

import (
	"fmt"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// OperatorsLog is an operators' log of which only the leaves matter.
type OperatorsLog struct {
	Generation uint64
	Name       string // that it is anchored under
	tree       *testonly.Tree
}

// NewOperatorsLog returns a log of n records, which differ from those of logs with another name.
func NewOperatorsLog(generation uint64, name string, n int) *OperatorsLog {
	l := &OperatorsLog{Generation: generation, tree: testonly.New(rfc6962.DefaultHasher)}
	l.Append(name, n)
	return l
}

// Append makes the log longer by n records.
func (l *OperatorsLog) Append(name string, n int) {
	for range n {
		l.tree.AppendData(fmt.Appendf(nil, "%s %d", name, l.tree.Size()))
	}
}

// Head is the log's head at a size up to its own.
func (l *OperatorsLog) Head(size uint64) wire.OperatorsHead {
	return wire.OperatorsHead{Generation: l.Generation, Size: size, Root: l.tree.HashAt(size)}
}

// AnchorArg is the encoded argument of AnchorOperators that takes ca's log from one size to another; from 0: it is the first that is anchored.
func (l *OperatorsLog) AnchorArg(t TB, ca *CA, from, to uint64) []byte {
	t.Helper()
	var proof [][]byte
	if from > 0 {
		var err error
		if proof, err = l.tree.ConsistencyProof(from, to); err != nil {
			t.Fatal(err)
		}
	}
	return AnchorArg(wire.AnchorOperatorsArg{CAID: ca.ID, Head: l.Head(to), Proof: proof, Name: l.Name})
}

// AnchorArg is the encoded argument of AnchorOperators.
func AnchorArg(a wire.AnchorOperatorsArg) []byte {
	a.V = wire.Version
	return wire.Encode(&a)
}
