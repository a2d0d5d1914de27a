package integration

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	ct "github.com/google/certificate-transparency-go"
	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/ctutil"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/google/certificate-transparency-go/loglist3"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/internal/problem"
)

const sctsNeeded = 3

// sctsAreEmbedded: certificates carry SCTs of three of four organisations' fronts, which others' programs verify with the keys in the log lists. One front
// that is frozen, and one that lies, do not matter; with both, certificates wait, through a crash of the CA, and are finished when
// enough fronts are back.
func (f *fabricCase) sctsAreEmbedded(t *testing.T) {
	lies, logs := f.embedSCTs(t), f.listedLogs(t)
	ask := func(csr string) (*caapi.Certificate, error) {
		api, err := f.d.Client()
		if err != nil {
			t.Fatal(err)
		}
		return api.Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "transparent"}, keyFor(csr))
	}
	issued := func(csr string) {
		t.Helper()
		var got *caapi.Certificate
		eventually(t, func() (err error) {
			got, err = ask(csr)
			return err
		})
		block, _ := pem.Decode([]byte(got.Certificate))
		f.checkEmbedded(t, logs, block.Bytes)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		awaitOCSP(t, f.d, f.d.Orgs[1], cert, client.Good)
	}
	request := func(name string) string {
		csr, err := newCSR(name)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	issued(request("all-well"))
	frozen := deploy.BridgeName(3)
	if err := f.d.Freeze(frozen); err != nil {
		t.Fatal(err)
	}
	thawed := false
	defer func() {
		if !thawed {
			_ = f.d.Thaw(frozen)
		}
	}()
	issued(request("one-frozen"))

	lies(true)
	waits := request("one-frozen-one-lies")
	if p := f.askOnce(t, waits); p.Status != http.StatusServiceUnavailable || p.Code != problem.CodeUnknownOutcome || !strings.HasPrefix(p.Instance, caapi.PathCertificates) {
		t.Fatalf("with two of four: %+v", p)
	}
	if err := f.d.Kill(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Start(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Thaw(frozen); err != nil {
		t.Fatal(err)
	}
	thawed = true
	issued(waits)
	lies(false)
	issued(request("all-well-again"))
}

// askOnce is a request that must fail, by a client that does not repeat it.
func (f *fabricCase) askOnce(t *testing.T, csr string) *problem.Problem {
	t.Helper()
	token, err := os.ReadFile(f.d.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(caapi.IssueRequest{CSR: csr, Profile: "transparent"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.d.CAURL+caapi.PathCertificates, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(caapi.IdempotencyKey, keyFor(csr))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	p := new(problem.Problem)
	if err := json.NewDecoder(answer.Body).Decode(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// embedSCTs has the CA embed SCTs: of its own organisation's front and of the others' as their log lists say, but that organisation 4's is
// reached through a proxy, which lies when it is told to.
func (f *fabricCase) embedSCTs(t *testing.T) (lies func(bool)) {
	t.Helper()
	file := filepath.Join(f.d.Dir, deploy.CAService+".yaml")
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	liar, lies := lyingProxy(t, f.d.Orgs[3].URL)
	for _, org := range f.d.Orgs[1:] {
		list := strings.ReplaceAll(string(get(t, org.URL+"/log_list.json")), f.d.Orgs[3].URL, liar)
		path := filepath.Join(f.d.Dir, org.MSPID+"-log_list.json")
		if err := os.WriteFile(path, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		conf.CA.Fronts = append(conf.CA.Fronts, config.Front{LogList: path})
	}
	conf.CA.FrontTimeout = 2 * time.Second
	data, err := yaml.Marshal(conf)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.addProfile(t, "transparent", map[string]any{"anchoring": "ct", "scts": sctsNeeded})
	if err := f.d.Kill(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Start(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	return lies
}

// addProfile writes a copy of the profile server with further keys into the CA's profiles.
func (f *fabricCase) addProfile(t *testing.T, name string, keys map[string]any) {
	t.Helper()
	path := filepath.Join(f.d.CADir, "profiles.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Signing struct {
			Default  json.RawMessage           `json:"default"`
			Profiles map[string]map[string]any `json:"profiles"`
		} `json:"signing"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	p := map[string]any{}
	for k, v := range doc.Signing.Profiles["server"] {
		p[k] = v
	}
	for k, v := range keys {
		p[k] = v
	}
	doc.Signing.Profiles[name] = p
	if text, err = json.Marshal(doc); err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lyingProxy hands requests on, and when it is to lie gives SCTs of another time.
func lyingProxy(t *testing.T, to string) (address string, lies func(bool)) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	lying := make(chan bool, 1)
	lying <- false
	proxy := httputil.NewSingleHostReverseProxy(target)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lie := <-lying
		lying <- lie
		if !lie {
			proxy.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		proxy.ServeHTTP(rec, r)
		var a ct.AddChainResponse
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		a.Timestamp++
		_ = json.NewEncoder(w).Encode(a)
	}))
	t.Cleanup(s.Close)
	return s.URL, func(lie bool) {
		<-lying
		lying <- lie
	}
}

// listedLogs are the logs of all organisations' log lists, by log ID.
func (f *fabricCase) listedLogs(t *testing.T) map[[32]byte]*ctutil.LogInfo {
	t.Helper()
	logs := map[[32]byte]*ctutil.LogInfo{}
	for _, org := range f.d.Orgs {
		list, err := loglist3.NewFromJSON(get(t, org.URL+"/log_list.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Operators {
			for _, l := range o.Logs {
				c, err := ctclient.New(l.URL, http.DefaultClient, jsonclient.Options{PublicKeyDER: l.Key})
				if err != nil {
					t.Fatal(err)
				}
				logs[[32]byte(l.LogID)] = &ctutil.LogInfo{
					Description: l.Description, Client: c, MMD: time.Duration(l.MMD) * time.Second, Verifier: c.Verifier, PublicKey: l.Key,
				}
			}
		}
	}
	return logs
}

// checkEmbedded has certificate-transparency-go verify the SCTs of a certificate with the keys of the organisations' log lists.
func (f *fabricCase) checkEmbedded(t *testing.T, logs map[[32]byte]*ctutil.LogInfo, der []byte) {
	t.Helper()
	cert, err := ctx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ctx509.ParseCertificate(f.d.CACert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	scts, err := x509util.ParseSCTsFromCertificate(der)
	if err != nil || len(scts) != sctsNeeded {
		t.Fatalf("%d SCTs, %v", len(scts), err)
	}
	seen := map[[32]byte]bool{}
	for _, s := range scts {
		info := logs[s.LogID.KeyID]
		if info == nil || seen[s.LogID.KeyID] {
			t.Fatalf("an SCT of a log that is in no list, or a second one: %x", s.LogID.KeyID)
		}
		seen[s.LogID.KeyID] = true
		leaf, err := ct.MerkleTreeLeafForEmbeddedSCT([]*ctx509.Certificate{cert, issuer}, s.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		leaf.TimestampedEntry.Extensions = s.Extensions
		if err := info.VerifySCTSignature(*s, *leaf); err != nil {
			t.Errorf("%s: %v", info.Description, err)
		}
		// The log has it: an inclusion proof of this front, against its signed head.
		eventually(t, func() error {
			_, err := info.VerifyInclusion(t.Context(), *leaf, s.Timestamp)
			return err
		})
	}
}
