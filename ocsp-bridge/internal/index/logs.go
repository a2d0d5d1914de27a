package index

import (
	"crypto/sha256"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
)

// treeLog is one log of the index as merklelog.Log describes it. What it returns has been compared with neighbouring hashes; an error
// other than ErrClosed or one about the arguments means that the store is damaged.
type treeLog struct {
	ix  *Index
	log logID
}

var _ merklelog.Log = (*treeLog)(nil)

// Issuance returns a CA's issuance log; false if there is none yet.
func (ix *Index) Issuance(id wire.CAID) (merklelog.Log, bool) {
	if _, ok := ix.View().Log(id); !ok {
		return nil, false
	}
	return &treeLog{ix, logID(id)}, true
}

// StatusLog returns the status log.
func (ix *Index) StatusLog() merklelog.Log { return &treeLog{ix, statusLog} }

// MapLog returns the map log.
func (ix *Index) MapLog() merklelog.Log { return &treeLog{ix, mapLog} }

func (l *treeLog) Head() merklelog.Head {
	v := l.ix.View()
	head := v.head(l.log)
	return merklelog.Head{Size: head.Size, Root: head.Root, Time: max(head.Time, v.Tick.Time)}
}

func (l *treeLog) Nodes(ids []compact.NodeID) (hashes [][]byte, err error) {
	err = l.ix.read(func(v *View, r pebble.Reader) error {
		n := nodeReader{r: r, log: l.log, size: v.head(l.log).Size}
		hashes, err = n.checked(ids)
		return err
	})
	return hashes, err
}

func (l *treeLog) Entries(from, to uint64) (entries []merklelog.Entry, err error) {
	err = l.ix.read(func(v *View, r pebble.Reader) error {
		if size := v.head(l.log).Size; from > to || to > size {
			return fmt.Errorf("log %s: entries from %d to below %d are not in a log of size %d", l.log, from, to, size)
		}
		if from == to {
			return nil
		}
		entries = make([]merklelog.Entry, 0, min(to-from, 1<<16))
		n := nodeReader{r: r, log: l.log}
		if err := n.load(0, from, to-1); err != nil {
			return err
		}
		if err := eachIn(r, entryKey(l.log, from), entryKey(l.log, to), func(_, raw []byte) error {
			e, err := n.entry(from+uint64(len(entries)), raw)
			entries = append(entries, e)
			return err
		}); err != nil {
			return err
		}
		if uint64(len(entries)) != to-from {
			return fmt.Errorf("log %s: %d of the entries from %d to below %d are there: the stored index is damaged", l.log, len(entries), from, to)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

func (l *treeLog) Find(leafHash [sha256.Size]byte) (index uint64, found bool, err error) {
	err = l.ix.read(func(_ *View, r pebble.Reader) error {
		return each(r, findPrefix(l.log, leafHash), func(key, _ []byte) error {
			at := foundIndex(key)
			n := nodeReader{r: r, log: l.log}
			hash, err := n.hash(compact.NewNodeID(0, at))
			if err == nil && [sha256.Size]byte(hash) == leafHash {
				index, found = at, true
			}
			return err
		})
	})
	return index, found, err
}

// RootAt returns the root that a CA's issuance log had at a size. Requires size <= the size of the log in some View that was
// returned before.
func (ix *Index) RootAt(id wire.CAID, size uint64) ([sha256.Size]byte, error) {
	return merklelog.RootAt(&treeLog{ix, logID(id)}, size)
}
