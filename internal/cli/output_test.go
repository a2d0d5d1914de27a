package cli

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// output is what a command has written. A command sets the default logger, which writes here long after the command's end: whatever else
// runs in the test's process logs through it, from goroutines of its own.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// runCLI runs a command with an empty standard input, as every test of one does. What is logged after its end is nobody's output.
func runCLI(args ...string) (code int, out, errs string) {
	defer slog.SetDefault(slog.New(slog.DiscardHandler)) // the log package writes there, too
	var stdout, stderr output
	code = Main(args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// newServer starts a server that keeps its complaints of clients to itself: they must not get among a command's output.
func newServer(h http.Handler) *httptest.Server {
	s := unstarted(h)
	s.Start()
	return s
}

func unstarted(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

// TestALogLineFromElsewhereDoesNotRaceWithACommand can fail under the race detector only.
func TestALogLineFromElsewhereDoesNotRaceWithACommand(t *testing.T) {
	stop := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				slog.Error("from elsewhere")
			}
		}
	})
	defer background.Wait()
	defer close(stop)
	for range 20 {
		if code, _, errs := runCLI("cert", "show", "01", "--config", "/nonexistent.yaml"); code != exitFailure || !strings.Contains(errs, "the file does not exist") {
			t.Fatalf("exit %d, %s", code, errs)
		}
	}
}
