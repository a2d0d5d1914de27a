package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/load"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network/fabric"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Engines of IssueOptions.
const (
	EngineFabric   = "fabric"
	EngineEmbedded = "embedded"
)

// IssueOptions of Issue.
type IssueOptions struct {
	Executable string            // the certanchor program; empty: the running one
	Engine     string            // EngineFabric or EngineEmbedded
	CAs        int               // whose logs are written at the same time; on the embedded ledger 1
	Rate       float64           // certificates per second that are sent, over all CAs
	Duration   time.Duration     // of sending
	Baseline   time.Duration     // for how long the no-op is measured
	Sign       bool              // let the CAs sign: requests instead of certificates
	CAKey      keyfile.Algorithm // of the CAs; default P-256
	Out        io.Writer         // progress and results
}

// IssueResult is what Issue measured.
type IssueResult struct {
	Date      time.Time     `json:"date"`
	Engine    string        `json:"engine"`
	CAs       int           `json:"cas"`
	CAKey     string        `json:"ca_key"`
	Signed    bool          `json:"signed_here"`
	CertBytes float64       `json:"certificate_bytes"` // mean DER
	Load      *load.Result  `json:"load"`
	Noop      *NoopResult   `json:"noop,omitempty"`   // the baseline
	Ledger    *LedgerResult `json:"ledger,omitempty"` // without bridges
	Bound     *Bound        `json:"bound,omitempty"`
	Ratio     float64       `json:"ratio,omitempty"` // certificates per second to what the no-op commits of the same bytes
	CPU       CPU           `json:"cpu_us"`
	Disk      float64       `json:"disk_bytes,omitempty"` // of one peer, for each certificate
	DiskRatio float64       `json:"disk_to_der,omitempty"`
	State     float64       `json:"state_bytes,omitempty"` // keys and values in the state, for each certificate
}

func (r *IssueResult) String() string {
	s := fmt.Sprintf("  %s, CAs: %d with %s, certificates of %.0f bytes\n    %s", r.Engine, r.CAs, r.CAKey, r.CertBytes, r.Load)
	s += "\n    " + r.CPU.String()
	if r.Noop != nil {
		s += fmt.Sprintf("\n    %s\n    ratio %.2f; %s", r.Noop, r.Ratio, r.Bound)
	}
	if r.Disk > 0 {
		s += fmt.Sprintf("\n    on a peer's disk %.0f bytes a certificate, %.2f of its DER; in the state %.0f bytes", r.Disk, r.DiskRatio, r.State)
	}
	return s
}

// Issue sends certificates over HTTP to the CA bridges of a deployment of its own, at a given rate.
func Issue(ctx context.Context, o IssueOptions) (res *IssueResult, err error) {
	if o.Rate <= 0 || o.Duration <= 0 || o.CAs < 1 || o.Engine != EngineFabric && o.Engine != EngineEmbedded {
		return nil, fmt.Errorf("engine %q, CAs %d, rate %v, duration %v: must be fabric or embedded, and positive", o.Engine, o.CAs, o.Rate, o.Duration)
	}
	if o.CAKey, err = keyfile.ParseAlgorithm(string(o.CAKey)); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "certanchor-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &issueBench{o: o, dir: dir, res: &IssueResult{Date: time.Now().UTC(), Engine: o.Engine, CAs: o.CAs, CAKey: string(o.CAKey), Signed: o.Sign}}
	if o.Engine == EngineFabric {
		return b.res, b.fabric(ctx)
	}
	d, err := deploy.Embedded(ctx, deploy.Options{Dir: filepath.Join(dir, "services"), Executable: o.Executable, Algorithm: o.CAKey})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.StopAll(context.WithoutCancel(ctx))) }()
	return b.res, b.run(ctx, d)
}

type issueBench struct {
	o   IssueOptions
	dir string
	res *IssueResult
}

func (b *issueBench) say(format string, args ...any) { fmt.Fprintf(b.o.Out, format+"\n", args...) }

func (b *issueBench) fabric(ctx context.Context) (err error) {
	net, err := testnetwork.Up(ctx, testnetwork.Options{
		Dir: filepath.Join(b.dir, "network"), Executable: b.o.Executable, BasePort: testnetwork.AnyPort, Progress: b.o.Out,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Purge(context.WithoutCancel(ctx))) }()
	d, err := deploy.OnFabric(ctx, net, deploy.Options{Dir: filepath.Join(b.dir, "services"), Executable: b.o.Executable, CAs: b.o.CAs, Algorithm: b.o.CAKey})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.StopAll(context.WithoutCancel(ctx))) }()
	return b.run(ctx, d)
}

func (b *issueBench) run(ctx context.Context, d *deploy.Deployment) (err error) {
	target, size, err := b.target(d)
	if err != nil {
		return err
	}
	b.res.CertBytes = size
	if d.Network != nil {
		if err := b.baselines(ctx, d, int(size)); err != nil {
			return err
		}
	} else if err := b.embeddedLedger(ctx); err != nil {
		return fmt.Errorf("embedded ledger: %w", err)
	}
	before, err := b.disk(ctx, d)
	if err != nil {
		return err
	}
	clock, err := cpuClock(ctx, d)
	if err != nil {
		return err
	}
	b.res.Load, err = load.Run(ctx, load.Options{
		Rate: b.o.Rate, Duration: b.o.Duration, Do: target,
		Progress: func(s load.Second) {
			b.say("  %3d s  sent %5d/s  done %5d/s  failed %4d  open %5d  p50 %6.0f ms  p99 %6.0f ms", s.At, s.Sent, s.OK, s.Bad, s.Open, s.P50, s.P99)
		},
	})
	if err != nil {
		return err
	}
	used, err := cpuClock(ctx, d)
	if err != nil {
		return err
	}
	b.res.CPU = perCertificate(clock, used, int(b.res.Load.Outcomes[load.OK]))
	if done := float64(b.res.Load.Outcomes[load.OK]); done > 0 && d.Network != nil {
		after, err := b.disk(ctx, d)
		if err != nil {
			return err
		}
		b.res.Disk = float64(after-before) / done
		b.res.DiskRatio = b.res.Disk / size
		if b.res.State, err = stateBytes(ctx, d); err != nil {
			return err
		}
	}
	if b.res.Noop != nil {
		b.res.Ratio = b.res.Load.Rate / b.res.Noop.Rate
	}
	b.say("%s", b.res)
	return nil
}

// baselines measures the ledger by itself.
func (b *issueBench) baselines(ctx context.Context, d *deploy.Deployment, size int) (err error) {
	ledgers, release, err := b.ledgers(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	before, err := cpuClock(ctx, d)
	if err != nil {
		return err
	}
	if b.res.Noop, err = b.noop(ctx, ledgers, size); err != nil {
		return fmt.Errorf("no-op: %w", err)
	}
	after, err := cpuClock(ctx, d)
	if err != nil {
		return err
	}
	b.res.Noop.CPU = perCertificate(before, after, b.res.Noop.Latency.Samples*benchBatch)
	b.say("  %s\n    %s", b.res.Noop, b.res.Noop.CPU)
	if err := b.bound(d); err != nil {
		return fmt.Errorf("bound: %w", err)
	}
	// About as many as the no-op took the time for, if all goes well.
	batches := max(1, int(b.res.Noop.Rate*b.o.Baseline.Seconds())/benchBatch/len(ledgers))
	if b.res.Ledger, err = b.atLedger(ctx, d, ledgers, batches); err != nil {
		return fmt.Errorf("batches: %w", err)
	}
	b.say("  %s, %.2f of the no-op\n    %s", b.res.Ledger, b.res.Ledger.Rate/b.res.Noop.Rate, b.res.Ledger.CPU)
	return nil
}

// authority is the i-th CA with its key.
func (b *issueBench) authority(d *deploy.Deployment, i int) (*authority, error) {
	key, err := d.Key(&d.CAs[i])
	return &authority{cert: d.CAs[i].CACert, key: key}, err
}

// target returns what sends the i-th certificate, and the mean size of a certificate.
func (b *issueBench) target(d *deploy.Deployment) (func(context.Context, int) string, float64, error) {
	if b.o.Sign {
		return b.signingTarget(d)
	}
	n := int(b.o.Rate*b.o.Duration.Seconds())/len(d.CAs) + 1
	bodies := make([][][]byte, len(d.CAs))
	var total, count int
	for i := range d.CAs {
		b.say("  signing %d certificates of CA %d", n, i+1)
		a, err := b.authority(d, i)
		if err != nil {
			return nil, 0, err
		}
		certs, err := a.sign(n)
		if err != nil {
			return nil, 0, err
		}
		for _, der := range certs {
			total, count = total+len(der), count+1
			body, err := json.Marshal(map[string][]string{"chain": {
				base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(a.cert.Raw),
			}})
			if err != nil {
				return nil, 0, err
			}
			bodies[i] = append(bodies[i], body)
		}
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096}}
	return func(ctx context.Context, i int) string {
		return addChain(ctx, client, d.CAs[i%len(d.CAs)].CAURL, bodies[i%len(d.CAs)][i/len(d.CAs)])
	}, float64(total) / float64(count), nil
}

// signingTarget asks the CAs to issue. All requests have one key: checking it costs the CA the same each time.
func (b *issueBench) signingTarget(d *deploy.Deployment) (func(context.Context, int) string, float64, error) {
	apis := make([]*caapi.Client, len(d.CAs))
	for i := range d.CAs {
		var err error
		if apis[i], err = d.CAs[i].Client(); err != nil {
			return nil, 0, err
		}
	}
	cert, _, err := issueOne(context.Background(), apis[0])
	if err != nil {
		return nil, 0, err
	}
	csr, err := newRequest()
	if err != nil {
		return nil, 0, err
	}
	return func(ctx context.Context, i int) string {
		_, err := apis[i%len(apis)].Issue(ctx, caapi.IssueRequest{CSR: csr, Profile: "server"}, "")
		var p *problem.Problem
		switch {
		case err == nil:
			return load.OK
		case errors.As(err, &p):
			return fmt.Sprintf("%d %s", p.Status, p.Title)
		}
		return "no answer"
	}, float64(len(cert.Raw)), nil
}

// addChain is RFC 6962 section 4.1; the outcome is OK when there is an SCT in hand.
func addChain(ctx context.Context, client *http.Client, url string, body []byte) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/ct/v1/add-chain", bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "no answer: " + errors.Unwrap(err).Error()
	}
	defer resp.Body.Close()
	var sct struct {
		Timestamp uint64 `json:"timestamp"`
		Signature string `json:"signature"`
	}
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
		return resp.Status
	}
	if err := json.NewDecoder(resp.Body).Decode(&sct); err != nil || sct.Timestamp == 0 || sct.Signature == "" {
		return "answer without SCT"
	}
	return load.OK
}

// disk is the size of everything that one peer keeps.
func (b *issueBench) disk(ctx context.Context, d *deploy.Deployment) (int64, error) {
	if d.Network == nil {
		return 0, nil
	}
	auditor, err := fabric.Open(ctx, d.Network.Connection(len(d.Orgs), testnetwork.Auditor))
	if err != nil {
		return 0, err
	}
	// The last organisation's peer may be a little behind.
	height, err := auditor.Height(ctx)
	if err = errors.Join(err, auditor.Close()); err != nil {
		return 0, err
	}
	b.say("  peer of organisation %d has %d blocks", len(d.Orgs), height)
	return treeSize(d.Network.DataDir(testnetwork.NodeName(len(d.Orgs), testnetwork.RolePeer)))
}

func treeSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) { // compacted away meanwhile
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
