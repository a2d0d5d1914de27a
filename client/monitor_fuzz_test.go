package client

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// FuzzMonitorState: a state file is a person's to edit and a disk's to damage. What is read is used, saved and read again without loss.
func FuzzMonitorState(f *testing.F) {
	patterns := []string{"example.org"}
	const head = `{"version":1,"channel":"c","patterns":["example.org"],`
	f.Add([]byte(head + `"listed":true,"logs":{"status":{"checkpoint":"dGVzdApjCjAK","next":0}},"certs":{},"early":null}`))
	f.Add([]byte(head + `"listed":false,"logs":{"status":{"next":1,"announced":true}},"certs":{"aa/01":{"names":["www.example.org"],"spki":"00","times":[2,1]}},"early":[{"index":1,"leaf":"oA=="}]}`))
	f.Add([]byte(head + `"logs":{"status":null},"certs":{"":null}}`))
	f.Add([]byte(head + `"logs":{},"certs":{}}{}`))
	good := newState("c", patterns)
	good.log("status").Next = 3
	good.Certs["aa/01"] = &tracked{Names: []string{"example.org"}, Times: []wire.Millis{1}}
	leaf := wire.StatusLeaf{V: 1, Kind: wire.LeafCA, CAID: wire.CAID{1}, Change: 1, State: uint(wire.CAActive), Time: 1767225600123}
	good.Early = []earlyLeaf{{Index: 2, Leaf: wire.Encode(&leaf)}}
	path := filepath.Join(f.TempDir(), "good")
	if err := good.save(path); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadState(path, "c", patterns)
		if err != nil {
			return
		}
		s.complete()
		s.ofCA(wire.CAID{1})
		s.apply(&batch{early: []earlyLeaf{{Index: 9, Leaf: wire.Encode(&leaf), leaf: leaf}}, reported: map[uint64]bool{1: true}, announced: []string{"aa"}})
		if err := s.save(path); err != nil {
			t.Fatal(err)
		}
		again, err := loadState(path, "c", patterns)
		if err != nil {
			t.Fatalf("what was saved cannot be read: %v", err)
		}
		if !reflect.DeepEqual(again, s) {
			t.Fatalf("read %+v, saved %+v", again, s)
		}
	})
}
