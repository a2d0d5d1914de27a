package networktest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy passes connections on to a server, and breaks them or holds the answers back when told.
type Proxy struct {
	listener net.Listener
	dial     func() (net.Conn, error)

	mu   sync.Mutex
	open map[net.Conn]net.Conn // client's end to server's end; guarded by mu
	gate chan struct{}         // answers pass while it is closed; guarded by mu
	wg   sync.WaitGroup
}

// NewProxy listens on address of network ("unix" or "tcp") for clients of the server at target, until the test ends.
func NewProxy(t testing.TB, network, address, target string) *Proxy {
	t.Helper()
	l, err := net.Listen(network, address)
	check(t, err)
	p := &Proxy{
		listener: l,
		dial:     func() (net.Conn, error) { return net.Dial(network, target) },
		open:     make(map[net.Conn]net.Conn),
		gate:     make(chan struct{}),
	}
	close(p.gate)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		check(t, l.Close())
		p.Release()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut breaks every connection there is, in whatever state it is.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client, server := range p.open {
		client.Close()
		server.Close()
		delete(p.open, client)
	}
}

// Hold keeps back what the server says from now on, until Release. Requests still reach it.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// Release ends Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				panic(err) // nobody is there to be told
			}
			return
		}
		p.wg.Go(func() { p.pass(client) })
	}
}

// pass connects client to the server until either of them hangs up or Cut is called. While there is no server, clients are hung
// up on at once.
func (p *Proxy) pass(client net.Conn) {
	server, err := p.dial()
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.open[client] = server
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { relay(gated{p, client}, client, server) })
	wg.Go(func() { relay(server, server, client) })
	wg.Wait()
	p.mu.Lock()
	delete(p.open, client)
	p.mu.Unlock()
}

// gated writes to a client when answers may pass.
type gated struct {
	p      *Proxy
	client net.Conn
}

func (g gated) Write(b []byte) (int, error) {
	g.p.mu.Lock()
	gate := g.p.gate
	g.p.mu.Unlock()
	<-gate
	return g.client.Write(b)
}

// relay copies until one side is gone, and then hangs up on both.
func relay(to io.Writer, one, other net.Conn) {
	_, _ = io.Copy(to, other) // how it broke does not matter
	one.Close()
	other.Close()
}
