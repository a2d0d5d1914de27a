package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/intent"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// holder is who has cctest.LeafKey, with files, and a bridge on an embedded ledger that trusts the CA.
type holder struct {
	t      *testing.T
	dir    string
	ca     *cctest.CA
	bridge *httptest.Server
}

func newHolder(t *testing.T) *holder {
	t.Helper()
	h := &holder{t: t, dir: t.TempDir(), ca: cctest.NewCA(t)}
	n, err := embedded.Open(embedded.Options{Dir: filepath.Join(h.dir, "ledger")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOf(t, n.Close) })
	admin, auditor := n.Connect(wire.RoleAdministrator), n.Connect(wire.RoleAuditor)
	t.Cleanup(func() { closeOf(t, admin.Close); closeOf(t, auditor.Close) })
	if _, err := admin.Submit(t.Context(), wire.FnRegisterCA, h.ca.RegisterArg(n.MSPID())); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(intent.Path, intent.Handler(auditor, intent.Options{}))
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, _ *http.Request) {
		list := []map[string]string{{"name": "status", "origin": lognames.Status(n.Channel())}, {"ca_id": h.ca.ID.String(), "origin": lognames.Issuance(n.Channel(), h.ca.ID)}}
		_ = json.NewEncoder(w).Encode(list)
	})
	h.bridge = newServer(mux)
	t.Cleanup(h.bridge.Close)
	h.write("ca.pem", pemOf(h.ca.Cert))
	return h
}

func closeOf(t *testing.T, f func() error) {
	if err := f(); err != nil {
		t.Error(err)
	}
}

func (h *holder) write(name string, data []byte) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// cert writes a new certificate with its chain.
func (h *holder) cert() string {
	h.t.Helper()
	_, cert := h.ca.Issue(h.t)
	return h.write(cert.SerialNumber.Text(16)+".pem", pemOf(cert, h.ca.Cert))
}

// keyFiles are cctest.LeafKey in each form.
func (h *holder) keyFiles() map[string]string {
	h.t.Helper()
	p8, err := x509.MarshalPKCS8PrivateKey(cctest.LeafKey())
	if err != nil {
		h.t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(cctest.LeafKey())
	if err != nil {
		h.t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}})
	files := map[string]string{
		"PKCS#8": h.write("p8.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})),
		"SEC 1":  h.write("sec1.key", append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)),
	}
	files["encrypted"] = filepath.Join(h.dir, "enc.key")
	if err := keyfile.Save(files["encrypted"], cctest.LeafKey(), []byte("correct horse")); err != nil {
		h.t.Fatal(err)
	}
	return files
}

func TestAHolderRevokesItsOwnCertificate(t *testing.T) {
	h := newHolder(t)
	pass := h.write("pass", []byte("correct horse\n"))
	for name, key := range h.keyFiles() {
		cert := h.cert()
		args := []string{"cert", "revoke-own", "--cert", cert, "--key", key, "--passphrase-file", pass, "--bridge", h.bridge.URL}
		contains(t, name, must0(t, args...), "is now revoked by its key's holder (keyCompromise) since ", ", block ")
		// Again, by another statement: the date stays.
		again := fieldsOf(t, must0(t, append(args, "--json")...))
		if again["changed"] != false || again["reason"] != "keyCompromise" || again["ca_id"] != h.ca.ID.String() {
			t.Errorf("%s: %v", name, again)
		}
	}
}

// TestAnIntentIsSignedOfflineAndSentLater: two reasons, one after the other; the first date stays.
func TestAnIntentIsSignedOfflineAndSentLater(t *testing.T) {
	h := newHolder(t)
	cert, key, file := h.cert(), h.keyFiles()["PKCS#8"], filepath.Join(h.dir, "revoke.pem")
	var since any
	for _, reason := range []string{"superseded", "keyCompromise"} {
		out := must0(t, "cert", "intent", "--cert", cert, "--key", key, "--channel", embedded.DefaultChannel, "--reason", reason, "--invalidity-date", "2026-01-02T03:04:05Z", "-o", file)
		contains(t, "intent", out, h.ca.ID.String(), "("+reason+"), until 2")
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		got := fieldsOf(t, must0(t, "cert", "revoke-own", "--intent", file, "--bridge", "http://127.0.0.1:1", "--bridge", h.bridge.URL, "--json"))
		if since == nil {
			since = got["time"]
		}
		if got["changed"] != true || got["reason"] != reason || got["time"] != since {
			t.Errorf("%s: %v, first at %v", reason, got, since)
		}
	}
}

func TestRevokeOwnAndIntentRefuse(t *testing.T) {
	h := newHolder(t)
	cert, key := h.cert(), h.keyFiles()["PKCS#8"]
	bare, err := x509.ParseCertificate(func() []byte { der, _ := h.ca.Issue(t); return der }())
	if err != nil {
		t.Fatal(err)
	}
	alone := h.write("alone.pem", pemOf(bare))
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherDER, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	otherKey := h.write("other.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: otherDER}))
	stranger := cctest.NewCA(t)
	_, strange := stranger.Issue(t)
	strangeCert := h.write("strange.pem", pemOf(strange, stranger.Cert))
	out := filepath.Join(h.dir, "never")
	offline := []string{"cert", "intent", "--channel", "certanchor", "-o", out}
	online := []string{"cert", "revoke-own", "--bridge", h.bridge.URL}
	for name, c := range map[string]struct {
		base, more []string
		code       int
		want       string
	}{
		"hold":               {offline, []string{"--cert", cert, "--key", key, "--reason", "certificateHold"}, exitFailure, "cannot put"},
		"no such reason":     {offline, []string{"--cert", cert, "--key", key, "--reason", "bored"}, exitFailure, "RFC 5280"},
		"kept for a year":    {offline, []string{"--cert", cert, "--key", key, "--expires", "48h"}, exitUsage, "not kept for later"},
		"suspect tomorrow":   {offline, []string{"--cert", cert, "--key", key, "--invalidity-date", "2099-01-01T00:00:00Z"}, exitFailure, "not in the future"},
		"date in words":      {offline, []string{"--cert", cert, "--key", key, "--invalidity-date", "today"}, exitUsage, "RFC 3339"},
		"another's key":      {offline, []string{"--cert", cert, "--key", otherKey}, exitFailure, otherKey + " is not the private key of --cert " + cert},
		"no key":             {offline, []string{"--cert", cert, "--key", cert}, exitFailure, "must hold a PEM block"},
		"no issuer":          {offline, []string{"--cert", alone, "--key", key}, exitUsage, "--issuer"},
		"another's issuer":   {offline, []string{"--cert", alone, "--issuer", strangeCert, "--key", key}, exitFailure, "certificate's issuer"},
		"nothing":            {online, nil, exitUsage, "--intent, or --cert and --key"},
		"both":               {online, []string{"--intent", out, "--cert", cert}, exitUsage, "intent"},
		"not an intent":      {online, []string{"--intent", cert}, exitFailure, "CERTANCHOR REVOKE INTENT"},
		"CA not on the list": {online, []string{"--cert", strangeCert, "--key", key}, exitFailure, "not on this ledger's trust list"},
		"another ledger":     {online, []string{"--cert", cert, "--key", key, "--channel", "other"}, exitFailure, "400 Bad Request"},
		"nobody listens":     {[]string{"cert", "revoke-own", "--timeout", "10ms", "--channel", "c", "--bridge", "http://127.0.0.1:1"}, []string{"--cert", cert, "--key", key}, exitFailure, "may be sent again"},
	} {
		code, _, errs := runCLI(append(append([]string{}, c.base...), c.more...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: a file was written", name)
		}
	}
}

// TestRevokeOwnSaysThatRespondersLag: on the ledger and not applied is no success yet.
func TestRevokeOwnSaysThatRespondersLag(t *testing.T) {
	h := newHolder(t)
	lagging := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		intent.Handler(answered{h}, intent.Options{Applied: func(context.Context, uint64) error { return context.DeadlineExceeded }}).ServeHTTP(w, r)
	}))
	defer lagging.Close()
	code, out, errs := runCLI("cert", "revoke-own", "--cert", h.cert(), "--key", h.keyFiles()["SEC 1"], "--channel", "c", "--bridge", lagging.URL)
	if code != exitFailure || !strings.Contains(errs, "have not confirmed it yet") || !strings.Contains(out, "is now revoked") {
		t.Errorf("exit %d, %s, %s", code, out, errs)
	}
}

// answered is a ledger that has taken everything.
type answered struct{ *holder }

func (answered) result() []byte {
	return wire.Encode(&wire.RevokeResult{V: wire.Version, Reason: wire.KeyCompromise, Time: 1, Change: 1, Changed: true})
}

func (a answered) Submit(context.Context, string, []byte) (network.Receipt, error) {
	return network.Receipt{TxID: "tx", Block: 1, Result: a.result()}, nil
}
func (a answered) Evaluate(context.Context, string, []byte) ([]byte, error) { return a.result(), nil }
func (answered) Height(context.Context) (uint64, error)                     { return 2, nil }
func (answered) Channel() string                                            { return "c" }
