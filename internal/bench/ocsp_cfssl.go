package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/internal/deploy"
)

// cfsslProgram is built as a program of its own, with the dependencies that it names itself.
const cfsslProgram = "github.com/cloudflare/cfssl/cmd/cfssl@v1.6.5"

// startCFSSL starts cfssl ocspserve with the responder's own answers. That it cannot be had, or does not answer, is no error: the result says so.
func (r *ocspRun) startCFSSL(ctx context.Context, answers [][]byte) (stop func() error, err error) {
	if stop, err = r.tryCFSSL(ctx, answers); err == nil {
		return stop, nil
	}
	stop = func() error { return nil }
	if ctx.Err() != nil {
		return stop, err
	}
	r.res.CFSSL = "not measured: " + err.Error()
	r.say("cfssl is %s", r.res.CFSSL)
	return stop, nil
}

// tryCFSSL returns stop without an error only.
func (r *ocspRun) tryCFSSL(ctx context.Context, answers [][]byte) (stop func() error, err error) {
	program := r.o.CFSSL
	r.res.CFSSL = program
	if program == "" {
		r.say("building %s", cfsslProgram)
		if program, err = buildCFSSL(ctx, r.dir); err != nil {
			return nil, err
		}
		r.res.CFSSL = cfsslProgram
	}
	if out, err := exec.CommandContext(ctx, program, "version").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s version: %w: %s", program, err, bytes.TrimSpace(out))
	}
	var text bytes.Buffer
	for _, der := range answers {
		fmt.Fprintln(&text, base64.StdEncoding.EncodeToString(der))
	}
	file := filepath.Join(r.dir, "responses")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	// At its level for errors: it would log each request otherwise, and that would be measured.
	cmd := exec.CommandContext(ctx, program, "ocspserve", "-address", "127.0.0.1", "-port", port, "-responses", file, "-loglevel", "4")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cfssl: %w", err)
	}
	stop = func() error { return endProcess(cmd) }
	if err := r.addCFSSL(ctx, address, cmd.Process.Pid); err != nil {
		err = errors.Join(fmt.Errorf("cfssl ocspserve: %w", err), stop())
		return nil, fmt.Errorf("%w\n%s", err, log.String())
	}
	return stop, nil
}

// addCFSSL waits until it answers, and has it sent what the responder is sent: its paths begin at the root.
func (r *ocspRun) addCFSSL(ctx context.Context, address string, pid int) error {
	u := &url.URL{Host: address, Path: "/"}
	posts, gets := ocspTarget{name: ocspCFSSLPost, address: address, pid: pid}, ocspTarget{name: ocspCFSSLGet, address: address, pid: pid}
	for _, req := range r.target(ocspKeptPost).requests {
		_, der, _ := bytes.Cut(req, []byte("\r\n\r\n"))
		posts.requests = append(posts.requests, post(u, der))
		// It is behind a ServeMux, which answers a path with two slashes in a row with a redirect.
		if !strings.Contains(base64.StdEncoding.EncodeToString(der), "//") {
			gets.requests = append(gets.requests, get(&url.URL{Host: address}, der))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if len(gets.requests) == 0 {
		return errors.New("no request can be sent to it by GET")
	}
	if err := deploy.Poll(ctx, func() error {
		_, err := fetch(ctx, "http://"+address+strings.Fields(string(gets.requests[0]))[1])
		return err
	}); err != nil {
		return err
	}
	r.targets = append(r.targets, posts, gets)
	return nil
}

// buildCFSSL builds the program into dir; without cgo, since its database drivers are not used.
func buildCFSSL(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "install", cfsslProgram)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s", cfsslProgram, err, strings.TrimSpace(string(out)))
	}
	return filepath.Join(dir, "cfssl"), nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
