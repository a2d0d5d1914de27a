package httpserve

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

var nothing = http.NotFoundHandler()

func TestTokensDoNotCrossANetworkInTheClear(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "host.example:0"} {
		if _, err := Listen("ca", address, Options{}, nothing); err == nil || !strings.Contains(err.Error(), "must be a loopback address") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		s, err := Listen("ca", address, Options{}, nothing)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	// Not bound here: this only must not be refused for being public.
	if _, err := Listen("ocsp", "192.0.2.1:0", Options{Public: true}, nothing); err != nil && strings.Contains(err.Error(), "loopback") {
		t.Errorf("public service: %v", err)
	}
}

func TestTakenAddressAndBadFilesAreNamed(t *testing.T) {
	s, err := Listen("one", "127.0.0.1:0", Options{}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("two", s.Addr(), Options{}, nothing); err == nil || !strings.Contains(err.Error(), "two") || !strings.Contains(err.Error(), s.Addr()) {
		t.Errorf("taken address: %v", err)
	}
	if _, err := Listen("tls", "127.0.0.1:0", Options{TLS: &TLS{Cert: "/absent.pem", Key: "/absent.key"}}, nothing); err == nil || !strings.Contains(err.Error(), "/absent.pem") {
		t.Errorf("absent certificate: %v", err)
	}
	if _, err := Listen("bad", "nowhere", Options{}, nothing); err == nil || !strings.Contains(err.Error(), "must be host:port") {
		t.Errorf("bad address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
