package thirdparty

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/node"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

const (
	passphrase   = "correct horse battery staple"
	patience     = time.Minute
	tickInterval = time.Second
)

// service is what certanchor serve serves: an embedded ledger, a CA bridge and an OCSP bridge.
type service struct {
	ca     *cctest.CA // below a root, which programs for CT logs expect
	bridge string     // URL of the OCSP bridge
	caURL  string     // of the CA bridge
	token  string     // of its operator
	api    *caapi.Client
}

// prefix is the log's submission prefix.
func (s *service) prefix() string { return s.bridge + "/logs/" + s.ca.ID.String() }

// newCA makes a CA below a root.
func newCA(t *testing.T) *cctest.CA {
	t.Helper()
	return cctest.NewCA(t, cctest.WithParent(cctest.NewCA(t)))
}

// serve starts everything for a CA. Two of them have the CA in common and no more than that.
func serve(t *testing.T, authority *cctest.CA, changes ...func(*config.File)) *service {
	t.Helper()
	state := t.TempDir()
	_, err := ca.Init(ca.InitOptions{Dir: filepath.Join(state, "ca"), Subject: pkix.Name{CommonName: "replaced"}, Passphrase: []byte(passphrase)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.key", "key.states"} { // both of a key that this CA will not have
		if err := os.Remove(filepath.Join(state, "ca", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := keyfile.Save(filepath.Join(state, "ca", "ca.key"), authority.Key, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(state, "pass"), []byte(passphrase))
	write(t, filepath.Join(state, "ca", "ca.pem"), encode(authority.DER))
	write(t, filepath.Join(state, "ca", "chain.pem"), encode(authority.Chain...))
	caListen, bridgeListen := freeAddress(t), freeAddress(t)
	conf := &config.File{
		Ledger:     config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{Dir: filepath.Join(state, "ledger"), TickInterval: tickInterval}},
		CA:         &config.CA{Dir: filepath.Join(state, "ca"), Listen: caListen, Passphrase: keyfile.Source{File: filepath.Join(state, "pass")}},
		OCSPBridge: &config.OCSPBridge{Dir: filepath.Join(state, "bridge"), Listen: bridgeListen, Settings: ocspbridge.DefaultSettings()},
	}
	for _, change := range changes {
		change(conf)
	}
	tokenFile := filepath.Join(conf.CA.Dir, ca.OperatorTokenFile)
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{ca: authority, bridge: "http://" + bridgeListen, caURL: "http://" + conf.CA.Listen, token: strings.TrimSpace(string(token))}
	var secure caapi.TLS
	if conf.CA.TLS != nil {
		s.caURL, secure.CA = "https://"+conf.CA.Listen, conf.CA.TLS.Cert // which trusts itself
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.ServeAll(ctx, conf) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if s.api, err = caapi.New(caapi.Config{URL: s.caURL, TokenFile: tokenFile, TLS: secure}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		ready, err := s.api.Ready(t.Context())
		if err == nil && !ready.Ready {
			err = errors.New(ready.Detail)
		}
		return err
	})
	eventually(t, func() error {
		_, err := get(s.bridge + "/readyz")
		return err
	})
	eventually(t, func() error { // the responder has its certificate, so that all other entries are the test's
		if size := s.listed(t, authority.ID.String()).Size; size != 1 {
			return fmt.Errorf("%d entries", size)
		}
		return nil
	})
	return s
}

// submit puts n certificates and n precertificates into the log, as other software does, and returns the certificates.
func (s *service) submit(t *testing.T, n int) []*x509.Certificate {
	t.Helper()
	certs := make([]*x509.Certificate, n)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range certs {
		der, cert := s.ca.Issue(t)
		pre, _, _ := s.ca.Precert(t)
		certs[i] = cert
		group.Go(func() error { return s.add(ctx, "add-chain", der) })
		group.Go(func() error { return s.add(ctx, "add-pre-chain", pre) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return certs
}

func (s *service) add(ctx context.Context, how string, der []byte) error {
	body, err := json.Marshal(map[string][][]byte{"chain": append([][]byte{der, s.ca.DER}, s.ca.Chain...)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.prefix()+"/ct/v1/"+how, bytes.NewReader(body))
	if err != nil {
		return err
	}
	_, err = answer(http.DefaultClient.Do(req))
	return err
}

// key is the log's public key, as the log list has it.
func (s *service) key(t *testing.T) []byte {
	t.Helper()
	var list struct {
		Operators []struct {
			Logs []struct{ Key, URL string }
		}
	}
	text, err := get(s.bridge + "/log_list.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Operators) != 1 || len(list.Operators[0].Logs) != 1 || list.Operators[0].Logs[0].URL != s.prefix()+"/" {
		t.Fatalf("log list: %s", text)
	}
	key, err := base64.StdEncoding.DecodeString(list.Operators[0].Logs[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// listed is a log in GET /logs.
type listed struct {
	Name, Origin, VKey string
	Size               uint64
}

func (s *service) listed(t *testing.T, name string) listed {
	t.Helper()
	text, err := get(s.bridge + "/logs")
	if err != nil {
		t.Fatal(err)
	}
	var logs []listed
	if err := json.Unmarshal(text, &logs); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, l := range logs {
		if l.Name == name {
			return l
		}
	}
	return listed{} // the CA is not there yet
}

// revoke revokes certificates over the CA's API.
func (s *service) revoke(t *testing.T, certs []*x509.Certificate) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for _, c := range certs {
		group.Go(func() error {
			serial, err := wire.SerialOf(c.SerialNumber)
			if err != nil {
				return err
			}
			_, _, err = s.api.Revoke(ctx, caapi.RevokeRequest{Serial: serial.String(), Reason: "superseded"})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func get(url string) ([]byte, error) { return answer(http.Get(url)) }

// answer is the body of an answer with status 200.
func answer(resp *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", resp.Request.URL, resp.Status, body)
	}
	return body, err
}

func encode(ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// eventually repeats fn until it succeeds.
func eventually(t *testing.T, fn func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %v: %v", patience, err)
		case <-tick.C:
		}
	}
}
