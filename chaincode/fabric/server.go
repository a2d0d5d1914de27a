package fabric

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// ServerConfig is what a chaincode server needs. All fields but Log and Listening are required.
type ServerConfig struct {
	Address   string // host:port to listen on
	PackageID string // label:hash, as the peer computed it for the installed package
	TLSCert   []byte // PEM, the server's certificate and chain
	TLSKey    []byte // PEM
	ClientCA  []byte // PEM, the CAs whose certificates a peer may present; a peer without one is refused
	Executor  Executor
	Log       *slog.Logger   // slog.Default() if nil
	Listening func(net.Addr) // called once the server accepts connections
}

// drainTime is how long a stopping server lets running transactions end. Peers give a transaction about five seconds
// (chaincode.executetimeout) anyway.
const drainTime = 5 * time.Second

// Sizes and intervals of shim.ChaincodeServer, which peers are configured for.
const (
	maxMessage      = 100 << 20
	keepaliveTime   = time.Minute
	keepaliveWait   = 20 * time.Second
	minPingInterval = time.Minute
	handshakeTime   = 5 * time.Second
)

// Serve runs the chaincode as a service over mutual TLS until ctx ends, then lets running transactions finish and returns nil.
// It is shim.ChaincodeServer with a way to stop it. Errors: a *wire.Error for a setting, or what listening and accepting
// failed with.
func Serve(ctx context.Context, cfg ServerConfig) error {
	if err := checkEnvironment(os.Getenv("GODEBUG")); err != nil {
		return err
	}
	tlsConfig, err := cfg.check()
	if err != nil {
		return err
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	cc, err := NewChaincode(cfg.Executor, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return fmt.Errorf("chaincode server: %w", err)
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(tlsConfig)),
		grpc.MaxSendMsgSize(maxMessage), grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshakeTime),
	)
	counted := newCounted(&shim.ChaincodeServer{CCID: cfg.PackageID, Address: cfg.Address, CC: cc})
	peer.RegisterChaincodeServer(server, counted)

	stopped := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(stopped)
		log.Info("chaincode server stopping", "running", counted.count())
		counted.drain(drainTime)
		counted.close()
		force := time.AfterFunc(drainTime, server.Stop) // for a peer that does not read
		defer force.Stop()
		server.GracefulStop()
	})
	log.Info("chaincode server listening", "address", listener.Addr().String(), "package_id", cfg.PackageID, "go", runtime.Version())
	if cfg.Listening != nil {
		cfg.Listening(listener.Addr())
	}
	err = server.Serve(listener)
	if !undo() { // ctx has ended
		<-stopped
		return nil
	}
	return fmt.Errorf("chaincode server: %w", err)
}

// check refuses a server that anyone could call: peers authenticate with a certificate, always.
func (c *ServerConfig) check() (*tls.Config, error) {
	for _, s := range []struct {
		field   string
		missing bool
	}{
		{"address", c.Address == ""}, {"package_id", c.PackageID == ""}, {"tls_cert", len(c.TLSCert) == 0},
		{"tls_key", len(c.TLSKey) == 0}, {"client_ca", len(c.ClientCA) == 0}, {"executor", c.Executor == nil},
	} {
		if s.missing {
			return nil, wire.Errorf(wire.InvalidArgument, s.field, "", "must be set")
		}
	}
	cert, err := tls.X509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, wire.Errorf(wire.InvalidArgument, "tls_cert", "", "must be a PEM certificate that belongs to tls_key: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.ClientCA) {
		return nil, wire.Errorf(wire.InvalidArgument, "client_ca", "", "must hold at least one PEM certificate")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}, nil
}

// checkEnvironment refuses settings that would have this endorser judge certificates by other rules than the others do.
func checkEnvironment(godebug string) error {
	for setting := range strings.SplitSeq(godebug, ",") {
		name, _, _ := strings.Cut(setting, "=")
		if strings.HasPrefix(name, "x509") || strings.HasPrefix(name, "rsa") || strings.HasPrefix(name, "fips") {
			return wire.Errorf(wire.InvalidArgument, "GODEBUG", setting, "must not change how certificates are parsed and verified: endorsers would disagree")
		}
	}
	return nil
}
