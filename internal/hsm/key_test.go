//go:build cgo

package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

func create(t *testing.T, token *hsmtest.Token, object string, a keyfile.Algorithm) *hsm.Key {
	t.Helper()
	k, created, err := hsm.OpenOrCreate("key", token.URI(object), a)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	return k
}

func verify(public crypto.PublicKey, digest, sig []byte, opts crypto.SignerOpts) error {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(p, digest, sig) {
			return errors.New("signature does not verify")
		}
		return nil
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(p, pss.Hash, digest, sig, pss)
		}
		return rsa.VerifyPKCS1v15(p, opts.HashFunc(), digest, sig)
	}
	return errors.New("unknown kind of key")
}

func mustSign(t *testing.T, k crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte(t.Name()))
	sig, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err == nil {
		err = verify(k.Public(), digest[:], sig, crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeysMadeInATokenSignAndAreFoundAgain(t *testing.T) {
	token := hsmtest.New(t)
	d256, d384 := sha256.Sum256([]byte("x")), sha512.Sum384([]byte("x"))
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	for _, a := range []keyfile.Algorithm{keyfile.P256, keyfile.P384, keyfile.RSA2048, keyfile.RSA3072} {
		t.Run(string(a), func(t *testing.T) {
			made := create(t, token, string(a), a)
			k, created, err := hsm.OpenOrCreate("key", token.URI(string(a)), a)
			if err != nil || created {
				t.Fatalf("created %v, %v", created, err)
			}
			if !k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
				t.Fatal("another key was found")
			}
			hashes := map[crypto.SignerOpts][]byte{crypto.SHA256: d256[:], crypto.SHA384: d384[:]}
			if strings.HasPrefix(string(a), "rsa") {
				hashes[pss] = d256[:]
			}
			for opts, digest := range hashes {
				sig, err := k.Sign(rand.Reader, digest, opts)
				if err == nil {
					err = verify(k.Public(), digest, sig, opts)
				}
				if err != nil {
					t.Errorf("%v: %v", opts, err)
				}
			}
		})
	}
}

func TestWhatIsWrongIsSaidWithoutThePIN(t *testing.T) {
	token := hsmtest.New(t)
	create(t, token, "ca", keyfile.P256)
	p521 := must521(t)
	token.Import(hsmtest.Label, hsmtest.PIN, "p521", "0521", p521)
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // refused below
	if err != nil {
		t.Fatal(err)
	}
	token.Import(hsmtest.Label, hsmtest.PIN, "weak", "1024", weak)
	for _, id := range []string{"01", "02"} {
		twin, err := keyfile.Generate(keyfile.P256)
		if err != nil {
			t.Fatal(err)
		}
		token.Import(hsmtest.Label, hsmtest.PIN, "twin", id, twin)
	}
	hsm.CloseAll()
	notLibrary := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(notLibrary, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := token.URI("ca")
	t.Setenv("WRONG_PIN", "99999999")
	t.Setenv("GOOD_PIN", hsmtest.PIN)
	fromEnv := func(name string) string { return strings.Replace(good, "file:"+token.PINFile, "env:"+name, 1) }
	for _, c := range []struct {
		what, uri string
		kind      error
		want      string
	}{
		// First: a login that is in place would make the module take any PIN.
		{"wrong PIN", fromEnv("WRONG_PIN"), hsm.ErrPIN, "pin-source must hold the user PIN"},
		{"wrong PIN again", fromEnv("WRONG_PIN"), hsm.ErrPIN, ""},
		{"PIN not set", fromEnv("NO_SUCH_PIN"), hsm.ErrPIN, "NO_SUCH_PIN is not set"},
		{"absent token", strings.Replace(good, "token=certanchor", "token=other", 1), hsm.ErrUnavailable, "no slot"},
		{"absent slot", strings.Replace(good, "token=certanchor%20test", "slot-id=12345", 1), hsm.ErrUnavailable, "no slot"},
		{"module missing", strings.Replace(good, token.Module, "/no/such.so", 1), hsm.ErrModule, "/no/such.so"},
		{"module is no library", strings.Replace(good, token.Module, notLibrary, 1), hsm.ErrModule, "must be a PKCS #11 library"},
		{"absent object", token.URI("none"), hsm.ErrNotFound, "object=none"},
		{"two objects", token.URI("twin"), hsm.ErrKey, "it names 2"},
		{"weak key", token.URI("weak"), hsm.ErrKey, "1024 bits"},
		{"another curve", token.URI("p521"), hsm.ErrKey, "P-521"},
	} {
		t.Run(c.what, func(t *testing.T) {
			hsm.CloseAll()
			_, err := hsm.Open("ca.key", c.uri)
			var e *hsm.Error
			if !errors.As(err, &e) || e.Field != "ca.key" || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %v with %q", err, c.kind, c.want)
			}
			for _, pin := range []string{hsmtest.PIN, "99999999"} {
				if strings.Contains(err.Error(), pin) {
					t.Errorf("the PIN is in %v", err)
				}
			}
		})
	}
	hsm.CloseAll()
	if _, err := hsm.Open("ca.key", good); err != nil {
		t.Fatal(err)
	}
	if _, err := hsm.Open("ca.key", fromEnv("GOOD_PIN")); err == nil || !strings.Contains(err.Error(), "pin-source") {
		t.Errorf("two sources of one token's PIN: %v", err)
	}
}

// control is a second view of the module that the process has initialised.
func control(t *testing.T, token *hsmtest.Token) (*pkcs11.Ctx, uint) {
	t.Helper()
	ctx := pkcs11.New(token.Module)
	if ctx == nil {
		t.Fatal("module cannot be loaded")
	}
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slots {
		if info, err := ctx.GetTokenInfo(s); err == nil && info.Label == hsmtest.Label {
			return ctx, s
		}
	}
	t.Fatal("no such token")
	return nil, 0
}

func TestLostSessionsAreOpenedAgain(t *testing.T) {
	token := hsmtest.New(t)
	k := create(t, token, "ca", keyfile.P256)
	mustSign(t, k)
	ctx, slot := control(t, token)
	for range 3 {
		if err := ctx.CloseAllSessions(slot); err != nil {
			t.Fatal(err)
		}
		mustSign(t, k)
	}
}

// shaky loses the session once in a while. (SoftHSM itself crashes when somebody closes a session that signs.)
type shaky struct {
	crypto.Signer
	calls *atomic.Int64
}

func (s shaky) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.calls.Add(1)%37 == 0 {
		return nil, pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)
	}
	return s.Signer.Sign(r, digest, opts)
}

func TestConcurrentSignaturesSurviveLostSessions(t *testing.T) {
	token := hsmtest.New(t)
	keys := []*hsm.Key{create(t, token, "ca", keyfile.P256), create(t, token, "responder", keyfile.P384)}
	var calls atomic.Int64
	for _, k := range keys {
		k.Wrap(func(s crypto.Signer) crypto.Signer { return shaky{s, &calls} })
	}
	const workers, each = 32, 20
	var (
		wg   sync.WaitGroup
		good atomic.Int64
	)
	for i := range workers {
		wg.Go(func() {
			for n := range each {
				key := keys[i%2]
				digest := sha256.Sum256([]byte{byte(i), byte(n)})
				sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
				if errors.Is(err, hsm.ErrUnavailable) {
					continue // lost twice during one signature: said, and the next one tries again
				}
				if err == nil {
					err = verify(key.Public(), digest[:], sig, crypto.SHA256)
				}
				if err != nil {
					t.Error(err)
					return
				}
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if n := good.Load(); n < workers*each*3/4 {
		t.Errorf("only %d of %d signatures were made", n, workers*each)
	}
	for _, k := range keys {
		k.Wrap(nil)
		mustSign(t, k)
	}
}

// waitSign signs until it succeeds or the deadline is over; it returns what was said before.
func waitSign(t *testing.T, k crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte(t.Name()))
	var sig []byte
	eventually(t, func() (err error) {
		sig, err = k.Sign(rand.Reader, digest[:], crypto.SHA256)
		return err
	})
	if err := verify(k.Public(), digest[:], sig, crypto.SHA256); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until there is no error, for 30 s at most.
func eventually(t *testing.T, ask func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(err)
		}
	}
}

func signError(t *testing.T, k crypto.Signer) error {
	t.Helper()
	digest := sha256.Sum256([]byte(t.Name()))
	_, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err == nil {
		t.Fatal("signed without a token")
	}
	return err
}

func TestTokenThatWasAwayIsUsedAgainWithoutRestart(t *testing.T) {
	token := hsmtest.New(t)
	key, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	token.Import(hsmtest.Label, hsmtest.PIN, "ca", "01", key)
	token.Init("second", "11112222")
	t.Setenv("SECOND_PIN", "11112222")
	token.Import("second", "11112222", "responder", "02", mustGenerate(t))
	k, err := hsm.Open("ca.key", token.URI("ca"))
	if err != nil {
		t.Fatal(err)
	}
	// Another token of the same module in use: the module cannot simply be initialised anew.
	second, err := hsm.Open("responder.key", "pkcs11:token=second;object=responder?module-path="+token.Module+"&pin-source=env:SECOND_PIN")
	if err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
	ctx, slot := control(t, token)
	token.Delete(hsmtest.Label)
	if err := ctx.CloseAllSessions(slot); err != nil {
		t.Fatal(err)
	}
	if err := signError(t, k); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	waitSign(t, second)
	token.Init(hsmtest.Label, "77778888") // back, with another PIN
	token.Import(hsmtest.Label, "77778888", "ca", "01", key)
	eventually(t, func() error {
		if err := signError(t, k); !errors.Is(err, hsm.ErrPIN) {
			return fmt.Errorf("got %w, want the refused PIN", err)
		}
		return nil
	})
	token.SetPIN("77778888")
	waitSign(t, k)
	waitSign(t, second)
}

func TestAnotherKeyUnderTheSameNameIsRefused(t *testing.T) {
	token := hsmtest.New(t)
	k := create(t, token, "ca", keyfile.P256)
	if err := k.Destroy(); err != nil {
		t.Fatal(err)
	}
	token.Import(hsmtest.Label, hsmtest.PIN, "ca", "01", mustGenerate(t))
	ctx, slot := control(t, token)
	if err := ctx.CloseAllSessions(slot); err != nil {
		t.Fatal(err)
	}
	if err := signError(t, k); !errors.Is(err, hsm.ErrKey) || !strings.Contains(err.Error(), "another key") {
		t.Fatalf("got %v", err)
	}
}

func mustGenerate(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func must521(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestUnpluggedTokenIsUsedAgainWhenItIsBack(t *testing.T) {
	token := hsmtest.New(t)
	k := create(t, token, "ca", keyfile.P256)
	mustSign(t, k)
	token.Unplug()
	if err := signError(t, k); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	token.Plug()
	waitSign(t, k)
}
