package weakkey

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
)

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func product(p, q *big.Int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}
}

// nextPrime searches upwards from p.
func nextPrime(p *big.Int) *big.Int {
	for q := new(big.Int).Add(p, big.NewInt(2)); ; q.Add(q, big.NewInt(2)) {
		if q.ProbablyPrime(1) {
			return q
		}
	}
}

// infineon makes a prime as the library did: k*M + (65537^a mod M), with M the product of the first 126 primes, up to 701.
func infineon(t testing.TB, bits int) *big.Int {
	t.Helper()
	m := big.NewInt(1)
	for _, p := range primesBelow(702) {
		m.Mul(m, new(big.Int).SetUint64(p))
	}
	for {
		a, err := rand.Int(rand.Reader, m)
		if err != nil {
			t.Fatal(err)
		}
		least := new(big.Int).Lsh(big.NewInt(3), uint(bits-2))
		k, err := rand.Int(rand.Reader, new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), uint(bits-2)), m))
		if err != nil {
			t.Fatal(err)
		}
		k.Add(k, new(big.Int).Div(least, m)).Add(k, big.NewInt(1))
		p := k.Mul(k, m)
		p.Add(p, new(big.Int).Exp(big.NewInt(65537), a, m))
		if p.BitLen() == bits && p.ProbablyPrime(0) {
			return p
		}
	}
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &k.PublicKey
}

// raw is a key that no parser would have let through.
func raw(c elliptic.Curve, x, y *big.Int) *ecdsa.PublicKey {
	//lint:ignore SA1019 that is the point
	return &ecdsa.PublicKey{Curve: c, X: x, Y: y}
}

func TestGoodKeysAreTaken(t *testing.T) {
	for range 2 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(&key.PublicKey); err != nil {
			t.Errorf("RSA: %v", err)
		}
	}
	for range 10 {
		for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
			if err := Check(ecKey(t, c)); err != nil {
				t.Errorf("%s: %v", c.Params().Name, err)
			}
		}
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	p, q := prime(t, 1024), prime(t, 1024)
	with := func(e int) *rsa.PublicKey { k := product(p, q); k.E = e; return k }
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := ecKey(t, elliptic.P256())
	point, err := good.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	x, y := new(big.Int).SetBytes(point[1:33]), new(big.Int).SetBytes(point[33:])
	params := elliptic.P384().Params()
	near := prime(t, 1024)
	// Beyond the first round: that takes a distance of some roots of the modulus. Whether it is prime does not matter.
	farther := new(big.Int).Add(near, new(big.Int).Lsh(big.NewInt(10), 513))
	for smallFactor(farther) {
		farther.Add(farther, big.NewInt(2))
	}
	for name, tc := range map[string]struct {
		key  any
		rule string
	}{
		"1024 bits":            {product(prime(t, 512), prime(t, 512)), "2048"},
		"2047 bits":            {&rsa.PublicKey{N: new(big.Int).Rsh(product(p, q).N, 1), E: 65537}, "2048"},
		"8200 bits":            {&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8199, 1), E: 65537}, "8192"},
		"no modulus":           {&rsa.PublicKey{E: 65537}, "positive"},
		"exponent 1":           {with(1), "65537"},
		"exponent 3":           {with(3), "65537"},
		"exponent 65535":       {with(65535), "65537"},
		"even exponent":        {with(65538), "odd"},
		"even modulus":         {&rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(prime(t, 1024), 1024), 2047, 1), E: 65537}, "small prime"},
		"factor 751":           {product(new(big.Int).Rsh(product(p, q).N, 10), big.NewInt(751)), "small prime"},
		"square of a prime":    {product(near, near), "close together"},
		"neighbouring primes":  {product(near, nextPrime(near)), "close together"},
		"numbers near by":      {product(near, farther), "close together"},
		"ROCA":                 {product(infineon(t, 1024), infineon(t, 1024)), "CVE-2017-15361"},
		"P-224":                {ecKey(t, elliptic.P224()), "P-256"},
		"P-521":                {ecKey(t, elliptic.P521()), "P-256"},
		"no curve":             {&ecdsa.PublicKey{}, "P-256"},
		"point off the curve":  {raw(elliptic.P256(), x, y.Add(y, one)), "on its curve"},
		"point at infinity":    {raw(elliptic.P256(), new(big.Int), new(big.Int)), "on its curve"},
		"base point":           {raw(elliptic.P384(), params.Gx, params.Gy), "private key is 1"},
		"base point, negative": {raw(elliptic.P384(), params.Gx, new(big.Int).Sub(params.P, params.Gy)), "private key is 1"},
		"Ed25519":              {ed, "P-256"},
		"nothing":              {nil, "P-256"},
	} {
		err := Check(tc.key)
		if e, ok := errors.AsType[*Error](err); !ok || e.Key == "" || !strings.Contains(e.Rule, tc.rule) {
			t.Errorf("%s: %v; want %q", name, err, tc.rule)
		}
	}
}

// TestFermatFindsWhatItsRoundsReach: a slow reference that takes roots in each round.
func TestFermatFindsWhatItsRoundsReach(t *testing.T) {
	slow := func(n *big.Int) bool {
		a := new(big.Int).Sqrt(n)
		if new(big.Int).Mul(a, a).Cmp(n) < 0 {
			a.Add(a, one)
		}
		for range fermatRounds {
			b := new(big.Int).Sub(new(big.Int).Mul(a, a), n)
			if r := new(big.Int).Sqrt(b); new(big.Int).Mul(r, r).Cmp(b) == 0 {
				return true
			}
			a.Add(a, one)
		}
		return false
	}
	found := 0
	for n := int64(100_001); n < 106_001; n += 2 {
		n := big.NewInt(n)
		want := slow(n)
		if got := closePrimes(n); got != want {
			t.Fatalf("%v: %t, want %t", n, got, want)
		}
		if want {
			found++
		}
	}
	if found == 0 || found == 3000 {
		t.Errorf("%d of 3000 found: this compares nothing", found)
	}
}

// TestROCAHasFewFalseAlarms: the fraction of random moduli, which are units modulo every prime, that look like those keys.
func TestROCAHasFewFalseAlarms(t *testing.T) {
	bits := 0.0
	for _, g := range rocaGroups {
		n := 0
		for _, in := range g.in {
			if in {
				n++
			}
		}
		bits += math.Log2(float64(g.prime-1) / float64(n))
	}
	if bits < 25 {
		t.Errorf("one random modulus in 2^%.1f looks like ROCA", bits)
	}
	t.Logf("one in 2^%.1f, by %d primes", bits, len(rocaGroups))
}

func TestKeysOnListsAreRefused(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec := ecKey(t, elliptic.P256())
	point, err := ec.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	spki := func(pub any) []byte {
		b, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sum := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	debian := fmt.Sprintf("%x", sha1.Sum([]byte(fmt.Sprintf("Modulus=%X\n", key.N))))[20:]
	other := strings.Repeat("ab", 32)
	fresh, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		list string
		key  any
	}{
		"modulus":            {sum(key.N.Bytes()), &key.PublicKey},
		"SPKI of RSA":        {sum(spki(&key.PublicKey)), &key.PublicKey},
		"SPKI of EC":         {strings.ToUpper(sum(spki(ec))), ec},
		"X coordinate":       {sum(new(big.Int).SetBytes(point[1:33]).Bytes()), ec},
		"openssl-blacklist":  {debian, &key.PublicKey},
		"with more columns":  {sum(key.N.Bytes()) + ";2048;le32", &key.PublicKey},
		"with a name behind": {debian + " rnd-1", &key.PublicKey},
	} {
		var l List
		text := "# a list\n\n" + other + "\n" + tc.list + "\n" + other + "\r\n00112233445566778899\n"
		if err := l.Read(strings.NewReader(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if l.Len() != 3 {
			t.Errorf("%s: %d keys, want 3", name, l.Len())
		}
		var e *Error
		if err := l.Check(tc.key); !errors.As(err, &e) || !strings.Contains(e.Rule, "ca.weak_keys") {
			t.Errorf("%s: %v", name, err)
		}
		for _, good := range []any{&fresh.PublicKey, ecKey(t, elliptic.P256())} {
			if err := l.Check(good); err != nil {
				t.Errorf("%s: %T: %v", name, good, err)
			}
		}
	}
	var none *List
	if err := none.Check(ec); err != nil || none.Len() != 0 {
		t.Error(err)
	}
}

func TestBadListsAreRefusedWhole(t *testing.T) {
	good := strings.Repeat("ab", 32) + "\n"
	for name, tc := range map[string]struct{ text, want string }{
		"not hexadecimal": {good + "xyz\n", "line 2"},
		"odd length":      {good + "\n# c\n" + strings.Repeat("a", 63), "line 4"},
		"another digest":  {strings.Repeat("ab", 20), "line 1"},
		"endless line":    {good + strings.Repeat("a", 1<<20), "line 2"},
		"binary":          {"\x00\x01", "line 1"},
	} {
		var l List
		if err := l.Read(strings.NewReader(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) || l.Len() != 0 {
			t.Errorf("%s: %v, %d keys", name, err, l.Len())
		}
	}
}

func FuzzReadList(f *testing.F) {
	f.Add("# x\n" + strings.Repeat("ab", 32) + ";1\n00112233445566778899\n")
	f.Add("zz")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, text string) {
		var l List
		if err := l.Read(strings.NewReader(text)); err != nil && l.Len() != 0 {
			t.Fatal("some of a bad list was taken")
		}
	})
}

func FuzzClosePrimes(f *testing.F) {
	f.Add([]byte{15}, []byte{17})
	f.Add([]byte{1}, []byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, x, y []byte) {
		if len(x) > 64 || len(y) > 64 {
			return
		}
		p, q := new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)
		n := new(big.Int).Mul(p, q)
		if n.Sign() == 0 || p.Bit(0) == 0 || q.Bit(0) == 0 {
			return
		}
		// The right a is (p+q)/2: Fermat finds it when that is within its rounds.
		a := new(big.Int).Rsh(new(big.Int).Add(p, q), 1)
		root := new(big.Int).Sqrt(n)
		if a.Sub(a, root).Cmp(big.NewInt(fermatRounds)) <= 0 && !closePrimes(n) {
			t.Fatalf("%v * %v is not found", p, q)
		}
	})
}

func BenchmarkCheckRSA(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Check(&key.PublicKey); err != nil {
			b.Fatal(err)
		}
	}
}
