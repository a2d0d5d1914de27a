package fabric

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
)

// deadline bounds every wait of these tests.
const deadline = 20 * time.Second

// tlsFiles makes a certificate for 127.0.0.1 that ca signs, with the key that all test leaves share.
func tlsFiles(t testing.TB, ca *cctest.CA) (certPEM, keyPEM []byte) {
	t.Helper()
	der, _ := ca.Issue(t, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	})
	key, err := x509.MarshalPKCS8PrivateKey(cctest.LeafKey())
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", key)
}

func pemOf(kind string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

type testServer struct {
	ca      *cctest.CA
	address string
	stop    context.CancelFunc
	done    chan error
}

func serve(t testing.TB, executor Executor) *testServer {
	t.Helper()
	s := &testServer{ca: cctest.NewCA(t), done: make(chan error, 1)}
	cert, key := tlsFiles(t, s.ca)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	listening := make(chan string, 1)
	go func() {
		s.done <- Serve(ctx, ServerConfig{
			Address: "127.0.0.1:0", PackageID: "certanchor:1", TLSCert: cert, TLSKey: key,
			ClientCA: pemOf("CERTIFICATE", s.ca.DER), Executor: executor, Log: slog.New(slog.DiscardHandler),
			Listening: func(a net.Addr) { listening <- a.String() },
		})
	}()
	t.Cleanup(cancel)
	select {
	case s.address = <-listening:
	case err := <-s.done:
		t.Fatalf("the server did not start: %v", err)
	}
	return s
}

// dial opens a stream as a peer that has these certificates.
func (s *testServer) dial(t testing.TB, certs ...tls.Certificate) (peer.Chaincode_ConnectClient, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Cert)
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: certs,
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return peer.NewChaincodeClient(conn).Connect(ctx)
}

func clientCert(t testing.TB, ca *cctest.CA) tls.Certificate {
	t.Helper()
	cert, key := tlsFiles(t, ca)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (s *testServer) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(deadline):
		t.Fatal("the server did not end")
		return nil
	}
}

func TestServerExecutesForAPeerWithACertificate(t *testing.T) {
	s := serve(t, contractOf(t))
	stream, err := s.dial(t, clientCert(t, s.ca))
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePeer{stream: stream, params: batching}
	p.shake(t)
	must(t, p.invoke(t, identity(t, "Org1MSP", wire.RoleAdministrator), now, []byte(wire.FnInit), initArg()))
	if p.state[wire.ConsortiumKey] == nil {
		t.Error("Init wrote no consortium")
	}
	s.stop()
	if err := s.wait(t); err != nil {
		t.Errorf("a stopped server returned %v", err)
	}
}

func TestServerRefusesAPeerWithoutACertificateOfTheClientCA(t *testing.T) {
	s := serve(t, contractOf(t))
	for name, certs := range map[string][]tls.Certificate{
		"none":            nil,
		"of another CA":   {clientCert(t, cctest.NewCA(t))},
		"the CA's cousin": {clientCert(t, cctest.NewCA(t, cctest.WithParent(cctest.NewCA(t))))},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := s.dial(t, certs...)
			if err == nil {
				_, err = stream.Recv()
			}
			if err == nil {
				t.Error("the server talks to it")
			}
		})
	}
}

// A transaction that is running when the server is told to stop still gets its answer.
func TestStopLetsARunningTransactionEnd(t *testing.T) {
	s := serve(t, contractOf(t))
	stream, err := s.dial(t, clientCert(t, s.ca))
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePeer{stream: stream, params: batching}
	p.shake(t)
	p.beforeOp = s.stop // the chaincode is waiting for state
	must(t, p.invoke(t, identity(t, "Org1MSP", wire.RoleAdministrator), now, []byte(wire.FnInit), initArg()))
	if err := s.wait(t); err != nil {
		t.Errorf("a stopped server returned %v", err)
	}
}

func TestDrainWaitsForTheLastAnswerOnly(t *testing.T) {
	c := newCounted(nil)
	c.drain(deadline) // nothing is running
	s := &countedStream{Chaincode_ConnectServer: fakeStream{}, counted: c}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() { c.drain(deadline); close(drained) }()
	if err := s.Send(&peer.ChaincodeMessage{Type: peer.ChaincodeMessage_GET_STATE}); err != nil {
		t.Fatal(err)
	}
	if c.count() != 1 {
		t.Fatal("a question to the peer counted as the answer")
	}
	if err := s.Send(&peer.ChaincodeMessage{Type: peer.ChaincodeMessage_COMPLETED}); err != nil {
		t.Fatal(err)
	}
	<-drained
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	s.abandon() // the peer has gone
	c.drain(deadline)
	_ = s.Send(&peer.ChaincodeMessage{Type: peer.ChaincodeMessage_COMPLETED}) // too late
	if n := c.count(); n != 0 {
		t.Errorf("%d transactions are running after the stream ended", n)
	}
	c.add(1)
	c.drain(time.Nanosecond) // gives up
}

type fakeStream struct{ peer.Chaincode_ConnectServer }

func (fakeStream) Send(*peer.ChaincodeMessage) error { return nil }
func (fakeStream) Recv() (*peer.ChaincodeMessage, error) {
	return &peer.ChaincodeMessage{Type: peer.ChaincodeMessage_TRANSACTION}, nil
}

func TestServeRefusesUnsafeSettings(t *testing.T) {
	ca := cctest.NewCA(t)
	cert, key := tlsFiles(t, ca)
	good := ServerConfig{
		Address: "127.0.0.1:0", PackageID: "certanchor:1", TLSCert: cert, TLSKey: key,
		ClientCA: pemOf("CERTIFICATE", ca.DER), Executor: contractOf(t), Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range []struct {
		field  string
		change func(*ServerConfig)
	}{
		{"address", func(c *ServerConfig) { c.Address = "" }},
		{"package_id", func(c *ServerConfig) { c.PackageID = "" }},
		{"tls_cert", func(c *ServerConfig) { c.TLSCert = nil }},
		{"tls_key", func(c *ServerConfig) { c.TLSKey = nil }},
		{"tls_cert", func(c *ServerConfig) { c.TLSCert = pemOf("CERTIFICATE", ca.DER) }}, // another key
		{"client_ca", func(c *ServerConfig) { c.ClientCA = nil }},
		{"client_ca", func(c *ServerConfig) { c.ClientCA = []byte("no PEM") }},
		{"executor", func(c *ServerConfig) { c.Executor = nil }},
	} {
		cfg := good
		c.change(&cfg)
		var e *wire.Error
		if err := Serve(context.Background(), cfg); !errors.As(err, &e) || e.Field != c.field {
			t.Errorf("Serve returned %v, want an error about %s", err, c.field)
		}
	}
	for godebug, ok := range map[string]bool{
		"": true, "http2debug=1": true, "x509negativeserial=1": false, "madvdontneed=1,rsa1024min=0": false,
	} {
		if err := checkEnvironment(godebug); (err == nil) != ok {
			t.Errorf("GODEBUG=%s: %v", godebug, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck
	good.Address = taken.Addr().String()
	if err := Serve(context.Background(), good); err == nil || !bytes.Contains([]byte(err.Error()), []byte(good.Address)) {
		t.Errorf("Serve on a taken port returned %v", err)
	}
}
