package ocspbridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// A bridge in a process of its own, which is killed.

const childEnv = "CERTANCHOR_BRIDGE_CHILD" // the directory that both processes know

type child struct {
	cmd *exec.Cmd
	url string
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], "-test.run", "^TestRevokedStaysRevokedAfterBridgeCrash$", "-test.v")}
	c.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), "listening on "); ok {
			c.url = url
			return c
		}
	}
	t.Fatalf("child ended without listening: %v", lines.Err())
	return nil
}

// kill sends SIGKILL and waits for the end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be dead already
	_ = c.cmd.Wait()
}

// serveChild is the child's main.
func serveChild(t *testing.T, dir string) {
	conn, err := embedded.Dial(t.Context(), embedded.DialOptions{Socket: filepath.Join(dir, "s"), Role: wire.RoleOperator, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	pair := ocspbridge.KeyPair{CertFile: filepath.Join(dir, "responder.crt"), KeyFile: filepath.Join(dir, "responder.key")}
	b, err := ocspbridge.New(t.Context(), ocspbridge.Config{Dir: filepath.Join(dir, "bridge"), Log: quiet(), Responders: []ocspbridge.KeyPair{pair}}, conn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := http.Serve(l, b.Handler()); err != nil {
			t.Error(err)
		}
	}()
	fmt.Printf("listening on http://%s\n", l.Addr())
	t.Error(b.Run(t.Context())) // until killed
}

func (c *child) ask(t *testing.T, issuer, cert *x509.Certificate) string {
	t.Helper()
	resp, err := http.Post(c.url+"/ocsp", "application/ocsp-request", bytes.NewReader(request(t, issuer, nil, cert)))
	if err != nil {
		t.Fatal(err)
	}
	status, answer, err := ocspwire.ParseResponse(readAll(t, resp))
	if err != nil {
		t.Fatal(err)
	}
	if status != ocspwire.Successful {
		return status.String()
	}
	return answer.Responses[0].Status.String()
}

// TestRevokedStaysRevokedAfterBridgeCrash kills the bridge's process with SIGKILL while certificates are revoked. What was
// acknowledged as revoked is never good again, from the first answer of the next process on.
func TestRevokedStaysRevokedAfterBridgeCrash(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		serveChild(t, dir)
		return
	}
	dir, err := os.MkdirTemp("", "ocsp") // short: a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := crashWorld(t, dir)
	certs := w.issue(60)
	var revoked []*x509.Certificate
	for round := range 6 {
		c := startChild(t, dir)
		for limit := time.Now().Add(deadline); ; {
			bad := 0
			for _, cert := range revoked {
				switch got := c.ask(t, w.ca.Cert, cert); got {
				case "good":
					t.Fatalf("round %d: good after it was acknowledged as revoked", round)
				case "revoked":
					bad++
				}
			}
			if bad == len(revoked) && c.ask(t, w.ca.Cert, certs[59]) == "good" {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("round %d: %d of %d are revoked", round, bad, len(revoked))
			}
		}
		die := time.AfterFunc(time.Duration(5+7*round)*time.Millisecond, func() { _ = c.cmd.Process.Kill() })
		for _, cert := range certs[8*round : 8*round+8] {
			r := w.revoke(cert, wire.KeyCompromise)
			resp, err := http.Get(fmt.Sprintf("%s/v1/applied?block=%d&timeout=5s", c.url, r.Block))
			if err == nil {
				_ = resp.Body.Close() // which the kill may have cut short
			}
			revoked = append(revoked, cert) // with the bridge dead, the acknowledgement need not wait for it
		}
		die.Stop()
		c.kill()
	}
}

// crashWorld is a world by the real clock, served at a socket, with a responder certificate on file.
func crashWorld(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{t: t, clock: newClock(), dir: dir, ca: cctest.NewCA(t)}
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "ledger"), MSPID: mspID, Channel: channel, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	w.node, w.conn = node, node.Connect(wire.RoleOperator)
	t.Cleanup(w.close)
	listener, err := embedded.Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- node.Serve(ctx, listener) }()
	t.Cleanup(func() { cancel(); <-served })
	if _, err := node.Connect(wire.RoleAdministrator).Submit(t.Context(), wire.FnRegisterCA, w.ca.RegisterArg(mspID)); err != nil {
		t.Fatal(err)
	}
	pair := ocspbridge.KeyPair{CertFile: filepath.Join(dir, "responder.crt"), KeyFile: filepath.Join(dir, "responder.key")}
	w.submit(wire.FnIssue, w.ca.IssueArg(w.writeResponder(cctest.NewKey(t), pair, nil)))
	return w
}
