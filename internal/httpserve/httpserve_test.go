package httpserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
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

// A request that is being answered when the server is told to end is answered, and no new one is taken.
func TestRunningRequestsAreAnsweredBeforeTheEnd(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	s, err := Listen("test", "127.0.0.1:0", Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-finish
		if _, err := w.Write([]byte("whole")); err != nil {
			t.Error(err)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran, got := make(chan error, 1), make(chan string, 1)
	go func() { ran <- s.Run(ctx) }()
	go func() {
		resp, err := http.Get("http://" + s.Addr())
		if err != nil {
			got <- err.Error()
			return
		}
		body, err := io.ReadAll(resp.Body)
		got <- fmt.Sprintf("%s %v", body, errors.Join(err, resp.Body.Close()))
	}()
	<-started
	cancel()
	deadline := time.Now().Add(20 * time.Second)
	for taken := true; taken; { // until the listener is closed: the end has begun
		conn, err := net.Dial("tcp", s.Addr())
		if taken = err == nil; taken {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatal("connections are still taken")
			}
		}
	}
	select {
	case err := <-ran:
		t.Fatalf("it ended while a request was running: %v", err)
	default:
	}
	close(finish)
	if body := <-got; body != "whole <nil>" {
		t.Errorf("the running request got %s", body)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
