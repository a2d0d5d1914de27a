package integration

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// The other bridges of org1: of its CA, and for OCSP.
const (
	secondBridge    = "org1.ca.second"
	secondResponder = "org1.ocsp-bridge.second"
)

// TestTwoBridgesOfOneCA: two processes with one CA's key, each with a journal of its own, issue, revoke and take submissions at once,
// and one of them is killed. The organisation has two OCSP bridges as well, and the second CA bridge waits for both.
func TestTwoBridgesOfOneCA(t *testing.T) {
	net := nettest.Start(t, testnetwork.Options{TickInterval: tickInterval})
	d, err := deploy.OnFabric(t.Context(), net, deploy.Options{Dir: filepath.Join(t.TempDir(), "services"), Executable: nettest.Program(t)})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, d)
	responder, err := d.AddOCSPBridge(t.Context(), d.Orgs[0], secondResponder)
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.AddCABridge(t.Context(), secondBridge, responder.URL)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := d.Ledger(t.Context(), 1, testnetwork.Operator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := operator.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &twoBridges{d: d, responder: responder, at: [2]*deploy.CA{&d.CA, second}, f: &fabricCase{net: net, d: d, operator: operator}}
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"ADuplicateAtBothGetsTheSameSCT", p.duplicates},
		{"EachHeadHasOneWinner", p.oneWinner},
		{"NothingIsLostOrDoubledWhenOneIsKilled", p.oneKilled},
		{"EitherRevokesWhatTheOtherIssued", p.eitherRevokes},
		{"AnAcknowledgedRevocationIsKnownToBothResponders", p.bothResponders},
		{"JournalsAreSeparate", p.journals},
	} {
		if !t.Run(c.name, c.run) {
			return
		}
	}
}

type twoBridges struct {
	d    *deploy.Deployment
	at   [2]*deploy.CA
	f    *fabricCase
	done [2][]acked // what each has issued in all

	responder deploy.Org // the second OCSP bridge
}

// duplicates: certificates that are submitted to both bridges, at the same time and again later, are in the log once, and all SCTs are the
// same byte for byte.
func (p *twoBridges) duplicates(t *testing.T) {
	certs := make([]*x509.Certificate, 20)
	for i := range certs {
		certs[i] = p.f.sign(t, newKey(t))
	}
	var first [2][20]string
	for range 2 {
		var wg sync.WaitGroup
		for bridge := range p.at {
			for i, cert := range certs {
				wg.Go(func() {
					sct, err := p.submit(bridge, cert)
					if err != nil {
						t.Errorf("bridge %d, certificate %d: %v", bridge, i, err)
					}
					if before := first[bridge][i]; before != "" && before != sct {
						t.Errorf("bridge %d, certificate %d: SCT %s, before it was %s", bridge, i, sct, before)
					}
					first[bridge][i] = sct
				})
			}
		}
		wg.Wait()
	}
	if first[0] != first[1] {
		t.Errorf("the bridges' SCTs differ:\n%s\n%s", first[0], first[1])
	}
	p.awaitAuditor(t)
	checkAcked(t, p.d, p.placed(t, certs))
}

// submit gives a bridge a certificate as other software does, and returns the whole answer.
func (p *twoBridges) submit(bridge int, cert *x509.Certificate) (string, error) {
	body, err := json.Marshal(map[string][][]byte{"chain": {cert.Raw, p.d.CACert.Raw}})
	if err != nil {
		return "", err
	}
	resp, err := http.Post(p.at[bridge].CAURL+"/ct/v1/add-chain", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + string(text))
	}
	return string(text), err
}

// placed finds certificates in the log.
func (p *twoBridges) placed(t *testing.T, certs []*x509.Certificate) (all []acked) {
	t.Helper()
	r := p.recount(t)
	for _, cert := range certs {
		index, err := r.index(p.d.CAID(), cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, acked{cert: cert, index: index})
	}
	return all
}

// awaitAuditor returns when the auditor's peer, another organisation's, has every block that the operator's has now.
func (p *twoBridges) awaitAuditor(t *testing.T) {
	t.Helper()
	want, err := p.f.operator.Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := p.d.Auditor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	eventually(t, func() error {
		height, err := ledger.Height(t.Context())
		if err == nil && height < want {
			err = fmt.Errorf("the auditor's peer has %d of %d blocks", height, want)
		}
		return err
	})
}

// recount replays every block: no certificate is there twice, none for one request is a second one, and each head follows from the one
// before.
func (p *twoBridges) recount(t *testing.T) *recount {
	t.Helper()
	ledger, err := p.d.Auditor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	r, err := recountLedger(t.Context(), ledger)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// oneWinner: under load at both, each bridge wins heads, and what loses is in no log.
func (p *twoBridges) oneWinner(t *testing.T) {
	loads := p.startLoads(t)
	for _, l := range loads {
		l.awaitMore(t, 40)
	}
	p.stop(t, loads)
	won, lost := p.transactions(t)
	t.Logf("transactions that issue: %d and %d applied, %d lost against another", won[0], won[1], lost)
	for bridge, n := range won {
		if n == 0 {
			t.Errorf("bridge %d never won a head", bridge)
		}
	}
}

// transactions counts transactions that issue certificates: those applied for each bridge, and those that came too late.
func (p *twoBridges) transactions(t *testing.T) (won [2]int, lost int) {
	t.Helper()
	whose := map[string]int{}
	for bridge, done := range p.done {
		for _, a := range done {
			whose[string(a.cert.Raw)] = bridge
		}
	}
	ledger, err := p.d.Auditor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	height, err := ledger.Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = ledger.Blocks(t.Context(), 0, func(b *network.Block) error {
		for i := range b.Txs {
			tx := &b.Txs[i]
			if tx.Function != wire.FnIssue {
				continue
			}
			if !tx.Valid {
				lost++
				continue
			}
			var arg wire.IssueArg
			if err := wire.Decode(tx.Arg, &arg); err != nil {
				return err
			}
			certs, err := arg.Certs()
			if err != nil {
				return err
			}
			if bridge, ok := whose[string(certs[0])]; ok {
				won[bridge]++
			}
		}
		if b.Number+1 >= height {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	return won, lost
}

func (p *twoBridges) startLoads(t *testing.T) (loads [2]*load) {
	for i, c := range p.at {
		loads[i] = startLoadAt(t, p.d, c)
	}
	return loads
}

// stop ends the loads, and checks that what was acknowledged is there, once, and as every organisation's responder says.
func (p *twoBridges) stop(t *testing.T, loads [2]*load) {
	t.Helper()
	for i, l := range loads {
		p.done[i] = append(p.done[i], l.stop()...)
	}
	p.awaitAuditor(t)
	for _, done := range p.done {
		checkAcked(t, p.d, done)
	}
}

// oneKilled: the other goes on, and the killed one finishes what it had begun when it is back.
func (p *twoBridges) oneKilled(t *testing.T) {
	loads := p.startLoads(t)
	for _, l := range loads {
		l.awaitMore(t, 10)
	}
	if err := p.d.Kill(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	loads[1].awaitMore(t, 20)
	if err := p.d.Start(t.Context(), deploy.CAService); err != nil {
		t.Fatal(err)
	}
	for _, l := range loads {
		l.awaitMore(t, 10)
	}
	p.stop(t, loads)
}

func (p *twoBridges) eitherRevokes(t *testing.T) {
	for bridge, done := range p.done {
		var cert *x509.Certificate
		for _, a := range done {
			if !a.revoked {
				cert = a.cert
			}
		}
		other, err := p.at[1-bridge].Client()
		if err != nil {
			t.Fatal(err)
		}
		serial, err := wire.SerialOf(cert.SerialNumber)
		if err != nil {
			t.Fatal(err)
		}
		change, acknowledged, err := other.Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "keyCompromise"})
		if err != nil || !acknowledged {
			t.Fatalf("acknowledged %v, %v: %+v", acknowledged, err, change)
		}
		for _, org := range p.d.Orgs {
			awaitOCSP(t, p.d, org, cert, client.Revoked)
		}
	}
}

// bothResponders: behind a load balancer any of an organisation's OCSP bridges may be asked, so a revocation is acknowledged when all have it.
func (p *twoBridges) bothResponders(t *testing.T) {
	both := []deploy.Org{p.d.Orgs[0], p.responder}
	second, err := p.at[1].Client()
	if err != nil {
		t.Fatal(err)
	}
	revoke := func() (*x509.Certificate, *caapi.StatusChange, bool) {
		t.Helper()
		cert := p.f.issue(t)
		for _, responder := range both {
			if p.d.Running(secondResponder) || responder.URL != p.responder.URL {
				awaitOCSP(t, p.d, responder, cert, client.Good)
			}
		}
		serial, err := wire.SerialOf(cert.SerialNumber)
		if err != nil {
			t.Fatal(err)
		}
		change, acknowledged, err := second.Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "keyCompromise"})
		if err != nil {
			t.Fatal(err)
		}
		return cert, change, acknowledged
	}
	for range 5 {
		cert, change, acknowledged := revoke()
		if !acknowledged || len(change.Responders) != 2 {
			t.Fatalf("acknowledged %v: %+v", acknowledged, change)
		}
		for _, responder := range both { // at once, not in the end
			if a, err := ask(t, responder, cert, p.d.CACert); err != nil || a.Status != client.Revoked {
				t.Errorf("%s: %+v, %v", responder.URL, a, err)
			}
		}
	}
	if err := p.d.Kill(t.Context(), secondResponder); err != nil {
		t.Fatal(err)
	}
	cert, change, acknowledged := revoke()
	if acknowledged || !strings.Contains(change.Detail, p.responder.URL) || strings.Contains(change.Detail, p.d.Orgs[0].URL) {
		t.Errorf("one is dead, acknowledged %v: %+v", acknowledged, change)
	}
	if err := p.d.Start(t.Context(), secondResponder); err != nil {
		t.Fatal(err)
	}
	if a, err := ask(t, p.responder, cert, p.d.CACert); err != nil || a.Status != client.Revoked { // it is ready, so it has caught up
		t.Errorf("after its restart: %+v, %v", a, err)
	}
}

// journals: each has what its bridge issued and nothing of the other's, and one directory never serves two processes.
func (p *twoBridges) journals(t *testing.T) {
	for bridge, c := range p.at {
		journal, err := os.ReadFile(filepath.Join(c.CADir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		for owner, done := range p.done {
			for _, a := range done {
				if has := bytes.Contains(journal, a.cert.Raw); has != (owner == bridge) {
					t.Fatalf("journal of bridge %d: has a certificate of bridge %d: %v", bridge, owner, has)
				}
			}
		}
	}
	c := commands{t: t, exe: nettest.Program(t), dir: p.d.Dir}
	if out, errs, err := c.run("ca", "serve", "--config", secondBridge+".yaml"); err == nil || !strings.Contains(errs, "another process is running this CA") {
		t.Errorf("a third bridge in the second's directory: %v\n%s%s", err, out, errs)
	}
}
