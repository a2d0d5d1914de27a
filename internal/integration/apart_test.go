package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// commands runs the certanchor program as a person would.
type commands struct {
	t   *testing.T
	exe string
	dir string
}

func (c commands) run(args ...string) (stdout, stderr string, err error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.exe, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (c commands) must(args ...string) string {
	c.t.Helper()
	out, errs, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("certanchor %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

func startApart(t *testing.T) *deploy.Deployment {
	t.Helper()
	d, err := deploy.EmbeddedApart(t.Context(), deploy.Options{Dir: filepath.Join(t.TempDir(), "services"), Executable: nettest.Program(t), TickInterval: tickInterval})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, d)
	return d
}

// endWith ends a deployment with the test, and shows the end of every log when that has failed.
func endWith(t *testing.T, d *deploy.Deployment) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range d.Names() {
				t.Logf("end of the log of %s:\n%s", name, d.Tail(name))
			}
		}
		if err := d.StopAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestCommandLineOnPiecesThatRunApart(t *testing.T) {
	d := startApart(t)
	c := commands{t: t, exe: nettest.Program(t), dir: t.TempDir()}
	csr, err := newCSR("apart")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "req.pem"), []byte(csr), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := []string{"--ca-url", d.CAURL, "--token-file", d.TokenFile()}
	var issued caapi.Certificate
	if err := json.Unmarshal([]byte(c.must(append(ca, "cert", "issue", "--csr", "req.pem", "--out", "cert.pem", "--json")...)), &issued); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("client: {ca_url: %q, token_file: %q, issuer: %q, bridge_url: %q}\n", d.CAURL, d.TokenFile(), d.CACertFile(), d.Orgs[0].URL)
	if err := os.WriteFile(filepath.Join(c.dir, "client.yaml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	status := func() (string, error) {
		out, _, err := c.run("cert", "status", "--config", "client.yaml", "--cert", "cert.pem")
		return out, err
	}
	if out, err := status(); err != nil || !strings.HasPrefix(out, "good\n") {
		t.Errorf("status after issuing: %v\n%s", err, out)
	}
	proof := c.must("cert", "proof", "--config", "client.yaml", "--cert", "cert.pem", "--out", "cert.proof")
	if !strings.Contains(proof, "not pinned") {
		t.Errorf("a key from the server itself is not marked:\n%s", proof)
	}
	if out := c.must(append(ca, "cert", "show", issued.Serial)...); !strings.Contains(out, "status     valid") {
		t.Errorf("show:\n%s", out)
	}
	c.must(append(ca, "cert", "revoke", "--cert", "cert.pem", "--reason", "certificateHold")...)
	if out, err := status(); err == nil || !strings.Contains(out, "certificateHold") {
		t.Errorf("status on hold: %v\n%s", err, out)
	}
	c.must("cert", "release", issued.Serial, "--config", "client.yaml")
	if out, err := status(); err != nil {
		t.Errorf("status after release: %v\n%s", err, out)
	}
	c.must(append(ca, "cert", "revoke", issued.Serial, "--reason", "keyCompromise")...)
	if out := c.must(append(ca, "cert", "revoke", issued.Serial, "--reason", "superseded")...); !strings.Contains(out, "was already revoked (keyCompromise)") {
		t.Errorf("revoked again:\n%s", out)
	}
	if out, err := status(); err == nil || !strings.HasPrefix(out, "revoked\n") {
		t.Errorf("status after revoking: %v\n%s", err, out)
	}
	for _, bad := range []struct{ name, want string }{
		{"cert revoke 01020304 --reason superseded", "404"},
		{"cert revoke " + issued.Serial + " --reason whim", "reason \"whim\""},
		{"cert revoke zz --reason superseded", "serial \"zz\""},
		{"cert issue --csr cert.proof", "csr"},
		{"cert issue --csr req.pem --profile nosuch", "nosuch"},
	} {
		if out, errs, err := c.run(append(ca, strings.Fields(bad.name)...)...); err == nil || !strings.Contains(errs, bad.want) {
			t.Errorf("%s: %v\n%s%s", bad.name, err, out, errs)
		}
	}
}

// TestNothingIsLostOnTheEmbeddedLedger kills each piece while certificates are being issued and revoked.
func TestNothingIsLostOnTheEmbeddedLedger(t *testing.T) {
	d := startApart(t)
	for _, name := range d.Names() {
		t.Run(name, func(t *testing.T) {
			l := startLoad(t, d)
			l.awaitMore(t, 10)
			if err := d.Kill(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := d.Start(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			l.awaitMore(t, 20)
			done := l.stop()
			checkAcked(t, d, done)
		})
	}
}

func TestResponderWithoutLedgerStopsSayingGood(t *testing.T) {
	d := startApart(t)
	f := &fabricCase{d: d}
	cert := f.issue(t)
	awaitOCSP(t, d, d.Orgs[0], cert, client.Good)
	if err := d.Kill(t.Context(), deploy.LedgerService); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		a, err := ask(t, d.Orgs[0], cert, d.CACert)
		if !errors.Is(err, client.ErrTryLater) {
			return fmt.Errorf("it answers %v, %v", a, err)
		}
		return nil
	})
	if err := d.Start(t.Context(), deploy.LedgerService); err != nil {
		t.Fatal(err)
	}
	awaitOCSP(t, d, d.Orgs[0], cert, client.Good)
}
