package client_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// world is a ledger with a CA, and a bridge that answers for it.
type world struct {
	t      *testing.T
	ca     *cctest.CA
	conn   network.Ledger
	bridge *ocspbridge.Bridge
	url    string
}

const (
	mspID   = "Org1MSP"
	channel = "testchannel"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ca: cctest.NewCA(t)}
	dir, log := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "ledger"), MSPID: mspID, Channel: channel, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, w.ca.RegisterArg(mspID)); err != nil {
		t.Fatal(err)
	}
	w.conn = node.Connect(wire.RoleOperator)
	w.bridge, err = ocspbridge.New(t.Context(), ocspbridge.Config{
		Dir: filepath.Join(dir, "bridge"), Log: log, Enrollers: func(wire.CAID) ocspbridge.Enroller { return w },
	}, w.conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.bridge.Run(ctx) }()
	server := httptest.NewServer(w.bridge.Handler())
	w.url = server.URL
	t.Cleanup(func() {
		cancel()
		server.Close()
		if err := errors.Join(<-ran, w.bridge.Close(), node.Close()); err != nil {
			t.Error(err)
		}
	})
	look, limit := time.NewTicker(time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for !w.bridge.Ready().Ready {
		select {
		case <-look.C:
		case <-limit:
			t.Fatalf("bridge is not ready: %+v", w.bridge.Ready())
		}
	}
	return w
}

// EnrollResponder makes world its own bridge's CA.
func (w *world) EnrollResponder(ctx context.Context, _ wire.CAID, csrDER []byte) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: wire.Serial(bytes.Repeat([]byte{0x55}, 16)).Int(), KeyUsage: x509.KeyUsageDigitalSignature}
	cctest.Responder(time.Now().Add(-time.Minute), time.Hour)(template)
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca.Cert, csr.PublicKey, w.ca.Key)
	if err != nil {
		return nil, err
	}
	_, err = w.conn.Submit(ctx, wire.FnIssue, w.ca.IssueArg(der))
	return der, err
}

func (w *world) submit(function string, arg []byte) {
	w.t.Helper()
	r, err := w.conn.Submit(w.t.Context(), function, arg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := w.bridge.WaitApplied(ctx, r.Block); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) issue() *x509.Certificate {
	w.t.Helper()
	der, cert := w.ca.Issue(w.t)
	w.submit(wire.FnIssue, w.ca.IssueArg(der))
	return cert
}

func (w *world) client() *client.Client {
	return &client.Client{OCSPURL: w.url + "/ocsp", LogURL: w.url}
}

func TestStatusFollowsACertificatesLife(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	c := w.client()
	a, err := c.Status(t.Context(), cert, w.ca.Cert)
	if err != nil || a.Status != client.Good {
		t.Fatalf("%+v, %v", a, err)
	}
	if a.Signer.Equal(w.ca.Cert) || a.NextUpdate.Before(time.Now()) || time.Since(a.ThisUpdate) > time.Minute {
		t.Errorf("answer is %+v", a)
	}
	w.submit(wire.FnSetStatus, w.ca.StatusArg(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise}))
	a, err = c.Status(t.Context(), cert, w.ca.Cert)
	if err != nil || a.Status != client.Revoked || a.Reason != "keyCompromise" || time.Since(a.RevokedAt) > time.Minute {
		t.Fatalf("%+v, %v", a, err)
	}
	_, never := w.ca.Issue(t)
	if _, err := c.Status(t.Context(), never, w.ca.Cert); !errors.Is(err, client.ErrUnauthorized) || errors.Is(err, client.ErrTryLater) {
		t.Errorf("never issued: %v", err)
	}
}

// Of some certificates only the serial number is known, to whoever asks and to the ledger.
func TestStatusOfASerialNumberThatWasImported(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	good, err := w.client().StatusOfSerial(t.Context(), cert.SerialNumber, w.ca.Cert)
	if err != nil || good.Status != client.Good {
		t.Errorf("%+v, %v", good, err)
	}
	asserted := time.Now().Add(-time.Hour).Truncate(time.Second)
	w.submit(wire.FnImport, w.ca.ImportArg([]wire.ImportItem{{Serial: wire.Serial{5}, State: wire.CertRevoked, Revoked: wire.MillisOf(asserted)}}))
	if a, err := w.client().StatusOfSerial(t.Context(), big.NewInt(5), w.ca.Cert); err != nil || a.Status != client.Revoked || !a.RevokedAt.Equal(asserted) {
		t.Errorf("%+v, %v", a, err)
	}
	for name, ask := range map[string]func(*client.Client) error{
		"no serial": func(c *client.Client) error { _, err := c.StatusOfSerial(t.Context(), nil, w.ca.Cert); return err },
		"no issuer": func(c *client.Client) error { _, err := c.StatusOfSerial(t.Context(), big.NewInt(5), nil); return err },
		"OCSPURL": func(c *client.Client) error {
			c.OCSPURL = ""
			_, err := c.StatusOfSerial(t.Context(), big.NewInt(5), w.ca.Cert)
			return err
		},
	} {
		if err := ask(w.client()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNonceLengthAndPreferredAlgorithmsAreAsked(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	c := w.client()
	c.NonceLength, c.PreferredAlgorithms = 128, []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.ECDSAWithSHA384}
	a, err := c.Status(t.Context(), cert, w.ca.Cert)
	if err != nil || a.Status != client.Good {
		t.Fatalf("%+v, %v", a, err)
	}
	_, resp, err := ocspwire.ParseResponse(a.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if alg, err := resp.Algorithm(); err != nil || alg != x509.ECDSAWithSHA384 || len(resp.Nonce) != 128 {
		t.Errorf("signed with %v, %v, nonce of %d octets", alg, err, len(resp.Nonce))
	}
	for _, change := range []func(){func() { c.NonceLength = 129 }, func() { c.NonceLength = -1 }, func() { c.PreferredAlgorithms = []x509.SignatureAlgorithm{x509.MD5WithRSA} }} {
		c = w.client()
		change()
		if a, err := c.Status(t.Context(), cert, w.ca.Cert); err == nil {
			t.Errorf("asked with nonce %d, algorithms %v: %+v", c.NonceLength, c.PreferredAlgorithms, a)
		}
	}
}

func TestInclusionIsVerifiedOffline(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	for range 5 {
		w.issue()
	}
	text, err := w.client().FetchProof(t.Context(), cert, w.ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := client.ParseLogKeys(w.bridge.VKey())
	if err != nil {
		t.Fatal(err)
	}
	origin := client.Origin(channel, w.ca.Cert)
	in, err := client.VerifyInclusion(cert, w.ca.Cert, text, origin, keys...)
	if err != nil {
		t.Fatal(err)
	}
	if in.Index != 1 || in.Size != 7 || in.Origin != origin || time.Since(in.Logged) > time.Minute || len(in.SignedBy) != 1 || in.SignedBy[0] != channel+"/"+mspID {
		t.Errorf("inclusion is %+v", in)
	}
	_, never := w.ca.Issue(t)
	if _, err := w.client().FetchProof(t.Context(), never, w.ca.Cert); !errors.Is(err, client.ErrNotLogged) {
		t.Errorf("never issued: %v", err)
	}
}

func TestFalseProofsAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	cert, other := w.issue(), w.issue()
	text, err := w.client().FetchProof(t.Context(), cert, w.ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := client.ParseLogKeys(w.bridge.VKey())
	if err != nil {
		t.Fatal(err)
	}
	_, strange, err := note.GenerateKey(rand.Reader, channel+"/"+mspID)
	if err != nil {
		t.Fatal(err)
	}
	strangers, err := client.ParseLogKeys(strange)
	if err != nil {
		t.Fatal(err)
	}
	second := cctest.NewCA(t)
	_, foreign := second.Issue(t)
	origin := client.Origin(channel, w.ca.Cert)
	replace := func(old, now string) []byte {
		if !bytes.Contains(text, []byte(old)) {
			t.Fatalf("proof does not contain %q:\n%s", old, text)
		}
		return bytes.Replace(text, []byte(old), []byte(now), 1)
	}
	for _, c := range []struct {
		what   string
		want   error
		cert   *x509.Certificate
		issuer *x509.Certificate
		text   []byte
		origin string
		keys   []note.Verifier
	}{
		{"another certificate", client.ErrNotIncluded, other, w.ca.Cert, text, origin, keys},
		{"another index", client.ErrNotIncluded, cert, w.ca.Cert, replace("index 1", "index 2"), origin, keys},
		{"index beyond the log", client.ErrNotIncluded, cert, w.ca.Cert, replace("index 1", "index 99"), origin, keys},
		{"index out of range", client.ErrNotIncluded, cert, w.ca.Cert, replace("index 1", "index 18446744073709551615"), origin, keys},
		{"another time", client.ErrNotIncluded, cert, w.ca.Cert, replace("extra AAA", "extra AAB"), origin, keys},
		{"size changed", client.ErrCheckpoint, cert, w.ca.Cert, replace("\n3\n", "\n4\n"), origin, keys},
		{"a stranger's key of the same name", client.ErrCheckpoint, cert, w.ca.Cert, text, origin, strangers},
		{"no key", client.ErrCheckpoint, cert, w.ca.Cert, text, origin, nil},
		{"another channel", client.ErrCheckpoint, cert, w.ca.Cert, text, "x" + origin, keys},
		{"another CA's log", client.ErrCheckpoint, cert, w.ca.Cert, text, client.Origin(channel, second.Cert), keys},
		{"no channel", client.ErrCheckpoint, cert, w.ca.Cert, text, client.Origin("", w.ca.Cert), keys},
		{"certificate of another CA", client.ErrWrongIssuer, foreign, w.ca.Cert, text, origin, keys},
		{"issuer is another", client.ErrWrongIssuer, cert, second.Cert, text, client.Origin(channel, second.Cert), keys},
		{"no issuer", client.ErrWrongIssuer, cert, nil, text, origin, keys},
		{"rubbish", client.ErrProofFormat, cert, w.ca.Cert, []byte("rubbish"), origin, keys},
		{"nothing", client.ErrProofFormat, cert, w.ca.Cert, nil, origin, keys},
		{"longer", client.ErrProofFormat, cert, w.ca.Cert, append(bytes.Clone(text), ' '), origin, keys},
	} {
		if in, err := client.VerifyInclusion(c.cert, c.issuer, c.text, c.origin, c.keys...); !errors.Is(err, c.want) || in != nil {
			t.Errorf("%s: %+v, %v; want %v", c.what, in, err, c.want)
		}
	}
}

func TestReplayedAnswerIsNoticed(t *testing.T) {
	w := newWorld(t)
	cert := w.issue()
	var kept atomic.Pointer[[]byte]
	replay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/ocsp-response")
		if old := kept.Load(); old != nil {
			_, _ = rw.Write(*old)
			return
		}
		resp, err := http.Post(w.url+"/ocsp", "application/ocsp-request", r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		_ = resp.Body.Close()
		kept.Store(&body)
		_, _ = rw.Write(body)
	}))
	defer replay.Close()
	c := w.client()
	c.OCSPURL = replay.URL
	if _, err := c.Status(t.Context(), cert, w.ca.Cert); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context(), cert, w.ca.Cert); !errors.Is(err, client.ErrNonce) {
		t.Errorf("with a nonce: %v", err)
	}
	c.NoNonce = true // who gives up the nonce still has the clock
	if _, err := c.Status(t.Context(), cert, w.ca.Cert); err != nil {
		t.Errorf("without a nonce: %v", err)
	}
	c.Now = func() time.Time { return time.Now().Add(7 * time.Minute) }
	if _, err := c.Status(t.Context(), cert, w.ca.Cert); !errors.Is(err, client.ErrSigner) && !errors.Is(err, client.ErrNotNow) {
		t.Errorf("without a nonce, later: %v", err)
	}
}

func TestServersThatMisbehaveGiveErrors(t *testing.T) {
	ca := cctest.NewCA(t)
	_, cert := ca.Issue(t)
	for _, c := range []struct {
		what    string
		want    error
		handler http.HandlerFunc
	}{
		{"HTML", client.ErrTransport, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }},
		{"status 500", client.ErrTransport, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"redirect", client.ErrTransport, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}},
		{"endless", client.ErrTransport, func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}},
		{"not DER", client.ErrMalformed, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response; charset=binary")
			_, _ = io.WriteString(w, "0")
		}},
		{"tryLater", client.ErrTryLater, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response")
			_, _ = w.Write([]byte{0x30, 3, 0x0a, 1, 3})
		}},
	} {
		server := httptest.NewServer(c.handler)
		_, err := (&client.Client{OCSPURL: server.URL}).Status(t.Context(), cert, ca.Cert)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		server.Close()
	}
	if _, err := new(client.Client).Status(t.Context(), cert, ca.Cert); !errors.Is(err, client.ErrTransport) || !strings.Contains(err.Error(), "authorityInfoAccess") {
		t.Errorf("certificate without AIA: %v", err)
	}
	if _, err := (&client.Client{LogURL: "ftp://x"}).FetchProof(t.Context(), cert, ca.Cert); !errors.Is(err, client.ErrTransport) {
		t.Errorf("URL that is not HTTP: %v", err)
	}
}

func TestResponderIsTakenFromTheCertificate(t *testing.T) {
	w := newWorld(t)
	der, cert := w.ca.Issue(t, func(c *x509.Certificate) { c.OCSPServer = []string{"ldap://no", w.url + "/ocsp"} })
	w.submit(wire.FnIssue, w.ca.IssueArg(der))
	if a, err := new(client.Client).Status(t.Context(), cert, w.ca.Cert); err != nil || a.Status != client.Good {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestDependencies holds the promise that importing client brings in no Fabric, no cfssl and none of the bridges.
func TestDependencies(t *testing.T) {
	allowed := []string{
		"github.com/certanchor/certanchor/chaincode/wire", "github.com/certanchor/certanchor/client",
		"github.com/certanchor/certanchor/internal/bundle", "github.com/certanchor/certanchor/internal/cosign",
		"github.com/certanchor/certanchor/internal/ctleaf", "github.com/certanchor/certanchor/internal/lognames",
		"github.com/certanchor/certanchor/internal/merklelog", "github.com/certanchor/certanchor/internal/ocspwire",
		"github.com/certanchor/certanchor/internal/policy", "github.com/certanchor/certanchor/internal/revmap",
		"github.com/certanchor/certanchor/internal/status", "github.com/certanchor/certanchor/internal/tlogproof",
		"github.com/klauspost/compress", // of wire, for transactions; nothing here calls it
		"github.com/fxamacker/cbor/v2", "github.com/x448/float16",
		"github.com/transparency-dev/formats/", "github.com/transparency-dev/merkle",
		"golang.org/x/crypto/cryptobyte", "golang.org/x/mod/sumdb/note",
		"golang.org/x/mod/sumdb/tlog", // tiles that hash up to a checkpoint, for the monitor: no further dependencies
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		ok := false
		for _, a := range allowed {
			ok = ok || dep == a || strings.HasPrefix(dep, strings.TrimSuffix(a, "/")+"/")
		}
		if !ok {
			t.Errorf("client depends on %s", dep)
		}
	}
}
