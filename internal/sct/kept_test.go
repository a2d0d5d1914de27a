package sct

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// random is a key whose signatures are randomised.
type random struct{ *ecdsa.PrivateKey }

func (r random) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.PrivateKey.Sign(rand.Reader, digest, opts)
}

func newRandom(t testing.TB) random {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return random{private}
}

func openRandom(t testing.TB, private crypto.Signer, path string) *Key {
	t.Helper()
	k, err := NewRandomised(private, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.kept.Close() })
	return k
}

func leafAt(t testing.TB, index uint64) []byte {
	t.Helper()
	leaf, err := ctleaf.X509(index, 1700000000000, []byte{0x30, byte(index)})
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func signLeaf(t testing.TB, k *Key, leaf []byte) []byte {
	t.Helper()
	s, err := k.SignSCT(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if !verify(k.Public(), leaf, s.Signature) {
		t.Fatal("the SCT does not verify")
	}
	return s.Marshal()
}

func TestFirstSCTOfARandomisedKeyStays(t *testing.T) {
	private, path := newRandom(t), filepath.Join(t.TempDir(), "ct", "log.scts")
	k := openRandom(t, private, path)
	firsts := map[uint64][]byte{}
	for _, index := range []uint64{0, 1, 2, 1000, 1 << 20} {
		firsts[index] = signLeaf(t, k, leafAt(t, index))
	}
	other := openRandom(t, private, path) // as the organisation's other process, or after a restart
	for index, first := range firsts {
		if got := signLeaf(t, k, leafAt(t, index)); !bytes.Equal(got, first) {
			t.Errorf("entry %d has two SCTs", index)
		}
		if got := signLeaf(t, other, leafAt(t, index)); !bytes.Equal(got, first) {
			t.Errorf("entry %d has another SCT in another process", index)
		}
	}
	if a, b := mustSignRaw(t, k), mustSignRaw(t, k); bytes.Equal(a, b) {
		t.Error("this key's signatures are not randomised: the test shows nothing")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func mustSignRaw(t *testing.T, k *Key) []byte {
	t.Helper()
	b, err := k.sign([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConcurrentSubmissionsOfOneCertificateGetOneSCT(t *testing.T) {
	private, path := newRandom(t), filepath.Join(t.TempDir(), "log.scts")
	keys := []*Key{openRandom(t, private, path), openRandom(t, private, path)}
	const entries, each = 8, 8
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[uint64]map[string]bool{}
	)
	for i := range entries * each {
		wg.Go(func() {
			index := uint64(i % entries)
			s, err := keys[i/entries%2].SignSCT(leafAt(t, index))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[index] == nil {
				seen[index] = map[string]bool{}
			}
			seen[index][string(s.Signature)] = true
		})
	}
	wg.Wait()
	for index := range uint64(entries) {
		if len(seen[index]) != 1 {
			t.Errorf("entry %d has %d SCTs", index, len(seen[index]))
		}
	}
}

func TestDamagedOrForeignKeptFileIsRefused(t *testing.T) {
	private, path := newRandom(t), filepath.Join(t.TempDir(), "log.scts")
	k := openRandom(t, private, path)
	signLeaf(t, k, leafAt(t, 3))
	if _, err := NewRandomised(newRandom(t), path); err == nil || !strings.Contains(err.Error(), "is of log ID") {
		t.Errorf("another log's file: %v", err)
	}
	// Another entry at a place that was signed for: two SCTs for one place would be two histories.
	other, err := ctleaf.X509(3, 1700000000000, []byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignSCT(other); err == nil || !strings.Contains(err.Error(), "entry 3: what is kept is not this log's signature of it") {
		t.Errorf("another entry: %v", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1, 2, 3}, 4*slotBytes); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignSCT(leafAt(t, 3)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged slot: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRandomised(private, path); err == nil || !strings.Contains(err.Error(), "is not a file of kept SCTs") {
		t.Errorf("damaged head: %v", err)
	}
	p384, err := keyfile.Generate(keyfile.P384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRandomised(p384, path); err == nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("P-384: %v", err)
	}
}

// The real thing: SCTs of a log key in a token, the same after a process was killed at once after it had given them out.
func TestSCTsOfATokenSurviveKill(t *testing.T) {
	token := hsmtest.New(t)
	path := filepath.Join(t.TempDir(), "log.scts")
	uri := token.URI("log")
	signer, _, err := hsm.OpenOrCreate("key", uri, keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildSigns$")
	cmd.Env = append(os.Environ(), "SCT_CHILD_URI="+uri, "SCT_CHILD_FILE="+path)
	out, err := cmd.Output()
	if err == nil || len(out) == 0 {
		t.Fatalf("the child was not killed: %v, %q", err, out)
	}
	k := openRandom(t, signer, path)
	if got := signLeaf(t, k, leafAt(t, 5)); !bytes.Equal(got, out) {
		t.Fatalf("after the restart entry 5 has another SCT:\n%x, was\n%x", got, out)
	}
}

// TestChildSigns is the process that TestSCTsOfATokenSurviveKill starts; by itself it has nothing to do.
func TestChildSigns(t *testing.T) {
	uri, path := os.Getenv("SCT_CHILD_URI"), os.Getenv("SCT_CHILD_FILE")
	if uri == "" {
		return
	}
	signer, err := hsm.Open("key", uri)
	if err != nil {
		t.Fatal(err)
	}
	k := openRandom(t, signer, path)
	if _, err := os.Stdout.Write(signLeaf(t, k, leafAt(t, 5))); err != nil {
		t.Fatal(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	select {}
}
