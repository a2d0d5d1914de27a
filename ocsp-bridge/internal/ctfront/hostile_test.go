package ctfront

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// submitted reads a submission and brings it onto the ledger.
func submitted(t testing.TB, r *http.Request, l *ctapitest.Ledger) wire.LogEntry {
	t.Helper()
	var in struct {
		Chain [][]byte `json:"chain"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Chain) != 3 || !bytes.Equal(in.Chain[1], l.CA.DER) {
		t.Errorf("submission of %d certificates, %v: want the certificate, then the CA's and its chain", len(in.Chain), err)
		return wire.LogEntry{}
	}
	e, err := l.Submit(context.Background(), in.Chain[0])
	if err != nil {
		t.Error(err)
	}
	return e
}

func sctOf(at int64, extensions []byte) string {
	return fmt.Sprintf(`{"sct_version":0,"id":"AAAA","timestamp":%d,"extensions":"%s","signature":"BAMA"}`, at, base64.StdEncoding.EncodeToString(extensions))
}

func extensions(index uint64) []byte { return ctleaf.Extensions(index)[2:] }

// The operating organisation says where the entry is. Whatever it says, nothing is signed but what is in the own blocks.
func TestHostileOperatorGetsNoSCTSigned(t *testing.T) {
	for name, says := range map[string]func(e wire.LogEntry) string{
		"a later time":     func(e wire.LogEntry) string { return sctOf(int64(e.Time)+1, extensions(e.Index)) },
		"an earlier time":  func(e wire.LogEntry) string { return sctOf(int64(e.Time)-1, extensions(e.Index)) },
		"time 0":           func(e wire.LogEntry) string { return sctOf(0, extensions(e.Index)) },
		"a negative time":  func(e wire.LogEntry) string { return sctOf(-1, extensions(e.Index)) },
		"the entry before": func(e wire.LogEntry) string { return sctOf(int64(e.Time), extensions(e.Index-1)) },
		"the first entry":  func(e wire.LogEntry) string { return sctOf(int64(e.Time), extensions(0)) },
		"no extensions":    func(e wire.LogEntry) string { return sctOf(int64(e.Time), nil) },
		"another extension": func(e wire.LogEntry) string {
			return sctOf(int64(e.Time), append([]byte{1}, extensions(e.Index)[1:]...))
		},
		"two leaf indexes": func(e wire.LogEntry) string {
			return sctOf(int64(e.Time), append(extensions(e.Index), extensions(0)...))
		},
		"a short index":            func(e wire.LogEntry) string { return sctOf(int64(e.Time), []byte{0, 0, 4, 0, 0, 0, 7}) },
		"an index that is cut":     func(e wire.LogEntry) string { return sctOf(int64(e.Time), extensions(e.Index)[:7]) },
		"extensions with a length": func(e wire.LogEntry) string { return sctOf(int64(e.Time), ctleaf.Extensions(e.Index)) },
		"not base64":               func(wire.LogEntry) string { return `{"timestamp":1,"extensions":"*"}` },
		"a time that is no number": func(wire.LogEntry) string { return `{"timestamp":"1","extensions":"AAAFAAAAAAA="}` },
		"not JSON":                 func(wire.LogEntry) string { return "<html>" },
		"nothing":                  func(wire.LogEntry) string { return "" },
		"null":                     func(wire.LogEntry) string { return "null" },
		"a list":                   func(wire.LogEntry) string { return "[]" },
		"half":                     func(e wire.LogEntry) string { return sctOf(int64(e.Time), extensions(e.Index))[:40] },
		"far too much": func(e wire.LogEntry) string {
			return strings.Repeat(" ", maxAnswer) + sctOf(int64(e.Time), extensions(e.Index))
		},
	} {
		for _, add := range []string{"add-chain", "add-pre-chain"} {
			t.Run(name+"/"+add, func(t *testing.T) {
				other, l := newOrg(t, "Org2MSP"), ctapitest.New(t)
				l.Fill(t, 5)
				hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/x/ct/v1/"+add {
						t.Errorf("asked for %s", r.URL.Path)
					}
					_, _ = io.WriteString(w, says(submitted(t, r, l)))
				}))
				defer hostile.Close()
				other.trust(l, l, forward(t, l, hostile.URL+"/x/", nil, l, never))
				chain := l.Chain(t)
				if add == "add-pre-chain" {
					chain = l.Chain(t, ctapitest.Poison)
				}
				other.ask(l, "ct/v1/"+add, ctapitest.Body(chain...)).refused(t, http.StatusServiceUnavailable, "unknown_outcome")
			})
		}
	}
}

// An SCT for what was never recorded keeps the client waiting as long as it likes to, and is refused as soon as the log has something else there.
func TestOperatorThatPromisesAndDoesNotRecord(t *testing.T) {
	l := ctapitest.New(t)
	l.Fill(t, 5)
	log := follow(l)
	log.pull(t, 5)
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, sctOf(int64(ctapitest.Start), extensions(6)))
	}))
	defer hostile.Close()
	to := forward(t, l, hostile.URL, nil, log, log.Changed)
	failed := make(chan error, 1)
	go func() {
		_, err := to.Submit(t.Context(), l.Chain(t)[0])
		failed <- err
	}()
	l.Fill(t, 2)
	for size := uint64(6); size <= 7; size++ {
		<-log.waiting
		log.pull(t, size)
	}
	if err := <-failed; !errors.Is(err, network.ErrUnknownOutcome) || !strings.Contains(err.Error(), "another") {
		t.Errorf("%v", err)
	}
}

func TestRefusalsOfTheOperatorKeepTheirMeaning(t *testing.T) {
	said := func(p problem.Problem) string {
		p.Detail = "detail of it"
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rule := problem.Problem{Code: "already_exists", Field: "certs[0].serial", Value: "0a", Rule: "another certificate has it"}
	long := problem.Problem{Code: "invalid_argument", Field: strings.Repeat("f", 1000), Value: strings.Repeat("v", 1000), Rule: strings.Repeat("r", 5000)}
	for name, c := range map[string]struct {
		status int
		body   string
		want   int
		code   string
		words  []string
	}{
		"rule":                     {400, said(rule), 400, "already_exists", []string{"certs[0].serial", "0a", "another certificate has it"}},
		"no rule":                  {400, said(problem.Problem{Code: "invalid_argument"}), 400, "invalid_argument", []string{"chain", "detail of it"}},
		"a very long one":          {400, said(long), 400, "invalid_argument", []string{"chain"}},
		"code that is none":        {400, said(problem.Problem{Code: "x", Rule: "y"}), 503, "unavailable", nil},
		"internal as refusal":      {400, said(problem.Problem{Code: "internal", Rule: "y"}), 503, "unavailable", nil},
		"refusal without JSON":     {400, "Client sent an HTTP request to an HTTPS server.", 503, "unavailable", nil},
		"refusal without words":    {400, "", 503, "unavailable", nil},
		"not let in":               {401, "", 503, "unavailable", nil},
		"no such log":              {404, said(problem.Problem{Code: "not_found", Rule: "must be a registered CA"}), 503, "unavailable", nil},
		"too many":                 {429, "", 503, "unavailable", nil},
		"overloaded":               {503, said(problem.Problem{Code: "unavailable"}), 503, "unavailable", nil},
		"conflict":                 {503, said(problem.Problem{Code: "conflict"}), 503, "unavailable", nil},
		"unknown outcome":          {503, said(problem.Problem{Code: "unknown_outcome"}), 503, "unknown_outcome", nil},
		"broken":                   {500, said(problem.Problem{Code: "internal"}), 503, "unknown_outcome", nil},
		"proxy that lost it":       {502, "<html>", 503, "unknown_outcome", nil},
		"proxy that did not wait":  {504, "", 503, "unknown_outcome", nil},
		"created, which is not OK": {201, sctOf(1, extensions(0)), 503, "unknown_outcome", nil},
		"elsewhere":                {307, "", 503, "unknown_outcome", nil},
	} {
		t.Run(name, func(t *testing.T) {
			other, l := newOrg(t, "Org2MSP"), ctapitest.New(t)
			mux := http.NewServeMux()
			mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
			mux.HandleFunc("/ct/v1/add-chain", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			upstream := httptest.NewServer(mux)
			defer upstream.Close()
			other.trust(l, l, forward(t, l, upstream.URL, upstream.Client(), l, never))
			got := other.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...))
			got.refused(t, c.want, c.code, c.words...)
			if len(got.body) > 4096 {
				t.Errorf("%d octets of another's words", len(got.body))
			}
			var p problem.Problem
			if err := json.Unmarshal(got.body, &p); name == "rule" && (err != nil || p.Field != rule.Field || p.Value != rule.Value || p.Rule != rule.Rule) {
				t.Errorf("%+v, want field, value and rule of %+v", p, rule)
			}
		})
	}
}

// Whenever the connection breaks once there is one, the certificate may be recorded.
func TestOperatorThatIsKilledLeavesTheOutcomeUnknown(t *testing.T) {
	for name, dies := range map[string]func(w http.ResponseWriter, r *http.Request, l *ctapitest.Ledger){
		"before it reads": func(http.ResponseWriter, *http.Request, *ctapitest.Ledger) { panic(http.ErrAbortHandler) },
		"before it answers": func(_ http.ResponseWriter, r *http.Request, l *ctapitest.Ledger) {
			submitted(t, r, l)
			panic(http.ErrAbortHandler)
		},
		"in the middle of its answer": func(w http.ResponseWriter, r *http.Request, l *ctapitest.Ledger) {
			e := submitted(t, r, l)
			text := sctOf(int64(e.Time), extensions(e.Index))
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			_, _ = io.WriteString(w, text[:len(text)-1])
			panic(http.ErrAbortHandler)
		},
		"in the middle of a long answer": func(w http.ResponseWriter, r *http.Request, l *ctapitest.Ledger) {
			submitted(t, r, l)
			_, _ = io.WriteString(w, `{"timestamp":1`)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			other, l := newOrg(t, "Org2MSP"), ctapitest.New(t)
			var calls atomic.Int32
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					dies(w, r, l)
				}
				e := submitted(t, r, l)
				_, _ = io.WriteString(w, sctOf(int64(e.Time), extensions(e.Index)))
			}))
			defer upstream.Close()
			other.trust(l, l, forward(t, l, upstream.URL, upstream.Client(), l, never))
			body := ctapitest.Body(l.Chain(t)...)
			other.ask(l, "ct/v1/add-chain", body).refused(t, http.StatusServiceUnavailable, "unknown_outcome", "ask again with the same request")
			other.ask(l, "ct/v1/add-chain", body).ok(t)
			if l.Head().Size != 1 {
				t.Errorf("%d entries of one certificate", l.Head().Size)
			}
		})
	}
}

func TestSlowOperatorLeavesTheOutcomeUnknown(t *testing.T) {
	l := ctapitest.New(t)
	for name, head := range map[string]bool{"before its answer": false, "in its answer": true} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			submitted(t, r, l)
			if f, ok := w.(http.Flusher); ok && head {
				_, _ = io.WriteString(w, "{")
				f.Flush()
			}
			cancel()
			<-done
		}))
		_, err := forward(t, l, slow.URL, slow.Client(), l, never).Submit(ctx, l.Chain(t)[0])
		if !errors.Is(err, network.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		close(done)
		slow.Close()
		cancel()
	}
}

func FuzzHint(f *testing.F) {
	f.Add([]byte(sctOf(1, extensions(5))))
	f.Add([]byte(`{"timestamp":9223372036854775807,"extensions":"AAAF//////8="}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		at, err := parseHint(text)
		if err != nil {
			return
		}
		// Whatever is taken can be looked for.
		if _, err := ctleaf.Hash(at.index, at.time, []byte{0x30, 0}); err != nil {
			t.Errorf("%+v: %v", at, err)
		}
	})
}
