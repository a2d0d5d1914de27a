package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/demo"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

func TestStoryOnBothLedgers(t *testing.T) {
	for _, engine := range []string{config.EngineEmbedded, config.EngineFabric} {
		t.Run(engine, func(t *testing.T) {
			res, err := demo.Run(t.Context(), demo.Options{Engine: engine, Executable: nettest.Program(t), Out: testLog{t}})
			if err != nil || !res.OK {
				t.Fatalf("%v: %+v", err, res)
			}
		})
	}
}

func TestStoryOnARunningNetwork(t *testing.T) {
	net := nettest.Start(t, testnetwork.Options{})
	res, err := demo.Run(t.Context(), demo.Options{Engine: config.EngineFabric, NetworkDir: net.Dir(), Executable: nettest.Program(t), Out: testLog{t}})
	if err != nil || !res.OK {
		t.Fatalf("%v: %+v", err, res)
	}
	if status, err := net.Status(t.Context()); err != nil || !status.Healthy {
		t.Errorf("the network did not outlive the story: %+v, %v", status, err)
	}
}

// TestOutsideToolsWorkFromEndpointsFile: the demo leaves its services up, and openssl is pointed at every organisation's with
// nothing but what endpoints.json says.
func TestOutsideToolsWorkFromEndpointsFile(t *testing.T) {
	for _, engine := range []string{config.EngineEmbedded, config.EngineFabric} {
		t.Run(engine, func(t *testing.T) { outsideTools(t, engine) })
	}
}

func outsideTools(t *testing.T, engine string) {
	dir := filepath.Join(t.TempDir(), "state")
	exe := nettest.Program(t)
	run := func(name string, args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := run(exe, "demo", "--engine", engine, "--network", "", "--keep", "--state", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stopped := false
	stop := func() {
		if out, err := run(exe, "demo", "--stop", "--state", dir); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Cleanup(func() {
		if !stopped {
			exec.Command(exe, "demo", "--stop", "--state", dir).Run()
		}
	})
	data, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e demo.Endpoints
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	ca := e.CA.Certificate
	for _, org := range e.Orgs {
		for name, want := range map[string]string{"rsa2048": ": good", "p256": ": revoked"} {
			s := e.Samples[name]
			out, err := run("openssl", "ocsp", "-issuer", ca, "-CAfile", ca, "-cert", s.Certificate, "-url", org.OCSP)
			if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, want) {
				t.Errorf("%s at %s: %v\n%s", name, org.MSPID, err, out)
			}
			out, err = run(exe, "cert", "proof", "--cert", s.Certificate, "--issuer", ca, "--url", strings.TrimSuffix(org.Logs, "/logs"),
				"--log-key", org.LogKeys[0])
			if err != nil || !strings.Contains(out, "included at index") {
				t.Errorf("proof of %s by %s: %v\n%s", name, org.MSPID, err, out)
			}
		}
		out, err := run("openssl", "verify", "-x509_strict", "-purpose", "ocsphelper", "-CAfile", ca, org.Responder)
		if err != nil {
			t.Errorf("responder certificate of %s: %v\n%s", org.MSPID, err, out)
		}
	}
	stop()
	stopped = true
	if out, err := run("openssl", "ocsp", "-issuer", ca, "-CAfile", ca, "-cert", e.Samples["rsa2048"].Certificate, "-url", e.Orgs[0].OCSP); err == nil {
		t.Errorf("the responder still answers after --stop:\n%s", out)
	}
}

// testLog passes the story on to the test's log.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
