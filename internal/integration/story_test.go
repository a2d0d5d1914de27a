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

// TestOutsideToolsWorkFromEndpointsFile: the demo leaves its services up, and openssl is pointed at them with nothing but
// what endpoints.json says.
func TestOutsideToolsWorkFromEndpointsFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	exe := nettest.Program(t)
	run := func(name string, args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := run(exe, "demo", "--keep", "--state", dir); err != nil {
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
	for name, want := range map[string]string{"rsa2048": ": good", "p256": ": revoked"} {
		s := e.Samples[name]
		out, err := run("openssl", "ocsp", "-issuer", ca, "-CAfile", ca, "-cert", s.Certificate, "-url", e.Orgs[0].OCSP)
		if err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		out, err = run(exe, "cert", "proof", "--cert", s.Certificate, "--issuer", ca, "--url", strings.TrimSuffix(e.Orgs[0].Logs, "/logs"),
			"--log-key", e.Orgs[0].LogKeys[0])
		if err != nil || !strings.Contains(out, "included at index") {
			t.Errorf("proof of %s: %v\n%s", name, err, out)
		}
	}
	out, err := run("openssl", "verify", "-x509_strict", "-purpose", "ocsphelper", "-CAfile", ca, e.Orgs[0].Responder)
	if err != nil {
		t.Errorf("responder certificate: %v\n%s", err, out)
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
