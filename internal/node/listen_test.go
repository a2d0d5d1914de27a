package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

func TestBridgeHasAnAddressForPlainHTTP(t *testing.T) {
	dir := t.TempDir()
	store, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "ledger")})
	if err != nil {
		t.Fatal(err)
	}
	section := &config.OCSPBridge{Dir: filepath.Join(dir, "bridge"), Listen: "127.0.0.1:0", HTTPAddress: "127.0.0.1:0", Settings: ocspbridge.DefaultSettings()}
	conf, err := bridgeConfig("test.yaml", section)
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := ocspbridge.New(t.Context(), conf, store.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := listenBridge(section, bridge)
	if err != nil || len(listeners) != 2 {
		t.Fatalf("%d listeners, %v", len(listeners), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- l.Run(ctx) }()
	}
	for i, c := range []struct {
		path string
		code int
		says string
	}{{"/healthz", http.StatusOK, "alive"}, {"/healthz", http.StatusNotFound, "over TLS"}} {
		resp, err := http.Get("http://" + listeners[i].Addr() + c.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != c.code || !strings.Contains(string(body), c.says) {
			t.Errorf("listener %d: %d, %s, %v", i, resp.StatusCode, body, err)
		}
	}
	// An address that is taken leaves nothing open.
	section.HTTPAddress = listeners[1].Addr()
	if _, err := listenBridge(section, bridge); err == nil || !strings.Contains(err.Error(), "OCSP and CRLs") {
		t.Errorf("a taken address: %v", err)
	}
	section.HTTPAddress, section.Listen = "", "192.0.2.1:0"
	if _, err := listenBridge(section, bridge); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("plain HTTP on a network: %v", err)
	}
	cancel()
	for range listeners {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(bridge.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}
