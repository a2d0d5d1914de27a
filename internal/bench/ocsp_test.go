package bench

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/load"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

func TestBaselinesAnswerWithAsManyOctets(t *testing.T) {
	for _, kind := range []string{BaselineConstant, BaselineSignature} {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- ServeBaseline(ctx, w, kind, 777) }()
		address, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{"GET", "POST"} {
			req, err := http.NewRequest(method, "http://"+strings.TrimSpace(address)+"/any/path", strings.NewReader("any"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || len(body) != 777 || resp.ContentLength != 777 || resp.StatusCode != 200 {
				t.Errorf("%s %s: %d, %d octets, %v", kind, method, resp.StatusCode, len(body), err)
			}
			_ = resp.Body.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if err := ServeBaseline(t.Context(), io.Discard, "other", 1); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("error is %v", err)
	}
}

func TestRequestsAreWhatClientsSend(t *testing.T) {
	ca := cctest.NewCA(t)
	_, cert := ca.Issue(t)
	der, err := ocspRequest(ca.Cert, cert, []byte("nonce"))
	if err != nil {
		t.Fatal(err)
	}
	u := &url.URL{Host: "127.0.0.1:80", Path: "/ocsp"}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(post(u, der))))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || !bytes.Equal(body, der) || req.URL.Path != "/ocsp" || req.Host != u.Host {
		t.Errorf("POST %s to %s: %x, %v", req.URL, req.Host, body, err)
	}
	if parsed, err := ocspwire.ParseRequest(body, 1); err != nil || string(parsed.Nonce) != "nonce" {
		t.Errorf("%+v, %v", parsed, err)
	}
	if req, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(get(u, der)))); err != nil || !strings.HasPrefix(req.URL.Path, "/ocsp/M") {
		t.Errorf("GET: %v, %v", req, err)
	}
}

// The other measurements go on without it.
func TestCFSSLThatCannotBeUsedIsLeftOut(t *testing.T) {
	for _, program := range []string{filepath.Join(t.TempDir(), "cfssl"), "false"} {
		var said bytes.Buffer
		r := &ocspRun{o: OCSPOptions{CFSSL: program, Out: &said}, dir: t.TempDir(), res: &OCSPResult{}}
		r.targets = []ocspTarget{{name: ocspKeptPost}}
		stop, err := r.startCFSSL(t.Context(), [][]byte{{0x30, 0}})
		if err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(r.res.CFSSL, "not measured: ") || !strings.Contains(r.res.CFSSL, program) || len(r.targets) != 1 {
			t.Errorf("%s: the result says %q, %d targets", program, r.res.CFSSL, len(r.targets))
		}
	}
}

func TestWrksReportIsRead(t *testing.T) {
	const report = `Running 10s test @ http://127.0.0.1:8080
  2 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   615.00us    1.10ms  31.12ms   92.31%
  Latency Distribution
     50%  352.00us
     75%    0.68ms
     99%    5.59ms
  905421 requests in 10.10s, 1.23GB read
Requests/sec:  89646.12
Transfer/sec:    124.70MB
`
	got, err := parseWrk(report)
	if want := (load.Saturated{PerSecond: 89646.12, P50: 0.352, P99: 5.59}); err != nil || *got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := parseWrk(strings.Replace(report, "Requests/sec", "  Non-2xx or 3xx responses: 12\nRequests/sec", 1)); err != nil || got.Failed != 12 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", strings.Replace(report, "Requests/sec", "  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec", 1)} {
		if _, err := parseWrk(bad); err == nil {
			t.Error("no error for a report of failure")
		}
	}
	if got := string(wrkScript([][]byte{{'G', 0, 255}, {'"'}})); !strings.Contains(got, `"\071\000\255",`) || !strings.Contains(got, `"\034",`) {
		t.Errorf("script is\n%s", got)
	}
}

func TestMedianOfRounds(t *testing.T) {
	for want, rates := range map[float64][]float64{2: {3, 1, 2}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		var rounds []OCSPRound
		for _, r := range rates {
			rounds = append(rounds, OCSPRound{Saturated: load.Saturated{PerSecond: r}})
		}
		if got := median(rounds, func(r OCSPRound) float64 { return r.PerSecond }); got != want {
			t.Errorf("of %v: %v, want %v", rates, got, want)
		}
	}
}
