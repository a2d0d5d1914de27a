package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network/fabric"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// TestOwnPeerAwayOnFabric freezes an organisation's peer. A bridge that may read another organisation's goes on, with what it has verified; one
// whose way there is through somebody hostile, who marks a revocation invalid, refuses to answer rather than say good.
func TestOwnPeerAwayOnFabric(t *testing.T) {
	net := nettest.Start(t, testnetwork.Options{TickInterval: tickInterval})
	d, err := deploy.OnFabric(t.Context(), net, deploy.Options{Dir: filepath.Join(t.TempDir(), "services"), Executable: nettest.Program(t)})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, d)
	f := &fabricCase{net: net, d: d}
	other := net.Connection(3, testnetwork.Operator)
	helped := f.bridgeWithFallback(t, "org2.helped", fabric.FallbackPeer{MSPID: other.MSPID, Endpoint: other.Endpoint, TLSCA: other.TLSCA})
	liar := startLiar(t, other)
	deceived := f.bridgeWithFallback(t, "org2.deceived", fabric.FallbackPeer{MSPID: other.MSPID, Endpoint: liar.address, TLSCA: liar.tlsCA})

	good, old, late := f.issue(t), f.issue(t), f.issue(t)
	f.withdraw(t, old)
	for _, b := range []deploy.Org{helped, deceived} {
		awaitOCSP(t, d, b, good, client.Good)
		awaitOCSP(t, d, b, late, client.Good)
		awaitOCSP(t, d, b, old, client.Revoked)
		f.awaitVerified(t, b)
	}
	if err := net.Freeze(t.Context(), "org2.peer"); err != nil {
		t.Fatal(err)
	}
	thaw := func() error { return net.Thaw(context.Background(), "org2.peer") }
	defer func() {
		if err := thaw(); err != nil {
			t.Error(err)
		}
	}()
	frozen := time.Now()
	for _, b := range []deploy.Org{helped, deceived} {
		f.awaitNewer(t, b, good, client.Good, frozen)
		f.awaitNewer(t, b, old, client.Revoked, frozen)
		awaitMetric(t, b, "certanchor_ledger_on_fallback_peers 1")
	}

	f.withdraw(t, late)
	revoked := awaitOCSP(t, d, helped, late, client.Revoked).RevokedAt
	awaitOCSP(t, d, helped, good, client.Good)
	refusal := fmt.Sprintf(`certanchor_ledger_fallback_refused_total{msp_id=%q,peer=%q} `, other.MSPID, liar.address)
	if m := metricsOf(t, deceived); !strings.Contains(m, refusal) {
		t.Fatalf("no metric %s", refusal)
	}
	eventually(t, func() error {
		if strings.Contains(metricsOf(t, deceived), refusal+"0\n") {
			return errors.New("the lie has not been refused")
		}
		a, err := ask(t, deceived, late, d.CACert)
		if err == nil && a.Status == client.Good && a.ThisUpdate.After(revoked) {
			t.Errorf("good as of %s, of a certificate revoked at %s", a.ThisUpdate, revoked)
		}
		if !errors.Is(err, client.ErrTryLater) {
			return fmt.Errorf("it answers %v, %v", a, err)
		}
		return nil
	})
	// It stays so while the liar lies: whatever else is tried, more than once.
	before := metricLine(t, deceived, refusal)
	eventually(t, func() error {
		if a, err := ask(t, deceived, late, d.CACert); !errors.Is(err, client.ErrTryLater) {
			t.Errorf("after the lie was refused: %v, %v", a, err)
		}
		if metricLine(t, deceived, refusal) == before {
			return errors.New("it has not been tried again")
		}
		return nil
	})

	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	for _, b := range []deploy.Org{helped, deceived} {
		awaitOCSP(t, d, b, late, client.Revoked)
		awaitOCSP(t, d, b, good, client.Good)
		awaitMetric(t, b, "certanchor_ledger_on_fallback_peers 0")
	}
}

// bridgeWithFallback starts another bridge of org2 that may read a peer of another organisation.
func (f *fabricCase) bridgeWithFallback(t *testing.T, name string, p fabric.FallbackPeer) deploy.Org {
	t.Helper()
	org, err := f.d.AddOCSPBridge(t.Context(), f.d.Orgs[1], name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.d.Kill(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(f.d.Dir, name+".yaml")
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	conf.Ledger.Fabric.FallbackPeers = []fabric.FallbackPeer{p}
	conf.Ledger.Fabric.FallbackAfter = tickInterval + time.Second
	data, err := yaml.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return org
}

func (f *fabricCase) withdraw(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	api, err := f.d.Client()
	if err != nil {
		t.Fatal(err)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, _, err := api.Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "superseded"})
		return err
	})
}

// awaitNewer returns when an organisation says what is awaited from a view that is newer than a moment.
func (f *fabricCase) awaitNewer(t *testing.T, org deploy.Org, cert *x509.Certificate, want client.Status, than time.Time) {
	t.Helper()
	eventually(t, func() error {
		a, err := ask(t, org, cert, f.d.CACert)
		if err != nil {
			return err
		}
		if a.Status != want || !a.ThisUpdate.After(than) {
			return fmt.Errorf("%s as of %s, want %s as of later than %s", a.Status, a.ThisUpdate, want, than)
		}
		return nil
	})
}

// awaitVerified returns when a bridge has verified what its own peer has.
func (f *fabricCase) awaitVerified(t *testing.T, org deploy.Org) {
	t.Helper()
	l, err := f.d.Ledger(t.Context(), org.Number, testnetwork.Operator)
	if err != nil {
		t.Fatal(err)
	}
	height, err := l.Height(t.Context())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		verified, err := strconv.ParseFloat(metricLine(t, org, "\ncertanchor_ledger_verified_blocks "), 64)
		if err == nil && verified < float64(height) {
			err = fmt.Errorf("%v of %d blocks are verified", verified, height)
		}
		return err
	})
}

func metricsOf(t *testing.T, org deploy.Org) string {
	t.Helper()
	resp, err := http.Get(org.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	return string(body)
}

func metricLine(t *testing.T, org deploy.Org, name string) string {
	t.Helper()
	_, rest, _ := strings.Cut(metricsOf(t, org), name)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func awaitMetric(t *testing.T, org deploy.Org, line string) {
	t.Helper()
	eventually(t, func() error {
		if !strings.Contains(metricsOf(t, org), "\n"+line+"\n") {
			return fmt.Errorf("metrics do not say %s", line)
		}
		return nil
	})
}

// liar stands between a bridge and another organisation's peer, and marks revocations invalid.
type liar struct {
	peer.UnimplementedDeliverServer
	honest         peer.DeliverClient
	address, tlsCA string
}

func startLiar(t *testing.T, of fabric.Config) *liar {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	roots, err := os.ReadFile(of.TLSCA)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	host, _, err := net.SplitHostPort(of.Endpoint)
	check(err)
	conn, err := grpc.NewClient(of.Endpoint, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(100<<20)))
	check(err)
	t.Cleanup(func() { check(conn.Close()) })

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "liar"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	l := &liar{honest: peer.NewDeliverClient(conn), address: listener.Addr().String(), tlsCA: filepath.Join(t.TempDir(), "tls.pem")}
	check(os.WriteFile(l.tlsCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	peer.RegisterDeliverServer(server, l)
	go func() { _ = server.Serve(listener) }() // ends at Stop
	t.Cleanup(server.Stop)
	return l
}

// Deliver hands the request on, which is signed, and what comes back with every revocation marked invalid.
func (l *liar) Deliver(s grpc.BidiStreamingServer[common.Envelope, peer.DeliverResponse]) error {
	request, err := s.Recv()
	if err != nil {
		return err
	}
	from, err := l.honest.Deliver(s.Context())
	if err != nil {
		return err
	}
	if err := from.Send(request); err != nil {
		return err
	}
	for {
		r, err := from.Recv()
		if err != nil {
			return err
		}
		if b := r.GetBlock(); b != nil {
			hideRevocations(b)
		}
		if err := s.Send(r); err != nil {
			return err
		}
	}
}

func hideRevocations(b *common.Block) {
	parsed, err := fabric.ParseBlock(b, testnetwork.Chaincode)
	if err != nil {
		return
	}
	flags := b.GetMetadata().GetMetadata()[common.BlockMetadataIndex_TRANSACTIONS_FILTER]
	lie := bytes.Clone(flags)
	for _, tx := range parsed.Txs {
		if tx.Valid && tx.Function == wire.FnSetStatus {
			lie[tx.Index] = byte(peer.TxValidationCode_MVCC_READ_CONFLICT)
		}
	}
	b.Metadata.Metadata[common.BlockMetadataIndex_TRANSACTIONS_FILTER] = lie
}
