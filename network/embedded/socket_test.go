package embedded

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/networktest"
)

// serve hosts a new ledger in this process.
func serve(t *testing.T) (node *Node, socket string) {
	t.Helper()
	top, err := os.MkdirTemp("", "ca")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	node = open(t, Options{Dir: filepath.Join(top, "ledger"), TickInterval: testTick})
	socket = filepath.Join(top, "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- node.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return node, socket
}

func TestAnAnswerThatIsLostLeavesTheOutcomeUnknown(t *testing.T) {
	node, socket := serve(t)
	proxy := networktest.NewProxy(t, "unix", filepath.Join(filepath.Dir(socket), "p"), socket)
	s := newStory(t, 2)
	admin, operator := dial(t, proxy.Addr(), wire.RoleAdministrator), dial(t, proxy.Addr(), wire.RoleOperator)
	if err := s.tell(t.Context(), admin, operator); err != nil {
		t.Fatal(err)
	}
	der, _ := s.ca.Issue(t)
	arg := s.ca.IssueArg(der)
	height, err := node.height()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		then func(cancel context.CancelFunc)
	}{
		{"the connection breaks", func(context.CancelFunc) { proxy.Cut() }},
		{"the caller gives up", func(cancel context.CancelFunc) { cancel() }},
	} {
		proxy.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, err = operator.Submit(ctx, wire.FnIssue, arg) })
		var block *network.Block
		berr := node.Connect(wire.RoleAuditor).Blocks(t.Context(), height, func(b *network.Block) error { block = b; return errSeen })
		if !errors.Is(berr, errSeen) {
			t.Fatal(berr)
		}
		height++
		c.then(cancel)
		wg.Wait()
		cancel()
		proxy.Release()
		var unknown *network.UnknownOutcomeError
		if !errors.As(err, &unknown) || unknown.TxID != block.Txs[0].ID {
			t.Errorf("%s: %v, want ErrUnknownOutcome of %s", c.name, err, block.Txs[0].ID)
		}
		r, err := operator.Submit(t.Context(), wire.FnIssue, arg)
		if err != nil || !bytes.Equal(r.Result, block.Txs[0].Result) {
			t.Errorf("%s: submitted again: %x, %v; the block has %x", c.name, r.Result, err, block.Txs[0].Result)
		}
		height++
	}
}

var errSeen = errors.New("seen")

func TestSocketRefusesWhatIsNotARequest(t *testing.T) {
	_, socket := serve(t)
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	for _, q := range []struct {
		name   string
		method string
		path   string
		body   []byte
		status int
	}{
		{"no CBOR", "POST", pathSubmit, []byte("x"), http.StatusServiceUnavailable},
		{"another version", "POST", pathSubmit, encode(callRequest{V: 9}), http.StatusServiceUnavailable},
		{"no transaction ID", "POST", pathSubmit, encode(callRequest{V: 1, Role: "operator", Function: "Tick"}), http.StatusServiceUnavailable},
		{"too long", "POST", pathSubmit, make([]byte, maxRequest+1), http.StatusServiceUnavailable},
		{"refused by the contract", "POST", pathEvaluate, encode(callRequest{V: 1, Role: "operator", Function: "Nonsense"}), http.StatusUnprocessableEntity},
		{"blocks from nowhere", "GET", pathBlocks + "?from=-1", nil, http.StatusServiceUnavailable},
		{"no such path", "GET", "/", nil, http.StatusNotFound},
	} {
		r, err := http.NewRequestWithContext(t.Context(), q.method, "http://ledger"+q.path, bytes.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		if err := p.Body.Close(); err != nil {
			t.Error(err)
		}
		if p.StatusCode != q.status {
			t.Errorf("%s: %s, want %d", q.name, p.Status, q.status)
		}
	}
}

func TestListenKeepsTheSocketToItsOwner(t *testing.T) {
	_, socket := serve(t)
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("socket has mode %#o", mode)
	}
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "another process is serving") {
		t.Errorf("second server: %v", err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "s")); err == nil || !strings.Contains(err.Error(), "must be 0700") {
		t.Errorf("socket in a directory open to others: %v", err)
	}
}

func TestListenReplacesADeadProcessesSocket(t *testing.T) {
	c := newChild(t)
	c.start(t)
	c.kill(t)
	l, err := Listen(socketOf(c.dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestDialWithoutServerIsUnavailable(t *testing.T) {
	_, err := Dial(t.Context(), DialOptions{Socket: filepath.Join(t.TempDir(), "s"), Role: wire.RoleOperator})
	if !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestStopAnswersWhatIsBeingWritten(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	node, err := Open(Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	node.opts.step = func(at string) {
		if at == "commit" {
			once.Do(func() { close(entered); <-leave })
		}
	}
	s := newStory(t, 0)
	submitted := make(chan error, 1)
	go func() {
		_, err := node.Connect(wire.RoleAdministrator).Submit(context.Background(), wire.FnRegisterCA, s.ca.RegisterArg(node.MSPID()))
		submitted <- err
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- node.Close() }()
	close(leave)
	if err := <-submitted; err != nil {
		t.Errorf("what was being written: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := node.Connect(wire.RoleOperator).Height(context.Background()); !errors.Is(err, network.ErrClosed) || !errors.Is(err, network.ErrUnavailable) {
		t.Errorf("afterwards: %v", err)
	}
}
