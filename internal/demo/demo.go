// Package demo tells one certificate's whole life, on either ledger, with openssl as an independent judge of every answer.
package demo

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/deploy"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// Options of a demo.
type Options struct {
	Engine     string    // config.EngineEmbedded or config.EngineFabric
	StateDir   string    // where everything is kept; empty: a temporary directory that is removed at the end
	Keep       bool      // leave the services up; needs StateDir
	NetworkDir string    // for Fabric: a network that runs, which stays up; empty: one is started in the state directory
	Executable string    // the certanchor program; empty: the running one
	Out        io.Writer // the story; nil: silent
}

// Result is how it went.
type Result struct {
	Engine string `json:"engine"`
	OK     bool   `json:"ok"`
	Steps  []Step `json:"steps"`
}

const networkDir = "network"

// Run tells the story. The error is that of the first step that is not as it must be; Result holds the steps until there. Unless
// Keep is set, nothing runs any more when it returns.
func Run(ctx context.Context, o Options) (res *Result, err error) {
	res = &Result{Engine: o.Engine}
	if o.Engine != config.EngineEmbedded && o.Engine != config.EngineFabric {
		return res, fmt.Errorf("engine %q: must be embedded or fabric", o.Engine)
	}
	if o.Keep && o.StateDir == "" {
		return res, errors.New("state directory: must be given to keep the services up")
	}
	dir, cleanup, err := stateDir(o)
	if err != nil {
		return res, err
	}
	rep := &report{out: o.Out}
	if o.Out != nil {
		fmt.Fprintf(o.Out, "One certificate's whole life, on the %s ledger.\n\n", o.Engine)
	}
	s := &story{o: o, dir: dir, report: rep}
	defer func() {
		res.Steps, res.OK = rep.steps, err == nil
		if !o.Keep || err != nil {
			err = errors.Join(err, s.stop(context.WithoutCancel(ctx)), cleanup())
		}
	}()
	if err := s.tell(ctx); err != nil {
		return res, err
	}
	if o.Keep {
		return res, s.writeEndpoints(ctx)
	}
	return res, nil
}

func stateDir(o Options) (dir string, cleanup func() error, err error) {
	if o.StateDir == "" {
		dir, err = os.MkdirTemp("", "certanchor-demo-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(o.StateDir); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return "", nil, fmt.Errorf("state directory %s: is not empty; end the demo that is there with --stop --state and remove it, or choose another", dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", nil, err
	}
	return dir, func() error { return nil }, os.MkdirAll(dir, 0o700)
}

// Stop ends what an earlier Run with Keep left running in dir. The files stay.
func Stop(ctx context.Context, dir string) error {
	err := deploy.Stop(ctx, filepath.Join(dir, "services"))
	net, openErr := testnetwork.Open(filepath.Join(dir, networkDir))
	if errors.Is(openErr, testnetwork.ErrNoNetwork) {
		return err
	}
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, net.Down(ctx))
}

// Endpoints is what DIR/endpoints.json holds, for other programs.
type Endpoints struct {
	Engine    string            `json:"engine"`
	Channel   string            `json:"channel"`
	CA        CAEndpoint        `json:"ca"`
	Orgs      []OrgEndpoints    `json:"organizations"`
	Samples   map[string]Sample `json:"samples"`
	Network   string            `json:"network_dir,omitempty"`
	Policy    PolicyFile        `json:"policy"`
	Services  map[string]int    `json:"service_pids"`
	StateDir  string            `json:"state_dir"`
	StopUsing string            `json:"stop_using"`
}

// CAEndpoint is the CA's API.
type CAEndpoint struct {
	MSPID       string `json:"msp_id"`
	URL         string `json:"url"`
	CAID        string `json:"ca_id"`
	Certificate string `json:"certificate"` // file, PEM: the issuer
	TokenFile   string `json:"token_file"`  // of the operator
}

// PolicyFile says whom to believe about proofs.
type PolicyFile struct {
	File        string `json:"file"`
	Fingerprint string `json:"fingerprint"`
}

// OrgEndpoints are one organisation's services.
type OrgEndpoints struct {
	MSPID     string   `json:"msp_id"`
	OCSP      string   `json:"ocsp_url"`
	Logs      string   `json:"logs_url"`
	LogList   string   `json:"log_list_url"`          // for certificate transparency clients
	Responder string   `json:"responder_certificate"` // file, PEM
	LogKeys   []string `json:"log_keys"`              // signed-note verifier keys
}

// Sample is one of the story's certificates.
type Sample struct {
	Certificate string `json:"certificate"` // file, PEM
	Key         string `json:"key"`         // file, PEM
	CSR         string `json:"csr"`         // file, PEM
	Serial      string `json:"serial"`
	State       string `json:"state"`
}

func (s *story) writeEndpoints(ctx context.Context) error {
	d := s.d
	e := Endpoints{
		Engine: s.o.Engine, Channel: d.Channel, StateDir: s.dir, Samples: map[string]Sample{}, Services: d.PIDs(),
		CA:        CAEndpoint{MSPID: d.Orgs[0].MSPID, URL: d.CAURL, CAID: d.CAID().String(), Certificate: d.CACertFile(), TokenFile: d.TokenFile()},
		Policy:    PolicyFile{File: d.PolicyFile(), Fingerprint: d.PolicyFingerprint()},
		StopUsing: "certanchor demo --stop --state " + s.dir,
	}
	if d.Network != nil {
		e.Network = d.Network.Dir()
	}
	for _, org := range d.Orgs {
		c := s.clientOf(org)
		answer, err := awaitStatus(ctx, c, s.samples[0].cert, d.CACert, client.Good)
		if err != nil {
			return fmt.Errorf("%s: %w", org.MSPID, err)
		}
		keys, err := c.ServedLogKeys(ctx, d.CACert)
		if err != nil {
			return fmt.Errorf("%s: %w", org.MSPID, err)
		}
		file := filepath.Join(s.dir, org.MSPID+"-responder.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: answer.Signer.Raw}), 0o644); err != nil {
			return err
		}
		e.Orgs = append(e.Orgs, OrgEndpoints{MSPID: org.MSPID, OCSP: org.OCSPURL(), Logs: org.URL + "/logs", LogList: org.URL + "/log_list.json", Responder: file, LogKeys: keys})
	}
	for _, c := range s.samples {
		e.Samples[c.name] = Sample{Certificate: c.certFile, Key: c.keyFile, CSR: c.csrFile, Serial: c.serial, State: c.state}
	}
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "endpoints.json")
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return err
	}
	if s.o.Out != nil {
		fmt.Fprintf(s.o.Out, "\nThe services are still up; %s says where.\nEnd them with: %s\n", file, e.StopUsing)
	}
	return nil
}
