package tiles

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const height = 8

// remote reads tiles over HTTP for x/mod's tlog, which checks each against the tree's root.
type remote struct{ url string }

func (r remote) Height() int { return height }

func (r remote) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		body, err := fetch(r.url + "/" + strings.Replace(t.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		out[i] = body
	}
	return out, nil
}

func (r remote) SaveTiles([]tlog.Tile, [][]byte) {}

func fetch(url string) (body []byte, err error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	body, err = io.ReadAll(answer.Body)
	if closeErr := answer.Body.Close(); err == nil {
		err = closeErr
	}
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, body)
	}
	return body, err
}

// x/mod's tlog and note, which do not know this project, open the checkpoint and prove every kind of thing from the tiles.
func TestOthersReadTheTiles(t *testing.T) {
	const origin = "log.example/status"
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	log := merklelogtest.New()
	h := handler(t, Config{Log: log, Checkpoint: func(context.Context) ([]byte, error) {
		head := log.Head()
		c := tlogproof.Checkpoint{Origin: origin, Size: head.Size, Root: head.Root}
		return c.Sign(signer)
	}})
	mux := http.NewServeMux()
	mux.Handle("/some/prefix/", http.StripPrefix("/some/prefix", h))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	base := server.URL + "/some/prefix"

	var older []tlog.Tree
	for _, size := range []int{1, 2, 3, 255, 256, 257, 511, 512, 700, 1024, 65535, 65536, 65537, 66000} {
		grow(log, size)
		text, err := fetch(base + "/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open(text, note.VerifierList(verifier))
		if err != nil {
			t.Fatal(err)
		}
		tree, err := parseTree(n.Text, origin)
		if err != nil || tree.N != int64(size) {
			t.Fatalf("checkpoint is of size %d, want %d, %v", tree.N, size, err)
		}
		for _, seen := range append(older, tree) { // old checkpoints find their partial tiles
			if err := proveAll(log, tlog.TileHashReader(seen, remote{base}), seen, tree, remote{base}); err != nil {
				t.Fatalf("tree of size %d when the log has %d: %v", seen.N, size, err)
			}
		}
		older = append(older, tree)
	}
}

// proveAll proves some leaves' inclusion in tree, and that newest is consistent with it.
func proveAll(log merklelog.Log, r tlog.HashReader, tree, newest tlog.Tree, tiles tlog.TileReader) error {
	for _, index := range []int64{0, tree.N / 3, tree.N - 1} {
		entry, err := log.Entries(uint64(index), uint64(index+1))
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, index, r)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry[0].Leaf)); err != nil {
			return err
		}
	}
	proof, err := tlog.ProveTree(newest.N, tree.N, tlog.TileHashReader(newest, tiles))
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, newest.N, newest.Hash, tree.N, tree.Hash)
}

func grow(log *merklelogtest.Memory, size int) {
	for i := int(log.Head().Size); i < size; i++ {
		log.Append(wire.Millis(i), merklelog.Entry{Kind: merklelog.Status, Leaf: fmt.Appendf(nil, "entry %d", i)})
	}
}

// parseTree reads the lines that tlog-checkpoint and Go's checksum database have in common.
func parseTree(text, origin string) (tree tlog.Tree, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != origin {
		return tree, fmt.Errorf("checkpoint %q", text)
	}
	return tlog.ParseTree([]byte("go.sum database tree\n" + lines[1] + "\n" + lines[2] + "\n"))
}

// Paths are spelled as tlog spells them, and no other spelling is read.
func TestPathsAreTlogs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tlog.Tile{
			H: height, L: rapid.IntRange(-1, 63).Draw(t, "level"), N: rapid.Int64Range(0, 1<<55-1).Draw(t, "index"), W: rapid.IntRange(1, 256).Draw(t, "width"),
		}
		got, err := parseTile(strings.TrimPrefix(want.Path(), "tile/8/"), "data")
		if err != nil || got.index != uint64(want.N) || got.width != want.W || got.entries != (want.L == -1) || !got.entries && int(got.level) != want.L {
			t.Fatalf("%s is read as %+v, %v", want.Path(), got, err)
		}
	})
}

func FuzzTilePath(f *testing.F) {
	for _, s := range []string{
		"0/000", "63/x001/x234/067", "data/000.p/255", "5/x999/999.p/1", "0/x000/001", "64/000", "0/000.p/256", "data/x36/028", "0/../000",
		"0/x036/x028/x797/x018/x963/967", "0/x999/x999/x999/x999/x999/x999/999", "00/000", "0/000.p/", "/", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := parseTile(path, "data")
		want, wantErr := tlog.ParseTilePath("tile/8/" + path)
		// tlog reads greater indexes than a log can have.
		if (err == nil) != (wantErr == nil && uint64(want.N) < 1<<55 && want.L < 64) {
			t.Fatalf("%q: %+v, %v; tlog: %+v, %v", path, got, err, want, wantErr)
		}
		if err == nil && (got.index != uint64(want.N) || got.width != want.W || got.entries != (want.L == -1)) {
			t.Fatalf("%q: %+v; tlog: %+v", path, got, want)
		}
		if err == nil && got.last() <= got.first() {
			t.Fatalf("%q: empty range %d to %d", path, got.first(), got.last())
		}
	})
}
