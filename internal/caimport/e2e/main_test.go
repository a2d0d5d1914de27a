package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/cli"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// envCLI makes the test binary the program certanchor.
const envCLI = "CERTANCHOR_TEST_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(envCLI) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	end := time.After(2 * time.Minute)
	for !holds() {
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("waited two minutes in vain: %s", what)
		}
	}
}

// certanchor is the program, to be run in dir. It dies with the test.
func certanchor(t testing.TB, ctx context.Context, dir string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), envCLI+"=1")
	return cmd
}

// summary is what the tests read of ca import --json.
type summary struct {
	Complete                          bool
	Valid, Revoked, Resumed, Imported uint64
	SerialOnlyRevoked                 uint64 `json:"serial_only_revoked"`
	Changed, Bad, Duplicates          uint64
}

// TestAnImportThatIsKilledGoesOn kills the process three times in mid-import.
func TestAnImportThatIsKilledGoesOn(t *testing.T) {
	const certs, serials = 1200, 150
	dir := t.TempDir()
	ca := cctest.NewCA(t)
	check(t, os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.DER}), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "certs.der"), slices.Concat(ca.IssueMany(t, certs)...), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "index.txt"), index(serials), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "ca.yaml"), []byte("ledger:\n  engine: embedded\n  embedded: {socket: run/ledger.sock}\n"), 0o600))
	ledger := serve(t, dir)
	admin := ledger.Connect(wire.RoleAdministrator)
	_, err := admin.Submit(t.Context(), wire.FnRegisterCA, ca.RegisterArg(ledger.MSPID()))
	check(t, err)
	conn := ledger.Connect(wire.RoleOperator)

	args := []string{"ca", "import", "--config", "ca.yaml", "--ca-cert", "ca.pem", "--json", "--assume-valid", "--batch", "6", "certs.der", "index.txt"}
	for _, at := range []uint64{certs / 10, certs / 3, certs / 2} {
		cmd := certanchor(t, t.Context(), dir, args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		check(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		eventually(t, "the import gets on", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("the import ended before it was killed: %v\n%s", err, errs.String())
			default:
			}
			return logSize(t, conn, ca.ID) >= at
		})
		check(t, cmd.Process.Signal(syscall.SIGKILL))
		<-ended
		if n := logSize(t, conn, ca.ID); n >= certs {
			t.Fatalf("%d certificates were on the ledger when it was killed", n)
		}
	}
	cmd := certanchor(t, t.Context(), dir, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	check(t, err)
	var s summary
	check(t, json.Unmarshal(out, &s))
	if !s.Complete || s.Resumed == 0 || s.Resumed+s.Imported != certs+serials || s.Valid != certs || s.SerialOnlyRevoked != serials || s.Bad != 0 {
		t.Errorf("%+v", s)
	}
	if n := logSize(t, conn, ca.ID); n != certs {
		t.Errorf("%d certificates are in the log", n)
	}
	if rec := read(t, conn, wire.CertKey(ca.ID, wire.Serial{0x77, 0, serials - 1})); rec == nil {
		t.Error("the last serial number is not on the ledger")
	}
	// Once more: nothing is left to do.
	out, err = certanchor(t, t.Context(), dir, args...).Output()
	check(t, err)
	s = summary{}
	check(t, json.Unmarshal(out, &s))
	if !s.Complete || s.Imported != 0 || s.Resumed != certs+serials {
		t.Errorf("again: %+v", s)
	}
}

// index is an index.txt of n revoked certificates that nobody has.
func index(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "R\t451120184243Z\t251120184243Z,superseded\t77%04X\tunknown\t/CN=%d\n", i, i)
	}
	return b.Bytes()
}

// serve hosts an embedded ledger behind run/ledger.sock in dir.
func serve(t testing.TB, dir string) *embedded.Node {
	t.Helper()
	check(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "ledger")})
	check(t, err)
	listener, err := embedded.Listen(filepath.Join(dir, "run", "ledger.sock"))
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		check(t, node.Close())
	})
	return node
}

func read(t testing.TB, conn network.Ledger, key string) []byte {
	t.Helper()
	answer, err := conn.Evaluate(t.Context(), wire.FnRead, cctest.ReadArg(key))
	check(t, err)
	var r wire.ReadResult
	check(t, wire.Decode(answer, &r))
	return r.Values[0]
}

func logSize(t testing.TB, conn network.Ledger, id wire.CAID) uint64 {
	t.Helper()
	value := read(t, conn, wire.LogHeadKey(id))
	if value == nil {
		return 0
	}
	var head wire.LogHead
	check(t, wire.Decode(value, &head))
	return head.Size
}

// TestTheWalkthroughOfAnOpenSSLCAWorks runs the commands of docs/walkthrough-openssl-ca.md, with fewer certificates and another port.
func TestTheWalkthroughOfAnOpenSSLCAWorks(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "walkthrough-openssl-ca.md"))
	check(t, err)
	script := commands(string(page))
	const address = "127.0.0.1:8889"
	for _, must := range []string{"head -n 10000", address, "ca import", "ca mirror", "kill "} {
		if !strings.Contains(script, must) {
			t.Fatalf("the page's commands have no %q", must)
		}
	}
	script = strings.ReplaceAll(script, "head -n 10000", "head -n 300")
	script = strings.ReplaceAll(script, address, freeAddress(t))
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	check(t, os.Mkdir(bin, 0o700))
	exe, err := os.Executable()
	check(t, err)
	check(t, os.WriteFile(filepath.Join(bin, "certanchor"), fmt.Appendf(nil, "#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", envCLI, exe), 0o700))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	// What it leaves running goes with it, when a command has failed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := os.Create(filepath.Join(dir, "out"))
	check(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if err != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	check(t, out.Close())
	text, rerr := os.ReadFile(out.Name())
	check(t, rerr)
	if err != nil {
		bridge, _ := os.ReadFile(filepath.Join(dir, "bridge.log"))
		t.Fatalf("%v\n%s\n%s", err, text, bridge)
	}
	for _, want := range []string{
		"298  valid certificates", "1  certificates on hold", "300 entries would change the ledger; nothing was written", "300 of them new to the ledger",
		"1 of them new to the ledger", // the responder
		"02.pem: revoked", "04.pem: revoked",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("nothing said %q:\n%s", want, text)
		}
	}
}

var block = regexp.MustCompile("(?s)```sh\n(.*?)```")

// commands are those of a page, one after the other.
func commands(page string) string {
	var b strings.Builder
	for _, m := range block.FindAllStringSubmatch(page, -1) {
		b.WriteString(m[1])
	}
	return b.String()
}

// freeAddress is one that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, l.Close())
	return l.Addr().String()
}
