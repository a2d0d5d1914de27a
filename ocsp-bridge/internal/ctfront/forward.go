package ctfront

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/network"
)

// ForwardConfig says where submissions of another organisation's CA go.
type ForwardConfig struct {
	CAID  wire.CAID
	URL   string          // of the operating organisation's front or CA bridge; ct/v1/add-chain and ct/v1/add-pre-chain are below it
	Log   merklelog.Log   // the CA's log in this organisation's own blocks
	Chain func() [][]byte // DER, the CA's certificate first: sent after the one that is submitted
	HTTP  *http.Client    // default http.DefaultClient; HTTPClient makes one for load. Redirects are not followed

	// Changed returns a channel that is closed when Log may have grown since this call.
	Changed func() <-chan struct{}
}

// HTTPClient makes a client for all ForwardConfigs of a front: with it many submissions share few connections. config may be nil.
func HTTPClient(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}}
}

// Forward makes a Submitter that hands certificates on to the organisation that operates their CA. It is cheap to make, and needs no
// closing.
//
// The other organisation is believed in nothing but a refusal. Its SCT is a hint at which entry to look for; Submit returns when the log in this
// organisation's own blocks has that entry, with these very octets, and until then waits as long as ctx allows.
func Forward(cfg ForwardConfig) (ctapi.Submitter, error) {
	if cfg.Log == nil || cfg.Chain == nil || cfg.Changed == nil {
		return nil, errors.New("ctfront: Log, Chain and Changed must be set")
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, wire.Errorf(wire.InvalidArgument, "url", cfg.URL, "must be an http or https URL without query and fragment")
	}
	client := http.Client{}
	if cfg.HTTP != nil {
		client = *cfg.HTTP
	}
	// A submission goes where the operator of this front said, and nowhere else.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.URL = strings.TrimRight(cfg.URL, "/")
	return &forwarder{cfg: cfg, http: &client}, nil
}

type forwarder struct {
	cfg  ForwardConfig
	http *http.Client
}

// Submit implements ctapi.Submitter.
func (f *forwarder) Submit(ctx context.Context, der []byte) (wire.LogEntry, error) {
	if n := hops(ctx); n >= maxHops {
		return wire.LogEntry{}, f.unavailable(fmt.Errorf("%d fronts sent this one on: one of them is told a wrong operating organisation", n))
	}
	pre, err := ctleaf.IsPrecert(der)
	if err != nil {
		return wire.LogEntry{}, wire.Errorf(wire.InvalidArgument, "chain[0]", "", "must be a DER X.509 certificate: %v", err)
	}
	at, err := f.send(ctx, der, pre)
	if err != nil {
		return wire.LogEntry{}, err
	}
	return f.await(ctx, der, pre, at)
}

// send returns where the other organisation says that the certificate is.
func (f *forwarder) send(ctx context.Context, der []byte, pre bool) (hint, error) {
	body, err := json.Marshal(map[string][][]byte{"chain": f.chain(der)})
	if err != nil {
		return hint{}, err
	}
	// Once there is a connection some of the request may have arrived, whatever the error.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	name := "add-chain"
	if pre {
		name = "add-pre-chain"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.cfg.URL+"/ct/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return hint{}, f.unavailable(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(headerForwarded, strconv.Itoa(hops(ctx)+1))
	// The same octets always get the same entry. So net/http may repeat the request if a kept connection turns out to be closed, as all are
	// after the other side's restart. (This form of the header is not sent.)
	r.Header["Idempotency-Key"] = []string{}
	answer, err := f.http.Do(r)
	if err != nil && connected.Load() {
		return hint{}, f.unknown(err)
	}
	if err != nil {
		return hint{}, f.unavailable(err)
	}
	defer answer.Body.Close() //nolint:errcheck // whatever is left in it does not matter
	return f.read(answer)
}

// chain is what is sent: der, and what certifies it. A CA may have certificates of several names; one that Chain's first did not issue goes
// alone, and its operator knows the rest.
func (f *forwarder) chain(der []byte) [][]byte {
	rest := f.cfg.Chain()
	if len(rest) == 0 {
		return [][]byte{der}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return [][]byte{der}
	}
	if issuer, err := x509.ParseCertificate(rest[0]); err != nil || !bytes.Equal(issuer.RawSubject, leaf.RawIssuer) {
		return [][]byte{der}
	}
	return append([][]byte{der}, rest...)
}

// await returns the entry once this organisation's own log has it.
func (f *forwarder) await(ctx context.Context, der []byte, pre bool, at hint) (wire.LogEntry, error) {
	hash, err := f.leafHash(der, pre, at)
	if err != nil {
		return wire.LogEntry{}, f.unknown(err)
	}
	for {
		changed, head := f.cfg.Changed(), f.cfg.Log.Head()
		index, found, err := f.cfg.Log.Find(hash)
		switch {
		case err != nil:
			return wire.LogEntry{}, f.unknown(err)
		case found && index == at.index:
			return wire.LogEntry{Index: at.index, Time: at.time, LeafHash: hash[:]}, nil
		case found || at.index < head.Size: // entries never change: waiting longer would not help
			return wire.LogEntry{}, f.unknown(fmt.Errorf("its SCT names entry %d at time %d, where the log has another: it is wrong or lies", at.index, at.time))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return wire.LogEntry{}, f.unknown(fmt.Errorf("entry %d is not in this organisation's blocks, %d entries, yet: %w", at.index, head.Size, ctx.Err()))
		}
	}
}

func (f *forwarder) leafHash(der []byte, pre bool, at hint) ([32]byte, error) {
	if !pre {
		return ctleaf.Hash(at.index, at.time, der)
	}
	tbs, err := ctleaf.PrecertTBS(der)
	if err != nil {
		return [32]byte{}, err
	}
	return ctleaf.PrecertHash(at.index, at.time, f.cfg.CAID, tbs)
}

func (f *forwarder) stage() string { return "forwarding to " + f.cfg.URL }

func (f *forwarder) unavailable(err error) error {
	return &network.UnavailableError{Stage: f.stage(), Err: err}
}

func (f *forwarder) unknown(err error) error {
	return &network.UnknownOutcomeError{Stage: f.stage(), Err: err}
}
