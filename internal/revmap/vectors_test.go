package revmap

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the test vectors in docs/revocation-map.md")

const vectorsFile = "../../docs/revocation-map.md"

type vector struct {
	Name    string        `json:"name"`
	Entries []vectorEntry `json:"entries"` // the whole tree
	Root    string        `json:"root"`
	Proofs  []vectorProof `json:"proofs"`
}

type vectorEntry struct {
	Key       string `json:"key"`
	ValueHash string `json:"value_hash"`
}

type vectorProof struct {
	Key   string `json:"key"`
	Kind  string `json:"kind"`
	Proof string `json:"proof"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key32(t testing.TB, s string) [32]byte { return [32]byte(unhex(t, s)) }

// makeVectors uses the reference only.
func makeVectors() []vector {
	a, b, c := numbered(0, 1), numbered(0, 2), numbered(0, 5)
	near := flip(keyOf(0), 10)
	d := append(numbered(0, 5), Entry{near, valueOf(5)})
	var all []vector
	for _, in := range []struct {
		name    string
		entries []Entry
		ask     [][32]byte
	}{
		{"empty", nil, [][32]byte{keyOf(0)}},
		{"one entry", a, [][32]byte{keyOf(0), keyOf(1)}},
		{"two entries", b, [][32]byte{keyOf(0), keyOf(1), keyOf(2)}},
		{"five entries", c, [][32]byte{keyOf(0), keyOf(4), flip(keyOf(4), 255), keyOf(7)}},
		{"two keys that share 10 bits", d, [][32]byte{keyOf(0), near, flip(near, 11), flip(near, 9), flip(near, 8)}},
	} {
		root := refRoot(in.entries, 0)
		v := vector{Name: in.name, Entries: []vectorEntry{}, Root: hex.EncodeToString(root)}
		for _, e := range in.entries {
			v.Entries = append(v.Entries, vectorEntry{hex.EncodeToString(e.Key[:]), hex.EncodeToString(e.ValueHash[:])})
		}
		for _, k := range in.ask {
			proof := refProof(in.entries, k)
			v.Proofs = append(v.Proofs, vectorProof{hex.EncodeToString(k[:]), Kind(proof[0]).String(), hex.EncodeToString(proof)})
		}
		all = append(all, v)
	}
	return all
}

// documented returns the n-th json block of the documentation, which must be what made is.
func documented(t *testing.T, n int, made any) []byte {
	t.Helper()
	doc, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatchIndex(doc, -1)
	if len(blocks) <= n {
		t.Fatalf("%s has %d json blocks", vectorsFile, len(blocks))
	}
	at := blocks[n]
	want, err := json.MarshalIndent(made, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		doc = bytes.Join([][]byte{doc[:at[2]], want, doc[at[3]:]}, nil)
		if err := os.WriteFile(vectorsFile, doc, 0o644); err != nil {
			t.Fatal(err)
		}
		return want
	}
	if got := doc[at[2]:at[3]]; !bytes.Equal(got, want) {
		t.Fatalf("the vectors in %s are not those of the reference; if the format was meant to change: go test -run Documented -update", vectorsFile)
	}
	return want
}

// The vectors in the documentation are what the reference makes, and the package agrees with them.
func TestDocumentedVectors(t *testing.T) {
	got := documented(t, 0, makeVectors())
	var vectors []vector
	if err := json.Unmarshal(got, &vectors); err != nil {
		t.Fatal(err)
	}
	kinds := map[Kind]int{}
	for _, v := range vectors {
		m := model{}
		for _, e := range v.Entries {
			m.add(Entry{key32(t, e.Key), key32(t, e.ValueHash)})
		}
		s, root := stored(t, m.entries())
		if root != key32(t, v.Root) {
			t.Errorf("%s: root %x", v.Name, root)
		}
		for _, p := range v.Proofs {
			key, raw := key32(t, p.Key), unhex(t, p.Proof)
			made := prove(t, s, key)
			kinds[made.Kind()]++
			if !bytes.Equal(made.Marshal(), raw) || made.Kind().String() != p.Kind {
				t.Errorf("%s: proof of %s is %x", v.Name, p.Key, made.Marshal())
			}
			if !holds(root, key, m[key], raw) {
				t.Errorf("%s: proof of %s does not hold", v.Name, p.Key)
			}
		}
	}
	if len(kinds) != 3 {
		t.Errorf("kinds of proof: %v", kinds)
	}
}
