package ca

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/ctutil"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/sct"
)

// panel is organisations' fronts of a CA's log: the first is its own organisation's, the others are real ones too, served over HTTP on the same
// ledger under keys of their own. Each can be made to misbehave.
type panel struct {
	keys    []*sct.Key
	http    []*httptest.Server // of all but the first
	conduct []atomic.Pointer[conduct]
	server  atomic.Pointer[Server]

	mu    sync.Mutex
	front []*front
}

// conduct answers in the place of a front, which it may ask.
type conduct func(w http.ResponseWriter, r *http.Request, honest http.Handler)

// newPanel has n fronts, whose keys are beside dir.
func newPanel(dir string, n int) (*panel, error) {
	p := &panel{front: make([]*front, n), conduct: make([]atomic.Pointer[conduct], n)}
	for i := range n {
		key, err := sct.LoadOrCreate(fmt.Sprintf("%s-front%d.pem", dir, i))
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, key)
		if i > 0 {
			p.http = append(p.http, httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(i, w, r) })))
		}
	}
	return p, nil
}

func (p *panel) close() {
	for _, s := range p.http {
		s.CloseClientConnections() // some are stuck on purpose
		s.Close()
	}
}

func (p *panel) serve(i int, w http.ResponseWriter, r *http.Request) {
	honest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := p.server.Load()
		if s == nil {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		p.mu.Lock()
		if p.front[i] == nil {
			p.front[i] = &front{server: s, cfg: Submissions{Key: p.keys[i], Prefix: p.http[i-1].URL}, recent: s.front.recent}
		}
		f := p.front[i]
		p.mu.Unlock()
		f.ServeHTTP(w, r)
	})
	if c := p.conduct[i].Load(); c != nil {
		(*c)(w, r, honest)
		return
	}
	honest(w, r)
}

// behave changes what a front does; nil: it is honest.
func (p *panel) behave(i int, c conduct) {
	if c == nil {
		p.conduct[i].Store(nil)
		return
	}
	p.conduct[i].Store(&c)
}

// configure makes the CA know the fronts.
func (p *panel) configure(c *Config) {
	id := wire.CAID{}
	if cert, _, err := LoadCertificate(c.Dir); err == nil {
		id = wire.CAIDOf(cert.RawSubjectPublicKeyInfo)
	}
	c.CT = &Submissions{Key: p.keys[0], Prefix: "https://ca.example"}
	for i, s := range p.http {
		c.Fronts = append(c.Fronts, Front{CAID: id, URL: s.URL, Key: p.keys[i+1].SPKI()})
	}
}

// ctDir is newDir with a profile server whose certificates have scts SCTs.
func ctDir(t testing.TB, scts int) (string, crypto.Signer) {
	t.Helper()
	dir, key := newDir(t)
	text := string(defaultProfiles(&InitOptions{OCSPURL: testOCSP}, DefaultValidity))
	text = strings.Replace(text, quarterly, fmt.Sprintf(`%s "anchoring": "ct", "scts": %d,`, quarterly, scts), 1)
	if err := os.WriteFile(filepath.Join(dir, profilesFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, key
}

// ctWorld is a registered CA with a panel of n fronts, whose certificates have k SCTs.
func ctWorld(t testing.TB, n, k int, change func(*Config)) (*world, *panel) {
	t.Helper()
	dir, _ := ctDir(t, k)
	w, p := ctStart(t, dir, n, change)
	register(t, w.node, dir)
	return w, p
}

func ctStart(t testing.TB, dir string, n int, change func(*Config)) (*world, *panel) {
	t.Helper()
	p, err := newPanel(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	w := startWorld(t, dir, func(c *Config) {
		p.configure(c)
		if change != nil {
			change(c)
		}
	})
	p.server.Store(w.server)
	return w, p
}

// checkSCTs has certificate-transparency-go verify every embedded SCT with the panel's keys. It returns the indices of the fronts that they are of.
func (p *panel) checkSCTs(t testing.TB, w *world, der []byte, k int) []int {
	t.Helper()
	cert, err := ctx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ctx509.ParseCertificate(w.server.issuer.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	scts, err := x509util.ParseSCTsFromCertificate(der)
	if err != nil || len(scts) != k {
		t.Fatalf("%d SCTs, want %d: %v", len(scts), k, err)
	}
	var of []int
	for _, s := range scts {
		found := false
		for i, key := range p.keys {
			if s.LogID.KeyID != key.ID() {
				continue
			}
			found = true
			of = append(of, i)
			if err := ctutil.VerifySCT(key.Public(), []*ctx509.Certificate{cert, issuer}, s, true); err != nil {
				t.Errorf("SCT of front %d: %v", i, err)
			}
		}
		if !found {
			t.Errorf("an SCT of a log that nobody knows: %x", s.LogID.KeyID)
		}
	}
	for i := range of {
		for j := range i {
			if of[i] == of[j] {
				t.Errorf("two SCTs of front %d", of[i])
			}
		}
	}
	return of
}

// checkPair says that the ledger has the certificate as the pair of its precertificate, and where.
func checkPair(t testing.TB, w *world, der []byte) *wire.CertRecord {
	t.Helper()
	serial, err := wire.SerialOf(parsePEM(t, pemOf("CERTIFICATE", der)).SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	values, err := readAll(w.node.Connect(wire.RoleOperator), wire.CertKey(w.server.CAID(), serial))
	if err != nil || values[0] == nil {
		t.Fatalf("no record: %v", err)
	}
	var rec wire.CertRecord
	if err := wire.Decode(values[0], &rec); err != nil {
		t.Fatal(err)
	}
	if rec.Pre == nil || rec.Final == nil {
		t.Fatalf("record %+v: must have both", rec)
	}
	tbs, err := ctleaf.FinalTBS(der)
	if err != nil {
		t.Fatal(err)
	}
	pre, err := ctleaf.PrecertHash(rec.Pre.Index, rec.Pre.Time, w.server.CAID(), tbs)
	if err != nil || !bytes.Equal(pre[:], rec.Pre.LeafHash) {
		t.Errorf("the precertificate on the ledger is another one: %v", err)
	}
	final, err := ctleaf.Hash(rec.Final.Index, rec.Final.Time, der)
	if err != nil || !bytes.Equal(final[:], rec.Final.LeafHash) {
		t.Errorf("the certificate on the ledger is another one: %v", err)
	}
	return &rec
}

// tamper is a front that changes its SCTs.
func tamper(change func(*ct.AddChainResponse)) conduct {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		var a ct.AddChainResponse
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		change(&a)
		_ = json.NewEncoder(w).Encode(a)
	}
}

// stuck never answers. It reads the request: a server that has not does not notice that its client is gone.
func stuck(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func broken(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	http.Error(w, "out of order", http.StatusInternalServerError)
}
