// Package httpserve runs HTTP servers with the limits and the shutdown that every service here wants.
package httpserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/pemcert"
)

// Limits of every server.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second // longer than the longest poll a handler grants
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	shutdownGrace     = 10 * time.Second
)

// TLS names a server's certificate chain and key, PEM files.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`

	// ClientCA names a PEM file with the roots of client certificates. A client need not have one; handlers find those that verify in
	// Request.TLS.VerifiedChains. One that does not verify ends the connection.
	ClientCA string `yaml:"client_ca,omitempty"`
}

// Config reads the files.
func (t *TLS) Config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert %q, tls.key %q: %w", t.Cert, t.Key, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if t.ClientCA == "" {
		return c, nil
	}
	roots, err := pemcert.Read(t.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca %q: %w", t.ClientCA, err)
	}
	c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	for _, root := range roots {
		c.ClientCAs.AddCert(root)
	}
	return c, nil
}

// Server is a listening HTTP server.
type Server struct {
	name     string
	listener net.Listener
	server   *http.Server
	files    *TLS                       // nil: plain HTTP
	ask      bool                       // for client certificates
	tls      atomic.Pointer[tls.Config] // of the connections that come next
}

// Options of Listen.
type Options struct {
	TLS *TLS // nil: plain HTTP
	// Public allows plain HTTP on any address: for services that carry nothing secret and whose answers are signed, as OCSP's and CRLs
	// are. Others must listen on a loopback address or have TLS: tokens do not cross a network in the clear.
	Public bool
	// AskCertificate asks clients for a certificate and takes whatever they show, unless TLS.ClientCA says more: the handler verifies
	// Request.TLS.PeerCertificates. The handshake proves that the client has the key.
	AskCertificate bool
}

// Listen opens the address, host:port. The error of a taken address names the service and the address.
func Listen(name, address string, o Options, handler http.Handler) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s: listen %q: must be host:port: %w", name, address, err)
	}
	t := o.TLS
	if t == nil && !o.Public && !isLoopback(host) {
		return nil, fmt.Errorf("%s: listen %q: must be a loopback address, or tls.cert and tls.key must be set", name, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := &Server{name: name, listener: l, files: t, ask: o.AskCertificate, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// At level debug: these messages name clients' addresses.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}}
	if err := s.Reload(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if t != nil {
		s.listener = tls.NewListener(l, &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.tls.Load(), nil },
		})
	}
	return s, nil
}

// Reload reads the files of TLS again, for the connections that come next. After an error everything is as it was.
func (s *Server) Reload() error {
	if s.files == nil {
		return nil
	}
	conf, err := s.files.Config()
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if s.ask && conf.ClientAuth == tls.NoClientCert {
		conf.ClientAuth = tls.RequestClientCert
	}
	s.tls.Store(conf)
	return nil
}

// Addr is the address it listens on, with the port the system chose when port 0 was asked for.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// reloadOn reloads at each signal until ctx ends.
func (s *Server) reloadOn(ctx context.Context, hangups chan os.Signal) {
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if err := s.Reload(); err != nil {
			slog.Error("TLS certificate is not reloaded, the one that was read before stays", "service", s.name, "error", err)
			continue
		}
		slog.Info("TLS certificate reloaded", "service", s.name)
	}
}

// Run serves until ctx ends, then lets running requests finish for at most ten seconds. SIGHUP reloads the files of TLS, if there are any.
func (s *Server) Run(ctx context.Context) error {
	if s.files != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP) // before anything is served
		go s.reloadOn(ctx, hangups)
	}
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.listener) }()
	slog.Info("listening", "service", s.name, "address", s.Addr())
	select {
	case err := <-done:
		return fmt.Errorf("%s: %w", s.name, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	err := s.server.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if serveErr := <-done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("%s: shutdown: %w", s.name, err)
	}
	return nil
}

// Close releases the listener of a server that was never run.
func (s *Server) Close() error { return s.listener.Close() }

// Loopback reports whether an address, host:port, can be reached from this machine only.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
