package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/ctutil"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/sct"
)

// secondOf is a generation as software that signs with its key elsewhere has it.
func secondOf(t testing.TB, dir string, r *Rotation) *cctest.CA {
	t.Helper()
	key, err := openTestKey(filepath.Join(dir, nextDir))
	if err != nil {
		t.Fatal(err)
	}
	return &cctest.CA{DER: r.Certificate.Raw, Cert: r.Certificate, Key: key, ID: wire.CAIDOf(r.Certificate.RawSubjectPublicKeyInfo)}
}

// TestEveryGenerationHasItsFront: after a rotation certificates have SCTs of the new CA's log, and the one address takes what each key has signed.
func TestEveryGenerationHasItsFront(t *testing.T) {
	dir, _ := ctDir(t, 1)
	keys := t.TempDir()
	keyOf := func(id wire.CAID) (*sct.Key, error) { return sct.LoadOrCreate(filepath.Join(keys, id.String()+".pem")) }
	w, _ := ctStart(t, dir, 1, func(c *Config) { c.OpenKey, c.NextCT = openTestKey, keyOf })
	register(t, w.node, dir)
	old := w.elsewhere()
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)

	got := w.issueAs("")
	cert, err := ctx509.ParseCertificate(parsePEM(t, got.Certificate).Raw)
	if err != nil || got.CAID != keyName(r.Certificate) {
		t.Fatalf("%s, %v", got.CAID, err)
	}
	issuer, err := ctx509.ParseCertificate(r.Certificate.Raw)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyOf(wire.CAIDOf(r.Certificate.RawSubjectPublicKeyInfo))
	if err != nil {
		t.Fatal(err)
	}
	scts, err := x509util.ParseSCTsFromCertificate(cert.Raw)
	if err != nil || len(scts) != 1 {
		t.Fatalf("%d SCTs, %v", len(scts), err)
	}
	if err := ctutil.VerifySCT(key.Public(), []*ctx509.Certificate{cert, issuer}, scts[0], true); err != nil {
		t.Error(err)
	}

	for name, c := range map[string]struct {
		by  *cctest.CA
		key *sct.Key
	}{"old": {old, w.server.front.cfg.Key}, "new": {secondOf(t, w.dir, r), key}} {
		for _, whole := range []bool{true, false} {
			for _, pre := range []bool{false, true} {
				path, der := "/ct/v1/add-chain", []byte(nil)
				if der, _ = c.by.Issue(t, shortLived); pre {
					path = "/ct/v1/add-pre-chain"
					der, _, _ = c.by.Precert(t, shortLived)
				}
				chain := []ct.ASN1Cert{{Data: der}, {Data: c.by.DER}}
				if !whole {
					chain = chain[:1]
				}
				list := make([][]byte, len(chain))
				for i := range chain {
					list[i] = chain[i].Data
				}
				code, _, b := w.call("POST", path, body(t, map[string]any{"chain": list}), nil)
				var a ct.AddChainResponse
				if err := json.Unmarshal(b, &a); code != http.StatusOK || err != nil || [32]byte(a.ID) != c.key.ID() {
					t.Errorf("%s key, %s, chain of %d: %d %s", name, path, len(chain), code, b)
				}
			}
		}
	}
	code, _, b := w.call("GET", "/ct/v1/get-roots", "", nil)
	var roots struct{ Certificates [][]byte }
	if err := json.Unmarshal(b, &roots); code != http.StatusOK || err != nil || len(roots.Certificates) != 2 ||
		!bytes.Equal(roots.Certificates[0], old.DER) || !bytes.Equal(roots.Certificates[1], r.Certificate.Raw) {
		t.Errorf("%d %s", code, b)
	}
	other := cctest.NewCA(t)
	der, _ := other.Issue(t)
	size := w.logSize()
	for _, text := range []string{"", "{}", `{"chain":["AA=="]}`, body(t, map[string]any{"chain": [][]byte{der, other.DER}})} {
		if code, _, b := w.call("POST", "/ct/v1/add-chain", text, nil); code/100 != 4 {
			t.Errorf("%q: %d %s", text, code, b)
		}
	}
	if code, _, _ := w.call("PUT", "/ct/v1/add-chain", "", nil); code != http.StatusMethodNotAllowed {
		t.Error(code)
	}
	if w.logSize() != size {
		t.Error("something was taken")
	}
}

// TestOldKeyIssuesWhileTheNewOneCannot: a key is not retired as long as profiles need SCTs that there are none of for the next one.
func TestOldKeyIssuesWhileTheNewOneCannot(t *testing.T) {
	dir, _ := ctDir(t, 1)
	w, p := ctStart(t, dir, 1, func(c *Config) { c.OpenKey = openTestKey })
	register(t, w.node, dir)
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Active, keystate.Active)
	ready, err := w.client("operator").Ready(t.Context())
	if err != nil || !ready.Ready || !strings.Contains(ready.Detail, "rotation") || !strings.Contains(ready.Detail, "server") ||
		!strings.Contains(ready.Detail, keyName(r.Certificate)) {
		t.Fatalf("%+v, %v", ready, err)
	}
	if err := w.server.advance(t.Context()); err == nil || !strings.Contains(err.Error(), "ca.ct.key_file") {
		t.Errorf("nobody is told: %v", err)
	}
	got := w.issueAs("")
	if got.CAID != w.server.CAID().String() {
		t.Fatal(got.CAID)
	}
	p.checkSCTs(t, w, parsePEM(t, got.Certificate).Raw, 1)
	if !slices.Equal(w.states(), []keystate.State{keystate.Active, keystate.Active}) {
		t.Error(w.states())
	}
}

// TestOneCertificateForAnIdempotencyKeyOfAllGenerations: another CA asked with it is another request, whichever was asked first.
func TestOneCertificateForAnIdempotencyKeyOfAllGenerations(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	csr := newCSR(t, nil, func(r *x509.CertificateRequest) { r.DNSNames = nil })
	ask := func(key, id string) (int, string) {
		code, _, b := w.call("POST", "/v1/responders", body(t, map[string]string{"csr": csr, "ca_id": id}),
			map[string]string{"Idempotency-Key": key, "Authorization": "Bearer " + w.token("responder")})
		var got struct {
			Serial string `json:"serial"`
			CAID   string `json:"ca_id"`
		}
		if err := json.Unmarshal(b, &got); err != nil || code == http.StatusCreated && got.CAID != id {
			t.Fatalf("asked %s: %d %s", id, code, b)
		}
		return code, got.Serial
	}
	ids := []string{w.server.CAID().String(), keyName(r.Certificate)}
	for i, key := range []string{"RK", "RK2"} {
		code, serial := ask(key, ids[i])
		if code != http.StatusCreated {
			t.Fatal(code)
		}
		size := w.logSize()
		if code, _ := ask(key, ids[1-i]); code != http.StatusUnprocessableEntity {
			t.Errorf("%s, then the other CA: %d", key, code)
		}
		if code, again := ask(key, ids[i]); code != http.StatusCreated || again != serial || w.logSize() != size {
			t.Errorf("%s again: %d, %s, not %s", key, code, again, serial)
		}
	}
}

// TestNextKeyThatIsGone: a CA whose later key was in use and is not there does not start, and says what is missing where.
func TestNextKeyThatIsGone(t *testing.T) {
	w := newKeyWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(w.dir, nextDir)
	kept, path := filepath.Join(t.TempDir(), "kept"), filepath.Join(next, keyFile)
	if err := os.Rename(path, kept); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first left nothing locked
		s, err := New(Config{Dir: w.dir, Key: prepared.key, OpenKey: openTestKey, Log: quiet}, w.ledger)
		if s != nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), next) || !strings.Contains(err.Error(), keyName(r.Certificate)) {
			t.Fatalf("%v", err)
		}
	}
	if err := os.Rename(kept, path); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Dir: w.dir, Key: prepared.key, OpenKey: openTestKey, Log: quiet}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(s)
}

// TestCFSSLAnswersForEveryGeneration: info and bundles are of the key that issues, and a certificate is known by the key identifier of its own issuer.
func TestCFSSLAnswersForEveryGeneration(t *testing.T) {
	w := newCFSSLWorld(t, func(c *Config) { c.OpenKey = openTestKey })
	oldCA := w.server.issuer.cert
	_, res := w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www"}, nil)
	old := w.signed(res)
	r := rotated(t, w.dir)
	w.registerCert(r.Certificate)
	w.awaitKeys(keystate.Retired, keystate.Active)

	for _, label := range []string{"", w.server.CAID().String(), keyName(r.Certificate)} { // clients keep their configuration
		_, res := w.cfssl("info", map[string]any{"label": label}, nil)
		if !res.Success || !parsePEM(t, res.text("certificate")).Equal(r.Certificate) {
			t.Errorf("label %q: %+v", label, res)
		}
	}
	_, res = w.cfssl("sign", map[string]any{"certificate_request": newCSR(t, nil), "profile": "www", "bundle": true, "label": w.server.CAID().String()}, nil)
	fresh := w.signed(res)
	bundle, _ := res.Result["bundle"].(map[string]any)
	root, _ := bundle["root"].(string)
	if err := fresh.CheckSignatureFrom(parsePEM(t, root)); err != nil {
		t.Errorf("the bundle's root did not sign the certificate: %v", err)
	}

	oldID, newID := hex.EncodeToString(oldCA.SubjectKeyId), hex.EncodeToString(r.Certificate.SubjectKeyId)
	for _, endpoint := range []string{"certinfo", "revoke"} {
		for _, c := range []struct {
			serial, aki string
			code        int
		}{
			{old.SerialNumber.String(), newID, 400}, {fresh.SerialNumber.String(), oldID, 400}, {fresh.SerialNumber.String(), strings.Repeat("ab", 20), 400},
			{old.SerialNumber.String(), oldID, 200}, {fresh.SerialNumber.String(), newID, 200},
		} {
			request := map[string]any{"serial": c.serial, "authority_key_id": c.aki}
			if endpoint == "revoke" {
				request["reason"] = "superseded"
			}
			if code, res := w.cfssl(endpoint, request, nil); code != c.code {
				t.Errorf("%s %s of %s: %d %+v", endpoint, c.serial, c.aki, code, res.Errors)
			}
		}
	}
}

// TestCFSSLGivesTheCRLOfTheKeyThatIssues, and that of another one by its ID. The bridges here know nothing of the new CA, so it makes none.
func TestCFSSLGivesTheCRLOfTheKeyThatIssues(t *testing.T) {
	cw := newCRLWorld(t, 1, func(c *Config) { c.OpenKey = openTestKey })
	ask := func(query string) (int, []byte) {
		code, _, b := cw.call("GET", cfsslPrefix+"crl"+query, "", nil)
		var a struct{ Result []byte }
		if err := json.Unmarshal(b, &a); err != nil {
			t.Fatalf("%d %s", code, b)
		}
		return code, a.Result
	}
	waitFor(t, "a CRL", func() bool { code, _ := ask(""); return code == http.StatusOK })
	r := rotated(t, cw.dir)
	cw.registerCert(r.Certificate)
	cw.awaitKeys(keystate.Retired, keystate.Active)
	if code, der := ask(""); code != http.StatusServiceUnavailable {
		t.Errorf("%d, %d octets: not of the key that issues", code, len(der))
	}
	own := cw.server.issuer.cert
	code, der := ask("?ca_id=" + cw.server.CAID().String())
	if crl, err := x509.ParseRevocationList(der); code != http.StatusOK || err != nil || crl.CheckSignatureFrom(own) != nil {
		t.Errorf("%d, %v", code, err)
	}
	if code, _ := ask("?ca_id=" + strings.Repeat("0", 64)); code != http.StatusBadRequest {
		t.Error(code)
	}
}
