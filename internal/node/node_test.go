package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// A store that has failed refuses everything until another process opens it, so its process must not stay.
func TestProcessEndsWhenItsStoreDoes(t *testing.T) {
	store, err := embedded.Open(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ledger := &owned{Ledger: store.Connect(wire.RoleOperator), node: store}
	serving, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- withStore(t.Context(), ledger, func(ctx context.Context) error {
			close(serving)
			<-ctx.Done()
			return nil
		})
	}()
	<-serving
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "embedded ledger failed") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on serving")
	}
}

func TestServingEndsWithItsContext(t *testing.T) {
	store, err := embedded.Open(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ledger := &owned{Ledger: store.Connect(wire.RoleOperator), node: store}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = withStore(ctx, ledger, func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err := errors.Join(err, ledger.Close()); err != nil {
		t.Error(err)
	}
}

func TestUnsafeOrIncompleteConfigurationIsRefusedBeforeAnythingIsMade(t *testing.T) {
	dir := t.TempDir()
	base := func() *config.File {
		return &config.File{
			Path:       "test.yaml",
			Ledger:     config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{Dir: filepath.Join(dir, "ledger")}},
			CA:         &config.CA{Dir: filepath.Join(dir, "ca"), Listen: "127.0.0.1:0", Passphrase: keyfile.Source{File: filepath.Join(dir, "pass")}},
			OCSPBridge: &config.OCSPBridge{Dir: filepath.Join(dir, "bridge"), Listen: "127.0.0.1:0", Settings: ocspbridge.DefaultSettings()},
		}
	}
	serveAll := func(c *config.File) error { return ServeAll(t.Context(), c) }
	for name, c := range map[string]struct {
		change func(*config.File)
		run    func(*config.File) error
		key    string
	}{
		"ca serve without a list of responders": {func(*config.File) {}, func(c *config.File) error { return ServeCA(t.Context(), c) }, "ca.responders"},
		"serve without a CA":                    {func(*config.File) {}, serveAll, "ca.dir"},
		"serve on another's ledger":             {func(c *config.File) { c.Ledger.Embedded = &config.Embedded{Socket: "s"} }, serveAll, "ledger.embedded.dir"},
		"serve in a role":                       {func(c *config.File) { c.Ledger.Embedded.Role = wire.RoleAuditor }, serveAll, "ledger.embedded.role"},
		"enrolment without its issuer's file": {func(c *config.File) {
			c.OCSPBridge.Enrol = []config.Enrolment{{Issuer: filepath.Join(dir, "absent.pem"), URL: "http://127.0.0.1:1", TokenFile: "x"}}
		}, serveAll, "ocsp_bridge.enrol[0].issuer"},
		"policy that is not there": {func(c *config.File) {
			c.OCSPBridge.Policy, c.OCSPBridge.PolicyFingerprint = filepath.Join(dir, "absent"), "00"
		}, serveAll, "ocsp_bridge.policy"},
		"submission without its issuer's file": {func(c *config.File) {
			c.OCSPBridge.Submit = []config.Submission{{Issuer: filepath.Join(dir, "absent.pem"), URL: "http://127.0.0.1:1"}}
		}, serveAll, "ocsp_bridge.submit[0].issuer"},
		"peer without its roots' file": {func(c *config.File) {
			c.OCSPBridge.Peers = []config.Peer{{MSPID: "X", URL: "https://127.0.0.1:1", LogKey: "k", CosignerKey: "c", TLSCA: filepath.Join(dir, "absent.pem")}}
		}, serveAll, "ocsp_bridge.peers[0]"},
		"members without a client CA": {func(c *config.File) { c.OCSPBridge.LogsAccess = config.LogsMembers }, serveAll, "ocsp_bridge.logs_access"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := base()
			c.change(conf)
			var e *config.Error
			if err := c.run(conf); !errors.As(err, &e) || e.Key != c.key || e.File != "test.yaml" {
				t.Errorf("got %v, want an error about %s", err, c.key)
			}
			if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
				t.Errorf("left behind: %v, %v", made, err)
			}
		})
	}
}
