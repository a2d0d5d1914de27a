package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/deploy"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// story is one telling.
type story struct {
	o       Options
	dir     string
	report  *report
	net     *testnetwork.Network // started by this story, which also stops it
	d       *deploy.Deployment
	api     *caapi.Client
	asked   deploy.Org // the organisation whose responder answers
	samples []*sample
}

// sample is one certificate.
type sample struct {
	name, algorithm            string
	keyFile, csrFile, certFile string
	serial, state              string
	cert                       *x509.Certificate
	index                      uint64
}

// tell goes through the certificate's life.
func (s *story) tell(ctx context.Context) error {
	if err := s.setUp(ctx); err != nil {
		return err
	}
	for _, alg := range []string{"rsa2048", "p256"} {
		if err := s.issue(ctx, alg); err != nil {
			return err
		}
	}
	doomed := s.samples[1]
	who := s.asked.MSPID
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"openssl: certificates verify under the CA", s.opensslVerifies},
		{"both have arrived at " + who, s.arrives},
		{"OCSP at " + who + " says good (openssl ocsp)", func(ctx context.Context) (string, error) { return s.opensslSays(ctx, doomed, ": good") }},
		{"OCSP at " + who + " says good (certanchor client)", func(ctx context.Context) (string, error) { return s.clientSays(ctx, doomed, client.Good) }},
		{"inclusion in the CA's log proven by " + who, func(ctx context.Context) (string, error) { return s.provesInclusion(ctx, doomed) }},
		{"revoke the P-256 certificate for keyCompromise", func(ctx context.Context) (string, error) { return s.revoke(ctx, doomed) }},
		{"OCSP at " + who + " says revoked (openssl ocsp)", func(ctx context.Context) (string, error) { return s.opensslSays(ctx, doomed, ": revoked") }},
		{"OCSP at " + who + " says revoked, keyCompromise (client)", func(ctx context.Context) (string, error) { return s.clientSays(ctx, doomed, client.Revoked) }},
		{"CRL at " + who + " lists it (openssl verify -crl_check)", func(ctx context.Context) (string, error) { return s.crlLists(ctx, doomed) }},
		{"CRL at " + who + " lets the RSA certificate pass", func(ctx context.Context) (string, error) { return s.crlPasses(ctx, s.samples[0]) }},
		{"the RSA certificate is still good", func(ctx context.Context) (string, error) { return s.clientSays(ctx, s.samples[0], client.Good) }},
		{"a serial number that was never issued is not good", s.neverIssued},
		{"bundle of " + who + ", verified offline: good", func(ctx context.Context) (string, error) { return s.bundleShows(ctx, s.samples[0], client.Good) }},
		{"bundle of " + who + ", verified offline: revoked", func(ctx context.Context) (string, error) { return s.bundleShows(ctx, doomed, client.Revoked) }},
	} {
		if err := s.report.do(ctx, step.name, step.run); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) setUp(ctx context.Context) error {
	o := deploy.Options{Dir: filepath.Join(s.dir, "services"), Executable: s.o.Executable}
	if s.o.Engine == config.EngineEmbedded {
		o.TickInterval = time.Second // a new CA can be proven from the first tick after its registration on
		return s.report.do(ctx, "create a CA, start ledger, CA and OCSP bridge", func(ctx context.Context) (_ string, err error) {
			if s.d, err = deploy.Embedded(ctx, o); err != nil {
				return "", err
			}
			return s.ready()
		})
	}
	if s.o.NetworkDir != "" {
		return s.onRunning(ctx, o)
	}
	err := s.report.do(ctx, "start four organisations' Fabric nodes, first commit", func(ctx context.Context) (_ string, err error) {
		s.net, err = testnetwork.Up(ctx, testnetwork.Options{Dir: filepath.Join(s.dir, networkDir), Executable: s.o.Executable, BasePort: testnetwork.AnyPort, Progress: s.o.Out})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d nodes", len(s.net.Nodes())), nil
	})
	if err != nil {
		return err
	}
	return s.deployOn(ctx, s.net, o)
}

// onRunning uses a network that somebody else has started and will stop.
func (s *story) onRunning(ctx context.Context, o deploy.Options) error {
	var net *testnetwork.Network
	err := s.report.do(ctx, "find the running Fabric network", func(ctx context.Context) (_ string, err error) {
		if net, err = testnetwork.Open(s.o.NetworkDir); err != nil {
			return "", err
		}
		status, err := net.Status(ctx)
		if err == nil && !status.Healthy {
			err = fmt.Errorf("the network in %s is not healthy; see certanchor network status", net.Dir())
		}
		return fmt.Sprintf("%d nodes in %s", len(status.Nodes), net.Dir()), err
	})
	if err != nil {
		return err
	}
	return s.deployOn(ctx, net, o)
}

func (s *story) deployOn(ctx context.Context, net *testnetwork.Network, o deploy.Options) error {
	return s.report.do(ctx, "create org1's CA, register it, start all bridges", func(ctx context.Context) (_ string, err error) {
		if s.d, err = deploy.OnFabric(ctx, net, o); err != nil {
			return "", err
		}
		return s.ready()
	})
}

func (s *story) ready() (_ string, err error) {
	// The second organisation, if there is one: a status from somebody who did not issue.
	s.asked = s.d.Orgs[min(1, len(s.d.Orgs)-1)]
	s.api, err = s.d.Client()
	return fmt.Sprintf("CA %s...", s.d.CAID().String()[:16]), err
}

func (s *story) stop(ctx context.Context) error {
	var errs []error
	if s.d != nil {
		errs = append(errs, s.d.StopAll(ctx))
	}
	if s.net != nil {
		errs = append(errs, s.net.Down(ctx))
	}
	return errors.Join(errs...)
}

func (s *story) clientOf(org deploy.Org) *client.Client {
	return &client.Client{OCSPURL: org.OCSPURL(), LogURL: org.URL}
}

func (s *story) issue(ctx context.Context, algorithm string) error {
	file := func(ext string) string { return filepath.Join(s.dir, algorithm+ext) }
	c := &sample{name: algorithm, algorithm: algorithm, keyFile: file("-key.pem"), csrFile: file("-csr.pem"), certFile: file("-cert.pem"), state: "good"}
	if err := s.report.do(ctx, "openssl: key and request, "+algorithm, func(ctx context.Context) (string, error) {
		return "", makeCSR(ctx, algorithm, algorithm+".example.org", c.keyFile, c.csrFile)
	}); err != nil {
		return err
	}
	return s.report.do(ctx, "sign, journal, anchor, release: "+algorithm, func(ctx context.Context) (string, error) {
		csr, err := os.ReadFile(c.csrFile)
		if err != nil {
			return "", err
		}
		got, err := s.api.Issue(ctx, caapi.IssueRequest{CSR: string(csr), Profile: "server"}, "")
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(c.certFile, []byte(got.Certificate), 0o644); err != nil {
			return "", err
		}
		block, _ := pem.Decode([]byte(got.Certificate))
		if block == nil {
			return "", errors.New("the CA answered without a certificate")
		}
		if c.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
			return "", err
		}
		c.serial, c.index = got.Serial, got.LogIndex
		s.samples = append(s.samples, c)
		return fmt.Sprintf("log index %d, block %d", got.LogIndex, got.Block), nil
	})
}

func (s *story) opensslVerifies(ctx context.Context) (string, error) {
	for _, c := range s.samples {
		if _, err := openssl(ctx, "verify", "-x509_strict", "-CAfile", s.d.CACertFile(), c.certFile); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d of %d", len(s.samples), len(s.samples)), nil
}

func (s *story) opensslSays(ctx context.Context, c *sample, want string) (string, error) {
	out, err := opensslOCSP(ctx, s.asked.OCSPURL(), s.d.CACertFile(), "-cert", c.certFile)
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, want) {
		return "", fmt.Errorf("openssl does not say %q:\n%s", want, out)
	}
	return "Response verify OK" + want, nil
}

// answerTimeout bounds how long the asked organisation may take to see what another one committed.
const answerTimeout = 30 * time.Second

func awaitStatus(ctx context.Context, c *client.Client, cert, issuer *x509.Certificate, want client.Status) (*client.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return deploy.AwaitStatus(ctx, c, cert, issuer, want)
}

// arrives waits until the asked organisation's responder has the block in which the last certificate was issued: it follows
// another organisation's commit by some milliseconds.
func (s *story) arrives(ctx context.Context) (string, error) {
	for _, c := range s.samples {
		if _, err := awaitStatus(ctx, s.clientOf(s.asked), c.cert, s.d.CACert, client.Good); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (s *story) clientSays(ctx context.Context, c *sample, want client.Status) (string, error) {
	answer, err := s.clientOf(s.asked).Status(ctx, c.cert, s.d.CACert)
	if err != nil {
		return "", err
	}
	if answer.Status != want {
		return "", fmt.Errorf("the answer is %s, must be %s", answer.Status, want)
	}
	if want != client.Revoked {
		return "signed by " + answer.Signer.Subject.CommonName, nil
	}
	if answer.Reason != "keyCompromise" {
		return "", fmt.Errorf("the reason is %s, must be keyCompromise", answer.Reason)
	}
	return "since " + answer.RevokedAt.Format(time.RFC3339), nil
}

func (s *story) provesInclusion(ctx context.Context, c *sample) (string, error) {
	cl := s.clientOf(s.asked)
	vkeys, err := cl.ServedLogKeys(ctx, s.d.CACert)
	if err != nil {
		return "", err
	}
	keys, err := client.ParseLogKeys(vkeys...)
	if err != nil {
		return "", err
	}
	text, err := cl.FetchProof(ctx, c.cert, s.d.CACert)
	if err != nil {
		return "", err
	}
	inc, err := client.VerifyInclusion(c.cert, s.d.CACert, text, client.Origin(s.d.Channel, s.d.CACert), keys...)
	if err != nil {
		return "", err
	}
	if inc.Index != c.index {
		return "", fmt.Errorf("the proof is about index %d, the CA was told %d", inc.Index, c.index)
	}
	// The same proof must not do for the other certificate.
	if _, err := client.VerifyInclusion(s.samples[0].cert, s.d.CACert, text, client.Origin(s.d.Channel, s.d.CACert), keys...); err == nil {
		return "", errors.New("the proof also verifies for another certificate")
	}
	return fmt.Sprintf("leaf %d of %d, checkpoint by %s", inc.Index, inc.Size, strings.Join(inc.SignedBy, ", ")), nil
}

// bundleShows gets a certificate's bundle and verifies it with nothing but the policy file.
func (s *story) bundleShows(ctx context.Context, c *sample, want client.Status) (string, error) {
	file, err := os.ReadFile(s.d.PolicyFile())
	if err != nil {
		return "", err
	}
	policy, err := client.LoadPolicy(file, s.d.PolicyFingerprint())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var data []byte
	if err := deploy.Poll(ctx, func() error { // the ledger's next tick may have to come first
		data, err = s.clientOf(s.asked).FetchBundle(ctx, c.cert, s.d.CACert)
		return err
	}); err != nil {
		return "", err
	}
	v, err := client.VerifyBundle(policy, c.cert, data, time.Now())
	if err != nil {
		return "", err
	}
	if v.Status != want {
		return "", fmt.Errorf("it says %s, must be %s", v.Status, want)
	}
	return fmt.Sprintf("%d bytes, vouched for by %s", len(data), strings.Join(v.LogCosigners, ", ")), nil
}

// revoke revokes and returns when the asked organisation's responder says so, with the time that took.
func (s *story) revoke(ctx context.Context, c *sample) (string, error) {
	start := time.Now()
	change, acknowledged, err := s.api.Revoke(ctx, caapi.RevokeRequest{Serial: c.serial, Reason: "keyCompromise"})
	if err != nil {
		return "", err
	}
	if !acknowledged {
		return "", fmt.Errorf("not acknowledged: %s", change.Detail)
	}
	took := time.Since(start)
	c.state = "revoked"
	answer, err := awaitStatus(ctx, s.clientOf(s.asked), c.cert, s.d.CACert, client.Revoked)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("acknowledged after %.0f ms, %s at %s after %.0f ms", ms(took), answer.Status, s.asked.MSPID, ms(time.Since(start))), nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s *story) neverIssued(ctx context.Context) (string, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return "", err
	}
	serial[0] = 0x40 | serial[0]&0x3f
	if bytes.Equal(serial, s.samples[0].cert.SerialNumber.Bytes()) {
		return "", errors.New("the random serial number is an issued one")
	}
	out, err := openssl(ctx, "ocsp", "-issuer", s.d.CACertFile(), "-CAfile", s.d.CACertFile(), "-url", s.asked.OCSPURL(), "-serial", "0x"+hex.EncodeToString(serial))
	if strings.Contains(out, ": good") {
		return "", fmt.Errorf("the responder says good:\n%s", out)
	}
	// RFC 5019 section 2.2.3: a responder without a record answers unauthorized.
	if !strings.Contains(strings.ToLower(out), "unauthorized") {
		return "", errors.Join(fmt.Errorf("the answer is not unauthorized:\n%s", out), err)
	}
	return "unauthorized", nil
}
