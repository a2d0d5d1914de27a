package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	ct "github.com/google/certificate-transparency-go"
	ctclient "github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"
	"github.com/google/certificate-transparency-go/loglist3"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// foreign is other software with the key of the deployment's CA: it signs, and knows nothing of this project.
func (f *fabricCase) foreign(t *testing.T) *cctest.CA {
	t.Helper()
	signer, err := f.d.Key(&f.d.CA)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the CA's key is a %T", signer)
	}
	return &cctest.CA{DER: f.d.CACert.Raw, Cert: f.d.CACert, Key: key, ID: f.d.CAID()}
}

// sign makes a certificate for key.
func (f *fabricCase) sign(t *testing.T, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	ca := f.foreign(t)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "other.example"}, DNSNames: []string{"other.example"},
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().AddDate(0, 1, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ctLog is certificate-transparency-go's client for an organisation's front, configured from its log list. It verifies every SCT and STH.
func (f *fabricCase) ctLog(t *testing.T, org deploy.Org) *ctclient.LogClient {
	t.Helper()
	list, err := loglist3.NewFromJSON(get(t, org.URL+"/log_list.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, operator := range list.Operators {
		for _, l := range operator.Logs {
			if !strings.Contains(l.URL, f.d.CAID().String()) {
				continue
			}
			c, err := ctclient.New(l.URL, http.DefaultClient, jsonclient.Options{PublicKeyDER: l.Key})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	t.Fatalf("%s: the log list does not have the log of the CA", org.MSPID)
	return nil
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s %v", url, resp.Status, body, err)
	}
	return body
}

// submissionsAreForwarded: every organisation's front takes the CA's certificates, an unmodified client verifies what it says, and the
// organisations' fronts serve one log.
func (f *fabricCase) submissionsAreForwarded(t *testing.T) {
	cert := f.sign(t, newKey(t))
	chain := []ct.ASN1Cert{{Data: cert.Raw}, {Data: f.d.CACert.Raw}}
	var stamp uint64
	for _, org := range f.d.Orgs {
		c := f.ctLog(t, org)
		first, err := c.AddChain(t.Context(), chain)
		if err != nil {
			t.Fatalf("%s: %v", org.MSPID, err)
		}
		again, err := c.AddChain(t.Context(), chain)
		if err != nil || string(again.Signature.Signature) != string(first.Signature.Signature) {
			t.Errorf("%s: a duplicate got another SCT, %v", org.MSPID, err)
		}
		if stamp == 0 {
			stamp = first.Timestamp
		}
		if first.Timestamp != stamp {
			t.Errorf("%s: timestamp %d, the first front said %d", org.MSPID, first.Timestamp, stamp)
		}
		leaf := ct.MerkleTreeLeaf{LeafType: ct.TimestampedEntryLeafType, TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: first.Timestamp, EntryType: ct.X509LogEntryType, X509Entry: &chain[0], Extensions: first.Extensions,
		}}
		hash, err := ct.LeafHashForLeaf(&leaf)
		if err != nil {
			t.Fatal(err)
		}
		head, err := c.GetSTH(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", org.MSPID, err)
		}
		p, err := c.GetProofByHash(t.Context(), hash[:], head.TreeSize)
		if err != nil {
			t.Fatalf("%s: the SCT is not honoured: %v", org.MSPID, err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(p.LeafIndex), head.TreeSize, hash[:], p.AuditPath, head.SHA256RootHash[:]); err != nil {
			t.Errorf("%s: %v", org.MSPID, err)
		}
	}
	pre, _, final := f.foreign(t).Precert(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Second).Truncate(time.Second), time.Now().AddDate(0, 1, 0)
	})
	if _, err := f.ctLog(t, f.d.Orgs[2]).AddPreChain(t.Context(), []ct.ASN1Cert{{Data: pre}, {Data: f.d.CACert.Raw}}); err != nil {
		t.Fatal(err)
	}
	der, _ := final(cctest.SCTList())
	if _, err := f.ctLog(t, f.d.Orgs[3]).AddChain(t.Context(), []ct.ASN1Cert{{Data: der}, {Data: f.d.CACert.Raw}}); err != nil {
		t.Fatal(err)
	}
}

// nobodyIsStarved: the CA's operator issues, and flaps hold and release, as fast as it can; the holder's revocation commits at the first
// attempt, and what was issued meanwhile is on the ledger.
func (f *fabricCase) nobodyIsStarved(t *testing.T) {
	key := newKey(t)
	cert := f.sign(t, key)
	if _, err := f.ctLog(t, f.d.Orgs[0]).AddChain(t.Context(), []ct.ASN1Cert{{Data: cert.Raw}, {Data: f.d.CACert.Raw}}); err != nil {
		t.Fatal(err)
	}
	serial := wire.Serial(cert.SerialNumber.Bytes())
	issuing := startLoad(t, f.d)
	ctx, cancel := context.WithCancel(t.Context())
	var attempts atomic.Int64
	flapped := make(chan struct{})
	go func() {
		defer close(flapped)
		for op := wire.OpHold; ctx.Err() == nil; attempts.Add(1) {
			change := wire.StatusChange{Serial: serial, Op: op}
			if op == wire.OpHold {
				change.Reason = wire.CertificateHold
			}
			_, err := f.operator.Submit(ctx, wire.FnSetStatus, wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: f.d.CAID(), Changes: []wire.StatusChange{change}}))
			if err == nil || network.IsRejected(err) { // done, or too often within the minute
				op = wire.OpHold + wire.OpRelease - op
			}
		}
	}()
	other, err := f.d.Ledger(t.Context(), 3, testnetwork.Operator)
	if err != nil {
		t.Fatal(err)
	}
	issuing.awaitMore(t, 10)
	eventually(t, func() error {
		if n := attempts.Load(); n < 5 {
			return fmt.Errorf("the operator has tried %d times", n)
		}
		return nil
	})
	intent := f.foreign(t).Intent(t, f.d.Channel, cert, wire.KeyCompromise, time.Now())
	_, err = other.Submit(t.Context(), wire.FnRevoke, cctest.SignIntent(t, key, cert.Raw, intent))
	issuing.awaitMore(t, 10) // it went on all the while
	issued := issuing.stop()
	cancel()
	<-flapped
	t.Logf("%d attempts of the operator, %d certificates", attempts.Load(), len(issued))
	if err = errors.Join(err, other.Close()); err != nil {
		t.Fatalf("the holder's revocation: %v", err)
	}
	for _, org := range f.d.Orgs {
		eventually(t, func() error { // until the block is there, a hold of the operator's shows as revoked too
			a, err := ask(t, org, cert, f.d.CACert)
			if err == nil && (a.Status != client.Revoked || a.Reason != "keyCompromise") {
				err = fmt.Errorf("%s: %s, %s", org.MSPID, a.Status, a.Reason)
			}
			return err
		})
	}
	f.awaitIntegrated(t, f.d.Orgs, serial)
	checkAcked(t, f.d, issued)
}

// bridgeStatus is what /v1/status says of it.
type bridgeStatus struct {
	State     string `json:"state"`
	StatusLog []struct {
		Index uint64 `json:"index"`
	} `json:"status_log"`
	Pending int `json:"pending"`
}

// awaitIntegrated returns when every bridge has all changes of a certificate in its status log, at the same places.
func (f *fabricCase) awaitIntegrated(t *testing.T, orgs []deploy.Org, serial wire.Serial) {
	t.Helper()
	eventually(t, func() error {
		var places string
		for _, org := range orgs {
			var s bridgeStatus
			if err := json.Unmarshal(get(t, org.URL+"/v1/status/"+f.d.CAID().String()+"/"+serial.String()), &s); err != nil {
				return err
			}
			at := fmt.Sprint(s.StatusLog)
			switch {
			case s.Pending > 0 || len(s.StatusLog) == 0:
				return fmt.Errorf("%s: %d changes pending, %d in the status log", org.MSPID, s.Pending, len(s.StatusLog))
			case places != "" && places != at:
				return fmt.Errorf("%s has %s, another organisation %s", org.MSPID, at, places)
			}
			places = at
		}
		return nil
	})
}

// integrationIsTakenOver: whichever bridge is gone, changes of status reach the status log.
func (f *fabricCase) integrationIsTakenOver(t *testing.T) {
	for _, gone := range []int{2, 3, 4} { // org1's is asked by its CA
		name := deploy.BridgeName(gone)
		if err := f.d.Kill(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		rest := slices.DeleteFunc(slices.Clone(f.d.Orgs), func(o deploy.Org) bool { return o.Number == gone })
		for range 3 {
			cert := f.issue(t)
			serial := wire.Serial(cert.SerialNumber.Bytes())
			f.revoke(t, serial)
			f.awaitIntegrated(t, rest, serial)
		}
		if err := f.d.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fabricCase) revoke(t *testing.T, serial wire.Serial) {
	t.Helper()
	arg := wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: f.d.CAID(), Changes: []wire.StatusChange{{Serial: serial, Op: wire.OpRevoke, Reason: wire.Superseded}}})
	eventually(t, func() error {
		_, err := f.operator.Submit(t.Context(), wire.FnSetStatus, arg)
		return err
	})
}

// bundlesVerifyOffline: what any organisation hands out is believed with the policy file alone, also while one of the four is away.
func (f *fabricCase) bundlesVerifyOffline(t *testing.T) {
	file, err := os.ReadFile(f.d.PolicyFile())
	if err != nil {
		t.Fatal(err)
	}
	policy, err := client.LoadPolicy(file, f.d.PolicyFingerprint())
	if err != nil {
		t.Fatal(err)
	}
	good, revoked := f.issue(t), f.issue(t)
	f.revoke(t, wire.Serial(revoked.SerialNumber.Bytes()))
	check := func(orgs []deploy.Org) {
		t.Helper()
		for _, org := range orgs {
			for cert, want := range map[*x509.Certificate]client.Status{good: client.Good, revoked: client.Revoked} {
				eventually(t, func() error {
					c := &client.Client{LogURL: org.URL}
					data, err := c.FetchBundle(t.Context(), cert, f.d.CACert)
					if err != nil {
						return err
					}
					v, err := client.VerifyBundle(policy, cert, data, time.Now())
					if err != nil {
						return err
					}
					if v.Status != want {
						return fmt.Errorf("%s: %s, want %s", org.MSPID, v.Status, want)
					}
					return nil
				})
			}
		}
	}
	check(f.d.Orgs)
	away := deploy.BridgeName(4)
	if err := f.d.Kill(t.Context(), away); err != nil {
		t.Fatal(err)
	}
	good = f.issue(t) // its proof needs checkpoints that only three can cosign
	check(f.d.Orgs[:3])
	if err := f.d.Start(t.Context(), away); err != nil {
		t.Fatal(err)
	}
}

// auditAgrees: after everything that was done to the network, an auditor who trusts the genesis block and the policy alone finds that
// every organisation serves what the blocks give, and a monitor finds every log consistent.
func (f *fabricCase) auditAgrees(t *testing.T) {
	awaitOCSP(t, f.d, f.d.Orgs[0], f.issue(t), client.Good) // something for monitors to find
	c := commands{t: t, exe: nettest.Program(t), dir: t.TempDir()}
	connection := f.net.Connection(4, testnetwork.Auditor)
	conf, err := yaml.Marshal(&config.File{Ledger: config.Ledger{Engine: config.EngineFabric, Fabric: &connection}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "auditor.yaml"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	policy := []string{"--policy", f.d.PolicyFile(), "--policy-fingerprint", f.d.PolicyFingerprint()}
	args := append([]string{"audit", "--config", "auditor.yaml", "--dir", "state", "--genesis", f.net.GenesisBlock(), "--sample", "50", "--json"}, policy...)
	for _, org := range f.d.Orgs {
		args = append(args, "--bridge", org.URL)
	}
	out, stderr, err := c.run(args...)
	if err != nil {
		t.Fatalf("audit: %v\n%s\n%s", err, out, stderr)
	}
	t.Logf("%s", out)
	for _, org := range f.d.Orgs {
		args := append([]string{"monitor", "--bridge", org.URL, "--match", "example", "--once", "--from-start", "--json"}, policy...)
		eventually(t, func() error { // heads come after the certificate
			out, stderr, err := c.run(args...)
			if err != nil || !strings.Contains(out, `"certificate"`) {
				return fmt.Errorf("monitor of %s: %w\n%s\n%s", org.MSPID, err, out, stderr)
			}
			return nil
		})
	}
}
