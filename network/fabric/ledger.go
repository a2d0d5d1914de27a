package fabric

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/certanchor/certanchor/network"
)

// maxMessage bounds a gRPC message. It is what Fabric's own peers allow; a block holds several arguments of wire.MaxArgBytes.
const maxMessage = 100 << 20

// Ledger is a connection to one channel through one peer. It implements network.Ledger.
type Ledger struct {
	cfg       Config
	log       *slog.Logger
	conn      *grpc.ClientConn
	gateway   *client.Gateway
	network   *client.Network
	contract  *client.Contract
	qscc      *client.Contract // Fabric's system chaincode for questions about the ledger itself
	endorser  peer.EndorserClient
	deliver   peer.DeliverClient
	sign      identity.Sign
	commits   *commits
	endorsers *endorserChoice

	ctx   context.Context // ends at Close
	close context.CancelFunc
}

var _ network.Ledger = (*Ledger)(nil)

// Option changes how Open connects.
type Option func(*Ledger)

// WithLogger receives warnings about lost and regained connections; the default is slog.Default().
func WithLogger(log *slog.Logger) Option { return func(l *Ledger) { l.log = log } }

// Open reads the identity and prepares the connection. It does not wait for the peer: a process may start before its peer
// does, and is told ErrUnavailable until then. Errors are about cfg and the files it names.
func Open(ctx context.Context, cfg Config, options ...Option) (*Ledger, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open fabric ledger: %w", err)
	}
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("fabric ledger: %w", err)
	}
	id, sign, err := loadIdentity(cfg)
	if err != nil {
		return nil, fmt.Errorf("fabric ledger: %w", err)
	}
	conn, err := dial(cfg)
	if err != nil {
		return nil, fmt.Errorf("fabric ledger: %w", err)
	}
	gw, err := client.Connect(id, client.WithSign(sign), client.WithClientConnection(conn))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fabric ledger: connect gateway: %w", err), conn.Close())
	}
	l := &Ledger{
		cfg:       cfg,
		log:       slog.Default(),
		conn:      conn,
		gateway:   gw,
		network:   gw.GetNetwork(cfg.Channel),
		endorser:  peer.NewEndorserClient(conn),
		deliver:   peer.NewDeliverClient(conn),
		sign:      sign,
		commits:   newCommits(),
		endorsers: newEndorserChoice(cfg.MSPID),
	}
	l.contract = l.network.GetContract(cfg.Chaincode)
	l.qscc = l.network.GetContract("qscc")
	l.ctx, l.close = context.WithCancel(context.Background())
	for _, o := range options {
		o(l)
	}
	l.log = l.log.With("peer", cfg.Endpoint, "channel", cfg.Channel)
	return l, nil
}

func loadIdentity(cfg Config) (*identity.X509Identity, identity.Sign, error) {
	certPEM, err := os.ReadFile(cfg.Cert)
	if err != nil {
		return nil, nil, fmt.Errorf("cert: %w", err)
	}
	cert, err := identity.CertificateFromPEM(certPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("cert: %s: %w", cfg.Cert, err)
	}
	id, err := identity.NewX509Identity(cfg.MSPID, cert)
	if err != nil {
		return nil, nil, fmt.Errorf("cert: %s: %w", cfg.Cert, err)
	}
	keyPEM, err := os.ReadFile(cfg.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	key, err := identity.PrivateKeyFromPEM(keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %s: %w", cfg.Key, err)
	}
	sign, err := identity.NewPrivateKeySign(key)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %s: %w", cfg.Key, err)
	}
	return id, sign, nil
}

// dial prepares a connection that notices a peer which is frozen or unreachable without having closed it, and that comes
// back within about a second of the peer.
func dial(cfg Config) (*grpc.ClientConn, error) {
	roots, err := os.ReadFile(cfg.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("tls_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("tls_ca: %s: no PEM certificate in it", cfg.TLSCA)
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, time.Second
	conn, err := grpc.NewClient(cfg.Endpoint,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    pool,
			ServerName: cfg.ServerName,
		})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 3 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: cfg.Keepalive, Timeout: 3 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %q: %w", cfg.Endpoint, err)
	}
	return conn, nil
}

// MSPID implements network.Ledger.
func (l *Ledger) MSPID() string { return l.cfg.MSPID }

// Channel implements network.Ledger.
func (l *Ledger) Channel() string { return l.cfg.Channel }

// Close implements network.Ledger.
func (l *Ledger) Close() error {
	if l.ctx.Err() != nil {
		return nil
	}
	l.close()
	if err := errors.Join(l.gateway.Close(), l.conn.Close()); err != nil {
		return fmt.Errorf("close fabric ledger: %w", err)
	}
	return nil
}

// call derives the context of one call: it has a deadline, and ends when the connection is closed.
func (l *Ledger) call(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := l.untilClosed(ctx)
	if _, ok := ctx.Deadline(); ok {
		return ctx, cancel
	}
	timed, stop := context.WithTimeout(ctx, l.cfg.Timeout)
	return timed, func() { stop(); cancel() }
}

// untilClosed derives a context that also ends when the connection is closed.
func (l *Ledger) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// because adds to err that the connection was closed or the context ended, which gRPC tells only as a status.
func (l *Ledger) because(ctx context.Context, err error) error {
	switch end := ctx.Err(); {
	case l.ctx.Err() != nil:
		return fmt.Errorf("%w: %w", network.ErrClosed, err)
	case end == nil || errors.Is(err, end):
		return err
	default:
		return fmt.Errorf("%w: %w", end, err)
	}
}

func (l *Ledger) unavailable(ctx context.Context, stage string, err error) error {
	return &network.UnavailableError{Stage: stage, Err: l.because(ctx, err)}
}
