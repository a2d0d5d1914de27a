package bench

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kinds of baseline.
const (
	BaselineConstant  = "constant"
	BaselineSignature = "signature"
)

// ServeBaseline is what a responder is compared with: net/http as it comes, with a handler that answers every request with size octets. With
// BaselineSignature it makes one P-256 signature over as many for each. It prints its address as the first line, and serves until ctx ends.
func ServeBaseline(ctx context.Context, out io.Writer, kind string, size int) error {
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		return err
	}
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(body) // who does not read is not measured
	}
	if kind == BaselineSignature {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		constant := handler
		handler = func(w http.ResponseWriter, r *http.Request) {
			sum := sha256.Sum256(body)
			if _, err := key.Sign(rand.Reader, sum[:], nil); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			constant(w, r)
		}
	} else if kind != BaselineConstant {
		return fmt.Errorf("baseline %q: must be %s or %s", kind, BaselineConstant, BaselineSignature)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(handler)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startBaselines starts both kinds, each a process.
func (r *ocspRun) startBaselines(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, s := range stops {
			err = errors.Join(err, s())
		}
		return err
	}
	start := func(kind string) (string, int, error) {
		cmd := exec.CommandContext(ctx, r.o.Executable, "bench", "ocsp-baseline", "--kind", kind, "--size", strconv.Itoa(r.res.AnswerOctets))
		address, end, err := startServer(cmd)
		if err == nil {
			stops = append(stops, end)
			return address, cmd.Process.Pid, nil
		}
		return "", 0, err
	}
	constant, pid, err := start(BaselineConstant)
	if err != nil {
		return stop, err
	}
	r.like(ocspBarePost, constant, pid, ocspKeptPost)
	r.like(ocspBareGet, constant, pid, ocspKeptGet)
	signature, pid, err := start(BaselineSignature)
	if err != nil {
		return stop, err
	}
	r.like(ocspTemplate, signature, pid, ocspNonce)
	return stop, nil
}

// startServer starts a program that prints its address as its first line.
func startServer(cmd *exec.Cmd) (address string, end func() error, err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	end = func() error { return endProcess(cmd) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("%s: no address: %w", strings.Join(cmd.Args, " "), err), end())
	}
	return strings.TrimSpace(line), end, nil
}

// endProcess ends a process that this one has started, and waits for it.
func endProcess(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		return err
	}
	return nil // ended by the signal
}

// tooMuch reads how many requests a responder has turned away.
func tooMuch(ctx context.Context, bridge string) (n int, err error) {
	text, err := fetch(ctx, bridge+"/metrics")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, `certanchor_ocsp_requests_total{answer="tryLater"`) {
			continue
		}
		count, convErr := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:len(line)-1], 64)
		n, err = n+int(count), errors.Join(err, convErr)
	}
	return n, err
}
