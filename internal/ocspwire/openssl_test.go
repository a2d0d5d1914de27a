package ocspwire

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// rounds of each comparison with openssl, which is a process each time.
const rounds = 60

// fixed makes the same choices in every run.
func fixed() *rand.Rand { return rand.New(rand.NewPCG(6960, 9654)) }

func someBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

func someID(t testing.TB, p *pki, rnd *rand.Rand) CertID {
	t.Helper()
	id, err := NewCertID(pick(rnd, Hashes()...), p.ca, new(big.Int).SetBytes(someBytes(rnd, 1+rnd.IntN(20))))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func someExtensions(rnd *rand.Rand, most int) []pkix.Extension {
	var exts []pkix.Extension
	for i := range rnd.IntN(most + 1) {
		exts = append(exts, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, i}, Critical: rnd.IntN(2) == 0, Value: someBytes(rnd, rnd.IntN(200))})
	}
	return exts
}

func someRequest(t testing.TB, p *pki, rnd *rand.Rand) *Request {
	r := &Request{Extensions: someExtensions(rnd, 3)}
	for range 1 + rnd.IntN(5) {
		r.Items = append(r.Items, RequestItem{ID: someID(t, p, rnd), Extensions: someExtensions(rnd, 2)})
	}
	if rnd.IntN(2) == 0 {
		names := generalNames(t, p)
		var keys []string
		for k := range names {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		r.RequestorName = names[pick(rnd, keys...)]
	}
	if rnd.IntN(2) == 0 {
		r.Nonce = someBytes(rnd, 1+rnd.IntN(MaxNonce))
	}
	return r
}

// judged has openssl read a message, print it and write it again.
func judged(t testing.TB, dir, kind string, der []byte) (text string, again []byte) {
	t.Helper()
	in, out := filepath.Join(dir, kind+"in"), filepath.Join(dir, kind+"out")
	if err := os.WriteFile(in, der, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"ocsp", "-" + kind + "in", in, "-" + kind + "_text", "-" + kind + "out", out, "-no_nonce"}
	if kind == "resp" {
		args = append(args, "-noverify")
	}
	text = openssl(t, dir, args...)
	again, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return broken.ReplaceAllString(text, ""), again
}

// broken is where openssl breaks long values.
var broken = regexp.MustCompile(`\\\n\s*`)

// values are what stands behind a label, line by line.
func values(text, label string) (out []string) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), label+": "); ok {
			out = append(out, v)
		}
	}
	return out
}

func hashName(id CertID) string {
	return strings.ToLower(strings.ReplaceAll(id.Hash.String(), "-", ""))
}

func TestOpenSSLReadsEveryRequestAndEncodesItAlike(t *testing.T) {
	p, rnd := newPKI(t, nil, nil), fixed()
	dir := t.TempDir()
	for round := range rounds {
		req := someRequest(t, p, rnd)
		der := marshal(t, req)
		if round%4 == 0 {
			var err error
			if der, err = req.Sign(p.key, p.delegate); err != nil {
				t.Fatal(err)
			}
		}
		text, again := judged(t, dir, "req", der)
		if !bytes.Equal(again, der) {
			t.Fatalf("written as %x, by openssl as %x", der, again)
		}
		if back, err := ParseRequest(der, manyItems); err != nil || !bytes.Equal(marshalAgain(t, back), der) {
			t.Fatalf("%x: read and written again: %v", der, err)
		}
		var names, keys, serials, hashes []string
		for _, it := range req.Items {
			names, keys = append(names, fmt.Sprintf("%X", it.ID.NameHash)), append(keys, fmt.Sprintf("%X", it.ID.KeyHash))
			serials, hashes = append(serials, fmt.Sprintf("%X", it.ID.Serial.Bytes())), append(hashes, hashName(it.ID))
		}
		for label, want := range map[string][]string{"Issuer Name Hash": names, "Issuer Key Hash": keys, "Serial Number": serials, "Hash Algorithm": hashes} {
			got := values(text, label)
			if label == "Serial Number" {
				got = got[:min(len(got), len(want))] // the signer's certificate is printed, too
				for i := range got {
					if want[i] == "" {
						want[i] = "00"
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s is %q, openssl reads %q in %x", label, want, got, der)
			}
		}
	}
}

// marshalAgain encodes what was read.
func marshalAgain(t testing.TB, r *Request) []byte {
	t.Helper()
	r.Nonce = nil // it is among the extensions, in its place
	return marshal(t, r)
}

func someSingle(t testing.TB, p *pki, rnd *rand.Rand) SingleResponse {
	s := SingleResponse{ID: someID(t, p, rnd), Status: pick(rnd, Good, Revoked, Unknown), ThisUpdate: p.now.Add(-time.Duration(rnd.IntN(1000)) * time.Second)}
	if s.Status == Revoked {
		s.RevokedAt, s.Reason = p.now.Add(-time.Duration(rnd.Int64N(1e9))*time.Second), pick(rnd, NoReason, 1, 2, 3, 4, 5, 6, 8, 9, 10)
	}
	if rnd.IntN(2) == 0 {
		s.NextUpdate = p.now.Add(time.Duration(rnd.IntN(1000)) * time.Second)
	}
	if rnd.IntN(2) == 0 {
		s.Extensions = append(someExtensions(rnd, 1), ArchiveCutoff(p.now.AddDate(-1, 0, 0)))
	}
	return s
}

func TestOpenSSLReadsEveryResponse(t *testing.T) {
	const layout = "Jan _2 15:04:05 2006 MST"
	all, rnd, dir := keys(t), fixed(), t.TempDir()
	for range rounds / len(all) {
		for name, key := range all {
			p := newPKI(t, key, nil)
			r := p.response(t)
			r.Responses, r.Extensions = nil, someExtensions(rnd, 2)
			for range 1 + rnd.IntN(4) {
				r.Responses = append(r.Responses, someSingle(t, p, rnd))
			}
			if rnd.IntN(2) == 0 {
				r.Responder = ResponderID{Name: p.delegate.RawSubject}
			}
			if rnd.IntN(2) == 0 {
				r.Nonce = someBytes(rnd, 1+rnd.IntN(MaxNonce))
			}
			algs, err := Algorithms(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			der, err := r.SignWith(key, pick(rnd, algs...))
			if err != nil {
				t.Fatal(err)
			}
			text, again := judged(t, dir, "resp", der)
			if !bytes.Equal(again, der) {
				t.Fatalf("%s: written as %x, by openssl as %x", name, der, again)
			}
			if again := parse(t, der); !bytes.Equal(again.TBS, tbsAgain(t, again)) {
				t.Fatalf("%s: %x is written again as %x", name, again.TBS, tbsAgain(t, again))
			}
			want := map[string][]string{}
			add := func(label, value string) { want[label] = append(want[label], value) }
			add("Produced At", r.ProducedAt.UTC().Format(layout))
			for _, s := range r.Responses {
				add("Cert Status", s.Status.String())
				add("This Update", s.ThisUpdate.UTC().Format(layout))
				if !s.NextUpdate.IsZero() {
					add("Next Update", s.NextUpdate.UTC().Format(layout))
				}
				if s.Status == Revoked {
					add("Revocation Time", s.RevokedAt.UTC().Format(layout))
				}
			}
			for _, label := range []string{"Produced At", "Cert Status", "This Update", "Next Update", "Revocation Time"} {
				if got := values(text, label); !slices.Equal(got, gmt(want[label])) {
					t.Fatalf("%s: %s is %q, openssl reads %q in %x", name, label, want[label], got, der)
				}
			}
		}
	}
}

// gmt is openssl's name of UTC.
func gmt(times []string) (out []string) {
	for _, s := range times {
		out = append(out, strings.Replace(s, "UTC", "GMT", 1))
	}
	return out
}

func tbsAgain(t testing.TB, r *Response) []byte {
	t.Helper()
	again := *r
	again.Nonce = nil
	der, err := again.marshalTBS()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestWhatIsAcceptedOpenSSLEncodesAlike changes good requests here and there: whatever is still accepted must be canonical DER,
// which is what openssl writes when it has read it.
func TestWhatIsAcceptedOpenSSLEncodesAlike(t *testing.T) {
	p, rnd, dir := newPKI(t, nil, nil), fixed(), t.TempDir()
	accepted := 0
	for range 300_000 {
		der := mutated(rnd, marshal(t, someRequest(t, p, rnd)))
		req, err := ParseRequest(der, manyItems)
		if err != nil {
			continue
		}
		if opaque(req) {
			continue
		}
		if _, again := judged(t, dir, "req", der); !bytes.Equal(again, der) {
			t.Fatalf("accepted %x, which openssl writes as %x", der, again)
		}
		if accepted++; accepted == rounds {
			return
		}
	}
	t.Fatalf("only %d of the changed requests are accepted: the test shows little", accepted)
}

// opaque tells whether something is carried as it is that openssl takes apart, and may write otherwise.
func opaque(r *Request) bool {
	return r.RequestorName != nil && r.RequestorName.Choice == X400Address ||
		slices.ContainsFunc(r.Items, func(it RequestItem) bool { return it.ID.Hash == 0 })
}

func mutated(rnd *rand.Rand, der []byte) []byte {
	for range 1 + rnd.IntN(2) {
		switch i := rnd.IntN(len(der)); rnd.IntN(4) {
		case 0:
			der[i] ^= 1 << rnd.IntN(8)
		case 1:
			der[i] = pick[byte](rnd, 0, 1, 0x7f, 0x80, 0x81, 0xff, 0x30, 0xa0, 0x05)
		case 2:
			der = slices.Insert(der, i, byte(rnd.Uint32()))
		case 3:
			if len(der) > 1 {
				der = slices.Delete(der, i, i+1)
			}
		}
	}
	return der
}
