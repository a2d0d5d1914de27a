package node

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network/embedded"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// reloads records what a bridge is told to read, and refuses policies that begin with "bad".
type reloads chan string

func (r reloads) Reload() error {
	r <- "responders"
	return errors.New("absent")
}

func (r reloads) ReloadPolicy(file []byte, fingerprint string) error {
	r <- fmt.Sprintf("policy %s of %s", file, fingerprint)
	if len(file) == 0 || string(file[:3]) == "bad" {
		return errors.New("refused")
	}
	return nil
}

func (r reloads) want(t *testing.T, all ...string) {
	t.Helper()
	for _, want := range all {
		select {
		case got := <-r:
			if got != want {
				t.Fatalf("read %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing is read, want %q", want)
		}
	}
}

func TestPolicyFileIsReadWhenItChangesAndAtEachHangup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	ctx, cancel := context.WithCancel(t.Context())
	bridge, hangups, polls, ended := make(reloads), make(chan os.Signal), make(chan time.Time), make(chan struct{})
	go func() {
		defer close(ended)
		keepFiles(ctx, &config.OCSPBridge{Policy: path, PolicyFingerprint: "f"}, bridge, hangups, polls)
	}()
	poll, hangup := func() { polls <- time.Time{} }, func() { hangups <- syscall.SIGHUP }
	// What a look should not lead to would come before what the hangup leads to.
	quiet := func(policy string) {
		t.Helper()
		poll()
		poll()
		hangup()
		bridge.want(t, "responders", "policy "+policy+" of f")
	}
	quiet("one")
	write("two")
	poll()
	bridge.want(t, "policy two of f")
	quiet("two")
	write("bad")
	poll()
	bridge.want(t, "policy bad of f")
	quiet("bad") // said once
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	poll()
	bridge.want(t, "policy  of f")
	quiet("")
	write("two")
	poll()
	bridge.want(t, "policy two of f")
	cancel()
	<-ended
}

// TestHangupPutsANewPolicyIntoForce: the whole service, and the signal that ends a process which does not ask for it.
func TestHangupPutsANewPolicyIntoForce(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("pass"), []byte("correct horse battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Init(ca.InitOptions{Dir: at("ca"), Subject: pkix.Name{CommonName: "CA"}, Passphrase: []byte("correct horse battery staple")}); err != nil {
		t.Fatal(err)
	}
	const channel, mspID = embedded.DefaultChannel, "Org1MSP"
	log, err := logkey.LoadOrCreate(filepath.Join(at("bridge"), logkey.File), lognames.Key(channel, mspID))
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := logkey.LoadOrCreateCosigner(filepath.Join(at("bridge"), logkey.CosignerFile), lognames.Cosigner(channel, mspID), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	pin := ""
	for version := range uint64(2) {
		p, err := policy.New(channel, version+1, 1, time.Minute, policy.Org{MSPID: mspID, LogKey: log.VKey, CosignerKey: cosigner.VKey()})
		if err != nil {
			t.Fatal(err)
		}
		s := &policy.Signed{Policy: p}
		if err := s.Sign(log); err != nil {
			t.Fatal(err)
		}
		text, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if file = append(file, text...); version > 0 {
			break
		}
		pin = p.Fingerprint()
		if err := os.WriteFile(at("policy"), file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ServeAll(ctx, &config.File{
			Ledger:     config.Ledger{Engine: config.EngineEmbedded, Embedded: &config.Embedded{Dir: at("ledger"), MSPID: mspID, Channel: channel}},
			CA:         &config.CA{Dir: at("ca"), Listen: "127.0.0.1:0", Passphrase: keyfile.Source{File: at("pass")}},
			OCSPBridge: &config.OCSPBridge{Dir: at("bridge"), Listen: l.Addr().String(), Policy: at("policy"), PolicyFingerprint: pin, Settings: ocspbridge.DefaultSettings()},
		})
	}()
	await := func(path string, ok func(string) bool) {
		t.Helper()
		deadline, tick := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for got := ""; !ok(got); {
			select {
			case <-deadline:
				t.Fatalf("%s: %s", path, got)
			case <-tick.C:
			}
			resp, err := http.Get("http://" + l.Addr().String() + path)
			if err != nil {
				continue // it is not listening yet
			}
			body, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			got = resp.Status + " " + string(body)
		}
	}
	await("/readyz", func(got string) bool { return strings.HasPrefix(got, "200") })
	if err := os.WriteFile(at("policy"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("/policy", func(got string) bool { return got == "200 OK "+string(file) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
