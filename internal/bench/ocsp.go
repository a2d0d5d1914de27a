package bench

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/internal/load"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// OCSPOptions of OCSP.
type OCSPOptions struct {
	Executable   string        // the certanchor program; empty: the running one
	Duration     time.Duration // of each measurement, positive
	Rounds       int           // each measures everything in turn; the median counts. At least 1
	Connections  int           // at least 1
	Certificates int           // asked about in turn, at least 1
	CFSSL        string        // the cfssl program; empty: built with go install, if that is possible
	GoGenerator  bool          // do not use wrk
	Out          io.Writer     // progress and results
}

// OCSPResult is what was measured. Each ratio is of medians.
type OCSPResult struct {
	Date         time.Time              `json:"date"`
	Generator    string                 `json:"generator"` // wrk or go
	CFSSL        string                 `json:"cfssl"`     // how it was come by, or why it was not measured
	Seconds      float64                `json:"seconds"`   // of each measurement
	Rounds       int                    `json:"rounds"`
	Connections  int                    `json:"connections"`
	Certificates int                    `json:"certificates"`
	AnswerOctets int                    `json:"answer_octets"`
	Targets      map[string]*OCSPTarget `json:"targets"`
	Ratios       map[string]float64     `json:"ratios"`
}

// OCSPTarget is one thing that was measured.
type OCSPTarget struct {
	PerSecond float64     `json:"per_s"`  // median of the rounds
	CPU       float64     `json:"cpu_us"` // processor time of the server for an answer, median: comparable on a busy machine too
	Rounds    []OCSPRound `json:"rounds"`
}

// OCSPRound is one measurement.
type OCSPRound struct {
	load.Saturated
	CPU float64 `json:"cpu_us"` // 0: not known
}

// Names of targets.
const (
	ocspBarePost  = "bare POST"
	ocspBareGet   = "bare GET"
	ocspKeptPost  = "kept POST"
	ocspKeptGet   = "kept GET"
	ocspTemplate  = "bare with one signature, POST"
	ocspNonce     = "nonce POST"
	ocspCFSSLPost = "cfssl POST"
	ocspCFSSLGet  = "cfssl GET"
)

// ocspRatios are what the figures are for: the first to the second.
var ocspRatios = []struct{ name, of, to string }{
	{"kept POST to bare", ocspKeptPost, ocspBarePost},
	{"kept GET to bare", ocspKeptGet, ocspBareGet},
	{"nonce to bare with one signature", ocspNonce, ocspTemplate},
	{"kept POST to cfssl", ocspKeptPost, ocspCFSSLPost},
	{"kept GET to cfssl", ocspKeptGet, ocspCFSSLGet},
}

// ocspRun is the state of OCSP.
type ocspRun struct {
	o       OCSPOptions
	dir     string
	res     *OCSPResult
	wrk     string // the program; empty: the generator of package load
	targets []ocspTarget
}

type ocspTarget struct {
	name     string
	address  string // host:port
	pid      int    // of the server
	requests [][]byte
}

// nonces is how many requests with different nonces are sent in turn. The responder does not know them from new ones.
const nonces = 512

// OCSP starts a responder and what it is compared with, each a process of its own on this machine, and measures how many answers a second
// they give to this process, or to wrk if it is installed.
func OCSP(ctx context.Context, o OCSPOptions) (res *OCSPResult, err error) {
	if o.Duration <= 0 || o.Rounds < 1 || o.Connections < 1 || o.Certificates < 1 {
		return nil, fmt.Errorf("duration %s, rounds %d, connections %d, certificates %d: must be positive", o.Duration, o.Rounds, o.Connections, o.Certificates)
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "certanchor-bench-ocsp-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &ocspRun{o: o, dir: dir, res: &OCSPResult{
		Date: time.Now().UTC(), Seconds: o.Duration.Seconds(), Rounds: o.Rounds, Connections: o.Connections, Certificates: o.Certificates,
		Generator: "go", Targets: map[string]*OCSPTarget{}, Ratios: map[string]float64{},
	}}
	if !o.GoGenerator {
		if r.wrk = findWrk(); r.wrk != "" {
			r.res.Generator = "wrk"
		}
	}
	return r.res, r.run(ctx)
}

func (r *ocspRun) say(format string, args ...any) { fmt.Fprintf(r.o.Out, format+"\n", args...) }

func (r *ocspRun) run(ctx context.Context) (err error) {
	d, err := deploy.Embedded(ctx, deploy.Options{Dir: filepath.Join(r.dir, "services"), Executable: r.o.Executable})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.StopAll(context.WithoutCancel(ctx))) }()
	answers, err := r.prepareResponder(ctx, d)
	if err != nil {
		return err
	}
	stop, err := r.startBaselines(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	stopCFSSL, err := r.startCFSSL(ctx, answers)
	defer func() { err = errors.Join(err, stopCFSSL()) }()
	if err != nil {
		return err
	}
	before, err := tooMuch(ctx, d.Orgs[0].URL)
	if err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	after, err := tooMuch(ctx, d.Orgs[0].URL)
	if err == nil && after != before {
		err = fmt.Errorf("%d of the responder's answers were tryLater: the figures are not those of answers", after-before)
	}
	return err
}

// prepareResponder issues certificates, has the responder sign an answer about each, and returns those.
func (r *ocspRun) prepareResponder(ctx context.Context, d *deploy.Deployment) (answers [][]byte, err error) {
	api, err := d.Client()
	if err != nil {
		return nil, err
	}
	endpoint, err := url.Parse(d.Orgs[0].OCSPURL())
	if err != nil {
		return nil, err
	}
	server := ocspTarget{address: endpoint.Host, pid: d.PIDs()[deploy.AllService]}
	keptPost, keptGet, nonce := server, server, server
	keptPost.name, keptGet.name, nonce.name = ocspKeptPost, ocspKeptGet, ocspNonce
	var certs []*x509.Certificate
	for range r.o.Certificates {
		cert, _, err := issueOne(ctx, api)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
		req, err := ocspRequest(d.CACert, cert, nil)
		if err != nil {
			return nil, err
		}
		der, err := askOnce(ctx, d.Orgs[0].OCSPURL(), req)
		if err != nil {
			return nil, err
		}
		answers = append(answers, der)
		keptPost.requests = append(keptPost.requests, post(endpoint, req))
		keptGet.requests = append(keptGet.requests, get(endpoint, req))
	}
	for i := range nonces {
		n := make([]byte, ocspwire.DefaultNonce)
		if _, err := rand.Read(n); err != nil {
			return nil, err
		}
		req, err := ocspRequest(d.CACert, certs[i%len(certs)], n)
		if err != nil {
			return nil, err
		}
		nonce.requests = append(nonce.requests, post(endpoint, req))
	}
	r.res.AnswerOctets = len(answers[0])
	r.targets = append(r.targets, keptPost, keptGet, nonce)
	return answers, nil
}

// target returns the one of that name.
func (r *ocspRun) target(name string) *ocspTarget {
	return &r.targets[slices.IndexFunc(r.targets, func(t ocspTarget) bool { return t.name == name })]
}

// like adds a target at another address that is sent the same requests as another one, if it is there at the same path.
func (r *ocspRun) like(name, address string, pid int, other string) {
	r.targets = append(r.targets, ocspTarget{name: name, address: address, pid: pid, requests: r.target(other).requests})
}

// measure goes through the targets in rounds, so that a machine that slows down does so for all of them.
func (r *ocspRun) measure(ctx context.Context) error {
	for round := range r.o.Rounds {
		for _, t := range r.targets {
			got, err := r.round(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if got.Failed > 0 {
				return fmt.Errorf("%s: %d answers failed", t.name, got.Failed)
			}
			r.say("  round %d  %-30s %9.0f/s   p50 %.3f ms  p99 %.3f ms  CPU %.1f µs", round+1, t.name, got.PerSecond, got.P50, got.P99, got.CPU)
			if r.res.Targets[t.name] == nil {
				r.res.Targets[t.name] = &OCSPTarget{}
			}
			r.res.Targets[t.name].Rounds = append(r.res.Targets[t.name].Rounds, *got)
		}
	}
	for _, t := range r.res.Targets {
		t.PerSecond = median(t.Rounds, func(r OCSPRound) float64 { return r.PerSecond })
		t.CPU = median(t.Rounds, func(r OCSPRound) float64 { return r.CPU })
	}
	for _, ratio := range ocspRatios {
		of, to := r.res.Targets[ratio.of], r.res.Targets[ratio.to]
		if of != nil && to != nil {
			r.res.Ratios[ratio.name] = of.PerSecond / to.PerSecond
			r.say("%-34s %.2f   (CPU of the servers for an answer: %.1f and %.1f µs)", ratio.name, r.res.Ratios[ratio.name], of.CPU, to.CPU)
		}
	}
	return nil
}

// round measures a target once.
func (r *ocspRun) round(ctx context.Context, t ocspTarget) (*OCSPRound, error) {
	before, err := processTime(t.pid)
	known := err == nil
	start := time.Now()
	got, err := r.saturate(ctx, t)
	if err != nil {
		return nil, err
	}
	res := &OCSPRound{Saturated: *got}
	took := time.Since(start)
	if after, err := processTime(t.pid); err == nil && known && got.PerSecond > 0 {
		res.CPU = float64((after - before).Microseconds()) / (got.PerSecond * took.Seconds())
	}
	return res, nil
}

func (r *ocspRun) saturate(ctx context.Context, t ocspTarget) (*load.Saturated, error) {
	if r.wrk != "" {
		return r.runWrk(ctx, t)
	}
	return load.Saturate(ctx, load.Saturation{
		Address: t.address, Requests: t.requests, Connections: r.o.Connections, Duration: r.o.Duration, LeastBody: r.res.AnswerOctets / 2,
	})
}

func median(rounds []OCSPRound, of func(OCSPRound) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

func ocspRequest(issuer, cert *x509.Certificate, nonce []byte) ([]byte, error) {
	id, err := ocspwire.NewCertID(crypto.SHA1, issuer, cert.SerialNumber) // what clients send
	if err != nil {
		return nil, err
	}
	return (&ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}, Nonce: nonce}).Marshal()
}

// post and get are whole HTTP requests.
func post(u *url.URL, der []byte) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n", u.Path, u.Host, len(der))
	return append([]byte(head), der...)
}

func get(u *url.URL, der []byte) []byte {
	return fmt.Appendf(nil, "GET %s/%s HTTP/1.1\r\nHost: %s\r\n\r\n", u.Path, url.QueryEscape(base64.StdEncoding.EncodeToString(der)), u.Host)
}

// askOnce sends a request until it is answered with a status: the responder may not have read the certificate's block yet.
func askOnce(ctx context.Context, target string, der []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return answer, deploy.Poll(ctx, func() error {
		if answer, err = fetch(ctx, target+"/"+url.QueryEscape(base64.StdEncoding.EncodeToString(der))); err != nil {
			return err
		}
		status, _, err := ocspwire.ParseResponse(answer)
		if err == nil && status != ocspwire.Successful {
			err = fmt.Errorf("the responder says %s", status)
		}
		return err
	})
}

func fetch(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", target, resp.StatusCode)
	}
	return body, err
}
